# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Operations on stores that aren't local files: extract, cat, make, chop and cache, on stores in
memory.

Threads are stood in for by :class:`Held`, whose calls wait until the test lets them go.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from desync.assembly import fetch
from desync.assembly.fetch import ChunkDownloads
from desync.assembly.pending import Pending
from desync.assembly.writing import copy_within
from desync.chunking import kernels
from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import ChunkInvalid, ChunkMissing, DesyncError, FileError
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.index import Index
from desync.operations.cache import cache
from desync.operations.cat import cat
from desync.operations.chop import chop
from desync.operations.extract import extract
from desync.operations.make import Made, make
from desync.operations.upload import ChunkUploads
from desync.progress import Progress
from desync.stores.concurrently import concurrently
from desync.stores.memory import MemoryStore
from desync.testing.sinks import listed_ids
from desync.workers.pool import Pool

SIZES = ChunkSizes(1024, 4096, 16384)


def at_once(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
    """Call a function now."""
    result: Deferred[Any] = Deferred()
    try:
        result.callback(function(*args))
    except BaseException:
        result.errback(Failure())
    return result


class Held:
    """Calls functions when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def __call__(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self.waiting.append((result, function, args))
        return result

    def go(self) -> None:
        """Do what waits."""
        waiting, self.waiting = self.waiting, []
        for result, function, args in waiting:
            at_once(function, *args).chainDeferred(result)


class Transfers(SynchronousTestCase):
    """What the tests of this module share: a file with repeats and zeros in it, and its index."""

    def setUp(self) -> None:
        chance = random.Random(7)
        repeated = chance.randbytes(60_000)
        self.data = (
            chance.randbytes(150_000) + repeated + bytes(100_000) + repeated + chance.randbytes(999)
        )
        self.path = self.mktemp()
        with open(self.path, "wb") as out:
            out.write(self.data)
        self.pool = Pool(1)
        self.addCleanup(self.pool.close)
        self.index = self.make().index

    def make(self, store: ChunkUploads | None = None) -> Made:
        """Index the file, and store its chunks."""
        made: Made = self.done(make(self.path, SIZES, SHA512_256, self.pool, Progress(), store))
        return made

    def done(self, coroutine: Any) -> Any:
        """Give the result of something that has to be complete already."""
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def filled(self) -> MemoryStore:
        """Make a store with all chunks of the file."""
        store = MemoryStore()
        self.done(chop(self.index, self.path, ChunkUploads(store, 3), self.pool, Progress()))
        return store

    def extract(self, store: MemoryStore, target: str, in_thread: Any = at_once) -> Deferred[Any]:
        """Begin to rebuild the file."""
        source = ChunkDownloads(store, in_thread, 4)
        return Deferred.fromCoroutine(
            extract(self.index, target, source, self.pool, Progress(), sync="none")
        )


class ExtractTests(Transfers):
    """Rebuilding from a store of any kind."""

    def test_the_file_comes_back(self) -> None:
        """Content, repeats and holes are right, and each chunk is asked for once."""
        target = self.mktemp()
        outcome = self.successResultOf(self.extract(self.filled(), target))
        with open(target, "rb") as file:
            self.assertEqual(file.read(), self.data)
        self.assertEqual(
            outcome.chunks_from_store,
            len(self.index.ids.sorted_unique()) - (1 if outcome.chunks_from_seeds else 0),
        )
        self.assertGreater(outcome.chunks_from_seeds, 0)
        self.assertGreater(outcome.bytes_copied, 0)

    def test_a_missing_chunk(self) -> None:
        """A chunk that isn't there fails the whole, and leaves the old target alone."""
        store = self.filled()
        victim = self.index.id(3)
        self.successResultOf(store.remove(victim))
        target = self.mktemp()
        with open(target, "wb") as out:
            out.write(b"old")
        failure = self.failureResultOf(self.extract(store, target), ChunkMissing)
        self.assertEqual(failure.value.chunk_id, victim)
        with open(target, "rb") as file:
            self.assertEqual(file.read(), b"old")
        name = os.path.basename(target)
        here = os.listdir(os.path.dirname(target))
        self.assertEqual([one for one in here if name in one], [name])

    def test_an_invalid_chunk(self) -> None:
        """A chunk that isn't what its id says is named in the error."""
        store = self.filled()
        victim = self.index.id(5)
        store.plant(victim, store.form.encode(b"something else"))
        failure = self.failureResultOf(self.extract(store, self.mktemp()), ChunkInvalid)
        self.assertEqual(failure.value.chunk_id, victim)

    def test_a_chunk_of_another_length(self) -> None:
        """A right chunk that the index gives a wrong length doesn't end up in the target."""
        store = self.filled()
        table = bytearray(self.index.table)
        table[0] ^= 1  # the first chunk's end
        broken = Index(self.index.flags, self.index.sizes, bytes(table))
        source = ChunkDownloads(store, at_once, 4)
        target = self.mktemp()
        operation = extract(broken, target, source, self.pool, Progress())
        self.failureResultOf(Deferred.fromCoroutine(operation), ChunkInvalid)
        self.assertFalse(os.path.exists(target))

    def test_cancelling_waits_for_threads(self) -> None:
        """The target isn't closed under a thread that still writes to it."""
        held = Held()
        target = self.mktemp()
        running = self.extract(self.filled(), target, held)
        self.assertNoResult(running)
        running.cancel()
        self.assertNoResult(running)
        while held.waiting:
            held.go()
        self.failureResultOf(running, CancelledError)
        self.assertFalse(os.path.exists(target))

    def test_cancelling_waits_for_copying(self) -> None:
        """Nor does it before a thread that copies what repeats has let go of it."""
        held = Held()

        def in_thread(function: Callable[..., Any], *args: Any) -> Deferred[Any]:
            return (held if function is copy_within else at_once)(function, *args)

        extracting = self.extract(self.filled(), self.mktemp(), in_thread)
        self.assertEqual(len(held.waiting), 1)
        extracting.cancel()
        self.assertNoResult(extracting)
        held.go()
        self.failureResultOf(extracting, CancelledError)
        self.assertEqual(held.waiting, [])

    def test_a_target_that_cannot_be_written(self) -> None:
        """What the system says against writing the file is told with the file's name."""
        target = self.mktemp()

        def refuse(descriptor: int, *more: Any) -> None:
            raise OSError(28, "No space left on device")

        def truncated(descriptor: int, *more: Any) -> None:
            os.truncate(descriptor, 0)
            copy_within(descriptor, *more)

        for module, function, instead, why in (
            (kernels, "write_buffers", refuse, "No space left on device"),
            (fetch, "copy_within", refuse, "No space left on device"),
            (fetch, "copy_within", truncated, "it was truncated while it was being written"),
        ):
            patch = self.patch(module, function, instead)
            failure = self.failureResultOf(self.extract(self.filled(), target), FileError)
            patch.restore()
            self.assertEqual(str(failure.value), f"{target}: {why}")
            self.assertFalse(os.path.exists(target))

    def test_back_pressure(self) -> None:
        """A store hands over no more chunks while a batch is still being written."""
        held = Held()
        running = self.extract(self.filled(), self.mktemp(), held)
        self.assertEqual(len(held.waiting), 1)
        while held.waiting:
            self.assertEqual(len(held.waiting), 1)
            held.go()
        self.successResultOf(running)


class CatTests(Transfers):
    """Streaming from a store of any kind."""

    def cat(self, store: MemoryStore, offset: int = 0, length: int = 0) -> bytes:
        """Stream a part of the file."""
        written = bytearray()
        source = ChunkDownloads(store, at_once, 4)
        self.done(cat(self.index, source, written.extend, Progress(), offset, length))
        return bytes(written)

    def test_all_and_parts(self) -> None:
        """Any part comes out as it is in the file."""
        store = self.filled()
        self.assertEqual(self.cat(store), self.data)
        for offset, length in ((0, 1), (1, 0), (149_999, 2), (210_000, 70_000), (370_998, 1)):
            wanted = self.data[offset : offset + length] if length else self.data[offset:]
            self.assertEqual(self.cat(store, offset, length), wanted)
        self.assertEqual(self.cat(store, len(self.data)), b"")

    def test_a_missing_chunk(self) -> None:
        """What was written before the missing chunk is right; then comes the error."""
        store = self.filled()
        self.successResultOf(store.remove(self.index.id(9)))
        written = bytearray()
        operation = cat(self.index, ChunkDownloads(store, at_once, 4), written.extend, Progress())
        self.failureResultOf(Deferred.fromCoroutine(operation), ChunkMissing)
        self.assertEqual(bytes(written), self.data[: self.index.start(9)])


class StoreTests(Transfers):
    """Writing to a store of any kind."""

    def test_make_stores_what_is_missing(self) -> None:
        """A second make finds everything there."""
        store = MemoryStore()
        first = self.make(ChunkUploads(store, 3))
        self.assertEqual(first.stored, len(self.index.ids.sorted_unique()))
        self.assertGreater(first.stored_bytes, 100_000)
        self.assertEqual(self.done(listed_ids(store)), self.index.ids.sorted_unique())
        again = self.make(ChunkUploads(store, 3))
        self.assertEqual((again.stored, again.stored_bytes), (0, 0))

    def test_chop_ignores_what_it_is_told_to(self) -> None:
        """Ignored chunks aren't stored."""
        store = MemoryStore()
        ignored = self.index.ids.sorted_unique()[:5]
        uploads = ChunkUploads(store, 3)
        outcome = self.done(
            chop(self.index, self.path, uploads, self.pool, Progress(), ignore=ignored)
        )
        self.assertEqual(outcome.chunks, len(self.index.ids.sorted_unique()) - 5)
        for chunk_id in ignored:
            self.assertIsNone(store.stored(chunk_id))

    def test_chop_refuses_another_file(self) -> None:
        """A file that isn't what the index says fails before anything wrong is stored."""
        with open(self.path, "r+b") as file:
            file.seek(70_000)
            file.write(b"changed")
        store = MemoryStore()
        operation = chop(self.index, self.path, ChunkUploads(store, 1), self.pool, Progress())
        self.failureResultOf(Deferred.fromCoroutine(operation), FileError)
        spoiled = self.index.id(self.index.position_of(70_000))
        self.assertIsNone(store.stored(spoiled))

    def test_cache_copies_what_is_missing(self) -> None:
        """Chunks go from store to store as they are stored, each once."""
        source, target = self.filled(), MemoryStore()
        ids = self.index.ids
        first = self.done(cache(ids, source, target, Progress(), 4))
        self.assertEqual((first.wanted, first.copied), (len(ids.sorted_unique()),) * 2)
        for chunk_id in ids.sorted_unique():
            self.assertEqual(source.stored(chunk_id), target.stored(chunk_id))
        second = self.done(cache(ids, source, target, Progress(), 4))
        self.assertEqual(second.copied, 0)

    def test_cache_of_a_missing_chunk(self) -> None:
        """A chunk that the source doesn't have is an error that names it."""
        source = self.filled()
        strange = SHA512_256.id_of(b"strange")
        operation = cache(ChunkIds.from_bytes(strange), source, MemoryStore(), Progress(), 4)
        failure = self.failureResultOf(Deferred.fromCoroutine(operation), ChunkMissing)
        self.assertEqual(failure.value.chunk_id, strange)

    def test_cache_into_a_store_that_fails(self) -> None:
        """A target that fails ends the copying with its error."""

        class Full(MemoryStore):
            def put(self, chunk: Chunk) -> Deferred[None]:
                failed: Deferred[None] = Deferred()
                failed.errback(Failure(DesyncError("no room")))
                return failed

        operation = cache(self.index.ids, self.filled(), Full(), Progress(), 4)
        failure = self.failureResultOf(Deferred.fromCoroutine(operation), DesyncError)
        self.assertEqual(str(failure.value), "no room")


class ConcurrentlyTests(SynchronousTestCase):
    """Coroutines side by side."""

    def test_no_more_than_allowed(self) -> None:
        """The next begins when one is done, in order."""
        gates: list[Deferred[None]] = []

        async def wait() -> None:
            gates.append(Deferred())
            await gates[-1]

        running = Deferred.fromCoroutine(concurrently((wait() for _ in range(5)), 2))
        self.assertEqual(len(gates), 2)
        gates[1].callback(None)
        self.assertEqual(len(gates), 3)
        for gate in (0, 2, 3, 4):
            gates[gate].callback(None)
        self.successResultOf(running)

    def test_the_first_failure_cancels_the_rest(self) -> None:
        """One failure ends those that run, and no other begins."""
        gates: list[Deferred[None]] = []

        async def wait() -> None:
            gates.append(Deferred())
            await gates[-1]

        running = Deferred.fromCoroutine(concurrently((wait() for _ in range(5)), 2))
        gates[0].errback(Failure(DesyncError("first")))
        failure = self.failureResultOf(running, DesyncError)
        self.assertEqual(str(failure.value), "first")
        self.assertEqual(len(gates), 2)
        self.assertTrue(gates[1].called)

    def test_cancelling(self) -> None:
        """A cancellation reaches all that run."""
        cancelled: list[int] = []

        async def wait(number: int) -> None:
            try:
                await Deferred()
            except CancelledError:
                cancelled.append(number)
                raise

        running = Deferred.fromCoroutine(concurrently((wait(number) for number in range(9)), 3))
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(sorted(cancelled), [0, 1, 2])

    def test_none(self) -> None:
        """Nothing to do is done at once."""
        self.successResultOf(Deferred.fromCoroutine(concurrently(iter(()), 2)))


class PendingTests(SynchronousTestCase):
    """Calls that must end before a descriptor is closed."""

    def test_waits_for_all_even_when_cancelled(self) -> None:
        """Settling is done when the last call is, and passes a cancellation on only then."""
        pending = Pending()
        call: Deferred[int] = Deferred()
        told = pending.watch(call)
        settling = Deferred.fromCoroutine(pending.settled())
        told.cancel()
        self.failureResultOf(told, CancelledError)
        settling.cancel()
        self.assertNoResult(settling)
        call.callback(1)
        self.failureResultOf(settling, CancelledError)
        self.successResultOf(Deferred.fromCoroutine(pending.settled()))
