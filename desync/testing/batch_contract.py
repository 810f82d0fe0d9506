# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What stores that take many ids at a time are held to; see :mod:`desync.testing.contract`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from desync.errors import ChunkInvalid
from desync.formats.ids import ChunkIds
from desync.interfaces import IBatch, IBatchRenewer

from .contract import StoreContract
from .samples import sample_chunk, sample_chunks
from .sinks import CollectingSink

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from desync.formats.chunk import Chunk

#: More chunks than any store hands over at once.
_MANY = 150


class SinkFailed(Exception):
    """What a sink fails with in these tests."""


def ids_of(*chunks: Chunk) -> ChunkIds:
    """Pack the ids of chunks, in their order."""
    return ChunkIds.from_iterable(chunk.chunk_id for chunk in chunks)


async def turns(count: int = 20) -> None:
    """Let the reactor do what there is to do."""
    from twisted.internet import reactor

    clock: Any = reactor
    for _ in range(count):
        await deferLater(clock, 0)


class BatchContract(StoreContract):
    """What holds of every store that provides :class:`desync.interfaces.IBatch`."""

    def check(self, sink: CollectingSink, present: Sequence[Chunk]) -> None:
        """Make sure that the sink was treated well and has these chunks, verified."""
        self.assertEqual(sink.violations, [])
        expected = {chunk.chunk_id: chunk.plain for chunk in present}
        self.assertEqual({one: chunk.plain for one, chunk in sink.found.items()}, expected)
        self.assertTrue(all(chunk.verified for chunk in sink.found.values()))

    def test_provides_batch(self) -> None:
        """The store has what the interface names."""
        verifyObject(IBatch, self.store)

    async def test_get_many(self) -> None:
        """All chunks that are there are handed over."""
        chunks = sample_chunks(_MANY, self.digest)
        self.hold(*chunks)
        sink = CollectingSink()
        self.assertIsNone(await self.store.get_many(ids_of(*chunks), sink))
        self.check(sink, chunks)
        self.assertEqual((sink.missing, sink.errors), ([], {}))

    async def test_get_many_mixed(self) -> None:
        """Each id ends once: as a chunk, absent or failed."""
        chunks = sample_chunks(40, self.digest)
        present, absent, bad = chunks[:20], chunks[20:30], chunks[30:]
        self.hold(*present)
        for chunk, stored in zip(bad, list(self.bad_forms(bad[0]).values()) * 2, strict=False):
            self.plant(chunk.chunk_id, stored[:-1], self.extension)
        sink = CollectingSink()
        await self.store.get_many(ids_of(*chunks), sink)
        self.check(sink, present)
        self.assertEqual(sorted(sink.missing), sorted(ids_of(*absent)))
        self.assertEqual(sorted(sink.errors), sorted(ids_of(*bad)))
        for chunk_id, error in sink.errors.items():
            self.assertIsInstance(error, ChunkInvalid)
            self.assertIn(chunk_id.hex(), str(error))

    async def test_get_many_other_form(self) -> None:
        """Chunks that are there in the other form only are found, if the store promises that."""
        chunks = sample_chunks(10, self.digest)
        self.hold(*chunks[:5])
        self.hold_otherwise(*chunks[5:])
        sink = CollectingSink()
        await self.store.get_many(ids_of(*chunks), sink)
        self.check(sink, chunks if self.finds_other_form else chunks[:5])

    async def test_get_many_nothing(self) -> None:
        """Nobody is told anything about no chunks."""
        sink = CollectingSink()
        await self.store.get_many(ids_of(), sink)
        self.assertEqual(sink.calls, 0)

    async def test_get_many_duplicates(self) -> None:
        """An id that occurs twice is handed over once, or absent once."""
        chunks = sample_chunks(6, self.digest)
        self.hold(*chunks[:3])
        sink = CollectingSink()
        await self.store.get_many(ids_of(*chunks, *chunks, *reversed(chunks)), sink)
        self.check(sink, chunks[:3])
        self.assertEqual(sorted(sink.missing), sorted(ids_of(*chunks[3:])))

    async def test_get_many_concurrently(self) -> None:
        """Batches may overlap, and single operations too."""
        chunks = sample_chunks(60, self.digest)
        self.hold(*chunks)
        sinks = [CollectingSink() for _ in range(3)]
        batches = (chunks[:40], chunks[20:], chunks[10:50])
        running = [
            self.store.get_many(ids_of(*batch), sink)
            for batch, sink in zip(batches, sinks, strict=True)
        ]
        single = [self.store.get(chunk.chunk_id) for chunk in chunks]
        await gatherResults(running)
        for batch, sink in zip(batches, sinks, strict=True):
            self.check(sink, batch)
        found = await gatherResults(single)
        self.assertEqual([one.plain for one in found], [chunk.plain for chunk in chunks])

    async def test_back_pressure(self) -> None:
        """While the sink asks for no more it gets no more, and in the end all the same."""
        chunks = sample_chunks(_MANY, self.digest)
        self.hold(*chunks)
        sink = CollectingSink(lambda batch: Deferred.fromCoroutine(turns(3)))
        await self.store.get_many(ids_of(*chunks), sink)
        self.check(sink, chunks)

    async def test_fired_pressure(self) -> None:
        """A sink may return a Deferred that has fired."""
        chunks = sample_chunks(_MANY, self.digest)
        self.hold(*chunks)
        sink = CollectingSink(lambda batch: succeed(None))
        await self.store.get_many(ids_of(*chunks), sink)
        self.check(sink, chunks)

    async def test_bounded(self) -> None:
        """A sink that asks for no more has been given a part only."""
        chunks = sample_chunks(_MANY, self.digest)
        self.hold(*chunks)
        ready: Deferred[None] = Deferred()
        sink = CollectingSink(lambda batch: ready if not ready.called else None)
        running = self.store.get_many(ids_of(*chunks), sink)
        await turns()
        self.assertLess(len(sink.found), _MANY)
        self.assertLessEqual(len(sink.batches), 1)
        ready.callback(None)
        await running
        self.check(sink, chunks)

    async def test_sink_raises(self) -> None:
        """What the sink raises ends the transfer, and the sink hears no more."""

        def react(batch: Sequence[Chunk]) -> None:
            raise SinkFailed("full")

        await self._check_ended(react)

    async def test_sink_fails(self) -> None:
        """What the sink's Deferred fails with ends the transfer, and the sink hears no more."""

        async def react() -> None:
            await turns(2)
            raise SinkFailed("full")

        await self._check_ended(lambda batch: Deferred.fromCoroutine(react()))

    async def _check_ended(self, react: Any) -> None:
        chunks = sample_chunks(_MANY, self.digest)
        self.hold(*chunks)
        sink = CollectingSink(react)
        running = self.store.get_many(ids_of(*chunks), sink)
        error = await self.fails(SinkFailed, lambda: running)
        self.assertEqual(str(error), "full")
        await turns()
        self.assertEqual(sink.calls, 1)
        # The store is none the worse for it.
        self.assertEqual((await self.store.get(chunks[0].chunk_id)).plain, chunks[0].plain)

    async def test_cancel_many(self) -> None:
        """After a cancellation the sink hears no more."""
        chunks = sample_chunks(_MANY, self.digest)
        self.hold(*chunks)
        ready: Deferred[None] = Deferred(lambda deferred: None)
        first: Deferred[None] = Deferred()

        def react(batch: Sequence[Chunk]) -> Deferred[None]:
            first.callback(None)
            return ready

        sink = CollectingSink(react)
        running = self.store.get_many(ids_of(*chunks), sink)
        await first
        running.cancel()
        await self.fails(CancelledError, lambda: running)
        if not ready.called:
            ready.callback(None)
        await turns()
        self.assertEqual(sink.calls, 1)
        other = CollectingSink()
        await self.store.get_many(ids_of(*chunks), other)
        self.check(other, chunks)

    async def test_cancel_at_once(self) -> None:
        """A transfer that is canceled right after it began says nothing more to the sink."""
        chunks = sample_chunks(_MANY, self.digest)
        self.hold(*chunks)
        sink = CollectingSink(lambda batch: Deferred.fromCoroutine(turns(3)))
        running = self.store.get_many(ids_of(*chunks), sink)
        calls = sink.calls
        running.cancel()
        await self.fails(CancelledError, lambda: running)
        await turns()
        self.assertEqual(sink.calls, calls)

    async def test_cancel_from_sink(self) -> None:
        """The sink itself may cancel the transfer while it is being called."""
        chunks = sample_chunks(_MANY, self.digest)
        self.hold(*chunks[::2])
        for kind in "chunks", "absent":
            sink = _Canceling(kind)
            sink.transfer = self.store.get_many(ids_of(*chunks), sink)
            try:
                await sink.transfer
            except CancelledError:
                self.assertTrue(sink.is_canceled)
            else:
                # All that was absent was told before the sink could know the transfer.
                self.assertEqual((kind, sink.is_canceled), ("absent", False))
            await turns()
            self.assertEqual(sink.calls_afterwards, 0)

    async def test_missing(self) -> None:
        """The ids of those that aren't there in the store's form are given, sorted, each once."""
        chunks = sample_chunks(40, self.digest)
        self.hold(*chunks[:20])
        self.hold_otherwise(*chunks[20:30])
        found = await self.store.missing(ids_of(*chunks, *chunks))
        self.assertEqual(list(found), sorted(ids_of(*chunks[20:])))
        self.assertTrue(found.is_sorted)
        self.assertEqual(list(await self.store.missing(ids_of(*chunks[:20]))), [])
        self.assertEqual(list(await self.store.missing(ids_of())), [])

    async def test_missing_many(self) -> None:
        """More ids than are looked for at a time are looked for."""
        absent = [sample_chunk(number, 20, self.digest) for number in range(2000)]
        chunks = sample_chunks(5, self.digest)
        self.hold(*chunks)
        found = await self.store.missing(ids_of(*absent, *chunks))
        self.assertEqual(list(found), sorted(ids_of(*absent)))

    async def test_cancel_missing(self) -> None:
        """Looking for chunks can be canceled."""
        running = self.store.missing(ids_of(*sample_chunks(10, self.digest)))
        if not running.called:
            running.cancel()
            await self.fails(CancelledError, lambda: running)
        else:
            await running


