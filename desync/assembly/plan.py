# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The plan of a rebuild: where each part of the target comes from. Pure data, made from the index
alone.

A chunk that occurs several times is fetched for its first place and copied to the others. Null
chunks, which are as long as a chunk can be and hold nothing but zeros, are holes in a fresh target.
What is kept of an index beside itself is five bytes a chunk.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

from desync.assembly.runs import runs_of
from desync.chunking import kernels
from desync.errors import InvalidIndex
from desync.formats.ids import ChunkIds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from desync.formats.index import Index


class Copy(NamedTuple):
    """A range of the target that repeats an earlier one. Offsets and length are in bytes."""

    source: int
    target: int
    length: int


class Totals(NamedTuple):
    """What a plan adds up to; sizes are in bytes of the target."""

    fetched_chunks: int
    fetched_bytes: int
    copied_chunks: int
    copied_bytes: int
    null_chunks: int
    null_bytes: int


class Plan:
    """
    Where the chunks of an index come from.

    :param index: what is to be rebuilt.
    :param null_id: the id of the null chunk, or None where zeros have to be fetched like everything
        else.
    :raises InvalidIndex: if a chunk has two lengths: it can only be what its id says in one place,
        and what is copied isn't looked at again.
    """

    def __init__(self, index: Index, null_id: bytes | None) -> None:
        self.index = index
        self._first = first_positions(index.ids)
        self._null = -1
        #: A byte for each position: whether the chunk is fetched for this place.
        self._fetched = bytearray(len(index))
        self.totals = self._look(null_id)

    def _look(self, null_id: bytes | None) -> Totals:
        """Find out what is to be done with each chunk, and add it up."""
        largest = self.index.sizes.max
        null = -1
        fetched_bytes = copied_bytes = null_bytes = null_chunks = 0
        fetched = self._fetched
        position = 0
        repeated = repeated_length = -1
        for (_, length, chunk_id), first in zip(self.index, self._first, strict=True):
            if first == position:
                # Only a chunk of the maximal size is the null chunk.
                if length == largest and chunk_id == null_id:
                    null = position
                else:
                    fetched[position] = 1
                    fetched_bytes += length
            else:
                if first != repeated:
                    repeated, repeated_length = first, self.index.length(first)
                if length != repeated_length:
                    raise InvalidIndex(
                        "the index",
                        f"chunk {chunk_id.hex()} has {repeated_length} bytes in one place "
                        f"and {length} in another",
                    )
            if first == null:
                null_chunks += 1
                null_bytes += length
            elif first != position:
                copied_bytes += length
            position += 1
        self._null = null
        fetched_chunks = fetched.count(1)
        copied_chunks = position - fetched_chunks - null_chunks
        return Totals(
            fetched_chunks, fetched_bytes, copied_chunks, copied_bytes, null_chunks, null_bytes
        )

    def is_fetched(self, position: int) -> bool:
        """Tell whether the chunk at a position is fetched for this place."""
        return bool(self._fetched[position])

    def runs(self, most_chunks: int, most_bytes: int) -> Iterator[tuple[int, int]]:
        """
        Divide what is fetched into runs, in the target's order.

        :param most_chunks: what a run has at the most.
        :param most_bytes: likewise; a single chunk may be larger.
        :returns: the position of each run's first chunk and the one after its last.
        """
        return runs_of(
            self.index,
            self._fetched,
            most_chunks=most_chunks,
            most_bytes=most_bytes,
        )

    def copies(self) -> Iterator[Copy]:
        """
        List what is copied within the target once all is fetched; neighbors that stay neighbors are
        one copy.
        """
        source = target = length = 0
        position = -1
        for (start, size, _), first in zip(self.index, self._first, strict=True):
            position += 1
            if first == position or first == self._null:
                continue
            origin = self.index.start(first)
            if length and target + length == start and source + length == origin:
                length += size
                continue
            if length:
                yield Copy(source, target, length)
            source, target, length = origin, start, size
        if length:
            yield Copy(source, target, length)

    def fetched_ids(self) -> ChunkIds:
        """Give the ids that are fetched, sorted, each once."""
        unique = self.index.ids.sorted_unique()
        if self._null < 0:
            return unique
        null = ChunkIds.from_bytes(self.index.id(self._null), is_sorted=True)
        return unique.difference(null)


def first_positions(ids: ChunkIds) -> array[int]:
    """
    Find for each position the first one that has the same id.

    :returns: packed native uint32, one for each position.
    """
    table, offset, stride, count = ids.layout
    order = kernels.sort_ids(table, offset, stride, count)
    return array("I", kernels.first_positions(table, offset, stride, count, order))
