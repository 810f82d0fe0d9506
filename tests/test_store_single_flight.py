# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The layer that asks a store once for what several want at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.errors import ChunkInvalid, ChunkMissing, StoreError
from desync.formats.ids import ChunkIds
from desync.stores.memory import MemoryStore
from desync.stores.single_flight import SingleFlight
from desync.testing.batch_contract import BatchContract, ids_of
from desync.testing.contract import SourceContract
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink
from desync.testing.stores import ScriptedStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from desync.formats.chunk import Chunk


class ContractTests(SourceContract, BatchContract, TestCase):
    """A store that is asked once."""

    def make_store(self) -> SingleFlight:
        self.memory = MemoryStore()
        return SingleFlight(self.memory)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.memory.plant(chunk_id, stored, extension)


class FlightTests(SynchronousTestCase):
    """Who waits for whose work."""

    def setUp(self) -> None:
        self.chunks = sample_chunks(10)
        self.ids = list(ids_of(*self.chunks))
        self.inner = ScriptedStore(MemoryStore(self.chunks, location="far"))
        self.inner.hold()
        self.store = SingleFlight(self.inner)

    def tearDown(self) -> None:
        """No flight is left when nobody waits."""
        for flights in self.store._chunks, self.store._presences:
            self.assertEqual(flights._by_id, {})

    def batch(self, *chunks: Chunk) -> tuple[CollectingSink, Deferred[None]]:
        sink = CollectingSink()
        return sink, self.store.get_many(ids_of(*chunks), sink)

    def test_one_request(self) -> None:
        """Those who want the same chunk at the same time get it from one request."""
        running = [self.store.get(self.ids[0]) for _ in range(5)]
        self.assertEqual(self.inner.calls, [("get", self.ids[:1])])
        self.inner.release()
        for one in running:
            self.assertEqual(self.successResultOf(one).plain, self.chunks[0].plain)

    def test_no_cache(self) -> None:
        """Whoever asks afterwards causes a request of its own, from within the answer too."""
        again = self.store.get(self.ids[0]).addCallback(lambda _: self.store.get(self.ids[0]))
        self.inner.release()
        self.successResultOf(again)
        self.successResultOf(self.store.get(self.ids[0]))
        self.assertEqual(self.inner.calls, [("get", self.ids[:1])] * 3)

    def test_kinds(self) -> None:
        """Whether a chunk is there and what it holds are different questions."""
        getting, looking = self.store.get(self.ids[0]), self.store.has(self.ids[0])
        also_looking = self.store.has(self.ids[0])
        self.assertEqual([name for name, _ in self.inner.calls], ["get", "has"])
        self.inner.release()
        self.assertEqual(self.successResultOf(getting).plain, self.chunks[0].plain)
        self.assertIs(self.successResultOf(looking), True)
        self.assertIs(self.successResultOf(also_looking), True)

    def test_failure(self) -> None:
        """A failure reaches each of those who wait, as a Failure of its own."""
        self.inner.fail_next(StoreError("far", "down"))
        running = [self.store.get(self.ids[0]) for _ in range(3)]
        self.inner.release()
        failures = [self.failureResultOf(one, StoreError) for one in running]
        self.assertEqual(len({id(failure) for failure in failures}), 3)
        self.assertEqual([str(failure.value) for failure in failures], ["far: down"] * 3)

    def test_missing_chunk(self) -> None:
        """A chunk that is missing is missing for each of those who wait."""
        running = [self.store.get(sample_chunk(99).chunk_id) for _ in range(3)]
        self.inner.release()
        for one in running:
            self.failureResultOf(one, ChunkMissing)

    def test_unverified_chunks(self) -> None:
        """An unverified chunk is handed out to each as an object of its own."""
        inner = ScriptedStore(MemoryStore(self.chunks, skip_verify=True))
        inner.hold()
        store = SingleFlight(inner)
        running = [store.get(self.ids[0]) for _ in range(3)]
        inner.release()
        found = [self.successResultOf(one) for one in running]
        self.assertEqual(len({id(chunk) for chunk in found}), 3)
        self.assertEqual({chunk.plain for chunk in found}, {self.chunks[0].plain})

    def test_cancel_one(self) -> None:
        """Cancelling the wait of one, the first even, leaves the others alone."""
        running = [self.store.get(self.ids[0]) for _ in range(3)]
        running[0].cancel()
        running[2].cancel()
        self.failureResultOf(running[0], CancelledError)
        self.failureResultOf(running[2], CancelledError)
        self.assertEqual(self.inner.canceled, [])
        self.inner.release()
        self.assertEqual(self.successResultOf(running[1]).plain, self.chunks[0].plain)

    def test_cancel_all(self) -> None:
        """When nobody waits any more, the request is canceled; the next one to ask starts anew."""
        running = [self.store.get(self.ids[0]) for _ in range(3)]
        for one in running:
            one.cancel()
            self.failureResultOf(one, CancelledError)
        self.assertEqual(self.inner.canceled, ["get"])
        again = self.store.get(self.ids[0])
        self.inner.release()
        self.successResultOf(again)

    def test_batches_join(self) -> None:
        """A batch waits for what is on its way, and asks for the rest."""
        single = self.store.get(self.ids[0])
        first, first_running = self.batch(*self.chunks[:4])
        second, second_running = self.batch(*self.chunks[2:6])
        self.assertEqual(
            self.inner.calls,
            [
                ("get", self.ids[:1]),
                ("get_many", sorted(self.ids[1:4])),
                ("get_many", sorted(self.ids[4:6])),
            ],
        )
        late = self.store.get(self.ids[5])
        self.assertEqual(len(self.inner.calls), 3)
        self.inner.release()
        for running in single, late:
            self.successResultOf(running)
        for sink, running_batch, chunks in (
            (first, first_running, self.chunks[:4]),
            (second, second_running, self.chunks[2:6]),
        ):
            self.successResultOf(running_batch)
            self.assertEqual(sorted(sink.found), sorted(ids_of(*chunks)))
            self.assertEqual(sink.violations, [])

    def test_batch_outcomes(self) -> None:
        """What is absent and what failed is told to all batches that wait, and to single waits."""
        absent = sample_chunk(99)
        self.inner.failing = {self.ids[0]: [ChunkInvalid(self.ids[0], "rotten")]}
        first, first_running = self.batch(self.chunks[0], self.chunks[1], absent)
        second, second_running = self.batch(self.chunks[0], absent)
        missing, failing = self.store.get(absent.chunk_id), self.store.get(self.ids[0])
        self.inner.release()
        self.successResultOf(first_running)
        self.successResultOf(second_running)
        for sink in first, second:
            self.assertEqual(sink.missing, [absent.chunk_id])
            self.assertIsInstance(sink.errors[self.ids[0]], ChunkInvalid)
        error = self.failureResultOf(missing, ChunkMissing).value
        self.assertTrue(str(error).startswith("far: chunk "))
        self.failureResultOf(failing, ChunkInvalid)
        self.assertEqual(len(self.inner.calls), 1)

    def test_failing_transfer(self) -> None:
        """If a batch's request fails, so do all that wait for what it hadn't brought."""
        self.inner.fail_next(StoreError("far", "broken off"), after=2)
        ids = sorted(self.ids)
        first, first_running = self.batch(*self.chunks)
        second, second_running = self.batch(*self.chunks)
        self.inner.release()
        for sink, running in (first, first_running), (second, second_running):
            self.successResultOf(running)
            self.assertEqual((sorted(sink.found), sorted(sink.errors)), (ids[:2], ids[2:]))

    def test_cancel_leader(self) -> None:
        """What was asked for by a batch that is canceled still reaches others that wait for it."""
        first, first_running = self.batch(*self.chunks[:4])
        second, second_running = self.batch(*self.chunks[2:6])
        single = self.store.get(self.ids[3])
        first_running.cancel()
        self.failureResultOf(first_running, CancelledError)
        self.assertEqual(self.inner.canceled, [])
        self.inner.release()
        self.successResultOf(second_running)
        self.successResultOf(single)
        self.assertEqual((first.calls, len(second.found)), (0, 4))

    def test_cancel_batches(self) -> None:
        """A batch's request is canceled when the last one who waits for any of it is."""
        _, first_running = self.batch(*self.chunks[:4])
        _, second_running = self.batch(*self.chunks[2:4])
        single = self.store.get(self.ids[0])
        for running in first_running, single, second_running:
            self.assertEqual(self.inner.canceled, [])
            running.cancel()
            self.failureResultOf(running, CancelledError)
        self.assertEqual(self.inner.canceled, ["get_many"])

    def test_slow_follower(self) -> None:
        """A batch that only joined slows nobody down: what it can't take it asks for later."""
        chunks = [sample_chunk(number) for number in range(200)]
        inner = ScriptedStore(MemoryStore(chunks))
        inner.hold()
        store = SingleFlight(inner)
        first = CollectingSink()
        first_running = store.get_many(ids_of(*chunks), first)
        ready: Deferred[None] = Deferred()

        def react(batch: Sequence[Chunk]) -> Deferred[None] | None:
            return None if ready.called else ready

        second = CollectingSink(react)
        second_running = store.get_many(ids_of(*chunks), second)
        inner.release()
        self.successResultOf(first_running)
        self.assertEqual(len(first.found), 200)
        self.assertNoResult(second_running)
        self.assertEqual(len(inner.calls), 1)
        ready.callback(None)
        self.successResultOf(second_running)
        self.assertEqual((len(second.found), second.violations), (200, []))
        self.assertEqual(len(inner.calls), 2)
        self.assertLess(len(inner.calls[1][1]), 200)

    def test_slow_leader(self) -> None:
        """The batch whose request it is slows the request down."""
        chunks = [sample_chunk(number) for number in range(200)]
        store = SingleFlight(MemoryStore(chunks))
        ready: Deferred[None] = Deferred()
        sink = CollectingSink(lambda batch: None if ready.called else ready)
        running = store.get_many(ids_of(*chunks), sink)
        self.assertLess(len(sink.found), 50)
        follower = store.get(sorted(ids_of(*chunks))[-1])
        self.assertNoResult(follower)
        ready.callback(None)
        self.successResultOf(running)
        self.successResultOf(follower)
        self.assertEqual((len(sink.found), sink.violations), (200, []))

    def test_failing_sink(self) -> None:
        """A sink that fails ends its own batch only."""

        def react(batch: object) -> None:
            raise RuntimeError("full")

        bad = self.store.get_many(ids_of(*self.chunks), CollectingSink(react))
        sink, running = self.batch(*self.chunks)
        self.inner.release()
        self.failureResultOf(bad, RuntimeError)
        self.successResultOf(running)
        self.assertEqual(len(sink.found), 10)

    def test_missing_joins(self) -> None:
        """Looking for many chunks waits for what is being looked for, and asks for the rest."""
        absent = sample_chunk(99).chunk_id
        single = self.store.has(self.ids[0])
        first = self.store.missing(ChunkIds.from_iterable([*self.ids[:4], absent]))
        second = self.store.missing(ChunkIds.from_iterable([*self.ids[2:6], absent]))
        late = self.store.has(absent)
        self.assertEqual(
            self.inner.calls,
            [
                ("has", self.ids[:1]),
                ("missing", sorted([*self.ids[1:4], absent])),
                ("missing", sorted(self.ids[4:6])),
            ],
        )
        self.inner.release()
        self.assertIs(self.successResultOf(single), True)
        self.assertIs(self.successResultOf(late), False)
        for running in first, second:
            self.assertEqual(self.successResultOf(running), ids_of(sample_chunk(99)))

    def test_missing_fails(self) -> None:
        """A look that fails does so for all who wait for it."""
        self.inner.fail_next(StoreError("far", "down"))
        first = self.store.missing(ids_of(*self.chunks[:4]))
        second = self.store.missing(ids_of(*self.chunks[2:]))
        single = self.store.has(self.ids[0])
        self.inner.release()
        for running in first, second, single:
            self.failureResultOf(running, StoreError)

    def test_cancel_missing(self) -> None:
        """A look is canceled when the last one who waits for any of it is."""
        first = self.store.missing(ids_of(*self.chunks[:4]))
        second = self.store.missing(ids_of(*self.chunks[:2]))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.inner.canceled, [])
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.inner.canceled, ["missing"])

    def test_refused(self) -> None:
        """A store that can't be asked for many chunks at a time is refused."""
        self.assertRaises(TypeError, SingleFlight, object())

    def test_close(self) -> None:
        """Closing closes the store."""
        self.successResultOf(self.store.close())
        self.assertEqual(self.inner.closed, 1)
