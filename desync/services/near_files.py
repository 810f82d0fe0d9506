# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Reading chunk files that are in the page cache, in the reactor thread, without waiting for a disk.

A file that is in memory is read sooner than a thread is told to. The kernel is asked for what it
has at hand (``preadv2`` with ``RWF_NOWAIT``); a file that it would have to wait for, even in part,
is left to a thread, as is everything where the system can't say (tmpfs, systems other than Linux).
"""

from __future__ import annotations

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

_NO_WAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)

#: Larger files are left to a thread: copying them would keep others waiting.
_LARGEST: Final = 1 << 20

#: How old a cached chunk gets before its age is renewed, in seconds.
_RENEW_AFTER: Final = 60

_FLAGS: Final = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)


class NearFiles:
    """
    The files of a directory that a server can look for before it asks its stores.

    :param files: the directory, whose files are in the form that is served.
    :param is_cache: whether they are a cache's, so that the age of what is found is renewed.
    """

    def __init__(self, files: LocalFiles, is_cache: bool) -> None:
        base = files.path
        self._base = base if base.endswith("/") else base + "/"
        self._extension = files.form.extension
        self.is_cache = is_cache
        self._buffer = memoryview(bytearray(_LARGEST))

    def _path_of(self, chunk_id: bytes) -> str:
        text = chunk_id.hex()
        return f"{self._base}{text[:4]}/{text}{self._extension}"

    def read(self, chunk_id: bytes) -> bytes | None:
        """
        Read a chunk's file if that takes no waiting.

        :returns: its bytes; None if the stores have to be asked, whatever the reason.
        """
        try:
            descriptor = os.open(self._path_of(chunk_id), _FLAGS)
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
            return bytes(view)
        except OSError:
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


def near_files(store: IChunkSource, extension: str) -> NearFiles | None:
    """
    Find the directory that a store looks into first, if its files can be handed out as they are.

    :param extension: of the form that is served.
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
    return NearFiles(first, is_cache)
