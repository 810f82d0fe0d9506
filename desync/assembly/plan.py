# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The plan of a rebuild: where each part of the target comes from. Pure data, made from indexes alone.

Null chunks, which are as long as a chunk can be and hold nothing but zeros, are holes. What a seed
has comes from the seed, in runs as long as possible. Of the rest, a chunk that occurs several times
is fetched for its first place and copied to the others, or copied from where the target has it
already. What is kept of an index beside itself is five bytes a chunk.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from desync.assembly.matching import SeedRuns, match
from desync.assembly.runs import runs_of
from desync.chunking import kernels
from desync.errors import InvalidIndex
from desync.formats.ids import ID_SIZE, ChunkIds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from desync.formats.index import Index

_UNDECIDED: Final = 0
_KEPT: Final = 1
_NULL: Final = 2
_SEEDED: Final = 3
_FETCHED: Final = 4
_COPIED: Final = 5


def _only(kind: int) -> bytes:
    """Make a table for ``translate``: 1 for a kind, 0 for all others."""
    return bytes(each == kind for each in range(256))


class Copy(NamedTuple):
    """A range of the target that repeats another one. Offsets and length are in bytes."""

    source: int
    target: int
    length: int


class Part(NamedTuple):
    """
    A range of the target and where it comes from. Offsets and length are in bytes.

    :ivar kind: ``"kept"``, ``"null"``, ``"seed"``, ``"fetch"`` or ``"copy"``.
    :ivar source: where it is in its seed, or of a copy in the target.
    :ivar seed: the number of the seed.
    """

    start: int
    length: int
    kind: str
    source: int = 0
    seed: int = 0


class Totals(NamedTuple):
    """What a plan adds up to; sizes are in bytes of the target."""

    fetched_chunks: int
    fetched_bytes: int
    copied_chunks: int
    copied_bytes: int
    null_chunks: int
    null_bytes: int
    seeded_chunks: int
    seeded_bytes: int
    kept_chunks: int
    kept_bytes: int


_NAMES: Final = {_KEPT: "kept", _NULL: "null", _SEEDED: "seed", _FETCHED: "fetch", _COPIED: "copy"}


