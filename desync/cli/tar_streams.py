# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tar streams that commands read."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from desync.errors import FileError

from .indexes import STANDARD
from .streams import STANDARD_INPUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from desync.trees.tar_members import TarMembers

    from .invocation import Invocation


@contextlib.contextmanager
def tar_members(invocation: Invocation, source: str) -> Iterator[TarMembers]:
    """
    Open a tar stream.

    :param source: its path; ``-`` is standard input.
    :raises FileError: if it can't be opened.
    """
    from desync.trees.tar_members import TarMembers

    if source == STANDARD:
        yield TarMembers(STANDARD_INPUT, invocation.stdin.read)
        return
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FileError(source, error.strerror or str(error)) from None
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            yield TarMembers(source, file.read)
            return
        # Hard links are read from their own place, while the stream goes on.
        with open(source, "rb") as again:
            yield TarMembers(source, file.read, again)
