# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The file that a job reads: opened by the parent and again by every worker, and known to be the same
one all the time.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final

from desync.errors import FileError, InputChanged, describe_os_error

if TYPE_CHECKING:
    from desync.formats.index import Index


#: How the names of standard input and the like begin that mean another file in each process.
_OF_THIS_PROCESS: Final = ("/dev/stdin", "/dev/fd/", "/proc/self/", "/proc/thread-self/")


class SourceFile:
    """
    A regular file or block device, open for reading.

    :param shown: how errors name it; its path if None.
    :ivar size: its size in bytes at the time it was opened.
    :ivar is_device: whether it is a block device.
    :raises FileError: if it can't be opened, or is neither.
    """

    def __init__(self, path: str | bytes, shown: str | None = None) -> None:
        self._location = os.fsdecode(path)
        self.path = self._location if shown is None else shown
        try:
            # Not to wait for whoever might write to what turns out to be a pipe.
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise FileError(self.path, error.strerror or describe_os_error(error)) from None
        try:
            found = os.fstat(self.descriptor)
            if stat.S_ISDIR(found.st_mode):
                raise FileError(self.path, "it is a directory")
            self.is_device = stat.S_ISBLK(found.st_mode)
            if not self.is_device and not stat.S_ISREG(found.st_mode):
                raise FileError(self.path, "it is neither a regular file nor a block device")
            # A device's size isn't in its inode; its end is where it ends.
            self.size = (
                os.lseek(self.descriptor, 0, os.SEEK_END) if self.is_device else found.st_size
            )
            self._identity = (found.st_dev, found.st_ino)
            self._modified = found.st_mtime_ns
        except BaseException:
            os.close(self.descriptor)
            raise

    @classmethod
    def described_by(cls, index: Index, path: str | bytes) -> SourceFile:
        """
        Open a file that an index describes. Only a device may be larger than that.

        :raises FileError: if it can't be read, or hasn't the index's size.
        """
        source = cls(path)
        if source.size < index.size or (source.size > index.size and not source.is_device):
            source.close()
            raise FileError(
                source.path, f"index size ({index.size}) does not match file size ({source.size})"
            )
        return source

    def settings(self) -> dict[str, Any]:
        """Give what a worker needs to open the same file: see :meth:`reopen`."""
        path = self._location
        if path.startswith(_OF_THIS_PROCESS) and not self.is_device:
            # It leads to what this process has open, and in another one to something else.
            path = f"/proc/{os.getpid()}/fd/{self.descriptor}"
        return {
            "path": os.fsencode(path),
            "shown": self.path,
            "identity": self._identity,
            "size": self.size,
        }

    @classmethod
    def reopen(cls, settings: dict[str, Any]) -> SourceFile:
        """
        Open the file that :meth:`settings` describes.

        :raises InputChanged: if another one is there now, or it has another size.
        """
        source = cls(settings["path"], settings["shown"])
        if source._identity != tuple(settings["identity"]) or source.size != settings["size"]:
            source.close()
            raise InputChanged(
                source.path, "it was replaced or changed its size while it was being read"
            )
        return source

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """
        Fill a buffer from an offset on.

        :raises InputChanged: if the file ends before the buffer is full.
        :raises FileError: if it can't be read.
        """
        filled = self.read_available(buffer, offset)
        if filled < len(buffer):
            raise InputChanged(
                self.path,
                f"it ended at {offset + filled} of {self.size} bytes: "
                "it shrank while it was being read",
            )

    def read_available(self, buffer: memoryview, offset: int) -> int:
        """
        Fill a buffer from an offset on, as far as the file goes.

        :returns: how many bytes there were.
        :raises FileError: if it can't be read.
        """
        filled = 0
        while filled < len(buffer):
            got = self._read(buffer[filled:], offset + filled)
            if not got:
                break
            filled += got
        return filled

    def _read(self, buffer: memoryview, offset: int) -> int:
        try:
            return _read_at(self.descriptor, buffer, offset)
        except OSError as error:
            raise FileError(self.path, error.strerror or describe_os_error(error)) from None

    def check_unchanged(self) -> None:
        """
        Make sure that the file is as it was when it was opened, as far as size and modification
        time tell.

        :raises InputChanged: if it isn't.
        :raises FileError: if it never had the size that it was said to have.
        """
        if self.is_device:
            return
        found = os.fstat(self.descriptor)
        if found.st_size != self.size:
            raise InputChanged(
                self.path,
                f"it changed its size from {self.size} to {found.st_size} bytes "
                "while it was being read",
            )
        if found.st_mtime_ns != self._modified:
            raise InputChanged(self.path, "it changed while it was being read")
        # Files that a system makes up as they are read, those in /proc, say that they are empty.
        if self._read(memoryview(bytearray(1)), self.size):
            raise FileError(
                self.path, f"it has more than the {self.size} bytes that it should have"
            )

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


def _read_at(descriptor: int, buffer: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    # Not every system has it (macOS only since 11): a copy more.
    data = os.pread(descriptor, len(buffer), offset)
    buffer[: len(data)] = data
    return len(data)
