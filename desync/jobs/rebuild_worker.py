# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What a worker does of a rebuild: see :mod:`desync.jobs.rebuild`."""

from __future__ import annotations

import os
import struct
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from desync.assembly import cloning
from desync.assembly.local_chunks import read_from, verify
from desync.assembly.writing import copy_within, write_all
from desync.chunking.digests import Digest
from desync.errors import FileError, InputChanged, describe_os_error
from desync.jobs import rebuild
from desync.jobs.source import SourceFile
from desync.replace import share_lock
from desync.stores.local_files import LocalFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class RebuildWorker:
    """The worker's half."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._stores = [
            LocalFiles.from_settings(store, set_modes=False) for store in settings["stores"]
        ]
        self._digest = Digest.named(settings["digest"])
        self._path = settings["shown"]
        self._seed_settings = settings["seeds"]
        self._seeds: dict[int, SourceFile | None] = {}
        self._buffer = memoryview(bytearray())
        self._descriptor = os.open(settings["target"], os.O_RDWR | os.O_CLOEXEC)
        # Should the parent be killed, nobody else may write the file as long as we do.
        share_lock(self._descriptor)

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes:
        kind = unit[0]
        try:
            if kind == rebuild.IS_FETCH:
                return self._fetch(unit)
            if kind == rebuild.IS_SEED:
                return self._take_from_seed(unit)
            if kind == rebuild.IS_PLACE:
                return self._place(unit)
            if kind == rebuild.IS_ZERO:
                _, start, length = rebuild.ZERO.unpack(unit)
                cloning.write_zeros(self._descriptor, start, length)
            else:
                for source, target, length in rebuild.COPY.iter_unpack(memoryview(unit)[1:]):
                    copy_within(self._descriptor, source, target, length)
            return rebuild.DONE.pack(kind)
        except EOFError as error:
            raise FileError(self._path, str(error)) from None
        except OSError as error:
            raise FileError(self._path, error.strerror or describe_os_error(error)) from None

    def _fetch(self, unit: bytes) -> bytes:
        _, start, count = rebuild.FETCH.unpack_from(unit)
        lengths, ids = _unpack_chunks(unit, rebuild.FETCH.size, count)
        buffers = []
        unverified = []
        for position, length in enumerate(lengths):
            chunk_id = ids[32 * position : 32 * position + 32]
            plain, store = read_from(self._stores, chunk_id, length)
            buffers.append(plain)
            if not store.skip_verify:
                unverified.append((position, store))
        verify(self._digest, buffers, ids, unverified)
        write_all(self._descriptor, buffers, start)
        return rebuild.FETCHED.pack(rebuild.IS_FETCH, count, sum(lengths))

    def _place(self, unit: bytes) -> bytes:
        """Let the file system share or copy a range, if it can."""
        _, run, number, offset, place, length = rebuild.PLACE.unpack(unit)
        how = rebuild.NOT_PLACED
        seed = self._seed(number)
        if seed is not None:
            arguments = (seed.descriptor, self._descriptor, offset, place, length)
            if cloning.clone(*arguments):
                how = rebuild.IS_CLONED
            elif cloning.copy_in_kernel(*arguments):
                how = rebuild.IS_COPIED
        return rebuild.PLACED.pack(rebuild.IS_PLACE, run, how)

    def _take_from_seed(self, unit: bytes) -> bytes:
        """
        Verify chunks that a seed should have, and write what isn't in its place yet.

        What was placed is read where it is now: what the seed holds may be something else since.
        """
        fields = rebuild.SEED.unpack_from(unit)
        _, first, number, offset, start, begin, stop, how, count = fields
        lengths, ids = _unpack_chunks(unit, rebuild.SEED.size, count)
        ends = array("I", accumulate(lengths))
        begin, stop, size = begin - start, stop - start, ends[-1]
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(max(size, 4 << 20)))
        data = self._buffer[:size]
        found = b""
        seed = self._seed(number)
        if seed is not None and self._read(seed, data, offset, start, begin, stop):
            found = self._digest.ids_of_ranges(data, 0, ends, count)
        bad = array("I")
        good = copied = placed = 0
        for at, until, is_good in _stretches(found, ids, count):
            if not is_good:
                bad.extend(range(first + at, first + until))
                continue
            low, high = (ends[at - 1] if at else 0), ends[until - 1]
            good += until - at
            before, after = max(low, min(begin, high)), max(low, min(stop, high))
            for here, there in (low, before), (after, high):
                if here < there:
                    write_all(self._descriptor, [data[here:there]], start + here)
                    copied += there - here
            placed += after - before
        return rebuild.SEEDED.pack(rebuild.IS_SEED, good, copied, placed, how) + bad.tobytes()

    def _read(
        self, seed: SourceFile, data: memoryview, offset: int, start: int, begin: int, stop: int
    ) -> bool:
        """
        Read what a unit is about.

        :returns: whether there was anything to read. If the seed is too short, what follows is
            whatever the buffer held, which is no chunk unless it is the right one.
        """
        try:
            for low, high in (0, begin), (stop, len(data)):
                if low < high:
                    seed.read_available(data[low:high], offset + low)
        except FileError:
            return False
        while begin < stop:
            got = os.preadv(self._descriptor, [data[begin:stop]], start + begin)
            if not got:
                raise EOFError("it was truncated while it was being written")
            begin += got
        return True

    def _seed(self, number: int) -> SourceFile | None:
        """Open a seed; None if it isn't there, or is another file than it was."""
        if number not in self._seeds:
            settings = self._seed_settings[number]
            try:
                self._seeds[number] = SourceFile.reopen(settings)
            except (FileError, InputChanged):
                self._seeds[number] = None
        return self._seeds[number]

    def close(self) -> None:
        os.close(self._descriptor)
        for seed in self._seeds.values():
            if seed is not None:
                seed.close()


def _unpack_chunks(unit: bytes, offset: int, count: int) -> tuple[Sequence[int], bytes]:
    """Take apart what :class:`RebuildJob` packs of chunks: their lengths, and their ids."""
    lengths = struct.unpack_from(f"<{count}I", unit, offset)
    return lengths, unit[offset + 4 * count :]


def _stretches(found: bytes, ids: bytes, count: int) -> list[tuple[int, int, bool]]:
    """Divide chunks into stretches that are what they should be, and those that aren't."""
    if found == ids:
        return [(0, count, True)]
    if not found:
        return [(0, count, False)]
    stretches: list[tuple[int, int, bool]] = []
    for at in range(count):
        here = slice(32 * at, 32 * at + 32)
        is_good = found[here] == ids[here]
        if stretches and stretches[-1][2] == is_good:
            stretches[-1] = (stretches[-1][0], at + 1, is_good)
        else:
            stretches.append((at, at + 1, is_good))
    return stretches
