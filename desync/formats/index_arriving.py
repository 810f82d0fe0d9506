# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""An index file that comes in pieces: which chunks it names is known before it is complete."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from desync.errors import InvalidIndex

from .ids import ChunkIds
from .index import ITEM_SIZE, TABLE_START, Index, IndexSizes, digest_of, parse_start

if TYPE_CHECKING:
    from desync.chunking.digests import Digest

_END = Struct("<Q32x")


class ArrivingIndex:
    """
    Takes the bytes of an index as they come, and gives the ids in it that are complete.

    :param where: its name as shown to the user.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._data = bytearray()
        self._flags: int | None = None
        self._sizes = IndexSizes(0, 0, 0)
        self._taken = 0  # items
        self._end = 0  # of the last of them, in the stream
        self._at_tail = False

    @property
    def size(self) -> int:
        """How many bytes have come."""
        return len(self._data)

    @property
    def digest(self) -> Digest:
        """The algorithm that the ids are made with; known as soon as there is an id."""
        assert self._flags is not None
        return digest_of(self._flags)

    def feed(self, data: bytes) -> None:
        """
        Take some bytes.

        :raises InvalidIndex: if no index begins like that.
        """
        self._data += data
        if self._flags is None and len(self._data) >= TABLE_START:
            start = memoryview(bytes(self._data[:TABLE_START]))
            self._flags, self._sizes = parse_start(start, self._where)

    def take(self, most: int) -> ChunkIds:
        """
        Give the next ids.

        :param most: how many.
        :returns: ids in the stream's order; none if no further one is complete.
        :raises InvalidIndex: if what comes next is neither a good item nor the tail.
        """
        if self._flags is None or self._at_tail:
            return ChunkIds(b"")
        begin = TABLE_START + self._taken * ITEM_SIZE
        count = min(most, (len(self._data) - begin) // ITEM_SIZE)
        items = bytes(self._data[begin : begin + count * ITEM_SIZE])
        for number, (end,) in enumerate(_END.iter_unpack(items)):
            if not end:  # no chunk ends at 0: the tail begins so
                self._at_tail = True
                count = number
                break
            if not 0 < end - self._end <= self._sizes.max:
                chunk = self._taken + number
                raise InvalidIndex(self._where, f"chunk {chunk} can't end at {end}")
            self._end = end
        self._taken += count
        return ChunkIds(items, 8, ITEM_SIZE, count)

    def finish(self) -> Index:
        """
        Make the index, when all of it has come. Nothing can be fed afterwards.

        :raises InvalidIndex: if it isn't one.
        """
        return Index.parse(self._data, self._where)
