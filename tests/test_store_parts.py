# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What stores and layers are made of: threads, guards, relays and backlogs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from desync.errors import ChunkInvalid, StoreError
from desync.formats.ids import ChunkIds
from desync.interfaces import IBatch, IChunkSink, IChunkTarget
from desync.stores.backlog import Backlog
from desync.stores.batches import Collecting, Guard, Relay, at_store, blocks, close_all, guarded
from desync.stores.memory import MemoryStore
from desync.stores.threads import StoreThreads
from desync.testing.batch_contract import ids_of
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink
from desync.testing.stores import ScriptedStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from desync.formats.chunk import Chunk


class ThreadsTests(TestCase):
    """Threads for what blocks."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.threads = StoreThreads(reactor, 2)  # type: ignore[arg-type]
        self.addCleanup(self.threads.stop)

    async def test_results(self) -> None:
        """Functions run elsewhere, and their results and errors arrive here."""
        here = threading.get_ident()
        there = await self.threads.run(threading.get_ident)
        self.assertNotEqual(here, there)
        self.assertEqual(await self.threads.run(divmod, 7, 3), (2, 1))
        with self.assertRaises(ZeroDivisionError):
            await self.threads.run(divmod, 7, 0)

    async def test_size(self) -> None:
        """There are no more threads than asked for, and no more than needed."""
        await self.threads.run(int)
        self.assertEqual(self.threads._started, 1)
        seen = await gatherResults([self.threads.run(threading.get_ident) for _ in range(50)])
        self.assertLessEqual(len(set(seen)), 2)

    async def test_no_threads(self) -> None:
        """Where no thread can be started the caller's does the work, and stopping still works."""

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch = self.patch(threading.Thread, "start", refuse)
        found = await gatherResults([self.threads.run(divmod, 7, 3) for _ in range(5)])
        self.assertEqual(found, [(2, 1)] * 5)
        patch.restore()
        await self.threads.run(int)
        self.patch(threading.Thread, "start", refuse)
        found = await gatherResults([self.threads.run(divmod, 7, 3) for _ in range(5)])
        self.assertEqual(found, [(2, 1)] * 5)
        await self.threads.stop()

    async def test_cancel(self) -> None:
        """A canceled call that hasn't begun doesn't, one that has goes on unheard."""
        begin, end = threading.Event(), threading.Event()

        def work() -> None:
            begin.set()
            end.wait(60)

        called: list[int] = []
        busy = [self.threads.run(work), self.threads.run(work)]
        waiting = self.threads.run(called.append, 1)
        begin.wait(60)
        for running in (*busy, waiting):
            running.cancel()
            self.failureResultOf(running, CancelledError)
        end.set()
        await self.threads.run(called.append, 2)
        self.assertEqual(called, [2])

    async def test_stop(self) -> None:
        """Stopping waits for what goes on, canceled or not; afterwards nothing can be run."""
        release = threading.Event()
        done: list[int] = []
        begun = threading.Event()

        def work() -> None:
            begun.set()
            release.wait(60)
            done.append(1)

        canceled = self.threads.run(work)
        begun.wait(60)
        canceled.cancel()
        self.failureResultOf(canceled, CancelledError)
        stopped = self.threads.stop()
        self.assertNoResult(stopped)
        release.set()
        await stopped
        await self.threads.stop()
        self.assertEqual(done, [1])
        self.assertRaises(RuntimeError, self.threads.run, int)


