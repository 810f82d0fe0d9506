# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The store on local files and that of local index files."""

from __future__ import annotations

import os
import shutil
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.chunking.digests import SHA256
from desync.errors import ChunkInvalid, StoreError
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.stored import chunk_name
from desync.interfaces import IBatch, ILocalFiles
from desync.stores.index_local import LocalIndexStore
from desync.stores.local import LocalStore, read_some
from desync.stores.local_files import LocalFiles
from desync.testing.batch_contract import BatchContract, RenewerContract, ids_of
from desync.testing.contract import RemoverContract, SourceContract, TargetContract
from desync.testing.index_contract import IndexTargetContract, sample_index
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink, listed_ids
from desync.testing.threads import InlineThreads, ManualThreads


def the_reactor() -> Any:
    """Give the reactor that trial runs."""
    from twisted.internet import reactor

    return reactor


class CompressedTests(
    SourceContract, TargetContract, BatchContract, RenewerContract, RemoverContract, TestCase
):
    """A local store whose chunks are compressed, with real threads."""

    def make_store(self) -> LocalStore:
        self.path = self.mktemp()
        os.mkdir(self.path)
        # Run after the store has been closed, and so after what was canceled has ended.
        self.addCleanup(self.check_left)
        files = LocalFiles(self.path, extension=self.extension, digest=self.digest)
        return LocalStore(files, the_reactor())

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        path = os.path.join(self.path, chunk_name(chunk_id, extension))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(stored)

    def pass_time(self, seconds: float) -> None:
        for directory, _, names in os.walk(self.path):
            for name in names:
                path = os.path.join(directory, name)
                then = os.stat(path).st_mtime - seconds
                os.utime(path, (then, then))

    def check_left(self) -> None:
        """Make sure that nothing but chunks is left in the store."""
        for _, _, names in os.walk(self.path):
            for name in names:
                self.assertRegex(name, r"^[0-9a-f]{64}(\.cacnk)?$")


class UncompressedTests(CompressedTests):
    """A local store whose chunks are as they are, with the other digest."""

    extension = ""
    digest = SHA256


class InlineTests(CompressedTests):
    """A local store without threads."""

    def make_store(self) -> LocalStore:
        self.path = self.mktemp()
        os.mkdir(self.path)
        self.addCleanup(self.check_left)
        return LocalStore(LocalFiles(self.path), the_reactor(), InlineThreads())


