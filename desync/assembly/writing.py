# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Writing into a file at given places."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Bytes that are copied at a time.
_COPY: Final = 4 << 20

#: How many buffers one call takes on every system (POSIX's least is 16; Linux and the BSDs have
#: 1024).
_BUFFERS: Final = 1024


def write_all(descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
    """
    Write buffers one after the other.

    :param offset: where the first begins, in bytes.
    :raises OSError: if the system refuses.
    """
    rest: list[bytes | memoryview] = list(buffers)
    while rest:
        written = _write_at(descriptor, rest[:_BUFFERS], offset)
        offset += written
        done = 0
        while done < len(rest) and written >= len(rest[done]):
            written -= len(rest[done])
            done += 1
        del rest[:done]
        if rest and written:
            # A short write: a signal, or a nearly full disk.
            rest[0] = memoryview(rest[0])[written:]


def _write_at(descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
    if hasattr(os, "pwritev"):
        return os.pwritev(descriptor, buffers, offset)
    # Not every system has it (macOS only since 11): one call for each.
    return os.pwrite(descriptor, buffers[0], offset)


def copy_within(descriptor: int, source: int, target: int, length: int) -> None:
    """
    Copy a range of a file to another place in the same file.

    The two may overlap where a pattern repeats itself; what is copied then lies before its copy.

    :raises EOFError: if the file is shorter.
    :raises OSError: if the system refuses.
    """
    while length:
        # No more at a time than lies between the two: what follows may have to be copied first.
        data = os.pread(descriptor, min(length, _COPY, abs(target - source)), source)
        if not data:
            raise EOFError("it was truncated while it was being written")
        write_all(descriptor, [data], target)
        source += len(data)
        target += len(data)
        length -= len(data)
