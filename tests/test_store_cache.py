# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The layer that keeps a store's chunks in a nearer one."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from desync.errors import ChunkInvalid, ChunkMissing, StoreError
from desync.formats.ids import ChunkIds
from desync.formats.stored import Compressed
from desync.interfaces import IBatchRenewer
from desync.stores.cache import Cache
from desync.stores.memory import MemoryStore
from desync.stores.route import Route
from desync.testing.batch_contract import BatchContract, ids_of
from desync.testing.contract import SourceContract
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink
from desync.testing.stores import ScriptedStore


class EmptyCacheTests(SourceContract, BatchContract, TestCase):
    """A cache that has nothing yet, in the source's form."""

    cache_extension = ".cacnk"

    def make_store(self) -> Cache:
        self.source = MemoryStore(location="far")
        self.cache = MemoryStore(location="near", extension=self.cache_extension)
        return Cache(self.source, self.cache)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.source.plant(chunk_id, stored, extension)


class UncompressedCacheTests(EmptyCacheTests):
    """A cache that has nothing yet, in another form than the source."""

    cache_extension = ""


class FullCacheTests(EmptyCacheTests):
    """A cache that has everything, good and bad, over an empty source; bad chunks are errors."""

    def make_store(self) -> Cache:
        super().make_store()
        return Cache(self.source, self.cache, repair=False)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.cache.plant(chunk_id, stored, extension)


class MixedCacheTests(EmptyCacheTests):
    """A cache that has about half of what the source has."""

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.source.plant(chunk_id, stored, extension)
        if chunk_id[0] % 2:
            self.cache.plant(chunk_id, stored, extension)