class LocalStoreTests(SynchronousTestCase):
    """What the local store does beyond the contract."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        os.mkdir(self.path)
        self.files = LocalFiles(self.path)
        self.threads = ManualThreads(size=3)
        self.store = LocalStore(self.files, None, self.threads)  # type: ignore[arg-type]

    def test_local_files(self) -> None:
        """The store says which directory it is."""
        self.assertTrue(ILocalFiles.providedBy(self.store))
        self.assertEqual(self.store.local_files(), (self.files,))
        self.assertEqual(self.store.location, self.path)

    def test_bounded_reads(self) -> None:
        """No more batches are read than there are threads, and none while the sink is busy."""
        chunks = [sample_chunk(number) for number in range(300)]
        for chunk in chunks:
            self.files.put_chunk(chunk)
        ready: list[Deferred[None]] = []

        def react(batch: object) -> Deferred[None]:
            ready.append(Deferred())
            return ready[-1]

        sink = CollectingSink(react)
        running = IBatch(self.store).get_many(ids_of(*chunks), sink)
        self.assertEqual(self.threads.waiting, 3)
        self.threads.advance(3)
        self.assertEqual(self.threads.waiting, 0)
        self.assertEqual(len(sink.batches), 1)
        ready[0].callback(None)
        self.assertEqual((self.threads.waiting, len(sink.batches)), (1, 2))
        self.assertNoResult(running)
        while not running.called:
            for deferred in ready:
                if not deferred.called:
                    deferred.callback(None)
            self.threads.advance(self.threads.waiting)
        self.successResultOf(running)
        self.assertEqual(len(sink.found), 300)
        self.assertEqual(sink.violations, [])

    def test_large_chunks(self) -> None:
        """A thread stops reading when it has enough bytes, and the rest comes later."""
        chunks = [sample_chunk(number, 10_000) for number in range(5)]
        for chunk in chunks:
            self.files.put_chunk(chunk)
        ids = sorted(chunk.chunk_id for chunk in chunks)
        found = read_some(self.files, ids, enough=25_000)
        self.assertEqual((len(found.chunks), found.done), (2, 2))
        self.assertEqual([chunk.chunk_id for chunk in found.chunks], ids[:2])

    def test_read_together(self) -> None:
        """What isn't read in one go is looked at: the large, the odd, the absent."""
        small, absent, large, pipe, other, empty, bad = (
            sample_chunk(number, 400_000 if number == 2 else 1000) for number in range(7)
        )
        for chunk in (small, large):
            self.files.put_chunk(chunk)
        LocalFiles(self.path, extension="").put_chunk(other)
        for chunk in (pipe, empty, bad):
            self.files.put(chunk.chunk_id, b"not a chunk" if chunk is bad else b"")
        os.remove(self.files.path_of(pipe.chunk_id))
        os.mkfifo(self.files.path_of(pipe.chunk_id))
        ids = [each.chunk_id for each in (small, absent, large, pipe, other, empty, bad)]
        for skip_verify in (False, True):
            found = read_some(LocalFiles(self.path, skip_verify=skip_verify), ids)
            plain = {each.chunk_id: each for each in found.chunks}
            for chunk in (small, large, other):
                self.assertEqual(plain.pop(chunk.chunk_id).plain, chunk.plain)
            failed = {chunk_id for chunk_id, _ in found.failed}
            if skip_verify:
                # Whoever decodes them finds out.
                left = {each.chunk_id for each in (pipe, empty, bad)}
                self.assertEqual(failed | set(plain), left)
                for chunk in plain.values():
                    self.assertRaises(ChunkInvalid, lambda each=chunk: each.plain)
            else:
                self.assertEqual(plain, {})
                self.assertEqual(failed, {each.chunk_id for each in (pipe, empty, bad)})
            self.assertEqual(found.absent, [absent.chunk_id])
            self.assertEqual(found.done, len(ids))

    def test_cancel_reading(self) -> None:
        """What a thread has read after the cancellation goes nowhere."""
        chunks = [sample_chunk(number) for number in range(300)]
        for chunk in chunks:
            self.files.put_chunk(chunk)
        sink = CollectingSink()
        running = self.store.get_many(ids_of(*chunks), sink)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.threads.advance(self.threads.waiting)
        self.assertEqual((sink.calls, self.threads.waiting), (0, 0))

    def test_cancel_prune(self) -> None:
        """A canceled prune stops before the next subdirectory."""
        chunk = sample_chunk()
        self.files.put_chunk(chunk)
        running = self.store.prune(ChunkIds.from_bytes(b"", is_sorted=True), 0)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.threads.advance()
        self.assertTrue(self.files.has(chunk.chunk_id))

    def test_put_unverified(self) -> None:
        """A thread verifies a chunk of its own: the caller's isn't touched from there."""
        form = self.files.form
        plain = sample_chunk().plain
        chunk = Chunk(sample_chunk().chunk_id, stored=form.encode(plain), form=form)
        running = self.store.put(chunk)
        self.threads.advance()
        self.successResultOf(running)
        self.assertFalse(chunk.verified)
        self.assertEqual(self.files.get(chunk.chunk_id).plain, plain)

    def test_skip_verify(self) -> None:
        """A store that skips verification hands out what it has, one or many at a time."""
        files = LocalFiles(self.path, skip_verify=True)
        chunk = sample_chunk()
        files.put(bytes(32), chunk.stored_as(files.form))
        store = LocalStore(files, None, InlineThreads())  # type: ignore[arg-type]
        found = self.successResultOf(store.get(bytes(32)))
        self.assertEqual((found.plain, found.verified), (chunk.plain, False))
        sink = CollectingSink()
        self.successResultOf(store.get_many(ChunkIds.from_bytes(bytes(32)), sink))
        self.assertEqual(sink.found[bytes(32)].plain, chunk.plain)

    def test_errors_name_store(self) -> None:
        """What is wrong with a chunk is said with the store's name, one or many at a time."""
        chunk = sample_chunk()
        self.files.put(chunk.chunk_id, self.files.form.encode(b"something else"))
        store = LocalStore(self.files, None, InlineThreads())  # type: ignore[arg-type]
        error = self.failureResultOf(store.get(chunk.chunk_id), ChunkInvalid).value
        sink = CollectingSink()
        self.successResultOf(store.get_many(ids_of(chunk), sink))
        for one in error, sink.errors[chunk.chunk_id]:
            self.assertTrue(str(one).startswith(f"{self.path}: chunk {chunk.chunk_id.hex()} "))

    def test_vanished(self) -> None:
        """A store whose directory is gone can't tell what it has: nothing is missing."""
        chunks = sample_chunks(3)
        shutil.rmtree(self.path)
        store = LocalStore(self.files, None, InlineThreads())  # type: ignore[arg-type]
        self.failureResultOf(store.get(chunks[0].chunk_id), StoreError)
        self.failureResultOf(store.has(chunks[0].chunk_id), StoreError)
        self.failureResultOf(store.missing(ids_of(*chunks)), StoreError)
        self.failureResultOf(store.put(chunks[0]), StoreError)
        self.failureResultOf(Deferred.fromCoroutine(listed_ids(store)), StoreError)
        sink = CollectingSink()
        self.successResultOf(store.get_many(ids_of(*chunks), sink))
        self.assertEqual(len(sink.errors), 3)

    def test_misplaced(self) -> None:
        """A chunk file in the wrong subdirectory isn't in the store, so it isn't listed."""
        chunk = sample_chunk()
        self.files.put_chunk(chunk)
        directory = os.path.join(self.path, "0000")
        os.mkdir(directory)
        os.rename(self.files.path_of(chunk.chunk_id), f"{directory}/{chunk.chunk_id.hex()}.cacnk")
        store = LocalStore(self.files, None, InlineThreads())  # type: ignore[arg-type]
        self.assertEqual(len(self.successResultOf(Deferred.fromCoroutine(listed_ids(store)))), 0)

    def test_close(self) -> None:
        """Threads that were handed in are left to whoever did."""
        self.successResultOf(self.store.close())
        self.assertFalse(self.threads.stopped)


