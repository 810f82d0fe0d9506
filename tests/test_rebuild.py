# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The job of rebuilding a file from local stores."""

from __future__ import annotations

import os
import random

from twisted.trial.unittest import SynchronousTestCase

from desync.assembly.plan import Plan
from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.formats.index import IndexBuilder
from desync.jobs import rebuild
from desync.jobs.rebuild import RebuildJob
from desync.stores.local_files import LocalFiles
from desync.workers.pool import run_here

SIZES = ChunkSizes(48, 100, 4096)


class Counted(RebuildJob):
    """Counts its units."""

    units = 0

    def next_unit(self) -> bytes | None:
        unit = super().next_unit()
        self.units += unit is not None
        return unit


class RebuildTests(SynchronousTestCase):
    """What becomes of a file whose chunks repeat themselves."""

    def setUp(self) -> None:
        self.store = LocalFiles(self.mktemp())
        os.mkdir(self.store.path)
        self.target = self.mktemp()

    def rebuild(self, pieces: list[bytes]) -> Counted:
        """Build a file of these chunks, and see whether it is right."""
        builder = IndexBuilder(SIZES, SHA512_256)
        for piece in pieces:
            chunk_id = SHA512_256.id_of(piece)
            if not self.store.has(chunk_id):
                self.store.put_plain(chunk_id, piece)
            builder.append(len(piece), chunk_id)
        index = builder.finish()
        with open(self.target, "wb") as target:
            target.truncate(index.size)
        job = Counted(Plan(index, None), self.target, [self.store], SHA512_256, lambda chunks: None)
        run_here(job)
        job.check_complete()
        with open(self.target, "rb") as target:
            self.assertEqual(target.read(), b"".join(pieces))
        return job

    def test_many_repeats(self) -> None:
        """Thousands of small repeats are a few units of work, not thousands."""
        for pieces in ([b"a" * 48] * 5000, [b"a" * 48, b"b" * 50] * 2500):
            self.assertLessEqual(self.rebuild(pieces).units, 7)

    def test_limits(self) -> None:
        """Wherever units end, all is copied."""
        chance = random.Random(1)
        chunks = [bytes([number]) * chance.randrange(48, 4096) for number in range(40)]
        pieces = chance.choices(chunks, k=400)
        for copies, size in (1, 1), (1, 1 << 20), (3, 5000), (1000, 1), (1000, 10_000):
            self.patch(rebuild, "_COPIES", copies)
            self.patch(rebuild, "_BYTES", size)
            self.rebuild(pieces)

    def test_incomplete(self) -> None:
        """A job of which something wasn't done doesn't count as complete."""
        job = self.rebuild([b"a" * 48] * 3)
        job.check_complete()
        job.exhausted = False
        self.assertRaises(RuntimeError, job.check_complete)
