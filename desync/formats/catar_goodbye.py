# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Goodbye tables: where a directory's children are in the archive, by the hash of their names.

The table stands at the end of a directory: an item of three words (64 bits, little-endian) for each
child (how far before the table its FILENAME record begins, the length from there to its end, the
hash) and a tail. The items are a binary search tree by hash, complete but for the right end of its
lowest level, in an array: the children of item ``i`` are items ``2i+1`` and ``2i+2``.
"""

from __future__ import annotations

import struct
from array import array
from functools import lru_cache
from typing import Final

from desync.chunking import kernels

from .catar import GOODBYE, GOODBYE_TAIL_MARKER, HEADER_SIZE

HASH_KEY: Final = bytes.fromhex("b3841d0f2b447485c12ec2d130ed3627")
"""What names are hashed with by SipHash-2-4: 16 bytes, fixed by the format."""

ITEM_SIZE: Final = 24
"""Length in bytes of an item, and of the tail."""

ITEM: Final = struct.Struct("<3Q")

SMALLEST: Final = HEADER_SIZE + ITEM_SIZE
"""Length in bytes of the whole record of an empty directory."""

#: Up to so many children the order is kept, as most directories have few.
_KEPT: Final = 256


def name_hash(name: bytes) -> int:
    """Hash a node's name."""
    return kernels.siphash(name, HASH_KEY)


class Children:
    """
    The children of a directory while it is being written: 16 bytes each.

    :param entry: where the directory's ENTRY record begins, in bytes from the archive's begin.
    """

    __slots__ = ("_hashes", "_starts", "entry")

    def __init__(self, entry: int) -> None:
        self.entry = entry
        self._hashes = array("Q")
        self._starts = array("Q")

    def add(self, name: bytes, start: int) -> None:
        """
        Note a child.

        :param start: where its FILENAME record begins, in bytes from the archive's begin.
        """
        self._hashes.append(kernels.siphash(name, HASH_KEY))
        self._starts.append(start)

    def table(self, end: int) -> bytes:
        """
        Give the GOODBYE record.

        :param end: where it begins, in bytes from the archive's begin: where the last child ends.
        """
        hashes, starts = self._hashes, self._starts
        count = len(hashes)
        size = SMALLEST + ITEM_SIZE * count
        words = array("Q", bytes(ITEM_SIZE * count))
        if count:
            ends = starts[1:]
            ends.append(end)
            # The sort is stable: of equal hashes the first child comes first.
            by_hash = sorted(range(count), key=hashes.__getitem__)
            at = 0
            for position in tree_order(count):
                child = by_hash[position]
                start = starts[child]
                words[at] = end - start
                words[at + 1] = ends[child] - start
                words[at + 2] = hashes[child]
                at += 3
        return b"".join(
            (
                _HEADER.pack(size, GOODBYE),
                struct.pack(f"<{3 * count}Q", *words) if _BIG_ENDIAN else words.tobytes(),
                ITEM.pack(end - self.entry, size, GOODBYE_TAIL_MARKER),
            )
        )


_HEADER: Final = struct.Struct("<2Q")
_BIG_ENDIAN: Final = array("H", [1]).tobytes() != b"\1\0"


def tree_order(count: int) -> array[int]:
    """
    Say which item of a sorted list stands at each place of the tree's array.

    :returns: the positions in the sorted list, in the order of the array.
    """
    return _kept_order(count) if count <= _KEPT else _order(count)


def _order(count: int) -> array[int]:
    order = array("Q", bytes(8 * count))
    # In order: all of the left, the node, all of the right.
    place = position = 0
    waiting: list[int] = []
    while waiting or place < count:
        while place < count:
            waiting.append(place)
            place = 2 * place + 1
        place = waiting.pop()
        order[place] = position
        position += 1
        place = 2 * place + 2
    return order


_kept_order = lru_cache(maxsize=_KEPT + 1)(_order)
