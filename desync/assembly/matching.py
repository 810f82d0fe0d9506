# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Finding in seeds what a target needs: the longest runs of chunks that both have. Indexes alone are
looked at, never files.

Ids are compared once, by sorting them; from then on a chunk is known by the number of the first
place that has the same id, and runs are compared as plain memory.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from desync.chunking import kernels
from desync.formats.index import ITEM_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from desync.formats.index import Index

#: How many of the places at which seeds have a chunk are tried as the beginning of a run. A limit,
#: because a seed may consist of nothing else than one chunk.
_TRIED: Final = 64

_WORD: Final = 4
_NOWHERE: Final = 0xFFFFFFFF
_ID_OFFSET: Final = 8


class SeedRun(NamedTuple):
    """
    Chunks of the target that a seed has in the same order.

    :ivar position: of the first one, in the target's index.
    :ivar chunks: how many.
    :ivar seed: the number of the seed.
    :ivar seed_position: of the first one, in the seed's index.
    """

    position: int
    chunks: int
    seed: int
    seed_position: int


class SeedRuns:
    """Runs in the target's order, packed: 16 bytes each."""

    def __init__(self) -> None:
        self._packed = array("I")

    def append(self, run: SeedRun) -> None:
        """Add a run, behind all others."""
        self._packed.extend(run)

    def __len__(self) -> int:
        return len(self._packed) // 4

    def __getitem__(self, number: int) -> SeedRun:
        return SeedRun(*self._packed[4 * number : 4 * number + 4])

    def __iter__(self) -> Iterator[SeedRun]:
        packed = self._packed
        for begin in range(0, len(packed), 4):
            yield SeedRun(*packed[begin : begin + 4])


def match(index: Index, seeds: Sequence[Index], wanted: bytes | bytearray) -> SeedRuns:
    """
    Cover what is wanted of a target with runs of chunks that seeds have.

    Of the runs that begin at a place the longest is taken; of equal ones that of the first seed.

    :param wanted: by position in the index: 0 for chunks that are not to be covered, 1 for those
        that are.
    """
    runs = SeedRuns()
    places = _Places(index, seeds)
    position = wanted.find(1)
    while position >= 0:
        stop = wanted.find(0, position)
        if stop < 0:
            stop = len(wanted)
        while position < stop:
            found, count = places.longest(position, stop - position)
            if count:
                runs.append(places.run(position, count, found))
            position += count or 1
        position = wanted.find(1, position)
    return runs


class _Places:
    """Where in the seeds the chunks of a target are. Seeds count as one, all in a row."""

    def __init__(self, index: Index, seeds: Sequence[Index]) -> None:
        self._begins = [0]
        for seed in seeds:
            self._begins.append(self._begins[-1] + len(seed))
        self._total = self._begins[-1]
        count = self._total + len(index)
        table = bytearray().join([*(seed.table for seed in seeds), index.table])
        order = kernels.sort_ids(table, _ID_OFFSET, ITEM_SIZE, count)
        #: For each chunk, those of the seeds first, the first one with the same id.
        self._memory = kernels.first_positions(table, _ID_OFFSET, ITEM_SIZE, count, order)
        self._first = memoryview(self._memory).cast("I")
        del table, order
        self._next = self._find_next()

    def _find_next(self) -> array[int]:
        """Find for each chunk of the seeds the next one with the same id."""
        first, total = self._first, self._total
        following = array("I", [_NOWHERE]) * total
        last = array("I", range(total))
        for place in range(total):
            same = first[place]
            if same != place:
                following[last[same]] = place
                last[same] = place
        return following

    def longest(self, position: int, most: int) -> tuple[int, int]:
        """
        Find the longest run for a place in the target.

        :param most: chunks that it may have.
        :returns: where in the seeds it begins, and how many chunks it has; 0 if there is none.
        """
        place = self._first[self._total + position]
        best, best_count = 0, 0
        for _ in range(_TRIED):
            if place >= self._total:
                break
            end = self._begins[bisect_right(self._begins, place)]
            limit = min(most, end - place)
            # What is no longer than the best so far isn't worth counting.
            if limit > best_count:
                count = self._common(place, self._total + position, limit)
                if count > best_count:
                    best, best_count = place, count
                if best_count == most:
                    break
            place = self._next[place]
        return best, best_count

    def _common(self, one: int, other: int, limit: int) -> int:
        """Count how many chunks are the same from two places on."""
        done, step = 0, 1
        while done < limit:
            step = min(step, limit - done)
            here, there = (one + done) * _WORD, (other + done) * _WORD
            size = step * _WORD
            if self._memory[here : here + size] == self._memory[there : there + size]:
                done += step
                step *= 2
            elif step == 1:
                break
            else:
                step //= 2
                # What is left to find ends within this step: never beyond it again.
                limit = min(limit, done + 2 * step)
        return done

    def run(self, position: int, count: int, place: int) -> SeedRun:
        """Describe a run by seed."""
        seed = bisect_right(self._begins, place) - 1
        return SeedRun(position, count, seed, place - self._begins[seed])
