# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Indexes that have no end, or that are much larger than they can be."""

from __future__ import annotations

import os

from desync.chunking.digests import SHA512_256
from desync.errors import InvalidIndex
from desync.formats.index import Index, IndexBuilder, IndexSizes
from desync.stores import index_files
from desync.stores.index_files import read_bytes, read_index

from .command_case import CommandCase, sample
from .command_line import desync


class Endless:
    """Bytes of which there are ever more: those of an index, and then others."""

    def __init__(self, begin: bytes, then: int) -> None:
        self._begin = begin
        self._then = then
        self.given = 0

    def readinto(self, view: memoryview) -> int:
        data = self._begin[self.given : self.given + len(view)]
        data += bytes([self._then]) * (len(view) - len(data))
        view[:] = data
        self.given += len(view)
        return len(view)


class EndlessTests(CommandCase):
    """What is read of them."""

    def setUp(self) -> None:
        super().setUp()
        self.sample_store(sample(60_000))
        self.good = self.read("a.caibx")

    def test_what_has_no_end(self) -> None:
        """Whatever follows an index, or stands instead of its tail, it isn't read to its end."""
        for begin in self.good, self.good[:-40], self.good[:200]:
            for then in 0, 1, 255:
                endless = Endless(begin, then)
                data = read_bytes(endless.readinto)
                self.assertLess(endless.given, 1 << 28)
                self.assertEqual(len(data), endless.given)
                self.assertRaises(InvalidIndex, Index.parse, data)

    def test_what_is_no_index(self) -> None:
        """What doesn't begin as one is given up at once."""
        endless = Endless(b"", 0)
        read_bytes(endless.readinto)
        self.assertEqual(endless.given, 64)

    def test_a_size_that_lies(self) -> None:
        """A sparse file of a tebibyte that begins as an index costs neither memory nor time."""
        os.truncate(self.path("a.caibx"), 1 << 40)
        outcome = desync("list-chunks", self.path("a.caibx"))
        self.assert_error(outcome, self.path("a.caibx"), "too many at the end")

    def test_large_ones_are_read(self) -> None:
        """An index larger than where it is looked at on the way, and than its guess, is whole."""
        count = 10_000
        builder = IndexBuilder(IndexSizes(1, 2, 3), SHA512_256)
        builder.append_segment(range(1, count + 1), os.urandom(32 * count))
        index = builder.finish()
        self.patch(index_files, "_STEP", 1000)
        self.patch(index_files, "_CHECK", 5000)
        self.patch(index_files, "_LARGEST_GUESS", 100_000)
        path = self.write("b.caibx", index.to_bytes())
        self.assertEqual(read_index(path).to_bytes(), index.to_bytes())
        outcome = self.run_command("list-chunks", "-", stdin=index.to_bytes())
        self.assertEqual(outcome.text.split(), [chunk_id.hex() for chunk_id in index.ids])
