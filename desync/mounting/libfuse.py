# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The binding to libfuse: fusepy, with a faster way to read.

fusepy needs version 2 of libfuse, and looks for it when it is imported, which is here and late.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from desync.errors import DesyncError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Takes any byte, so that file names of all kinds get through fusepy.
_ENCODING = "latin-1"

#: Seconds for which the kernel needn't ask again: what is mounted doesn't change.
_UNCHANGED = 3600


class FuseMissing(DesyncError):
    """Nothing can be mounted on this system as it is."""


class FileSystem(Protocol):
    """
    What is mounted. All methods are called in libfuse's threads, several at once, and may block.

    They raise OSError, whose number the caller of the system call gets.
    """

    def getattr(self, path: str) -> Mapping[str, int]:
        """
        Describe a file or folder.

        :param path: begins with a slash; bytes that aren't UTF-8 are surrogates.
        :returns: fields of ``stat``, times in nanoseconds.
        """

    def readdir(self, path: str) -> Sequence[str]:
        """List the names in a folder, without ``.`` and ``..``."""

    def open(self, path: str) -> int:
        """Open a file to read it, and give the number that :meth:`read_into` gets."""

    def read_into(self, handle: int, view: memoryview, offset: int) -> int:
        """
        Read a part of a file.

        :param view: where to put it.
        :returns: how many bytes there were; fewer than wanted only at the end of the file.
        """


@runtime_checkable
class TreeFileSystem(FileSystem, Protocol):
    """One with links and extended attributes in it."""

    def readlink(self, path: str) -> str:
        """Give the target of a symbolic link."""

    def xattrs(self, path: str) -> Mapping[str, bytes]:
        """Give the extended attributes of a node."""


def attributes_of(mode: int, size: int, mtime_ns: int, links: int = 1) -> dict[str, int]:
    """
    Make the fields of ``stat`` of a file or folder of root's.

    :param mode: permissions and kind.
    """
    return {
        "st_mode": mode,
        "st_nlink": links,
        "st_size": size,
        "st_blocks": -(-size // 512),
        "st_blksize": 1 << 17,
        "st_uid": 0,
        "st_gid": 0,
        "st_mtime": mtime_ns,
        "st_ctime": mtime_ns,
        "st_atime": mtime_ns,
    }


def load() -> Any:
    """
    Import fusepy.

    :raises FuseMissing: if it, or libfuse, or the kernel's part isn't there.
    """
    if not os.path.exists("/dev/fuse"):
        raise FuseMissing(
            "/dev/fuse is missing: the kernel has no FUSE, or this container lacks it"
        )
    try:
        import fuse
    except ImportError:
        raise FuseMissing("the Python package fusepy is not installed") from None
    except OSError:
        raise FuseMissing(
            "libfuse 2 is not installed (libfuse2 or libfuse2t64 on Debian and Ubuntu, fuse-libs"
            " elsewhere)"
        ) from None
    if not hasattr(fuse, "fuse_operations"):
        raise FuseMissing("the Python package fuse that is installed isn't fusepy's")
    return fuse


def serve(
    file_system: FileSystem,
    mountpoint: str,
    began: Callable[[], object],
    *,
    over_content: bool = False,
) -> None:
    """
    Mount a file system and serve it until it is unmounted.

    :param mountpoint: an absolute path.
    :param began: called in one of libfuse's threads when it can be used.
    :param over_content: mount although there is something in the folder.
    :raises RuntimeError: if it can't be mounted. libfuse has written the reason to stderr then.
    """
    fuse = load()
    options = {"nonempty": True} if over_content else {}
    if isinstance(file_system, TreeFileSystem):
        operations: _Operations = _TreeOperations(file_system, began)
    else:
        operations = _Operations(file_system, began)
    _server(fuse)(
        operations,
        _to_fusepy(mountpoint),
        raw_fi=True,
        encoding=_ENCODING,
        foreground=True,
        ro=True,
        kernel_cache=True,
        entry_timeout=_UNCHANGED,
        attr_timeout=_UNCHANGED,
        negative_timeout=_UNCHANGED,
        fsname="desync",
        subtype="desync",
        **options,
    )


def _to_fusepy(name: str) -> str:
    return os.fsencode(name).decode(_ENCODING)


def _from_fusepy(name: str) -> str:
    return os.fsdecode(name.encode(_ENCODING))


class _Operations:
    """
    What fusepy calls: it looks for the operations that are there as attributes, and calls them by
    name.
    """

    use_ns = True

    def __init__(self, file_system: FileSystem, began: Callable[[], object]) -> None:
        self.file_system = file_system
        self._began = began

    def __call__(self, name: str, *args: Any) -> Any:
        try:
            return getattr(self, name)(*args)
        except OSError:
            raise
        except Exception as error:
            # Whatever it is, it must not reach fusepy, which writes tracebacks.
            raise OSError(errno.EIO, str(error)) from error

    def init(self, path: str) -> None:
        self._began()

    def getattr(self, path: str, handle: Any = None) -> Mapping[str, int]:
        return self.file_system.getattr(_from_fusepy(path))

    def readdir(self, path: str, handle: int) -> list[str]:
        names = self.file_system.readdir(_from_fusepy(path))
        return [".", "..", *map(_to_fusepy, names)]

    def open(self, path: str, info: Any) -> None:
        if info.flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        info.fh = self.file_system.open(_from_fusepy(path))
        info.keep_cache = 1

    def read(self) -> None:
        """Be there: see :func:`_server`."""


class _TreeOperations(_Operations):
    """The same for what has links and extended attributes."""

    file_system: TreeFileSystem

    def readlink(self, path: str) -> str:
        return _to_fusepy(self.file_system.readlink(_from_fusepy(path)))

    def listxattr(self, path: str) -> list[str]:
        return [_to_fusepy(name) for name in self.file_system.xattrs(_from_fusepy(path))]

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        found = self.file_system.xattrs(_from_fusepy(path)).get(_from_fusepy(name))
        if found is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return found


def _server(fuse: Any) -> Any:
    """Make the class that serves, which can't be made before fusepy is imported."""
    addressof, char = ctypes.addressof, ctypes.c_char

    class Server(fuse.FUSE):  # type: ignore[misc]
        def read(self, path: bytes, buffer: Any, size: int, offset: int, info: Any) -> int:
            # fusepy's own takes bytes and copies them. This has them put in place, for most of
            # what a mount does is this.
            view = memoryview((char * size).from_address(addressof(buffer.contents))).cast("B")
            try:
                file_system = self.operations.file_system
                count: int = file_system.read_into(info.contents.fh, view, offset)
                return count
            except OSError as error:
                return -(error.errno or errno.EIO)
            except Exception:
                return -errno.EIO

    return Server