class LocalIndexStoreTests(IndexTargetContract, TestCase):
    """A directory of indexes."""

    def make_store(self) -> LocalIndexStore:
        self.path = self.mktemp()
        os.mkdir(self.path)
        return LocalIndexStore(self.path, the_reactor())

    def plant(self, name: str, data: bytes) -> None:
        with open(os.path.join(self.path, name), "wb") as file:
            file.write(data)

    def test_not_a_directory(self) -> None:
        """A store that isn't there, or is a file, is refused at once."""
        self.plant("file", b"")
        for path in os.path.join(self.path, "absent"), os.path.join(self.path, "file"):
            error = self.assertRaises(StoreError, LocalIndexStore, path, the_reactor())
            self.assertIn(path, str(error))

    async def test_left_alone(self) -> None:
        """Nothing but indexes is left in the store."""
        await self.store.put_index("os.caibx", sample_index())
        self.assertEqual(os.listdir(self.path), ["os.caibx"])

    async def test_unwritable(self) -> None:
        """Where an index can't be written, the error names it."""
        os.mkdir(os.path.join(self.path, "os.caibx"))
        error = await self.fails(StoreError, self.store.put_index, "os.caibx", sample_index())
        self.assertEqual(str(error), f"{self.path}/os.caibx: Is a directory")
