# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The job of rebuilding a file from local stores and seeds.

Workers open the stores, the seeds and the target themselves. A unit is a run of neighboring chunks:
read, decoded, verified together, and written with one call. Repeats are copied from where the
target has them, after everything else has been done. What seeds have the file system may share or
copy by itself beforehand; it is read from the target then, to be verified like everything else.
"""

from __future__ import annotations

import os
import struct
from array import array
from typing import TYPE_CHECKING, Any, Final

from desync.assembly.cloning import LEAST, PIECE, aligned
from desync.assembly.runs import runs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from desync.assembly.matching import SeedRun
    from desync.assembly.plan import Plan
    from desync.chunking.digests import Digest
    from desync.jobs.source import SourceFile
    from desync.stores.local_files import LocalFiles

#: The most chunks, and bytes of them, in a unit.
_CHUNKS: Final = 64
_BYTES: Final = 4 << 20

#: The most copies in a unit; when they come to more than _BYTES there are no further ones in it.
_COPIES: Final = 1024

#: What comes from a seed is as large a unit, but of more chunks: there is no file to open for each.
_SEED_CHUNKS: Final = 1024

IS_FETCH: Final = 0
IS_COPY: Final = 1
IS_ZERO: Final = 2
IS_PLACE: Final = 3
IS_SEED: Final = 4

FETCH: Final = struct.Struct("<BQI")
COPY: Final = struct.Struct("<QQQ")
ZERO: Final = struct.Struct("<BQQ")
#: The number of the seed's run, of its seed; from where, to where, how much.
PLACE: Final = struct.Struct("<BIIQQQ")
#: The first position, the number of the seed; from where, to where; what of it has been placed
#: already (begin, end, how); how many chunks.
SEED: Final = struct.Struct("<BIIQQQQBI")

FETCHED: Final = struct.Struct("<BIQ")
DONE: Final = struct.Struct("<B")
PLACED: Final = struct.Struct("<BIB")
#: Chunks that are there now, bytes copied, bytes placed and how; then the positions of bad ones.
SEEDED: Final = struct.Struct("<BIQQB")

NOT_PLACED: Final = 0
IS_CLONED: Final = 1
IS_COPIED: Final = 2


class RebuildJob:
    """
    The parent's half.

    :param plan: what comes from where.
    :param target: the file to write, which exists and has its final size at least.
    :param stores: asked in turn for each chunk; None if somebody else does what concerns stores,
        and what comes after it.
    :param progress: told of chunks as they are done.
    :param shown: how errors name the target; its path if None.
    :param seeds: the files of the plan's seeds; None for those that it doesn't use.
    :param block: the block size of the target's file system, in bytes; 0 to share no blocks.
    :param blank: whether the target reads as zeros where nothing is written.
    :ivar fetched_bytes: bytes of the target that came from the stores.
    :ivar copied_bytes: bytes that were copied from seeds.
    :ivar cloned_bytes: bytes whose blocks are shared with seeds.
    :ivar bad: positions of chunks that seeds didn't really have: packed native uint32.
    """

    worker_half = "desync.jobs.rebuild_worker:RebuildWorker"
    leases = 2

    def __init__(
        self,
        plan: Plan,
        target: str,
        stores: Sequence[LocalFiles] | None,
        digest: Digest,
        progress: Callable[[int], object],
        shown: str | None = None,
        *,
        seeds: Sequence[SourceFile | None] = (),
        block: int = 0,
        blank: bool = True,
    ) -> None:
        self._plan = plan
        self._target = target
        self._shown = target if shown is None else shown
        self._stores = stores
        self._digest = digest
        self._progress = progress
        self._seeds = seeds
        self._block = block
        self._blank = blank
        #: How each run of a seed has been placed, and which seeds can't be shared from.
        self._placed = bytearray(len(plan.seed_runs))
        self._unplaceable = bytearray(len(seeds))
        self._units = self._all_units()
        self._waits = False
        self._underway = 0
        self._next: bytes | None = None
        self.exhausted = False
        self.fetched_chunks = self.fetched_bytes = 0
        self.seeded_chunks = self.copied_bytes = self.cloned_bytes = 0
        self.bad = array("I")
        totals = plan.totals
        self.small = totals.fetched_bytes + totals.seeded_bytes <= _BYTES // 4
        self._advance()

    def settings(self) -> dict[str, Any]:
        return {
            "target": os.fsencode(self._target),
            "shown": self._shown,
            "stores": [store.settings() for store in self._stores or ()],
            "seeds": [None if seed is None else seed.settings() for seed in self._seeds],
            "digest": self._digest.name,
        }

    def _all_units(self) -> Iterator[bytes | None]:
        """Make the units in order. None: what follows needs everything before it to be done."""
        if not self._blank:
            for start, length in self._plan.nulls():
                yield ZERO.pack(IS_ZERO, start, length)
        if self._block:
            yield from self._places()
        if self._stores is not None:
            for begin, end in self._plan.runs(_CHUNKS, _BYTES):
                yield self._pack_fetch(begin, end)
        yield None
        for number, run in enumerate(self._plan.seed_runs):
            yield from self._pack_seed(number, run)
        yield None
        if self._stores is not None:
            yield from self._copies()

    def _advance(self) -> None:
        """Get the next unit ready."""
        self._next = None
        while not self.exhausted:
            if self._waits and self._underway:
                return
            self._waits = False
            try:
                self._next = next(self._units)
            except StopIteration:
                self.exhausted = True
            if self._next is not None:
                return
            self._waits = True

    def _pack_fetch(self, begin: int, end: int) -> bytes:
        return FETCH.pack(IS_FETCH, self._plan.index.start(begin), end - begin) + self._pack_chunks(
            begin, end
        )

    def _pack_chunks(self, begin: int, end: int) -> bytes:
        """Pack what chunks should be: their lengths, then their ids."""
        chunks = list(self._plan.index.chunks(begin, end))
        lengths = struct.pack(f"<{len(chunks)}I", *(length for _, length, _ in chunks))
        return lengths + b"".join(chunk_id for _, _, chunk_id in chunks)

    def _shareable(self, run: SeedRun) -> tuple[int, int, int]:
        """
        Say where a run is in its seed, and which part of the target could share the seed's blocks.
        """
        index = self._plan.index
        start, end = index.start(run.position), index.end(run.position + run.chunks - 1)
        source = self._plan.seeds[run.seed].start(run.seed_position)
        begin, stop = start, start
        if self._block:
            begin, stop = aligned(source, start, end - start, self._block)
            if stop - begin < max(LEAST, self._block):
                begin, stop = start, start
        return source, begin, stop

    def _places(self) -> Iterator[bytes]:
        index = self._plan.index
        step = PIECE // self._block * self._block or self._block
        for number, run in enumerate(self._plan.seed_runs):
            source, begin, stop = self._shareable(run)
            ahead = source - index.start(run.position)
            if begin < stop:
                self._placed[number] = IS_CLONED
            for place in range(begin, stop, step):
                # Who said no once would say it for every block.
                if self._unplaceable[run.seed]:
                    self._placed[number] = NOT_PLACED
                    break
                length = min(step, stop - place)
                yield PLACE.pack(IS_PLACE, number, run.seed, place + ahead, place, length)

    def _pack_seed(self, number: int, run: SeedRun) -> Iterator[bytes]:
        index = self._plan.index
        source, begin, stop = self._shareable(run)
        how = self._placed[number]
        if how == NOT_PLACED:
            begin = stop = index.start(run.position)
        ahead = source - index.start(run.position)
        for first, last in runs_of(
            index,
            first=run.position,
            stop=run.position + run.chunks,
            most_chunks=_SEED_CHUNKS,
            most_bytes=_BYTES,
        ):
            start, end = index.start(first), index.end(last - 1)
            placed = min(max(begin, start), end), min(max(stop, start), end)
            yield SEED.pack(
                IS_SEED, first, run.seed, start + ahead, start, *placed, how, last - first
            ) + self._pack_chunks(first, last)

    def _copies(self) -> Iterator[bytes]:
        unit = bytearray([IS_COPY])
        size = 0
        for copy in self._plan.copies():
            unit += COPY.pack(*copy)
            size += copy.length
            if size >= _BYTES or len(unit) > _COPIES * COPY.size:
                yield bytes(unit)
                unit = bytearray([IS_COPY])
                size = 0
        if len(unit) > 1:
            yield bytes(unit)

    def next_unit(self) -> bytes | None:
        unit = self._next
        if unit is not None:
            self._underway += 1
            self._advance()
        return unit

    def note(self, payload: bytes) -> None:
        raise RuntimeError("a rebuild has nothing to note")

    def result(self, payload: bytes) -> None:
        self._underway -= 1
        kind = payload[0]
        if kind == IS_FETCH:
            _, chunks, size = FETCHED.unpack(payload)
            self.fetched_chunks += chunks
            self.fetched_bytes += size
            self._progress(chunks)
        elif kind == IS_SEED:
            self._take_seeded(payload)
        elif kind == IS_PLACE:
            _, number, how = PLACED.unpack(payload)
            self._note_placed(number, how)
        if self._next is None and not self.exhausted:
            self._advance()

    def _note_placed(self, number: int, how: int) -> None:
        """Remember how a piece of a run was placed: the run counts as what its worst piece is."""
        if how == NOT_PLACED:
            self._placed[number] = NOT_PLACED
            self._unplaceable[self._plan.seed_runs[number].seed] = 1
        elif how == IS_COPIED and self._placed[number]:
            self._placed[number] = IS_COPIED

    def _take_seeded(self, payload: bytes) -> None:
        _, chunks, copied, placed, how = SEEDED.unpack_from(payload)
        self.seeded_chunks += chunks
        self.copied_bytes += copied
        if how == IS_CLONED:
            self.cloned_bytes += placed
        else:
            self.copied_bytes += placed
        self.bad += array("I", payload[SEEDED.size :])
        self._progress(chunks)

    def check_complete(self) -> None:
        """Make sure that the workers did all that was planned."""
        totals = self._plan.totals
        fetched = (self.fetched_chunks, self.fetched_bytes)
        if self._stores is not None and fetched != (totals.fetched_chunks, totals.fetched_bytes):
            raise RuntimeError(
                f"{self.fetched_chunks} of {totals.fetched_chunks} chunks were written"
            )
        if self.seeded_chunks + len(self.bad) != totals.seeded_chunks:
            raise RuntimeError(
                f"{self.seeded_chunks} of {totals.seeded_chunks} chunks were taken from seeds"
            )
        if self._underway or not self.exhausted:
            raise RuntimeError("not all that is repeated was copied")
