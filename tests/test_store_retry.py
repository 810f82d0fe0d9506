# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The layer that asks a store again when it failed."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides

from desync.errors import ChunkInvalid, ChunkMissing, StoreError, StoreRefused
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.interfaces import IBatch, IChunkRemover, IChunkTarget
from desync.stores.memory import MemoryStore
from desync.stores.retry import IRetriesRequests, Retry, retrying
from desync.stores.route import Route
from desync.testing.batch_contract import BatchContract, ids_of
from desync.testing.contract import RemoverContract, SourceContract, TargetContract
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink, listed_ids
from desync.testing.stores import ScriptedStore


class ContractTests(SourceContract, TargetContract, BatchContract, TestCase):
    """A store that is asked up to three times."""

    def make_store(self) -> Retry:
        from twisted.internet import reactor

        self.memory = MemoryStore()
        return retrying(ScriptedStore(self.memory), reactor, 3, 0)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.memory.plant(chunk_id, stored, extension)


class RemoverContractTests(RemoverContract, TestCase):
    """A store whose chunks can be listed and removed."""

    def make_store(self) -> Retry:
        from twisted.internet import reactor

        self.now = 1e9
        self.memory = MemoryStore(now=lambda: self.now)
        return retrying(self.memory, reactor, 3, 0)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.memory.plant(chunk_id, stored, extension)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds


class RetryTests(SynchronousTestCase):
    """What retrying does beyond the contract."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.chunks = sample_chunks(6)
        self.inner = ScriptedStore(MemoryStore(self.chunks, location="far"))
        self.store = retrying(self.inner, self.clock, 3, 0.5)

    def test_back_off(self) -> None:
        """The wait before each attempt is longer than the one before by the base interval."""
        self.inner.fail_next(StoreError("far", "first"), StoreError("far", "second"))
        running = self.store.get(self.chunks[0].chunk_id)
        for seconds, calls in (0, 1), (0.49, 1), (0.01, 2), (0.99, 2), (0.01, 3):
            self.clock.advance(seconds)
            self.assertEqual(len(self.inner.calls), calls)
        self.assertEqual(self.successResultOf(running).plain, self.chunks[0].plain)

    def test_last_error(self) -> None:
        """When all attempts failed, the last error is told, without another wait."""
        for operation in (
            lambda: self.store.get(self.chunks[0].chunk_id),
            lambda: self.store.has(self.chunks[0].chunk_id),
            lambda: self.store.missing(ids_of(*self.chunks)),
        ):
            self.inner.calls.clear()
            self.inner.fail_next(*[StoreError("far", f"error {n}") for n in range(3)])
            running = operation()
            self.clock.pump([0.5, 1])
            error = self.failureResultOf(running, StoreError).value
            self.assertEqual(str(error), "far: error 2")
            self.assertEqual(len(self.inner.calls), 3)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_attempts(self) -> None:
        """0 and 1 retries both mean one attempt, 3 mean three."""
        for error_retry, attempts in (0, 1), (1, 1), (2, 2), (3, 3):
            self.inner.calls.clear()
            self.inner.fail_next(*[StoreError("far", "down")] * attempts)
            running = retrying(self.inner, self.clock, error_retry, 0.5).get(bytes(32))
            self.clock.pump([0.5, 1, 1.5])
            self.failureResultOf(running, StoreError)
            self.assertEqual(len(self.inner.calls), attempts)
        self.assertRaises(ValueError, Retry, self.inner, self.clock, 0, 1)

    def test_missing_is_an_answer(self) -> None:
        """A chunk that is missing isn't asked for again."""
        self.failureResultOf(self.store.get(bytes(32)), ChunkMissing)
        sink = CollectingSink()
        self.successResultOf(self.store.get_many(ids_of(sample_chunk(99)), sink))
        self.assertEqual(len(self.inner.calls), 2)

    def test_final(self) -> None:
        """What stays the same however often it is asked isn't asked again."""
        self.inner.fail_next(StoreRefused("far", "access denied"))
        self.failureResultOf(self.store.get(self.chunks[0].chunk_id), StoreRefused)
        self.assertEqual(len(self.inner.calls), 1)

    def test_retries_requests(self) -> None:
        """A store that repeats its requests itself is only asked again for what isn't the chunk."""
        directlyProvides(self.inner, IChunkTarget, IBatch, IRetriesRequests)
        store = retrying(self.inner, self.clock, 3, 0.5)
        chunk = self.chunks[0]
        self.inner.fail_next(StoreError("far", "down"))
        self.failureResultOf(store.get(chunk.chunk_id), StoreError)
        self.inner.fail_next(ChunkInvalid(chunk.chunk_id, "it is truncated", "far"))
        running = store.get(chunk.chunk_id)
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(running).plain, chunk.plain)

    def test_invalid(self) -> None:
        """A chunk that arrived damaged is asked for again."""
        chunk_id = self.chunks[0].chunk_id
        self.inner.failing[chunk_id] = [ChunkInvalid(chunk_id, "rotten")]
        running = self.store.get(chunk_id)
        self.clock.advance(0.5)
        self.assertEqual(self.successResultOf(running).plain, self.chunks[0].plain)

    def test_other_errors(self) -> None:
        """A mistake of the program's isn't retried, nor what the caller says isn't worth it."""
        self.inner.fail_next(RuntimeError("a bug"))
        self.failureResultOf(self.store.get(self.chunks[0].chunk_id), RuntimeError)
        picky = retrying(self.inner, self.clock, 3, 0.5, lambda error: "again" in str(error))
        self.inner.fail_next(StoreError("far", "forbidden"))
        self.failureResultOf(picky.get(self.chunks[0].chunk_id), StoreError)
        self.inner.failing[self.chunks[1].chunk_id] = [StoreError("far", "forbidden")]
        self.inner.failing[self.chunks[2].chunk_id] = [StoreError("far", "try again")]
        sink = CollectingSink()
        running = picky.get_many(ids_of(*self.chunks), sink)
        self.assertEqual(list(sink.errors), [self.chunks[1].chunk_id])
        self.clock.advance(0.5)
        self.successResultOf(running)
        self.assertEqual(len(sink.found), 5)

    def test_batch_unanswered_only(self) -> None:
        """Of many chunks only those that failed are asked for again, after the same waits."""
        ids = sorted(ids_of(*self.chunks))
        self.inner.fail_next(StoreError("far", "broken off"), after=2)
        self.inner.failing = {ids[3]: [StoreError("far", "hiccup")] * 2}
        sink = CollectingSink()
        running = self.store.get_many(ids_of(*self.chunks), sink)
        self.assertEqual(sorted(sink.found), ids[:2])
        self.clock.advance(0.5)
        self.assertEqual(self.inner.calls[1:], [("get_many", ids[2:])])
        self.assertEqual(sorted(sink.found), [*ids[:3], *ids[4:]])
        self.clock.advance(1)
        self.assertEqual(self.inner.calls[2:], [("get_many", [ids[3]])])
        self.assertEqual((self.successResultOf(running), sink.violations), (None, []))
        self.assertEqual(str(sink.errors[ids[3]]), "far: hiccup")

    def test_sink_failure(self) -> None:
        """A sink that fails is no failure of the store."""

        def react(batch: object) -> None:
            raise StoreError("elsewhere", "full")

        running = self.store.get_many(ids_of(*self.chunks), CollectingSink(react))
        self.failureResultOf(running, StoreError)
        self.assertEqual((len(self.inner.calls), self.clock.getDelayedCalls()), (1, []))

    def test_cancel(self) -> None:
        """A wait can be canceled, and so can an attempt; no other is made."""
        for operation in (
            lambda: self.store.get(self.chunks[0].chunk_id),
            lambda: self.store.get_many(ids_of(*self.chunks), CollectingSink()),
        ):
            self.inner.fail_next(StoreError("far", "down"))
            waiting = operation()
            self.inner.hold()
            trying = operation()
            for running in waiting, trying:
                running.cancel()
                self.failureResultOf(running, CancelledError)
            self.inner.release()
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.inner.calls), 4)

    def test_put(self) -> None:
        """Putting and renewing are retried too, except for a chunk that isn't what it says."""
        store = IChunkTarget(self.store)
        chunk = sample_chunk(99)
        self.inner.fail_next(StoreError("far", "down"))
        running = store.put(chunk)
        self.clock.advance(0.5)
        self.successResultOf(running)
        self.inner.fail_next(StoreError("far", "down"))
        renewing = store.renew(chunk.chunk_id)
        self.clock.advance(0.5)
        self.assertIs(self.successResultOf(renewing), True)
        self.failureResultOf(store.put(Chunk(bytes(32), b"wrong")), ChunkInvalid)

    def test_read_only(self) -> None:
        """Over a store that can only be read, retries can't be written to either."""
        store = retrying(Route([self.inner]), self.clock, 3, 0.5)
        self.assertFalse(IChunkTarget.providedBy(store))

    def test_refused(self) -> None:
        """A store that can't be asked for many chunks at a time is refused."""
        self.assertRaises(TypeError, retrying, object(), self.clock, 3, 0.5)

    def test_close(self) -> None:
        """Closing closes the store."""
        self.successResultOf(self.store.close())
        self.assertEqual(self.inner.closed, 1)


