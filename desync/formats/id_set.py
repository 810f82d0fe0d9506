# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A set of chunk ids that grows while it is asked, and keeps no object for an id."""

from __future__ import annotations

from array import array

from .ids import ID_SIZE

_FIRST_SIZE = 1 << 10  # places in the table, a power of two


class IdSet:
    """
    Ids, each once, in about 45 bytes each.

    They lie one after the other; a table says where, found by Python's hash of bytes, which nobody
    can foresee. So no ids are slower than others, whoever chose them.
    """

    __slots__ = ("_count", "_ids", "_mask", "_table")

    def __init__(self) -> None:
        self._ids = bytearray()
        self._count = 0
        self._mask = _FIRST_SIZE - 1
        # The number of the id that has a place, counted from 1; 0 if none has.
        self._table = array("I", bytes(4 * _FIRST_SIZE))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, chunk_id: object) -> bool:
        return isinstance(chunk_id, bytes) and self._table[self._place(chunk_id)] != 0

    def add(self, chunk_id: bytes) -> bool:
        """
        Put an id in.

        :returns: whether it wasn't there yet.
        :raises ValueError: if it isn't 32 bytes long.
        """
        if len(chunk_id) != ID_SIZE:
            raise ValueError(f"a chunk id has {ID_SIZE} bytes, not {len(chunk_id)}")
        place = self._place(chunk_id)
        if self._table[place]:
            return False
        self._ids += chunk_id
        self._count += 1
        self._table[place] = self._count
        if 3 * self._count > 2 * self._mask:
            self._grow()
        return True

    def _place(self, chunk_id: bytes) -> int:
        """Find the place that an id has, or the free one that it would get."""
        table, ids, mask = self._table, self._ids, self._mask
        place = hash(chunk_id) & mask
        while number := table[place]:
            end = ID_SIZE * number
            if ids[end - ID_SIZE : end] == chunk_id:
                break
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        mask = self._mask = 2 * self._mask + 1
        table = self._table = array("I", bytes(4 * (mask + 1)))
        view = memoryview(self._ids)
        for number in range(1, self._count + 1):
            end = ID_SIZE * number
            place = hash(bytes(view[end - ID_SIZE : end])) & mask
            while table[place]:
                place = (place + 1) & mask
            table[place] = number
        view.release()
