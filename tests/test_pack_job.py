# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Tests for cutting an archive while it is being made: however it comes in pieces, the chunks are
those of the whole.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import FileError
from desync.formats.index import IndexBuilder
from desync.jobs import pack
from desync.jobs.cut import CutSegment
from desync.jobs.pack import PackJob
from desync.running import run
from desync.trees import uploading
from desync.trees.content import FileContent, Piece, copy_pieces
from desync.trees.uploading import cut_pieces
from desync.workers.pool import Pool, run_here

SIZES = ChunkSizes(48, 256, 1024)
SEGMENT = 8192


class PieceCase(SynchronousTestCase):
    """A folder for the files that archives consist of."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def content(self, name: str, data: bytes) -> FileContent:
        """Write a file, and give it as a piece of an archive."""
        path = self.folder / name
        path.write_bytes(data)
        found = path.stat()
        return FileContent(
            bytes(path.absolute()), len(data), found.st_mtime_ns, found.st_dev, found.st_ino
        )

    def pieces(self, seed: int) -> tuple[list[Piece], bytes]:
        """Make an archive of random pieces; it is no real one, but that isn't looked at."""
        source = random.Random(seed)
        pieces: list[Piece] = []
        whole = b""
        for number in range(source.randrange(1, 40)):
            size = source.choice((1, 100, 5000, SEGMENT, 3 * SEGMENT))
            data = source.randbytes(source.randrange(1, size + 1))
            if source.randrange(8) == 0:
                data = bytes(len(data))
            whole += data
            is_file = source.randrange(2)
            pieces.append(self.content(f"{seed}-{number}", data) if is_file else data)
        return pieces, whole

    def expected(self, data: bytes) -> bytes:
        """The table of the chunks of some bytes, cut as a whole."""
        builder = IndexBuilder(SIZES, SHA512_256)
        for segment in cut_pieces([data], SIZES, SHA512_256):
            builder.append_segment(segment.ends, segment.ids, builder.size)
        return bytes(builder.finish(len(data)).table)


class PackJobTests(PieceCase):
    """The job, with segments so small that there are many."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(pack, "SEGMENT", SEGMENT)

    def packed(self, pieces: Iterator[Piece] | list[Piece], pool: Pool | None = None) -> bytes:
        """Run the job and give the table of the chunks."""
        builder = IndexBuilder(SIZES, SHA512_256)

        def take(segment: CutSegment) -> None:
            builder.append_segment(segment.ends, segment.ids, segment.start)

        with PackJob(pieces, SIZES, SHA512_256, take, None) as job:
            if pool is None:
                run_here(job)
            else:
                run(pool.run(job))
            size = job.check_complete()
        return bytes(builder.finish(size).table)

    def test_random_pieces(self) -> None:
        """Whatever the pieces, the chunks are those of the whole."""
        for seed in range(40):
            pieces, whole = self.pieces(seed)
            self.assertEqual(self.packed(pieces), self.expected(whole), seed)

    def test_bounded(self) -> None:
        """The thread looks ahead, but not far."""
        ahead: list[int] = []
        made = 0

        def pieces() -> Iterator[Piece]:
            nonlocal made
            for number in range(2000):
                made += 1
                yield bytes([number % 256]) * 1000

        real = pack.PackWorker.run

        def work(worker: pack.PackWorker, unit: bytes, note: object) -> bytes:
            ahead.append(made * 1000)
            return real(worker, unit, note)  # type: ignore[arg-type]

        with (
            mock.patch.object(pack.PackWorker, "run", work),
            mock.patch.object(pack, "_AHEAD", 3 * SEGMENT),
            mock.patch.object(pack, "_JOINED", 1),
        ):
            self.packed(pieces())
        self.assertEqual(made, 2000)
        for number, known in enumerate(ahead):
            self.assertLessEqual(known, (number + 1 + 1 + 3) * SEGMENT + SIZES.max + 2000)

    def test_errors(self) -> None:
        """What goes wrong while the tree is gone through ends the job, and the thread."""

        def pieces() -> Iterator[Piece]:
            yield bytes(5 * SEGMENT)
            raise FileError("somewhere", "it is gone")

        with self.assertRaises(FileError):
            self.packed(pieces())
        self.assertNotIn("desync-walk", {thread.name for thread in threading.enumerate()})

    def test_abandoned(self) -> None:
        """A job that ends early ends the thread, and lets go of what makes the archive."""
        closed = []

        def pieces() -> Iterator[Piece]:
            try:
                while True:
                    yield bytes(1000)
            finally:
                closed.append(True)

        with PackJob(pieces(), SIZES, SHA512_256, lambda segment: None, None) as job:
            self.assertIsNotNone(job.next_unit())
        self.assertEqual(closed, [True])
        self.assertNotIn("desync-walk", {thread.name for thread in threading.enumerate()})

    def test_no_threads(self) -> None:
        """Where no thread can be started the archive is looked through before."""
        pieces, whole = self.pieces(3)
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError):
            self.assertEqual(self.packed(pieces), self.expected(whole))

    def test_workers(self) -> None:
        """Worker processes come to the same chunks."""
        self.patch(pack, "SEGMENT", 8 << 20)
        source = random.Random(5)
        data = source.randbytes(3 << 20)
        pieces: list[Piece] = []
        for number in range(10):
            pieces += [b"record", self.content(str(number), data[number * 1000 :])]
        whole: list[bytes] = []
        copy_pieces(pieces, lambda view: whole.append(bytes(view)))
        with Pool(2) as pool:
            pool.start()
            self.assertEqual(self.packed(pieces, pool), self.expected(b"".join(whole)))


class StreamTests(PieceCase):
    """Cutting in threads."""

    def test_segments(self) -> None:
        """However the stream is divided into segments, the chunks are the same."""
        for seed in range(20):
            pieces, whole = self.pieces(seed)
            expected = self.expected(whole)
            with mock.patch.object(uploading, "_SEGMENT", SEGMENT):
                builder = IndexBuilder(SIZES, SHA512_256)
                data = b""
                for segment in cut_pieces(pieces, SIZES, SHA512_256):
                    builder.append_segment(segment.ends, segment.ids, builder.size)
                    data += segment.data
            self.assertEqual(bytes(builder.finish(len(whole)).table), expected)
            self.assertTrue(data == whole)

    def test_copied(self) -> None:
        """Written one after the other, the pieces are the whole."""
        for seed in range(20):
            pieces, whole = self.pieces(seed)
            written: list[bytes] = []
            size = copy_pieces(pieces, lambda view, to=written: to.append(bytes(view)))  # type: ignore[misc]
            self.assertTrue(b"".join(written) == whole)
            self.assertEqual(size, len(whole))

    def test_nothing(self) -> None:
        """Of nothing there are no chunks."""
        self.assertEqual(list(cut_pieces([], SIZES, SHA512_256)), [])
