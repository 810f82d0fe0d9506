# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The archive that a command reads: a file, standard input, an index with its stores, or what would be
made of a directory.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING, Any, Final

from desync.errors import FileError, UsageError
from desync.running import run

from .flags import BOOLEAN, STRINGS, flag
from .indexes import STANDARD, is_local_index, read_index
from .packing import PACKING_NAMES, packing_of
from .streams import STANDARD_INPUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.operations.tar import Packing

    from .invocation import Invocation

_STEP: Final = 1 << 20
_INDEX_BEGIN: Final = struct.pack("<2Q", 48, 0x96824D9C7B129FF9)

_FLAGS: Final = (
    flag("--store", "-s", kind=STRINGS, help="source store of an index; several are asked in turn"),
    flag("--cache", "-c", help="store where chunks from the others are kept, and looked for first"),
    flag("--index", "-i", kind=BOOLEAN, help="read an index, and the archive from its stores"),
)


def archive_flags(function: Any) -> Any:
    """Declare the flags for :class:`Archive`, which come as keywords; packing's are others."""
    for each in reversed(_FLAGS):
        function = each(function)
    return function


def begins_as_index(location: str) -> bool:
    """Tell whether what the user named is a local file that begins as an index does."""
    if location == STANDARD or not is_local_index(location):
        return False
    try:
        found = os.stat(location)
        if not found.st_size or not stat.S_ISREG(found.st_mode):
            return False
        with open(location, "rb", buffering=0) as file:
            return file.read(16) == _INDEX_BEGIN
    except OSError:
        return False


class Archive:
    """
    Reads an archive, whatever it is in.

    :param location: what the user named.
    :param flags: the values of the flags by name, those about packing included.
    :param as_casync: of a directory take what casync records unless told otherwise: everything.
    :ivar is_directory: whether it is made of a directory as it is read.
    :raises UsageError: if they don't fit together.
    """

    def __init__(
        self,
        invocation: Invocation,
        location: str,
        flags: dict[str, Any],
        *,
        as_casync: bool = False,
    ) -> None:
        self._invocation = invocation
        self._location = location
        self._store: list[str] = flags["store"]
        self._cache: str | None = flags["cache"]
        self.is_directory = location != STANDARD and os.path.isdir(location)
        if flags["index"] and self.is_directory:
            raise UsageError("-i can't be used with input directory")
        self._index = flags["index"] or begins_as_index(location)
        if self._index and not self._store:
            raise UsageError("-i requires at least one store (-s <location>)")
        if not self._index and (self._store or self._cache):
            raise UsageError("--store and --cache are for indexes (-i)")
        if not self.is_directory and any(flags[name] for name in PACKING_NAMES):
            raise UsageError("what is recorded can be said of a directory alone")
        if as_casync and not flags["features"] and not flags["left_features"]:
            flags = {**flags, "features": ["all"]}
        self.packing: Packing | None = packing_of(invocation, flags) if self.is_directory else None
        self.name = STANDARD_INPUT if location == STANDARD else location

    def read(self, write: Callable[[memoryview], object]) -> None:
        """
        Read the archive in order.

        :param write: takes each piece, which may not be kept.
        :raises FileError: if it can't be read.
        :raises ChunkMissing, ChunkInvalid, StoreError: as the stores do.
        """
        if self._index:
            self._read_index(write)
        elif self.packing is not None:
            self._read_directory(write, self.packing)
        elif self._location == STANDARD:
            read = self._invocation.stdin.read
            while data := read(_STEP):
                write(memoryview(data))
        else:
            self._read_file(write)

    def _read_file(self, write: Callable[[memoryview], object]) -> None:
        buffer = memoryview(bytearray(_STEP))
        try:
            with open(self._location, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                with self._invocation.progress.start("Reading", size, "bytes") as tracker:
                    while count := file.readinto(buffer):
                        write(buffer[:count])
                        tracker.add(count)
        except OSError as error:
            raise FileError(self._location, error.strerror or str(error)) from None

    def _read_directory(self, write: Callable[[memoryview], object], packing: Packing) -> None:
        from desync.operations.tar import pack
        from desync.trees.content import copy_pieces

        invocation = self._invocation

        def skipped(path: bytes, why: str) -> None:
            invocation.note(f"skipping '{os.fsdecode(path)}' : {why}")

        copy_pieces(pack(os.fsencode(self._location), packing, skipped), write)

    def _read_index(self, write: Callable[[memoryview], object]) -> None:
        from desync.operations.cat import cat
        from desync.stores.opening import local_source
        from desync.workers.pool import pool_size

        invocation, store, cache = self._invocation, self._store, self._cache
        files = local_source(store, invocation.store_options, invocation.digest, cache=cache)
        index = read_index(invocation, self._location)
        progress = invocation.progress
        if files is not None:
            threads = pool_size(invocation.concurrency)
            run(cat(index, files, write, progress, concurrency=threads))
            return
        from .layered import Layered, run_layered

        async def work(session: Layered) -> None:
            await cat(index, session.downloads(store, cache), write, progress)

        run_layered(invocation, work)


def read_events(archive: Archive, take: Callable[[Any, int], object]) -> None:
    """
    Read an archive's events.

    :param take: takes some events at a time, and the archive's feature flags.
    :raises InvalidArchive: if it isn't one.
    """
    from desync.formats.catar_decoder import CatarDecoder

    decoder = CatarDecoder(archive.name)

    def write(data: memoryview) -> None:
        take(decoder.feed(data), decoder.flags)

    archive.read(write)
    decoder.finish()
