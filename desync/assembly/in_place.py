# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Changing a file or block device where it is, keeping what it has."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import TYPE_CHECKING, Final

from desync import umask
from desync.assembly.cloning import device_size
from desync.errors import FileError
from desync.replace import lock_for_workers

if TYPE_CHECKING:
    from types import TracebackType

#: How long to wait for a lock, in seconds.
_PATIENCE: Final = 2.0


class InPlace:
    """
    A file that is changed directly, as a context manager. What an error or a signal leaves is
    neither the old nor the new content, and what a further attempt begins with.

    Of a device only as much as the new content needs is touched. Two that would change the same
    file don't get in each other's way: the second is refused.

    :param path: where it is; a file that isn't there is made.
    :param size: the size of the new content, in bytes.
    :param sync: ``"none"`` leaves it to the system when the content reaches the disk.
    :ivar has_content: whether there was anything in it.
    :raises FileError: if it can't be written, is neither a file nor a block device, or a device
        that is too small.
    """

    def __init__(self, path: str, size: int, sync: str = "end") -> None:
        self.path = path
        self._size = size
        self._sync = sync != "none"
        self._descriptor = -1
        self._is_device = False
        self.has_content = False

    @property
    def working_path(self) -> str:
        """Where the content is while it is being written: for others who write parts of it."""
        return self.path

    def fileno(self) -> int:
        """Give the descriptor, open for reading and writing."""
        return self._descriptor

    def __enter__(self) -> InPlace:
        try:
            self._open()
        except OSError as error:
            self._close()
            raise FileError(self.path, error.strerror or str(error)) from None
        except BaseException:
            self._close()
            raise
        return self

    def _open(self) -> None:
        if not os.path.basename(self.path):
            code = errno.EISDIR if self.path else errno.ENOENT
            raise OSError(code, os.strerror(code))
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self._descriptor = os.open(self.path, flags)
        except FileNotFoundError:
            if os.path.islink(self.path):
                raise
            self._descriptor = os.open(
                self.path, flags | os.O_CREAT | os.O_EXCL, umask.file_mode(0o666)
            )
        found = os.fstat(self._descriptor)
        self._is_device = stat.S_ISBLK(found.st_mode)
        if not self._is_device and not stat.S_ISREG(found.st_mode):
            raise FileError(self.path, "it is neither a regular file nor a block device")
        self._lock()
        if self._is_device:
            size = device_size(self._descriptor)
            if size < self._size:
                raise FileError(
                    self.path, f"it has {size} bytes, and the index is of {self._size} bytes"
                )
            self.has_content = True
        else:
            self.has_content = found.st_size > 0
            if found.st_size < self._size:
                os.ftruncate(self._descriptor, self._size)

    def _lock(self) -> None:
        patience = time.monotonic() + _PATIENCE
        while not lock_for_workers(self._descriptor):
            # Workers of a run that was killed end as soon as they have written what they are at.
            if time.monotonic() > patience:
                raise FileError(self.path, "it is locked: somebody else is writing it")
            time.sleep(0.05)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                if not self._is_device and os.fstat(self._descriptor).st_size != self._size:
                    os.ftruncate(self._descriptor, self._size)
                if self._sync:
                    os.fsync(self._descriptor)
        except OSError as error:
            raise FileError(self.path, error.strerror or str(error)) from None
        finally:
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