class CacheTests(SynchronousTestCase):
    """What a cache does beyond the contract."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.chunks = sample_chunks(6)
        self.source = ScriptedStore(MemoryStore(self.chunks, location="far"))
        self.near = MemoryStore(location="near", now=self.clock.seconds)
        self.cache = Cache(self.source, self.near)

    def test_fills(self) -> None:
        """What had to be fetched is in the cache afterwards, and isn't fetched again."""
        for _ in range(2):
            found = self.successResultOf(self.cache.get(self.chunks[0].chunk_id))
            self.assertEqual(found.plain, self.chunks[0].plain)
            sink = CollectingSink()
            self.successResultOf(self.cache.get_many(ids_of(*self.chunks), sink))
            self.assertEqual(len(sink.found), 6)
        self.assertEqual(
            self.source.calls,
            [
                ("get", [self.chunks[0].chunk_id]),
                ("get_many", sorted(ids_of(*self.chunks[1:]))),
            ],
        )

    def test_no_recompression(self) -> None:
        """A chunk goes into a cache of the same form as it came, byte for byte."""
        one, other = self.chunks[:2]
        for chunk in one, other:
            stored = Compressed(level=19).encode(chunk.plain)
            self.source.inner.plant(chunk.chunk_id, stored)
        self.successResultOf(self.cache.get(one.chunk_id))
        self.successResultOf(self.cache.get_many(ids_of(other), CollectingSink()))
        for chunk in one, other:
            stored_near = self.near.stored(chunk.chunk_id)
            self.assertEqual(stored_near, self.source.inner.stored(chunk.chunk_id))

    def test_renews(self) -> None:
        """A hit makes the chunk young, so that clean-up by age takes what nobody uses."""
        used, used_in_batch, unused = self.chunks[:3]
        self.successResultOf(self.cache.get_many(ids_of(*self.chunks[:3]), CollectingSink()))
        self.clock.advance(1000)
        self.successResultOf(self.cache.get(used.chunk_id))
        self.successResultOf(self.cache.get_many(ids_of(used_in_batch), CollectingSink()))
        nothing = ChunkIds.from_bytes(b"", is_sorted=True)
        outcome = self.successResultOf(self.near.prune(nothing, 600))
        self.assertEqual((outcome.removed, outcome.spared), (1, 2))
        self.assertIsNone(self.near.stored(unused.chunk_id))

    def test_failing_renewal(self) -> None:
        """A chunk whose age can't be renewed is handed out all the same."""

        @implementer(IBatchRenewer)
        class Stubborn(ScriptedStore):
            def renew_many(self, ids: ChunkIds) -> Deferred[ChunkIds]:
                raise StoreError("near", "read-only file system")

        cache = Cache(self.source, Stubborn(MemoryStore(self.chunks)))
        self.successResultOf(cache.get(self.chunks[0].chunk_id))
        sink = CollectingSink()
        self.successResultOf(cache.get_many(ids_of(*self.chunks), sink))
        self.assertEqual((len(sink.found), self.source.calls), (6, []))

    def test_no_renewal(self) -> None:
        """A cache that can't renew ages isn't asked to."""
        near = ScriptedStore(MemoryStore(self.chunks))
        cache = Cache(self.source, near)
        self.successResultOf(cache.get(self.chunks[0].chunk_id))
        self.assertEqual(near.calls, [("get", [self.chunks[0].chunk_id])])

    def test_repair(self) -> None:
        """An invalid chunk in the cache is replaced by the source's."""
        one, other = self.chunks[:2]
        for chunk in one, other:
            self.near.plant(chunk.chunk_id, b"rubbish")
        self.assertEqual(self.successResultOf(self.cache.get(one.chunk_id)).plain, one.plain)
        sink = CollectingSink()
        self.successResultOf(self.cache.get_many(ids_of(other), sink))
        self.assertEqual(sink.found[other.chunk_id].plain, other.plain)
        for chunk in one, other:
            self.assertEqual(self.successResultOf(self.near.get(chunk.chunk_id)).plain, chunk.plain)

    def test_repair_impossible(self) -> None:
        """An invalid chunk that the source doesn't have is missing."""
        absent = sample_chunk(99)
        self.near.plant(absent.chunk_id, b"rubbish")
        self.failureResultOf(self.cache.get(absent.chunk_id), ChunkMissing)
        sink = CollectingSink()
        self.successResultOf(self.cache.get_many(ids_of(absent), sink))
        self.assertEqual(sink.missing, [absent.chunk_id])

    def test_no_repair(self) -> None:
        """Unless it is to be repaired, an invalid chunk in the cache is an error."""
        cache = Cache(self.source, self.near, repair=False)
        chunk_id = self.chunks[0].chunk_id
        self.near.plant(chunk_id, b"rubbish")
        error = self.failureResultOf(cache.get(chunk_id), ChunkInvalid).value
        sink = CollectingSink()
        self.successResultOf(cache.get_many(ids_of(*self.chunks[:1]), sink))
        for one in error, sink.errors[chunk_id]:
            self.assertTrue(str(one).startswith(f"near: chunk {chunk_id.hex()} is invalid"))
        self.assertEqual(self.source.calls, [])

    def test_failing_cache(self) -> None:
        """A cache that can't tell what it has isn't taken for empty."""
        near = ScriptedStore(MemoryStore(location="near"))
        cache = Cache(self.source, near)
        for operation in (
            lambda: cache.get(self.chunks[0].chunk_id),
            lambda: cache.has(self.chunks[0].chunk_id),
            lambda: cache.missing(ids_of(*self.chunks)),
        ):
            near.fail_next(StoreError("near", "Input/output error"))
            error = self.failureResultOf(operation(), StoreError).value
            self.assertEqual(str(error), "near: Input/output error")
        near.fail_next(StoreError("near", "Input/output error"))
        sink = CollectingSink()
        self.successResultOf(cache.get_many(ids_of(*self.chunks), sink))
        self.assertEqual((len(sink.errors), self.source.calls), (6, []))

    def test_full_disk(self) -> None:
        """A chunk that can't be put into the cache is an error that says so."""
        near = ScriptedStore(MemoryStore(location="near"))
        cache = Cache(self.source, near)
        full = StoreError("near", "No space left on device")
        near.fail_next(None, full)
        error = self.failureResultOf(cache.get(self.chunks[0].chunk_id), StoreError).value
        expected = "near: failed to store in local cache: No space left on device"
        self.assertEqual(str(error), expected)
        near.fail_next(None, full)
        sink = CollectingSink()
        self.successResultOf(cache.get_many(ids_of(*self.chunks), sink))
        self.assertEqual([str(one) for one in sink.errors.values()], [expected])
        self.assertEqual(len(sink.found), 5)

    def test_unverified_source(self) -> None:
        """What a source hands out unchecked is checked before it goes into the cache."""
        source = MemoryStore(location="far", skip_verify=True, extension="")
        source.plant(bytes(32), b"wrong")
        cache = Cache(source, self.near)
        error = self.failureResultOf(cache.get(bytes(32)), ChunkInvalid).value
        sink = CollectingSink()
        self.successResultOf(cache.get_many(ChunkIds.from_bytes(bytes(32)), sink))
        for one in error, sink.errors[bytes(32)]:
            self.assertTrue(str(one).startswith("far: chunk 0000"), str(one))
        self.assertIsNone(self.near.stored(bytes(32)))

    def test_has(self) -> None:
        """The source is asked only for what the cache doesn't have."""
        here, there = (chunk.chunk_id for chunk in self.chunks[:2])
        self.near.plant(here, b"whatever")
        absent = sample_chunk(99).chunk_id
        for chunk_id, expected in (here, True), (there, True), (absent, False):
            self.assertIs(self.successResultOf(self.cache.has(chunk_id)), expected)
        found = self.successResultOf(self.cache.missing(ChunkIds.from_iterable([here, absent])))
        self.assertEqual(list(found), [absent])
        self.assertEqual([ids for _, ids in self.source.calls], [[there], [absent], [absent]])

    def test_source_goes_on(self) -> None:
        """While chunks go into the cache the source hands over more, but not without end."""
        chunks = [sample_chunk(number) for number in range(200)]
        held = ScriptedStore(MemoryStore(location="held"))
        cache, sink = Cache(MemoryStore(chunks), held), CollectingSink()
        held.hold()
        running = cache.get_many(ids_of(*chunks), sink)
        held.release(1)  # the look for what the cache has
        self.assertGreater(held.waiting, 16)
        self.assertLess(held.waiting, 200)
        held.release()
        self.successResultOf(running)
        self.assertEqual((len(sink.found), sink.violations), (200, []))

    def test_cancel(self) -> None:
        """A cancellation reaches the source and what is on its way into the cache."""
        near = ScriptedStore(MemoryStore(location="near"))
        cache = Cache(self.source, near)
        sink = CollectingSink()
        near.hold()
        running = cache.get_many(ids_of(*self.chunks), sink)
        near.release(1)
        self.assertEqual(near.waiting, 6)
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual((near.canceled, near.waiting, sink.calls), (["put"] * 6, 0, 0))
        near.release()
        self.source.hold()
        getting = cache.get(self.chunks[0].chunk_id)
        getting.cancel()
        self.failureResultOf(getting, CancelledError)
        self.assertEqual(self.source.canceled, ["get"])

    def test_sink_failure(self) -> None:
        """A sink that fails ends the transfer, also while more chunks go into the cache."""

        def react(batch: object) -> None:
            raise RuntimeError("full")

        running = self.cache.get_many(ids_of(*self.chunks), CollectingSink(react))
        self.failureResultOf(running, RuntimeError)

    def test_refused(self) -> None:
        """A cache must be a store that can be written to, and both must take many ids."""
        self.assertRaises(TypeError, Cache, self.source, Route([self.near]))
        self.assertRaises(TypeError, Cache, object(), self.near)

    def test_close(self) -> None:
        """Closing closes both stores."""
        near = ScriptedStore(MemoryStore())
        self.successResultOf(Cache(self.source, near).close())
        self.assertEqual((near.closed, self.source.closed), (1, 1))
