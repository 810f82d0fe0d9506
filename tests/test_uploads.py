# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Storing the chunks of a file while it's being cut, with real workers and a store in memory."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import FileError, InputChanged, StoreError
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.stored import Compressed, Plain, StoredForm
from desync.jobs import cut, upload
from desync.operations.chop import chop
from desync.operations.make import Made, make
from desync.operations.upload import ChunkUploads
from desync.progress import Progress, Tracker
from desync.stores.memory import MemoryStore
from desync.testing.sinks import listed_ids
from desync.workers.pool import Pool
from desync.workers.reactor import ReactorPool

reactor: Any = default_reactor

SIZES = ChunkSizes(16 << 10, 64 << 10, 256 << 10)
SEGMENT = 1 << 20
AHEAD = 4 * SEGMENT
ROOM = 2 * SEGMENT
SIZE = 24 * SEGMENT


class SlowStore(MemoryStore):
    """
    A store whose puts wait while its gate is shut.

    :ivar waiting: the puts that do.
    :ivar most: how many there were at a time.
    :ivar asked: ids that it was asked about, each time.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.is_open = True
        self.waiting: list[Deferred[None]] = []
        self.most = 0
        self.asked: list[bytes] = []
        self.puts: list[bytes] = []

    def renew_many(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        self.asked.extend(ids)
        return super().renew_many(ids)

    def put(self, chunk: Chunk) -> Deferred[None]:
        self.puts.append(chunk.chunk_id)
        if self.is_open:
            return super().put(chunk)
        gate: Deferred[None] = Deferred()
        self.waiting.append(gate)
        self.most = max(self.most, len(self.waiting))
        put = super().put
        return gate.addCallback(lambda _: put(chunk))

    def open(self) -> None:
        """Let all puts go."""
        self.is_open = True
        waiting, self.waiting = self.waiting, []
        for gate in waiting:
            gate.callback(None)


class Watched(Progress):
    """Remembers the tracker."""

    def start(self, title: str, total: int, unit: Any = "chunks") -> Tracker:
        self.tracker = Tracker(total)
        return self.tracker


class UploadTests(TestCase):
    """A file goes into a store that takes its time."""

    timeout = 120

    def setUp(self) -> None:
        self.patch(upload, "AHEAD", AHEAD)
        self.patch(upload, "ROOM", ROOM)
        # Workers are told how large a segment is.
        self.patch(cut.CutJob.__init__, "__kwdefaults__", {**_DEFAULTS, "segment": SEGMENT})
        half = os.urandom(SIZE // 2)
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(half + half)
        self.pool = ReactorPool(Pool(2), reactor)
        self.addCleanup(self.pool.close)
        self.store = SlowStore()
        self.progress = Watched()

    def make(self, concurrency: int = 5, form: StoredForm | None = None) -> Deferred[Made]:
        """Begin."""
        uploads = ChunkUploads(self.store, concurrency, form)
        return Deferred.fromCoroutine(
            make(self.path, SIZES, SHA512_256, self.pool, self.progress, uploads)
        )

    async def held(self, count: int = 5) -> None:
        """Wait until as many puts wait, and for what might happen then."""
        while len(self.store.waiting) < count:
            await deferLater(reactor, 0.05)
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing moves any more."""
        before: object = None
        while before != (before := (len(self.store.asked), len(self.store.puts))):
            await deferLater(reactor, 0.5)

    async def check(self, made: Made) -> None:
        """Make sure that all is there, and nothing was asked or put twice."""
        ids = made.index.ids.sorted_unique()
        self.assertEqual(made.index.size, SIZE)
        self.assertEqual(await listed_ids(self.store), ids)
        self.assertEqual(sorted(self.store.puts), list(ids))
        self.assertEqual(sorted(self.store.asked), list(ids))
        self.assertEqual(made.stored, len(ids))
        for chunk_id in ids:
            chunk = await self.store.get(chunk_id)
            self.assertEqual(SHA512_256.id_of(chunk.plain), chunk_id)
        self.assertEqual(self.progress.tracker.done, SIZE)

    async def test_forms(self) -> None:
        """Workers encode chunks or leave that to the store, which takes any form."""
        for form in Compressed(1), Plain(), None:
            self.store = SlowStore()
            made = await self.make(form=form)
            await self.check(made)
        again = await self.make()
        self.assertEqual((again.stored, again.stored_bytes), (0, 0))

    async def test_neither_runs_ahead(self) -> None:
        """
        Chunks go out before the file is cut, as many at a time as they may; while none is taken
        only so much is cut and encoded.
        """
        self.store.is_open = False
        making = self.make()
        await self.held()
        self.assertEqual(len(self.store.waiting), 5)
        asked = len(self.store.asked)
        # What two workers were asked for before it was found that it's enough comes on top.
        self.assertLess(asked * SIZES.avg, AHEAD + ROOM + 5 * SEGMENT)
        await self.settle()
        self.assertEqual(len(self.store.asked), asked)
        self.assertFalse(making.called)
        self.store.open()
        await self.check(await making)
        self.assertEqual(self.store.most, 5)

    async def test_large_chunks(self) -> None:
        """As many chunks as may be under way are, also if they are more than there is room for."""
        self.patch(upload, "ROOM", 1)
        self.store.is_open = False
        making = self.make(concurrency=40)
        await self.held(40)
        self.assertEqual(len(self.store.waiting), 40)
        self.store.open()
        await self.check(await making)

    async def test_the_file_changes(self) -> None:
        """A file that is written to meanwhile has no index, whenever that is."""
        self.store.is_open = False
        making = self.make()
        await self.held()
        with open(self.path, "r+b") as file:
            file.seek(SIZE - 100)
            file.write(b"changed")
        self.store.open()
        await self.assertFailure(making, InputChanged)

    async def test_a_chunk_changes(self) -> None:
        """What was found and is no longer there isn't stored, even if the file looks the same."""
        self.store.is_open = False
        making = self.make()
        await self.held()
        found = os.stat(self.path)
        with open(self.path, "r+b") as file:
            file.write(os.urandom(SIZE))
        os.utime(self.path, ns=(found.st_atime_ns, found.st_mtime_ns))
        puts = len(self.store.puts)
        self.store.open()
        await self.assertFailure(making, InputChanged)
        for chunk_id in self.store.puts[puts:]:
            chunk = await self.store.get(chunk_id)
            self.assertEqual(SHA512_256.id_of(chunk.plain), chunk_id)

    async def test_the_store_fails(self) -> None:
        """A put that fails ends all; nothing is put afterwards."""
        self.store.is_open = False
        making = self.make()
        await self.held()
        self.store.waiting.pop().errback(StoreError("a store", "no room"))
        await self.assertFailure(making, StoreError)
        puts = len(self.store.puts)
        await self.settle()
        self.assertEqual(len(self.store.puts), puts)

    async def test_cancelling(self) -> None:
        """So does a cancellation, and the next one gets new workers."""
        self.store.is_open = False
        making = self.make()
        await self.held()
        making.cancel()
        await self.assertFailure(making, CancelledError)
        self.store.is_open = True
        self.store.puts.clear()
        self.store.asked.clear()
        await self.check(await self.make())

    async def test_an_empty_file(self) -> None:
        """A file of nothing has no chunks."""
        os.truncate(self.path, 0)
        made = await self.make()
        self.assertEqual((len(made.index), made.stored, self.store.asked), (0, 0, []))

    async def test_chop(self) -> None:
        """With an index nothing is cut; the rest is the same, and a wrong chunk is named."""
        made = await self.make()
        index = made.index
        self.store = SlowStore()
        self.store.is_open = False
        uploads = ChunkUploads(self.store, 5, Compressed())
        chopping = Deferred.fromCoroutine(chop(index, self.path, uploads, self.pool, self.progress))
        await self.settle()
        self.assertLess(len(self.store.puts), len(index) // 2)
        self.store.open()
        chopped = await chopping
        self.assertEqual(chopped.stored, len(index.ids.sorted_unique()))
        self.assertEqual(await listed_ids(self.store), index.ids.sorted_unique())
        with open(self.path, "r+b") as file:
            file.write(b"changed")
        self.store = SlowStore()
        uploads = ChunkUploads(self.store, 5, Compressed())
        error = await self.assertFailure(
            Deferred.fromCoroutine(chop(index, self.path, uploads, self.pool, self.progress)),
            FileError,
        )
        self.assertIn(f"are not chunk {index.id(0).hex()}", str(error))
        self.assertIsNone(self.store.stored(index.id(0)))


_DEFAULTS: Any = cut.CutJob.__init__.__kwdefaults__
