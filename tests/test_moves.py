# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A file that is changed in place, most of which is there already, only elsewhere: it is moved, and
not fetched from stores that are far away.

What is tried is chosen by chance; ``DESYNC_TEST_SEED`` repeats what a failure's message names.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from desync.assembly.fetch import ChunkDownloads
from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.formats.chunk import Chunk
from desync.formats.index import Index
from desync.jobs.move import MoveJob
from desync.operations import extract as operation
from desync.operations import own_content
from desync.operations.make import make
from desync.progress import Progress
from desync.stores.memory import MemoryStore
from desync.workers.pool import Pool

from .test_transfers import at_once

SIZES = ChunkSizes(512, 2048, 8192)
ROUNDS = 25
IN_PLACE = operation.Manner(in_place=True)


class MoveTests(SynchronousTestCase):
    """Two versions of a file, the second one in a store."""

    def setUp(self) -> None:
        self.seed = int(os.environ.get("DESYNC_TEST_SEED") or time.time_ns() % 1_000_000)
        self.random = random.Random(self.seed)
        self.pool = Pool(2)
        self.addCleanup(self.pool.close)
        self.target = self.mktemp()
        self.patch(own_content, "MUCH", 20_000)

    def done(self, coroutine: Any) -> Any:
        """Give the result of something that has to be complete already."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def write(self, data: bytes) -> None:
        """Give the target its old content."""
        with open(self.target, "wb") as file:
            file.write(data)

    def index_of(self, data: bytes) -> Index:
        """Make an index."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(data)
        made = self.done(make(path, SIZES, SHA512_256, self.pool, Progress()))
        index = made.index
        assert isinstance(index, Index)
        return index

    def extract(self, old: bytes, new: bytes) -> operation.Extracted:
        """Make the new file of the old one, see whether it is right, and give the figures."""
        self.write(old)
        index = self.index_of(new)
        store = MemoryStore()
        for start, length, _ in index:
            chunk = Chunk.of(new[start : start + length], SHA512_256)
            self.successResultOf(store.put(chunk))
        source = ChunkDownloads(store, at_once, 4)
        extracted = self.done(
            operation.extract(
                index, self.target, source, self.pool, Progress(), "none", (), IN_PLACE
            )
        )
        with open(self.target, "rb") as file:
            self.assertEqual(file.read(), new, f"seed {self.seed}")
        assert isinstance(extracted, operation.Extracted)
        self.assertEqual(
            extracted.chunks_from_store + extracted.chunks_from_seeds + extracted.chunks_in_place,
            extracted.chunks_total,
            "nothing repeats itself",
        )
        return extracted

    def test_an_insertion(self) -> None:
        """What an insertion has moved isn't fetched, however far it has moved."""
        old = self.random.randbytes(400_000)
        for inserted in 1, 700, 30_000, 500_000:
            new = old[:100_000] + self.random.randbytes(inserted) + old[100_000:]
            extracted = self.extract(old, new)
            needed = inserted // SIZES.min + 10
            self.assertLess(extracted.chunks_from_store, needed)
            self.assertGreater(extracted.chunks_from_seeds, 50)

    def test_a_deletion(self) -> None:
        """What a deletion has moved isn't fetched, either."""
        old = self.random.randbytes(400_000)
        for deleted in 1, 700, 30_000, 250_000:
            extracted = self.extract(old, old[:100_000] + old[100_000 + deleted :])
            self.assertLess(extracted.chunks_from_store, 10)
            self.assertGreater(extracted.chunks_from_seeds, 10)

    def test_several_processes(self) -> None:
        """Of megabytes that several processes move nothing is lost."""
        self.patch(own_content, "HOPELESS", 1 << 20)
        self.pool.start()
        old = self.random.randbytes(24 << 20)
        for new in (
            old[: 1 << 20] + self.random.randbytes(3) + old[1 << 20 :],
            old[: 1 << 20] + old[(1 << 20) + 3 :],
            old[9 << 20 :] + old[: 9 << 20],
        ):
            extracted = self.extract(old, new)
            self.assertGreater(extracted.bytes_copied, 12 << 20)
        self.assertGreater(extracted.chunks_from_seeds, 1000)

    def test_anything(self) -> None:
        """Whatever was done to a file, what comes of it is right, and little is fetched."""
        for _ in range(ROUNDS):
            old = new = self.random.randbytes(self.random.randrange(1, 200_000))
            for _ in range(self.random.randrange(6)):
                at = self.random.randrange(len(new) + 1)
                size = self.random.randrange(20_000)
                kind = self.random.randrange(4)
                if kind == 0:
                    new = new[:at] + self.random.randbytes(size) + new[at:]
                elif kind == 1:
                    new = new[:at] + new[at + size :]
                elif kind == 2:
                    new = new[:at] + self.random.randbytes(size) + new[at + size :]
                else:
                    new = new[at:] + new[:at]
            self.extract(old, new)

    def test_nothing_in_common(self) -> None:
        """A target that has nothing of it is looked at and written over."""
        extracted = self.extract(self.random.randbytes(300_000), self.random.randbytes(200_000))
        self.assertEqual(extracted.chunks_from_store, extracted.chunks_total)

    def test_it_changes_meanwhile(self) -> None:
        """What is no longer there when it is to be moved is fetched."""
        old = self.random.randbytes(300_000)

        def spoil(*arguments: Any) -> Any:
            with open(self.target, "r+b") as file:
                file.seek(150_000)
                file.write(bytes(50_000))
            return MoveJob(*arguments)

        self.patch(own_content, "MoveJob", spoil)
        extracted = self.extract(old, b"x" + old)
        self.assertGreater(extracted.chunks_from_store, 10)
        self.assertGreater(extracted.chunks_from_seeds, 50)
