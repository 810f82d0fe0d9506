# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The layer over stores that stand in for each other."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.errors import ChunkInvalid, ChunkMissing, StoreError, UsageError
from desync.stores.failover import Failover
from desync.stores.memory import MemoryStore
from desync.testing.batch_contract import BatchContract, ids_of
from desync.testing.contract import SourceContract
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink
from desync.testing.stores import ScriptedStore


class ContractTests(SourceContract, BatchContract, TestCase):
    """A failover group whose stores hold the same."""

    def make_store(self) -> Failover:
        self.memory = MemoryStore()
        return Failover([ScriptedStore(self.memory) for _ in range(3)])

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.memory.plant(chunk_id, stored, extension)


class FailedOverContractTests(ContractTests):
    """A failover group whose first store is down for good."""

    def make_store(self) -> Failover:
        self.memory = MemoryStore()
        down = ScriptedStore(MemoryStore())
        down.fail_next(*[StoreError("down", "it is down")] * 1000)
        return Failover([down, ScriptedStore(self.memory)])


class FailoverTests(SynchronousTestCase):
    """What a failover group does beyond the contract."""

    def setUp(self) -> None:
        self.chunks = sample_chunks(6)
        self.members = [ScriptedStore(MemoryStore(self.chunks, location=name)) for name in "abc"]
        self.group = Failover(self.members)

    def break_down(self, *members: int) -> None:
        for member in members:
            error = StoreError(self.members[member].location, "it is down")
            self.members[member].fail_next(*[error] * 50)

    def active(self) -> str:
        return str(self.group.active.location)

    def test_sticks(self) -> None:
        """After a failure the next store is used, and stays in use."""
        self.break_down(0)
        for chunk in self.chunks:
            found = self.successResultOf(self.group.get(chunk.chunk_id))
            self.assertEqual(found.plain, chunk.plain)
        self.assertEqual(len(self.members[0].calls), 1)
        self.assertEqual(len(self.members[1].calls), 6)
        self.assertEqual(self.group.location, "a|b|c")

    def test_around(self) -> None:
        """After the last store comes the first."""
        self.break_down(0, 1)
        self.successResultOf(self.group.has(self.chunks[0].chunk_id))
        self.assertEqual(self.active(), "c")
        self.members[0] = ScriptedStore(MemoryStore(self.chunks, location="a"))
        self.group._stores = tuple(self.members)
        self.break_down(2)
        self.successResultOf(self.group.get(self.chunks[0].chunk_id))
        self.assertEqual(self.active(), "a")

    def test_all_down(self) -> None:
        """When every store failed once, so does the operation, as the last of them did."""
        self.break_down(0, 1, 2)
        for operation in (
            lambda: self.group.get(self.chunks[0].chunk_id),
            lambda: self.group.has(self.chunks[0].chunk_id),
            lambda: self.group.missing(ids_of(*self.chunks)),
        ):
            before = [len(member.calls) for member in self.members]
            last = self.members[(self.group._active + 2) % 3].location
            error = self.failureResultOf(operation(), StoreError).value
            self.assertEqual(str(error), f"{last}: it is down")
            after = [len(member.calls) for member in self.members]
            self.assertEqual(after, [calls + 1 for calls in before])

    def test_missing_is_an_answer(self) -> None:
        """A chunk that the store in use doesn't have is missing at once."""
        absent = sample_chunk(99)
        self.failureResultOf(self.group.get(absent.chunk_id), ChunkMissing)
        self.assertIs(self.successResultOf(self.group.has(absent.chunk_id)), False)
        sink = CollectingSink()
        self.successResultOf(self.group.get_many(ids_of(absent), sink))
        self.assertEqual(sink.missing, [absent.chunk_id])
        self.assertEqual((self.active(), self.members[1].calls), ("a", []))

    def test_invalid_is_a_failure(self) -> None:
        """A store that hands out a bad chunk is given up like one that is down."""
        self.members[0].inner.plant(self.chunks[0].chunk_id, b"rubbish")
        found = self.successResultOf(self.group.get(self.chunks[0].chunk_id))
        self.assertEqual((found.plain, self.active()), (self.chunks[0].plain, "b"))

    def test_concurrent_failures(self) -> None:
        """Operations that fail on the same store at the same time move on by one store only."""
        self.break_down(0)
        self.members[0].hold()
        running = [self.group.get(chunk.chunk_id) for chunk in self.chunks]
        self.members[0].release()
        for one, chunk in zip(running, self.chunks, strict=True):
            self.assertEqual(self.successResultOf(one).plain, chunk.plain)
        self.assertEqual(self.active(), "b")
        self.assertEqual(self.members[2].calls, [])

    def test_late_failure(self) -> None:
        """An operation that fails on a store that others gave up before moves nothing."""
        self.members[0].hold()
        slow = self.group.get(self.chunks[0].chunk_id)
        self.members[0].fail_next(StoreError("a", "it is down"))
        self.group._active = 2
        self.members[0].release()
        self.assertEqual(self.successResultOf(slow).plain, self.chunks[0].plain)
        self.assertEqual((self.active(), self.members[1].calls), ("c", []))

    def test_each_store_once(self) -> None:
        """An operation tries no store twice and skips none, however others move on meanwhile."""
        self.break_down(0, 1)
        self.members[0].hold()
        slow = self.group.get(self.chunks[0].chunk_id)
        # Others have gone all the way around while it waits: the store in use is the same again.
        self.members[2].fail_next(StoreError("c", "once"))
        self.members[0].release()
        error = self.failureResultOf(slow, StoreError).value
        self.assertEqual(str(error), "c: once")
        self.assertEqual([len(member.calls) for member in self.members], [1, 1, 1])

    def test_batch_unanswered_only(self) -> None:
        """Of many chunks the next store is asked only for those that had no answer."""
        self.members[0].fail_next(StoreError("a", "it is down"), after=2)
        sink = CollectingSink()
        self.successResultOf(self.group.get_many(ids_of(*self.chunks), sink))
        ids = sorted(ids_of(*self.chunks))
        self.assertEqual(self.members[1].calls, [("get_many", ids[2:])])
        self.assertEqual((sorted(sink.found), sink.violations), (ids, []))
        self.assertEqual(self.active(), "b")

    def test_batch_single_failures(self) -> None:
        """Chunks that a store failed with are fetched from the next, in a batch too."""
        bad, worse = self.chunks[:2]
        self.members[0].failing = {
            bad.chunk_id: [ChunkInvalid(bad.chunk_id, "rotten")],
            worse.chunk_id: [StoreError("a", "oops")],
        }
        self.members[1].failing = {worse.chunk_id: [StoreError("b", "oops")]}
        self.members[2].failing = {worse.chunk_id: [StoreError("c", "oops")]}
        sink = CollectingSink()
        self.successResultOf(self.group.get_many(ids_of(*self.chunks), sink))
        self.assertEqual(len(sink.found), 5)
        self.assertEqual(str(sink.errors[worse.chunk_id]), "c: oops")
        self.assertEqual(self.members[1].calls, [("get_many", sorted(ids_of(bad, worse)))])
        self.assertEqual(self.members[2].calls, [("get_many", [worse.chunk_id])])

    def test_batch_all_down(self) -> None:
        """If all stores are down, each chunk failed."""
        self.break_down(0, 1, 2)
        sink = CollectingSink()
        self.successResultOf(self.group.get_many(ids_of(*self.chunks), sink))
        self.assertEqual(len(sink.errors), 6)
        self.assertEqual([len(member.calls) for member in self.members], [1, 1, 1])

    def test_sink_failure(self) -> None:
        """A sink that fails is no failure of the store."""

        def react(batch: object) -> None:
            raise RuntimeError("full")

        running = self.group.get_many(ids_of(*self.chunks), CollectingSink(react))
        self.failureResultOf(running, RuntimeError)
        self.assertEqual((self.active(), self.members[1].calls), ("a", []))

    def test_cancel(self) -> None:
        """A cancellation is no failure of the store, and no other is asked."""
        self.members[0].hold()
        for running in (
            self.group.get(self.chunks[0].chunk_id),
            self.group.has(self.chunks[0].chunk_id),
            self.group.missing(ids_of(*self.chunks)),
            self.group.get_many(ids_of(*self.chunks), CollectingSink()),
        ):
            running.cancel()
            self.failureResultOf(running, CancelledError)
        self.assertEqual((self.active(), self.members[1].calls), ("a", []))
        self.assertEqual(len(self.members[0].canceled), 4)

    def test_refused(self) -> None:
        """A store that can't be asked for many chunks at a time is refused, and so is no store."""
        self.assertRaises(TypeError, Failover, [self.members[0], object()])
        self.assertRaises(UsageError, Failover, [])

    def test_close(self) -> None:
        """Closing closes all stores."""
        self.successResultOf(self.group.close())
        self.assertEqual([member.closed for member in self.members], [1, 1, 1])