class _Canceling(CollectingSink):
    """Cancels the transfer from within the first call of a kind after it knows the transfer."""

    def __init__(self, kind: str) -> None:
        super().__init__(lambda batch: Deferred.fromCoroutine(turns(1)))
        self.kind = kind
        self.transfer: Deferred[None] | None = None
        self.is_canceled = False
        self.calls_afterwards = 0

    def _called(self, kind: str) -> None:
        self.calls_afterwards += self.is_canceled
        if kind == self.kind and self.transfer is not None and not self.is_canceled:
            self.is_canceled = True
            self.transfer.cancel()

    def chunks(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        self._called("chunks")
        return super().chunks(batch)

    def absent(self, ids: ChunkIds) -> None:
        self._called("absent")
        super().absent(ids)


class RenewerContract(StoreContract):
    """What holds of every store that provides :class:`desync.interfaces.IBatchRenewer`."""

    def test_provides_renewer(self) -> None:
        """The store has what the interface names."""
        verifyObject(IBatchRenewer, self.store)

    def pass_time(self, seconds: float) -> None:
        """Make everything in the store older."""
        raise NotImplementedError

    async def test_renew_many(self) -> None:
        """Chunks that are there become young, so that a prune spares them; the others are told."""
        chunks = sample_chunks(40, self.digest)
        self.hold(*chunks[:30])
        self.hold_otherwise(*chunks[30:35])
        self.pass_time(1000)
        found = await self.store.renew_many(ids_of(*chunks[10:], *chunks[20:]))
        self.assertEqual(list(found), sorted(ids_of(*chunks[30:])))
        outcome = await self.store.prune(ChunkIds.from_bytes(b"", is_sorted=True), 600)
        self.assertEqual((outcome.removed, outcome.spared), (10, 20))