class GuardTests(SynchronousTestCase):
    """What stands before a caller's sink."""

    def test_turns(self) -> None:
        """Of those who hand over chunks at once, one at a time does."""
        chunks = sample_chunks(3)
        ready: list[Deferred[None]] = [Deferred() for _ in chunks]
        waiting = iter(ready)
        sink = CollectingSink(lambda batch: next(waiting))

        async def transfer(guard: Guard) -> None:
            await gatherResults([Deferred.fromCoroutine(guard.deliver([c])) for c in chunks])

        running = guarded(sink, transfer)
        for number, deferred in enumerate(ready):
            self.assertEqual(sink.batches, [1] * (number + 1))
            deferred.callback(None)
        self.successResultOf(running)
        self.assertEqual(sink.violations, [])

    def test_canceled_within(self) -> None:
        """A transfer that the sink cancels ends then, whatever the sink asks it to wait for."""
        ended: list[type[BaseException]] = []
        begin: Deferred[None] = Deferred()

        def react(batch: object) -> Deferred[None]:
            running.cancel()
            return Deferred()

        async def transfer(guard: Guard) -> None:
            await begin
            try:
                await guard.deliver(sample_chunks(1))
            except CancelledError as error:
                ended.append(type(error))
                raise

        running = guarded(CollectingSink(react), transfer)
        begin.callback(None)
        self.failureResultOf(running, CancelledError)
        self.assertEqual(ended, [CancelledError])

    def test_failure_for_all(self) -> None:
        """When the sink fails, those who wait for their turn stop for the same reason."""
        ready: Deferred[None] = Deferred()
        sink = CollectingSink(lambda batch: ready)
        guard = Guard(sink)
        chunks = sample_chunks(2)
        first, second = (Deferred.fromCoroutine(guard.deliver([chunk])) for chunk in chunks)
        ready.errback(StoreError("x", "full"))
        errors = [self.failureResultOf(one, StoreError).value for one in (first, second)]
        self.assertIs(errors[0], errors[1])
        self.assertRaises(StoreError, guard.absent, ids_of(chunks[1]))
        self.assertEqual(sink.calls, 1)

    def test_nothing(self) -> None:
        """A sink isn't called about nothing."""
        sink = CollectingSink()
        guard = Guard(sink)
        nothing = ChunkIds(b"")
        guard.absent(nothing)
        guard.failed(nothing, Failure(StoreError("x", "y")))
        self.successResultOf(Deferred.fromCoroutine(guard.deliver([])))
        self.assertEqual(sink.calls, 0)

    def test_interface(self) -> None:
        """Guards, relays and the sink for tests are sinks."""
        guard = Guard(CollectingSink())
        for sink in guard, Relay([], guard), CollectingSink():
            verifyObject(IChunkSink, sink)


@implementer(IBatch)
class Rude:
    """A store that doesn't keep its promises: each method is one way of that."""

    location = "rude"

    def __init__(self, way: str, chunks: Sequence[Chunk]) -> None:
        self.way = way
        self.known = list(chunks)

    def get_many(self, ids: ChunkIds, sink: Any) -> Deferred[None]:
        return Deferred.fromCoroutine(getattr(self, self.way)(sink))

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        raise NotImplementedError

    async def twice(self, sink: Any) -> None:
        """Answer everything in every way."""
        for _ in range(2):
            sink.chunks(self.known)
            sink.absent(ids_of(*self.known))
            sink.failed(ids_of(*self.known), Failure(StoreError("rude", "why not")))

    async def unasked(self, sink: Any) -> None:
        """Answer what wasn't asked as well."""
        sink.chunks([*self.known, sample_chunk(99)])
        sink.absent(ids_of(sample_chunk(98)))

    async def silent(self, sink: Any) -> None:
        """Answer a part and end as if that were all."""
        sink.chunks(self.known[:1])

    async def broken(self, sink: Any) -> None:
        """Answer a part and fail."""
        sink.chunks(self.known[:1])
        raise ValueError("a bug")


