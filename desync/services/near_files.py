# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Reading chunk files that are in the page cache, in the reactor thread, without waiting for a disk.

A file that is in memory is read sooner than a thread is told to. The kernel is asked for what it
has at hand (``preadv2`` with ``RWF_NOWAIT``); a file that it would have to wait for, even in part,
is left to a thread, as is everything where the system can't say (tmpfs, systems other than Linux).
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from desync.chunking import kernels
from desync.interfaces import ILocalFiles
from desync.stores.cache import Cache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from desync.interfaces import IChunkSource
    from desync.stores.local_files import LocalFiles
    from desync.stores.threads import Threads

_NO_WAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)

#: Larger files are left to a thread: copying them would keep others waiting.
_LARGEST: Final = 1 << 20

#: Bytes of a file that are read again at a time.
_READ_ON: Final = 1 << 16

#: How old a cached chunk gets before its age is renewed, in seconds.
_RENEW_AFTER: Final = 60

_FLAGS: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class NearFile:
    """
    A chunk's file that was read, for who needs the rest of it later.

    :param inode: its number; None if that isn't known.
    :param size: bytes that it had.
    :param threads: where it is read if that takes waiting.
    """

    __slots__ = ("_inode", "_path", "_size", "_threads")

    def __init__(self, path: str, inode: int | None, size: int, threads: Threads) -> None:
        self._path = path
        self._inode = inode
        self._size = size
        self._threads = threads

    async def read_on(self, at: int) -> bytes:
        """
        Read it again from a place on, for a while.

        :raises OSError: if it isn't there any more, or has become another one.
        """
        if _NO_WAIT is not None:
            data = self._read(at, _NO_WAIT)
            if data:
                return data
        data = await self._threads.run(self._read, at, 0)
        if not data:
            raise OSError(f"{self._path} changed")
        return data

    def _read(self, at: int, flags: int) -> bytes:
        """Read what can be read; nothing if it is another file now, or that takes waiting."""
        descriptor = os.open(self._path, _FLAGS)
        try:
            found = os.fstat(descriptor)
            if found.st_size != self._size or self._inode not in (None, found.st_ino):
                return b""
            data = bytearray(min(_READ_ON, self._size - at))
            count = os.preadv(descriptor, [data], at, flags)
            return bytes(memoryview(data)[:count])
        except OSError as error:
            # It would have to wait, or the file system can't say.
            if flags and error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                return b""
            raise
        finally:
            os.close(descriptor)


class NearFiles:
    """
    The files of a directory that a server can look for before it asks its stores.

    :param files: the directory, whose files are in the form that is served.
    :param is_cache: whether they are a cache's, so that the age of what is found is renewed.
    :param threads: for what takes waiting.
    :ivar in_threads: whether files have to be read by threads, with :meth:`read_many`: the file
        system can't say what it has at hand.
    """

    def __init__(self, files: LocalFiles, is_cache: bool, threads: Threads) -> None:
        base = files.path
        self._base = base if base.endswith("/") else base + "/"
        self._extension = files.form.extension
        self.is_cache = is_cache
        self._threads = threads
        self.in_threads = False
        self._buffer = memoryview(bytearray(_LARGEST))

    def _path_of(self, chunk_id: bytes) -> str:
        text = chunk_id.hex()
        return f"{self._base}{text[:4]}/{text}{self._extension}"

    def file_of(self, chunk_id: bytes, size: int) -> NearFile:
        """Give the file of a chunk that was read otherwise, and had so many bytes."""
        return NearFile(self._path_of(chunk_id), None, size, self._threads)

    def find(self, chunk_id: bytes) -> tuple[bytes, NearFile] | None:
        """
        Read a chunk's file if that takes no waiting.

        :returns: its bytes, and the file; None if the stores have to be asked, whatever the reason.
        """
        if self.in_threads:
            return None
        path = self._path_of(chunk_id)
        try:
            descriptor = os.open(path, _FLAGS)
        except OSError:
            return None
        try:
            found = os.fstat(descriptor)
            size = found.st_size
            if not 0 < size <= _LARGEST:
                return None
            view = self._buffer[:size]
            # A file that is partly in memory is read in part.
            if os.preadv(descriptor, [view], 0, _NO_WAIT) != size:  # type: ignore[arg-type]
                return None
            if self.is_cache and time.time() - found.st_mtime > _RENEW_AFTER:
                os.utime(descriptor)
            return bytes(view), NearFile(path, found.st_ino, size, self._threads)
        except OSError as error:
            self.in_threads = error.errno == errno.EOPNOTSUPP
            return None
        finally:
            os.close(descriptor)

    def read_many(self, chunk_ids: Sequence[bytes]) -> list[bytes | None]:
        """
        Read the files of some chunks, whatever waiting that takes. For threads.

        :returns: the bytes of each; None if the stores have to be asked.
        """
        paths = [os.fsencode(self._path_of(chunk_id)) for chunk_id in chunk_ids]
        found = kernels.read_files(paths, _LARGEST)
        if self.is_cache:
            for path, data in zip(paths, found, strict=True):
                if data is not None:
                    with suppress(OSError):
                        if time.time() - os.stat(path).st_mtime > _RENEW_AFTER:
                            os.utime(path)
        return found


def near_files(store: IChunkSource, extension: str, threads: Threads) -> NearFiles | None:
    """
    Find the directory that a store looks into first, if its files can be handed out as they are.

    :param extension: of the form that is served.
    :param threads: for what takes waiting.
    :returns: None if there is no such directory, or chunks have to be verified or converted.
    """
    if _NO_WAIT is None or not hasattr(os, "preadv"):
        return None
    is_cache = isinstance(store, Cache)
    local = ILocalFiles(store.cache if isinstance(store, Cache) else store, None)
    if local is None:
        return None
    first = local.local_files()[0]
    if first.form.extension != extension or not first.skip_verify:
        return None
    return NearFiles(first, is_cache, threads)
