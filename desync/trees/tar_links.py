# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What hard links in a tar stream lead to: where it is in a file, or a copy of what came from a pipe.

Both are told of each member before its content is taken, and asked by name when a link comes.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

from desync.formats import catar
from desync.formats.catar import Event


class Offsets:
    """Where in a file the members are that hard links may lead to."""

    is_full = False

    def __init__(self) -> None:
        self._offsets: dict[bytes, int] = {}

    def begin(
        self, path: bytes, member: tarfile.TarInfo, event: Event
    ) -> Callable[[bytes], object]:
        self._offsets[path] = member.offset
        return _ignore

    def find(self, path: bytes) -> int | None:
        return self._offsets.get(path)

    def alias(self, path: bytes, original: bytes) -> None:
        self._offsets[path] = self._offsets[original]

    def close(self) -> None:
        self._offsets.clear()


class Spool:
    """A copy of the first files of a stream, which hard links may lead to."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._file: IO[bytes] | None = None
        self._closing = contextlib.ExitStack()
        self._kept: dict[bytes, tuple[Event, int]] = {}
        self.is_full = False

    def begin(
        self, path: bytes, member: tarfile.TarInfo, event: Event
    ) -> Callable[[bytes], object]:
        size = event.size if isinstance(event, catar.File) else 0
        if size > self._limit - self._size:
            self.is_full = True
            self._kept.pop(path, None)
            return _ignore
        self._kept[path] = (event, self._size)
        self._size += size
        return self._keep

    def _keep(self, data: bytes) -> None:
        if self._file is None:
            spool = tempfile.TemporaryFile
            self._file = self._closing.enter_context(spool(prefix="desync-tar-"))
        self._file.write(data)

    def find(self, path: bytes) -> tuple[Event, Iterator[bytes]] | None:
        found = self._kept.get(path)
        if found is None:
            return None
        event, offset = found
        size = event.size if isinstance(event, catar.File) else 0
        return event, self._content(offset, size)

    def _content(self, offset: int, size: int) -> Iterator[bytes]:
        while size:
            assert self._file is not None
            self._file.flush()
            data = os.pread(self._file.fileno(), min(size, 1 << 18), offset)
            if not data:
                raise OSError("the temporary file was truncated")
            offset += len(data)
            size -= len(data)
            yield data

    def alias(self, path: bytes, original: bytes) -> None:
        self._kept[path] = self._kept[original]

    def close(self) -> None:
        self._closing.close()


def _ignore(data: bytes) -> None:
    pass