class Plan:
    """
    Where the chunks of an index come from.

    :param index: what is to be rebuilt.
    :param null_id: the id of the null chunk, or None where zeros have to be fetched like everything
        else.
    :param seeds: indexes of files that may have chunks in common.
    :param kept: by position in the index: 1 for chunks that the target has in their place, 0 for
        the others. None if it has nothing.
    :ivar seed_runs: what comes from seeds.
    :raises InvalidIndex: if a chunk has two lengths: it can only be what its id says in one place,
        and what is copied isn't looked at again.
    """

    def __init__(
        self,
        index: Index,
        null_id: bytes | None,
        seeds: Sequence[Index] = (),
        kept: bytes | bytearray | None = None,
    ) -> None:
        self.index = index
        self._first = first_positions(index.ids)
        #: How each position is come by.
        self._kinds = bytearray(len(index)) if kept is None else bytearray(kept)
        if len(self._kinds) != len(index):
            raise ValueError("what is kept is told by a byte for each chunk")
        #: Where a chunk's content is copied from: by the first position that has its id.
        self._origin = self._first if kept is None else self._origins()
        self.seeds = seeds
        self.seed_runs = SeedRuns()
        self._find_nulls(null_id)
        if seeds:
            self._use_seeds()
        self.totals = self._decide()

    def _origins(self) -> array[int]:
        """Let everything that the target has in its place be what others are copied from."""
        origins = array("I", self._first)
        position = self._kinds.find(_KEPT)
        while position >= 0:
            origins[self._first[position]] = position
            position = self._kinds.find(_KEPT, position + 1)
        return origins

    def _find_nulls(self, null_id: bytes | None) -> None:
        """Find the holes, and make sure that equal chunks are equally long."""
        largest = self.index.sizes.max
        kinds = self._kinds
        null = repeated = repeated_length = -1
        places = enumerate(self._first)
        for (_, length, chunk_id), (position, first) in zip(self.index, places, strict=True):
            if first == position:
                # Only a chunk of the maximal size is the null chunk.
                if length == largest and chunk_id == null_id:
                    null = position
            else:
                if first != repeated:
                    repeated, repeated_length = first, self.index.length(first)
                if length != repeated_length:
                    raise InvalidIndex(
                        "the index",
                        f"chunk {chunk_id.hex()} has {repeated_length} bytes in one place "
                        f"and {length} in another",
                    )
            if first == null and not kinds[position]:
                kinds[position] = _NULL

    def _use_seeds(self) -> None:
        undecided = self._kinds.translate(_only(_UNDECIDED))
        self.seed_runs = match(self.index, self.seeds, undecided)
        for position, count, _, _ in self.seed_runs:
            self._kinds[position : position + count] = bytes([_SEEDED]) * count

    def _decide(self) -> Totals:
        """Fetch once what is left, copy it to its other places, and add it all up."""
        chunks = [0] * 6
        sizes = [0] * 6
        kinds, origin = self._kinds, self._origin
        places = enumerate(self._first)
        for (_, length, _), (position, first) in zip(self.index, places, strict=True):
            kind = kinds[position]
            if kind == _UNDECIDED:
                there = origin[first]
                if there != position and kinds[there] in (_KEPT, _FETCHED):
                    kind = _COPIED
                else:
                    kind = _FETCHED
                    origin[first] = position
                kinds[position] = kind
            chunks[kind] += 1
            sizes[kind] += length
        order = (_FETCHED, _COPIED, _NULL, _SEEDED, _KEPT)
        return Totals(*(figure for kind in order for figure in (chunks[kind], sizes[kind])))

    def is_fetched(self, position: int) -> bool:
        """Tell whether the chunk at a position is fetched for this place."""
        return self._kinds[position] == _FETCHED

    def runs(self, most_chunks: int, most_bytes: int) -> Iterator[tuple[int, int]]:
        """
        Divide what is fetched into runs, in the target's order.

        :param most_chunks: what a run has at the most.
        :param most_bytes: likewise; a single chunk may be larger.
        :returns: the position of each run's first chunk and the one after its last.
        """
        return self._runs(_FETCHED, most_chunks, most_bytes)

    def _runs(self, kind: int, most_chunks: int, most_bytes: int) -> Iterator[tuple[int, int]]:
        wanted = self._kinds.translate(_only(kind))
        return runs_of(self.index, wanted, most_chunks=most_chunks, most_bytes=most_bytes)

    def nulls(self) -> Iterator[tuple[int, int]]:
        """List the ranges that are to hold zeros: where each begins, and its length in bytes."""
        index = self.index
        for begin, end in self._runs(_NULL, len(index), index.size):
            start = index.start(begin)
            yield start, index.end(end - 1) - start

    def copies(self) -> Iterator[Copy]:
        """
        List what is copied within the target once all is fetched; neighbors that stay neighbors are
        one copy.
        """
        index = self.index
        source = target = length = 0
        places = enumerate(self._first)
        for (start, size, _), (position, first) in zip(index, places, strict=True):
            if self._kinds[position] != _COPIED:
                continue
            there = index.start(self._origin[first])
            if length and target + length == start and source + length == there:
                length += size
                continue
            if length:
                yield Copy(source, target, length)
            source, target, length = there, start, size
        if length:
            yield Copy(source, target, length)

    def fetched_ids(self) -> ChunkIds:
        """Give the ids that are fetched, sorted, each once."""
        ids = self.index.ids
        totals = self.totals
        if totals.fetched_chunks + totals.copied_chunks == len(ids):
            return ids.sorted_unique()
        packed = bytearray()
        position = self._kinds.find(_FETCHED)
        while position >= 0:
            packed += ids[position]
            position = self._kinds.find(_FETCHED, position + 1)
        return ChunkIds.from_bytes(packed).sorted_unique()

    def fetched_positions(self) -> FetchedPositions:
        """Give a way to find the places that chunks are fetched for."""
        return FetchedPositions(self)

    def parts(self) -> Iterator[Part]:
        """List where everything comes from, in the target's order; neighbors in one."""
        index, kinds = self.index, self._kinds
        copies, runs = self.copies(), iter(self.seed_runs)
        position = 0
        while position < len(index):
            kind = kinds[position]
            start = index.start(position)
            if kind == _SEEDED:
                run = next(runs)
                position += run.chunks
                source = self.seeds[run.seed].start(run.seed_position)
                yield Part(start, index.end(position - 1) - start, "seed", source, run.seed)
                continue
            if kind == _COPIED:
                copy = next(copies)
                position = index.position_of(copy.target + copy.length)
                yield Part(start, copy.length, "copy", copy.source)
                continue
            while position < len(index) and kinds[position] == kind:
                position += 1
            yield Part(start, index.end(position - 1) - start, _NAMES[kind])


class FetchedPositions:
    """
    Where in a target fetched chunks belong. What is kept is twelve bytes for each that is fetched.
    """

    def __init__(self, plan: Plan) -> None:
        self._ids = plan.index.ids
        order = memoryview(kernels.sort_ids(*self._ids.layout)).cast("I")
        #: In the order of their ids, of which there are no equal ones: each is fetched once.
        self._positions = array("I", filter(plan.is_fetched, order))
        #: How the ids begin, as numbers, which are found sooner.
        words = memoryview(plan.fetched_ids().to_bytes()).cast("Q")
        self._beginnings = array("Q", words[:: ID_SIZE // words.itemsize])
        if sys.byteorder == "little":
            self._beginnings.byteswap()

    def of(self, chunk_id: bytes) -> int:
        """Find the place that a chunk is fetched for, which there must be."""
        beginning = int.from_bytes(chunk_id[:8], "big")
        found = bisect_left(self._beginnings, beginning)
        after = bisect_right(self._beginnings, beginning, found)
        if after - found != 1:
            # An index that somebody made up may have many that begin alike.
            found = bisect_left(self._positions, chunk_id, found, after, key=self._ids.__getitem__)
        return self._positions[found]


def first_positions(ids: ChunkIds) -> array[int]:
    """
    Find for each position the first one that has the same id.

    :returns: packed native uint32, one for each position.
    """
    table, offset, stride, count = ids.layout
    order = kernels.sort_ids(table, offset, stride, count)
    return array("I", kernels.first_positions(table, offset, stride, count, order))