class RelayTests(SynchronousTestCase):
    """What stands between a layer and a store."""

    def relay(self, way: str) -> CollectingSink:
        self.chunks = sample_chunks(3)
        sink = CollectingSink()

        async def transfer(guard: Guard) -> None:
            await Relay(ids_of(*self.chunks), guard).run(Rude(way, self.chunks))

        self.successResultOf(guarded(sink, transfer))
        self.assertEqual(sink.violations, [])
        return sink

    def test_once(self) -> None:
        """The first answer counts, and answers to questions that weren't asked don't."""
        for way in "twice", "unasked":
            sink = self.relay(way)
            self.assertEqual(sorted(sink.found), sorted(ids_of(*self.chunks)))
            self.assertEqual((sink.missing, sink.errors), ([], {}))

    def test_no_answer(self) -> None:
        """What a store didn't answer has failed."""
        sink = self.relay("silent")
        self.assertEqual(len(sink.found), 1)
        self.assertEqual(
            [str(error) for error in sink.errors.values()],
            ["rude: it gave no answer for a chunk"] * 2,
        )

    def test_failing_store(self) -> None:
        """What a store hadn't answered when it failed has failed as it did."""
        sink = self.relay("broken")
        self.assertEqual([str(error) for error in sink.errors.values()], ["a bug"] * 2)

    def test_collecting(self) -> None:
        """Failures that are worth another attempt are kept, the others passed on."""
        chunks = sample_chunks(3)
        store = ScriptedStore(MemoryStore(chunks))
        store.failing = {
            chunks[0].chunk_id: [StoreError("x", "again")],
            chunks[1].chunk_id: [StoreError("x", "never")],
        }
        sink = CollectingSink()
        collecting = Collecting(ids_of(*chunks), Guard(sink), lambda error: "again" in str(error))
        self.successResultOf(Deferred.fromCoroutine(collecting.run(store)))
        self.assertEqual(list(sink.errors), [chunks[1].chunk_id])
        self.assertEqual(list(collecting.failed_ids()), [chunks[0].chunk_id])
        collecting.tell_failures()
        self.assertEqual(len(sink.errors), 2)

    def test_blocks(self) -> None:
        """Ids are divided into runs, sorted and without duplicates."""
        chunks = sample_chunks(10)
        found = list(blocks(ids_of(*chunks, *chunks), 4))
        self.assertEqual([len(block) for block in found], [4, 4, 2])
        self.assertEqual([one for block in found for one in block], sorted(ids_of(*chunks)))
        self.assertEqual(list(blocks(ChunkIds(b""))), [])

    def test_at_store(self) -> None:
        """Only an error about a chunk that doesn't say where gets the store's name."""
        store = MemoryStore(location="here")
        named = at_store(ChunkInvalid(bytes(32), "why"), store)
        self.assertTrue(str(named).startswith("here: chunk 00"))
        for error in ChunkInvalid(bytes(32), "why", "there"), StoreError("there", "why"):
            self.assertIs(at_store(error, store), error)

    def test_close_all(self) -> None:
        """All stores are closed, even if one can't be; its error is told."""

        @implementer(IChunkTarget)
        class Stuck(ScriptedStore):
            def close(self) -> Deferred[None]:
                super().close()
                failed: Deferred[None] = Deferred()
                failed.errback(StoreError("stuck", "no"))
                return failed

        stuck, other = Stuck(MemoryStore()), ScriptedStore(MemoryStore())
        self.failureResultOf(close_all([stuck, other]), StoreError)
        self.assertEqual((stuck.closed, other.closed), (1, 1))


class BacklogTests(SynchronousTestCase):
    """Work that goes on while more of it arrives."""

    def setUp(self) -> None:
        self.backlog = Backlog(2)
        self.gates: list[Deferred[None]] = []

    def add(self) -> Deferred[None] | None:
        gate: Deferred[None] = Deferred()
        self.gates.append(gate)

        async def work() -> None:
            await gate

        return self.backlog.add(work())

    def finish(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.backlog.finish())

    def test_room(self) -> None:
        """While there is room more is taken; then what fires when there is room again."""
        self.assertIsNone(self.add())
        second, third = self.add(), self.add()
        assert second is not None and third is not None
        self.gates[0].callback(None)
        self.assertNoResult(second)
        self.gates[1].callback(None)
        self.successResultOf(second)
        self.successResultOf(third)
        finished = self.finish()
        self.assertNoResult(finished)
        self.gates[2].callback(None)
        self.successResultOf(finished)
        self.successResultOf(self.finish())

    def test_done_at_once(self) -> None:
        """Work that is done at once takes no room."""

        async def work() -> None:
            pass

        for _ in range(5):
            self.assertIsNone(self.backlog.add(work()))
        self.successResultOf(self.finish())

    def test_failure(self) -> None:
        """A failure is told to those who wait for room, who bring more, and at the end."""
        self.assertIsNone(self.add())
        waiting = self.add()
        assert waiting is not None
        self.gates[0].errback(StoreError("x", "full"))
        self.failureResultOf(waiting, StoreError)
        self.assertRaises(StoreError, self.add)
        self.failureResultOf(self.finish(), StoreError)

    def test_cancel(self) -> None:
        """What goes on can be canceled."""
        ended: list[type[BaseException]] = []

        async def work() -> None:
            try:
                await Deferred()
            except CancelledError as error:
                ended.append(type(error))
                raise

        self.backlog.add(work())
        self.backlog.cancel()
        self.assertEqual(ended, [CancelledError])
