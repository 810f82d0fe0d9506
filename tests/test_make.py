# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The operation that makes an index and stores chunks, on local files."""

from __future__ import annotations

import os
import random
from itertools import accumulate
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.buzhash import cut_length
from desync.chunking.digests import SHA256, SHA512_256, Digest
from desync.chunking.sizes import ChunkSizes
from desync.errors import FileError, InputChanged
from desync.jobs.cut import CutJob, CutSegment
from desync.jobs.source import SourceFile
from desync.operations.make import Made, make
from desync.progress import Progress, Tracker
from desync.running import run
from desync.stores.local_files import LocalFiles
from desync.workers.pool import Pool, run_here

SMALL = ChunkSizes(64, 256, 1024)


class Meddler(Progress):
    """Does something in the middle of the work."""

    def __init__(self, meddle: Any) -> None:
        self._meddle = meddle

    def start(self, title: str, total: int, unit: Any = "chunks") -> Tracker:
        meddle, self._meddle = self._meddle, lambda: None

        class Meddling(Tracker):
            def finish(self) -> None:
                meddle()

        return Meddling(total)


class MakeTests(SynchronousTestCase):
    """Local files, a real pool."""

    def setUp(self) -> None:
        self.pool = Pool(2)
        self.addCleanup(self.pool.close)
        self.store = LocalFiles(self.mktemp())
        os.mkdir(self.store.path)

    def file(self, data: bytes) -> str:
        """Write a file."""
        path: str = self.mktemp()
        with open(path, "wb") as out:
            out.write(data)
        return path

    def make(
        self,
        path: str,
        sizes: ChunkSizes = SMALL,
        digest: Digest = SHA512_256,
        progress: Progress | None = None,
        **more: Any,
    ) -> Made:
        """Index a file."""
        return run(make(path, sizes, digest, self.pool, progress or Progress(), **more))

    def expected(self, data: bytes, sizes: ChunkSizes) -> list[bytes]:
        """Cut as the readable rule says."""
        pieces = []
        while data:
            length = cut_length(data, sizes)
            pieces.append(data[:length])
            data = data[length:]
        return pieces

    def test_segments_make_no_difference(self) -> None:
        """
        However many segments a file has, and however large its chunks are against them, it is cut
        alike.
        """
        data = random.Random(1).randbytes(40_000) + bytes(20_000) + b"ab" * 3000
        path = self.file(data)
        for sizes in (SMALL, ChunkSizes(48, 100, 5000), ChunkSizes(500, 500, 500)):
            wanted = self.expected(data, sizes)
            for segment in (100, 700, 4096, 1 << 20):
                source = SourceFile(path)
                self.addCleanup(source.close)
                found: list[CutSegment] = []
                job = CutJob(source, sizes, SHA512_256, found.append, segment=segment)
                run_here(job)
                job.check_complete()
                ids = b"".join(one.ids for one in found)
                ends = [one.start + end for one in found for end in one.ends]
                self.assertEqual(ends, list(accumulate(len(piece) for piece in wanted)))
                self.assertEqual(ids, b"".join(SHA512_256.id_of(piece) for piece in wanted))

    def test_many_segments_in_workers(self) -> None:
        """Workers that pass the token among them give what one process gives."""
        path = self.file(random.Random(2).randbytes(20 << 20) + bytes(9 << 20))
        index = self.make(path, ChunkSizes.DEFAULT, store=self.store).index
        alone = Pool(1)
        self.addCleanup(alone.close)
        again = run(make(path, ChunkSizes.DEFAULT, SHA512_256, alone, Progress()))
        self.assertEqual(index.to_bytes(), again.index.to_bytes())
        for chunk_id in index.ids.sorted_unique():
            self.store.get(chunk_id)

    def test_sha256(self) -> None:
        """The other digest names chunks and marks the index."""
        data = b"some data " * 100
        made = self.make(self.file(data), digest=SHA256)
        self.assertIs(made.index.digest, SHA256)
        self.assertEqual(made.index.id(0), SHA256.id_of(self.expected(data, SMALL)[0]))

    def test_an_empty_file(self) -> None:
        """An empty file has no chunks and a valid index."""
        made = self.make(self.file(b""), store=self.store)
        self.assertEqual((len(made.index), made.index.size, made.stored), (0, 0, 0))

    def test_counts_what_is_new(self) -> None:
        """Only chunks that the store didn't have count as stored."""
        path = self.file(random.Random(3).randbytes(30_000))
        first = self.make(path, store=self.store)
        self.assertEqual(first.stored, first.produced)
        second = self.make(path, store=self.store)
        self.assertEqual((second.stored, second.stored_bytes), (0, 0))

    def test_a_file_that_changes(self) -> None:
        """A file that is written to, or shrinks, while it is read has no index."""
        path = self.file(bytes(range(256)) * 100)

        def change() -> None:
            with open(path, "ab") as out:
                out.write(b"more")

        def shrink() -> None:
            os.truncate(path, 5)

        def touch() -> None:
            os.utime(path, (1, 1))

        class Early(Progress):
            def __init__(self, meddle: Any) -> None:
                self.meddle = meddle

            def start(self, title: str, total: int, unit: Any = "chunks") -> Tracker:
                self.meddle()
                return Tracker(total)

        for meddle in (change, touch, shrink):
            with self.assertRaises(InputChanged) as caught:
                self.make(path, progress=Early(meddle))
            self.assertIn(path, str(caught.exception))
            self.assertEqual(len(str(caught.exception).splitlines()), 1)

    def test_a_file_that_says_it_is_empty(self) -> None:
        """A file of the system's, which has no size but content, isn't taken for an empty one."""
        error = self.assertRaises(FileError, self.make, "/proc/self/status")
        self.assertEqual(
            str(error), "/proc/self/status: it has more than the 0 bytes that it should have"
        )

    def test_what_is_no_file(self) -> None:
        """A directory, a fifo and nothing at all are refused with their name."""
        fifo = self.mktemp()
        os.mkfifo(fifo)
        for path in (self.store.path, fifo, self.mktemp()):
            error = self.assertRaises(FileError, self.make, path)
            self.assertIn(path, str(error))

    def test_a_prune_in_a_long_make(self) -> None:
        """Chunks that disappeared while the make went on are there when it is done."""
        path = self.file(random.Random(5).randbytes(30_000))

        def remove() -> None:
            for number, file in enumerate(list(self.store.all_files())):
                if number % 3 == 0:
                    os.unlink(file.path)

        made = self.make(path, store=self.store, progress=Meddler(remove), recheck_after=0)
        for chunk_id in made.index.ids:
            self.store.get(chunk_id)
        again = self.make(path, store=self.store, progress=Meddler(remove))
        self.assertLess(len(list(self.store.all_files())), len(again.index.ids.sorted_unique()))
