# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A file system with one file in it, that can only be read."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING

from .libfuse import attributes_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .blob import Blob


class SingleFile:
    """
    A folder with a blob in it. See :class:`.libfuse.FileSystem` for the methods.

    :param blob: what is in the file.
    :param name: of the file.
    """

    def __init__(self, blob: Blob, name: str) -> None:
        self._blob = blob
        self._name = name
        now = time.time_ns()
        self._attributes = {
            "/": attributes_of(stat.S_IFDIR | 0o755, 0, now, links=2),
            f"/{name}": attributes_of(stat.S_IFREG | 0o444, blob.size, now),
        }

    def getattr(self, path: str) -> Mapping[str, int]:
        """See :class:`.libfuse.FileSystem`."""
        try:
            return self._attributes[path]
        except KeyError:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    def readdir(self, path: str) -> Sequence[str]:
        """See :class:`.libfuse.FileSystem`."""
        return [self._name]

    def open(self, path: str) -> int:
        """See :class:`.libfuse.FileSystem`."""
        return 0

    def read_into(self, handle: int, view: memoryview, offset: int) -> int:
        """See :class:`.libfuse.FileSystem`."""
        return self._blob.read_into(view, offset)
