# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Reading chunk files for many requests in threads."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from desync.formats.chunk import Chunk
from desync.services import near_files as near_files_module
from desync.services.gathered_reads import GatheredReads
from desync.services.near_files import NearFiles
from desync.stores.local_files import LocalFiles
from desync.testing.samples import sample_chunks
from desync.testing.threads import ManualThreads


class GatheredReadsTests(SynchronousTestCase):
    """What is read together, and what comes of it."""

    def setUp(self) -> None:
        self.threads = ManualThreads(size=2)
        self.reads = GatheredReads(self.threads)
        self.chunks = sample_chunks(9)
        self.near = self.directory(self.chunks[:8])

    def directory(self, chunks: list[Chunk]) -> NearFiles:
        path = self.mktemp()
        os.mkdir(path)
        files = LocalFiles(path, skip_verify=True)
        for number, chunk in enumerate(chunks):
            files.put(chunk.chunk_id, b"stored %d" % number)
        return NearFiles(files, False, ManualThreads())

    def read(self, *numbers: int, near: NearFiles | None = None) -> list[Deferred[bytes | None]]:
        near = near or self.near
        return [self.reads.read(near, self.chunks[number].chunk_id) for number in numbers]

    def test_gathered(self) -> None:
        """While all threads are at it requests are gathered, and shared by the next free ones."""
        waiting = self.read(0, 1, 2, 3, 4, 5, 8)
        self.assertEqual(self.threads.waiting, 2)
        self.threads.advance(2)
        self.assertEqual(
            [self.successResultOf(one) for one in waiting[:2]], [b"stored 0", b"stored 1"]
        )
        self.assertEqual(self.threads.waiting, 2)
        self.threads.advance()
        self.assertEqual(
            [self.successResultOf(one) for one in waiting[2:5]],
            [b"stored 2", b"stored 3", b"stored 4"],
        )
        self.assertNoResult(waiting[5])
        self.threads.advance(self.threads.waiting)
        self.threads.advance(self.threads.waiting)
        self.assertEqual([self.successResultOf(one) for one in waiting[5:]], [b"stored 5", None])
        self.assertEqual(self.threads.waiting, 0)
        again = self.read(7)
        self.threads.advance()
        self.assertEqual(self.successResultOf(again[0]), b"stored 7")

    def test_cancelled(self) -> None:
        """Who has gone meanwhile is left out, the others get their files."""
        waiting = self.read(0, 1, 2, 3)
        waiting[0].cancel()
        waiting[2].cancel()
        while self.threads.waiting:
            self.threads.advance()
        self.failureResultOf(waiting[0], CancelledError)
        self.failureResultOf(waiting[2], CancelledError)
        self.assertEqual(
            [self.successResultOf(waiting[at]) for at in (1, 3)], [b"stored 1", b"stored 3"]
        )

    def test_replaced(self) -> None:
        """After the store was replaced each request is answered from the one that it came for."""
        other = self.directory(self.chunks[4:])
        waiting = self.read(0, 1, 2, 3) + self.read(4, 5, near=other)
        while self.threads.waiting:
            self.threads.advance()
        found = [self.successResultOf(one) for one in waiting]
        self.assertEqual(found, [b"stored %d" % number for number in (0, 1, 2, 3, 0, 1)])

    def test_failed(self) -> None:
        """If nothing can be read at all, the stores are asked."""

        def fail(chunk_ids: object) -> list[bytes | None]:
            raise MemoryError

        self.patch(self.near, "read_many", fail)
        waiting = self.read(0, 1, 2)
        while self.threads.waiting:
            self.threads.advance()
        self.assertEqual([self.successResultOf(one) for one in waiting], [None] * 3)


class InMemoryTests(SynchronousTestCase):
    """Files that the kernel can't say of whether it has them at hand."""

    def test_tmpfs(self) -> None:
        """After the first one nothing is tried in vain; threads read them."""
        if near_files_module._NO_WAIT is None or not os.path.isdir("/dev/shm"):
            self.skipTest("there is no tmpfs")
        path = tempfile.mkdtemp(dir="/dev/shm")
        self.addCleanup(shutil.rmtree, path)
        files = LocalFiles(path, skip_verify=True)
        chunk = sample_chunks(1)[0]
        files.put(chunk.chunk_id, b"stored")
        with open(files.path_of(chunk.chunk_id), "rb") as file:
            try:
                os.preadv(file.fileno(), [bytearray(1)], 0, near_files_module._NO_WAIT)
            except OSError as error:
                self.assertEqual(error.errno, errno.EOPNOTSUPP)
            else:
                self.skipTest("the kernel can say")
        near = NearFiles(files, False, ManualThreads())
        self.assertFalse(near.in_threads)
        self.assertIsNone(near.find(chunk.chunk_id))
        self.assertTrue(near.in_threads)
        self.assertEqual(near.read_many([chunk.chunk_id, bytes(32)]), [b"stored", None])
        threads = ManualThreads()
        rest = Deferred.fromCoroutine(
            NearFiles(files, False, threads).file_of(chunk.chunk_id, 6).read_on(2)
        )
        threads.advance()
        self.assertEqual(self.successResultOf(rest), b"ored")
