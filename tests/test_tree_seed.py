# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A tree as a store of its archive's chunks."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase

from desync.chunking.digests import Digest
from desync.chunking.sizes import ChunkSizes
from desync.errors import ChunkMissing
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.stored import Malformed, form_named
from desync.operations.tar import Packing, pack
from desync.testing.batch_contract import BatchContract, ids_of
from desync.testing.samples import sample_chunks
from desync.testing.sinks import CollectingSink
from desync.trees.seeding import Parts, TreeSeed, find_chunks, read_parts

from .command_case import CommandCase, sample

SIZES = ChunkSizes(1024, 4096, 16384)
DIGEST = Digest.named("sha512-256")


def at_once(function: Any, *args: Any) -> Deferred[Any]:
    """Call a function where a thread would."""
    return maybeDeferred(function, *args)


class TreeSeedTests(CommandCase):
    """Finding and reading chunks."""

    def setUp(self) -> None:
        super().setUp()
        self.tree = self.folder / "tree"
        (self.tree / "d").mkdir(parents=True)
        for number in range(30):
            (self.tree / "d" / f"f{number}").write_bytes(sample(700 * number, number))
        (self.tree / "large").write_bytes(sample(200_000, 99))
        self.archive = b"".join(
            (self.tree / os.fsdecode(piece.path)).read_bytes()
            if hasattr(piece, "path")
            else bytes(piece)
            for piece in self.pieces()
        )
        store = self.store()
        self.write("x.catar", self.archive)
        self.run_command(
            "make", "-m", "1:4:16", "-s", store, self.path("x.caidx"), self.path("x.catar")
        )
        self.all = self.index("x.caidx").ids.sorted_unique()

    def pieces(self) -> Any:
        """Give the archive of the tree."""
        return pack(os.fsencode(self.tree), Packing(), lambda path, why: None)

    def seed(self, wanted: ChunkIds | None = None) -> TreeSeed:
        """Look for chunks in the tree."""
        found = find_chunks(self.pieces(), SIZES, DIGEST, self.all if wanted is None else wanted)
        self.found = found
        return TreeSeed(found, "tree", DIGEST, at_once)

    def test_all(self) -> None:
        """Every chunk of the tree's archive is found, and read as the store has it."""
        self.seed()
        self.assertEqual(set(self.all), set(self.found))
        for chunk_id, parts in self.found.items():
            self.assertEqual(chunk_id, DIGEST.id_of(read_parts(parts)))

    def test_wanted(self) -> None:
        """Only what is wanted is remembered."""
        wanted = self.all[:5]
        self.seed(wanted)
        self.assertEqual(set(wanted), set(self.found))

    def test_stopped(self) -> None:
        """Looking can be stopped."""
        stops = iter([True])
        found = find_chunks(self.pieces(), SIZES, DIGEST, self.all, lambda: next(stops))
        self.assertTrue(found)

    def test_changed(self) -> None:
        """What was replaced or spoiled since is missing."""
        seed = self.seed()
        before = os.stat(self.tree / "large")
        with open(self.tree / "large", "r+b") as file:
            file.seek(100_000)
            file.write(b"x")
        os.utime(self.tree / "large", ns=(before.st_mtime_ns, before.st_mtime_ns))
        missing = self.successResultOf(seed.missing(self.all))
        self.assertEqual(1, len(missing))
        self.failureResultOf(seed.get(missing[0]), ChunkMissing)
        self.assertFalse(self.successResultOf(seed.has(missing[0])))
        os.unlink(self.tree / "large")
        self.assertLess(1, len(self.successResultOf(seed.missing(self.all))))

    def test_unreadable(self) -> None:
        """What comes before a file that can't be read any more is found."""
        pieces = list(self.pieces())
        (self.tree / "large").unlink()
        (self.tree / "d" / "f9").unlink()
        self.assertEqual({}, find_chunks(pieces, SIZES, DIGEST, self.all))
        self.assertLess(10, len(find_chunks(self.pieces(), SIZES, DIGEST, self.all)))

    def test_batch(self) -> None:
        """Of many, those that are there are handed over, and the others named."""
        seed = self.seed(self.all[:10])
        sink = CollectingSink()
        self.successResultOf(seed.get_many(self.all, sink))
        self.assertEqual(set(self.all[:10]), set(sink.found))
        self.assertEqual(set(self.all[10:]), set(sink.missing))
        self.assertEqual([], sink.violations)


class ContractTests(BatchContract, TestCase):
    """What every store promises about batches. There is only one form of a chunk."""

    finds_other_form = False

    def hold_otherwise(self, *chunks: Chunk) -> None:
        pass

    def make_store(self) -> TreeSeed:
        self.parts: dict[bytes, Parts] = {}
        return TreeSeed(self.parts, "tree", self.digest, at_once)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        try:
            plain = form_named(extension).decode(stored, 1 << 20)
        except Malformed:
            plain = b"spoiled"
        self.parts[chunk_id] = (plain[:10], plain[10:])

    async def test_get_many_mixed(self) -> None:
        """What isn't what it was any more is absent, so that the next store is asked for it."""
        chunks = sample_chunks(30, self.digest)
        self.hold(*chunks[:20])
        for chunk in chunks[10:20]:
            self.plant(chunk.chunk_id, b"spoiled", self.extension)
        sink = CollectingSink()
        await self.store.get_many(ids_of(*chunks), sink)
        self.assertEqual(set(ids_of(*chunks[:10])), set(sink.found))
        self.assertEqual(sorted(ids_of(*chunks[10:])), sorted(sink.missing))