class Faltering(MemoryStore):
    """A store whose listings fail half-way, a few times."""

    failures = 2

    def list_ids(self, take: Callable[[ChunkIds], Deferred[None] | None]) -> Deferred[None]:
        async def run() -> None:
            ids = await listed_ids(MemoryStore(self.chunks))
            for begin in range(0, len(ids), 2):
                if begin == 4 and self.failures:
                    self.failures -= 1
                    raise StoreError(self.location, "it broke off")
                pressure = take(ids[begin : begin + 2])
                if pressure is not None:
                    await pressure

        return Deferred.fromCoroutine(run())

    def __init__(self, chunks: list[Chunk]) -> None:
        super().__init__(chunks)
        self.chunks = chunks


class ListingTests(SynchronousTestCase):
    """Listings that break off."""

    def setUp(self) -> None:
        self.inner = Faltering(sample_chunks(9))
        self.clock = Clock()
        self.store = IChunkRemover(retrying(self.inner, self.clock, 3, 0.5))

    def test_each_once(self) -> None:
        """One that is begun anew hands over the rest, and nothing twice."""
        listing = Deferred.fromCoroutine(listed_ids(self.store))
        self.clock.advance(0.5)
        self.assertNoResult(listing)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(listing), ids_of(*self.inner.chunks).sorted_unique())

    def test_too_often(self) -> None:
        """It fails when it has broken off as often as it may."""
        self.inner.failures = 3
        listing = Deferred.fromCoroutine(listed_ids(self.store))
        self.clock.pump([0.5, 1])
        self.failureResultOf(listing, StoreError)

    def test_who_takes_them_fails(self) -> None:
        """What whoever takes the ids fails with is no reason to list again."""
        self.inner.failures = 0
        calls = []

        def take(ids: ChunkIds) -> Deferred[None]:
            calls.append(ids)
            return fail(StoreError("another", "no room"))

        error = self.failureResultOf(self.store.list_ids(take), StoreError)
        self.assertIn("another", str(error.value))
        self.assertEqual(len(calls), 1)
