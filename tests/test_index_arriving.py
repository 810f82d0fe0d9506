# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of :mod:`desync.formats.index_arriving`."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.digests import SHA256, SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import InvalidIndex
from desync.formats.index import ITEM_SIZE, TABLE_START, Index, IndexBuilder
from desync.formats.index_arriving import ArrivingIndex

from .protocol_messages import divided


def make_index(lengths: list[int]) -> Index:
    """Make an index of chunks of some lengths, of up to 100 bytes."""
    builder = IndexBuilder(ChunkSizes(1, 10, 100), SHA512_256)
    for number, length in enumerate(lengths):
        builder.append(length, bytes([number % 7]) * 32)
    return builder.finish()


def taken(pieces: list[bytes], most: int) -> tuple[list[bytes], str]:
    """Give the ids of an index that comes in pieces, and what is wrong with it."""
    arriving = ArrivingIndex("it")
    found: list[bytes] = []
    try:
        for piece in pieces:
            arriving.feed(piece)
            while ids := arriving.take(most):
                found += ids
        arriving.finish()
    except InvalidIndex as error:
        return found, str(error)
    return found, ""


class ArrivingTests(SynchronousTestCase):
    """Indexes that come in pieces."""

    @given(st.lists(st.integers(1, 100), max_size=9), st.integers(1, 5), st.data())
    def test_any_division(self, lengths: list[int], most: int, more: st.DataObject) -> None:
        """However it is divided, all ids come out, in their order, and the index at the end."""
        index = make_index(lengths)
        pieces = more.draw(divided(st.just(index.to_bytes())))
        self.assertEqual(taken(pieces, most), (list(index.ids), ""))

    @given(st.lists(st.integers(1, 100), max_size=4), st.data())
    def test_any_bytes(self, lengths: list[int], more: st.DataObject) -> None:
        """Whatever is changed in it, an invalid index is all that comes out."""
        data = bytearray(make_index(lengths).to_bytes())
        at = more.draw(st.integers(0, len(data) - 1))
        data[at : at + more.draw(st.integers(0, 9))] = more.draw(st.binary(max_size=9))
        taken([bytes(data)], 10)

    def test_early(self) -> None:
        """An id is there as soon as its item is complete."""
        data = make_index([5, 6]).to_bytes()
        arriving = ArrivingIndex("it")
        arriving.feed(data[: TABLE_START + ITEM_SIZE - 1])
        self.assertEqual(len(arriving.take(10)), 0)
        arriving.feed(data[TABLE_START + ITEM_SIZE - 1 : TABLE_START + ITEM_SIZE])
        self.assertEqual(list(arriving.take(10)), [bytes(32)])
        self.assertIs(arriving.digest, SHA512_256)
        self.assertEqual(arriving.size, TABLE_START + ITEM_SIZE)

    def test_wrong_start(self) -> None:
        """What doesn't begin as an index is refused before the rest has come."""
        data = make_index([5]).to_bytes()
        for at in (0, 8, 16 + 7, 24, 56):
            spoiled = bytearray(data[:TABLE_START])
            spoiled[at] ^= 0xFF
            self.assertRaises(InvalidIndex, ArrivingIndex("it").feed, bytes(spoiled))

    def test_wrong_items(self) -> None:
        """Chunks that are empty, too large or out of order are refused when they come."""
        for ends in ((5, 5), (5, 4), (101,), (5, 200)):
            arriving = ArrivingIndex("it")
            arriving.feed(make_index([]).to_bytes()[:TABLE_START])
            arriving.feed(b"".join(struct.pack("<Q32x", end) for end in ends))
            self.assertRaisesRegex(InvalidIndex, f"it: chunk {len(ends) - 1} ", arriving.take, 10)

    def test_truncated(self) -> None:
        """An index without its end is refused."""
        data = make_index([5, 6]).to_bytes()
        for length in (0, 63, 64, 104, len(data) - 1):
            self.assertRegex(taken([data[:length]], 10)[1], "^it: ")

    def test_other_digest(self) -> None:
        """The algorithm is the one that the index names."""
        arriving = ArrivingIndex("it")
        arriving.feed(IndexBuilder(ChunkSizes(1, 10, 100), SHA256).finish().to_bytes())
        self.assertIs(arriving.digest, SHA256)
