# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Mounts over stores with Deferreds that are slow, fail, and change; the reactor is a real one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from desync.chunking.digests import SHA512_256
from desync.errors import StoreError
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.index import IndexSizes
from desync.interfaces import IBatch, IChunkSink, IChunkSource
from desync.mounting.mount import check_mountpoint, device_of
from desync.mounting.remote_supply import RemoteSupply
from desync.operations.mount_index import MountedIndex
from desync.stores.batches import Guard, guarded, packed
from desync.stores.concurrently import concurrently
from desync.stores.memory import MemoryStore
from desync.stores.reloading import Reloading
from desync.testing.stores import ScriptedStore

from .command_case import remove_tree
from .mounts import need_fuse
from .test_blob import Sample

DELAY = 0.02


@implementer(IChunkSource, IBatch)
class SlowStore:
    """
    Takes 20 ms for each chunk, and for many at once no longer.

    :ivar most: how many chunks were under way at the same time at the most.
    """

    def __init__(self, inner: MemoryStore, at_once: int = 64) -> None:
        self.inner = inner
        self.location = "slow"
        self.most = 0
        self.closed = False
        self._under_way = 0
        self._room = DeferredSemaphore(at_once)

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See IChunkSource."""
        return self._room.run(lambda: Deferred.fromCoroutine(self._get(chunk_id)))

    async def _get(self, chunk_id: bytes) -> Chunk:
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            await task.deferLater(reactor, DELAY, lambda: None)
            return await self.inner.get(chunk_id)
        finally:
            self._under_way -= 1

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See IChunkSource."""
        return self.inner.has(chunk_id)

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See IBatch."""

        async def transfer(guard: Guard) -> None:
            async def one(chunk_id: bytes) -> None:
                await guard.deliver([await self.get(chunk_id)])

            await concurrently((one(chunk_id) for chunk_id in ids), len(ids))

        return guarded(sink, transfer)

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See IBatch."""
        return self.inner.missing(ids)

    def close(self) -> Deferred[None]:
        """See IStore."""
        self.closed = True
        return self.inner.close()


class StoreCase(TestCase):
    """A mounted blob of some hundred chunks, read in threads by other programs."""

    timeout = 120

    def setUp(self) -> None:
        need_fuse()
        self.sample = Sample(
            [60_000 - 7 * number for number in range(200)], sizes=IndexSizes(1, 1, 65536)
        )
        self.memory = MemoryStore(
            Chunk.of(plain, SHA512_256) for plain in self.sample.chunks.values()
        )
        self.folder = Path(tempfile.mkdtemp(prefix="desync-test-"))
        self.addCleanup(remove_tree, self.folder)
        self.mountpoint = self.folder / "mnt"
        self.mountpoint.mkdir()
        self.said: list[str] = []

    async def mounted(self, store: IChunkSource, body: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do something while a store is mounted, and unmount it."""
        supply = RemoteSupply(store, reactor, deferToThread)  # type: ignore[arg-type]
        mounted = MountedIndex(
            self.sample.index,
            "blob",
            check_mountpoint(str(self.mountpoint)),
            supply,
            reactor,  # type: ignore[arg-type]
            self.said.append,
            cache_size=4 << 20,
        )
        began: Deferred[None] = Deferred()
        running = Deferred.fromCoroutine(mounted.run(lambda: began.callback(None)))
        running.addErrback(lambda why: began.errback(why) if not began.called else why)
        await began
        try:
            await body
        finally:
            running.cancel()
            await running
        self.assertIsNone(device_of(os.path.realpath(self.mountpoint)))

    def read(self, offset: int = 0, size: int = -1) -> Deferred[bytes]:
        """Read a part of the file in a thread."""

        def work() -> bytes:
            with open(self.mountpoint / "blob", "rb", buffering=0) as file:
                return os.pread(file.fileno(), size if size >= 0 else 1 << 30, offset)

        return deferToThread(work)

    async def assert_fails(self, offset: int) -> None:
        """Make sure that reading a byte fails."""
        try:
            found = await self.read(offset, 1)
        except OSError:
            return
        self.fail(f"read {found!r}")


class SlowStoreTests(StoreCase):
    """A store with 20 ms from a question to its answer."""

    def test_dd(self) -> Deferred[None]:
        """dd gets the blob, with many chunks under way at a time."""
        store = SlowStore(self.memory)

        async def body() -> None:
            done = await deferToThread(
                subprocess.run,
                ["dd", f"if={self.mountpoint}/blob", "bs=1M", "status=none"],
                stdout=subprocess.PIPE,
                check=True,
                timeout=60,
            )
            self.assertEqual(done.stdout, self.sample.data)
            self.assertGreater(store.most, 10)

        return Deferred.fromCoroutine(self.mounted(store, body()))

    def test_ended_while_waiting(self) -> Deferred[None]:
        """A mount ends although somebody waits for a chunk, who gets an error."""
        store = ScriptedStore(self.memory)
        store.hold()
        reading: list[Deferred[None]] = []

        async def body() -> None:
            reading.append(Deferred.fromCoroutine(self.assert_fails(0)))
            while not store.waiting:
                await task.deferLater(reactor, 0.01, lambda: None)

        async def check() -> None:
            await self.mounted(store, body())
            await reading[0]
            self.assertTrue(store.canceled)
            self.assertEqual(self.said, [])

        return Deferred.fromCoroutine(check())


class BadStoreTests(StoreCase):
    """Stores that fail."""

    def test_fails_and_returns(self) -> Deferred[None]:
        """While a store fails reading is an error with a line, and works when it is back."""
        store = ScriptedStore(self.memory)

        async def body() -> None:
            self.assertEqual(await self.read(0, 100), self.sample.data[:100])
            offset = len(self.sample.data) // 2
            store.failing[self.sample.index.id(self.sample.index.position_of(offset))] = [
                # The kernel asks once more for a page before it tells the reader.
                StoreError("far", "it is gone"),
                StoreError("far", "it is gone"),
            ]
            await self.assert_fails(offset)
            store.failing.clear()
            self.assertEqual(await self.read(offset, 100), self.sample.data[offset : offset + 100])
            self.assertEqual(len(self.said), 1)
            self.assertIn("far: it is gone", self.said[0])
            self.assertEqual(await self.read(), self.sample.data)

        return Deferred.fromCoroutine(self.mounted(store, body()))

    def test_broken_pipes(self) -> Deferred[None]:
        """After a mount, writing to who no longer reads is an error again, and ends nobody."""

        async def body() -> None:
            self.assertEqual(await self.read(0, 100), self.sample.data[:100])

        async def check() -> None:
            await self.mounted(ScriptedStore(self.memory), body())
            reading, writing = os.pipe()
            os.close(reading)
            self.assertRaises(BrokenPipeError, os.write, writing, b"x")
            os.close(writing)

        return Deferred.fromCoroutine(check())

    def test_wrong_bytes(self) -> Deferred[None]:
        """What isn't the chunk is an error, whatever the store says of it; the rest can be read."""
        starts = list(self.sample.index)
        wrong, _, chunk_id = starts[50]
        self.memory.plant(chunk_id, b"nonsense")

        async def body() -> None:
            await self.assert_fails(wrong)
            self.assertEqual(len(self.said), 1)
            self.assertIn(f"chunk {chunk_id.hex()} is invalid", self.said[0])
            # In whole pages.
            end = wrong // 4096 * 4096
            self.assertEqual(await self.read(0, end), self.sample.data[:end])

        return Deferred.fromCoroutine(self.mounted(ScriptedStore(self.memory), body()))

    def test_silent(self) -> Deferred[None]:
        """A batch that ends without an answer for a chunk is an error for who waits for it."""
        inner = self.memory

        @implementer(IChunkSource, IBatch)
        class Silent(ScriptedStore):
            """Answers batches with every other chunk."""

            def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
                return inner.get_many(packed(list(ids)[::2]), sink)

        async def body() -> None:
            # Reading goes on: what wasn't answered ahead of need is asked for when it is needed.
            self.assertEqual(await self.read(), self.sample.data)

        return Deferred.fromCoroutine(self.mounted(Silent(self.memory), body()))

    def test_unverified(self) -> Deferred[None]:
        """Chunks that a store didn't look at are decoded, in threads."""
        store = MemoryStore(location="loose", skip_verify=True)
        for chunk_id in self.sample.chunks:
            stored = self.memory.stored(chunk_id)
            assert stored is not None
            store.plant(chunk_id, stored)
        start, _, chunk_id = list(self.sample.index)[50]
        good = store.stored(chunk_id)
        assert good is not None
        short = Chunk.of(self.sample.chunks[chunk_id][:-1], SHA512_256).stored_as(store.form)

        async def body() -> None:
            for bad, why in ((b"nonsense", "not a compressed"), (short, "unexpected size")):
                store.plant(chunk_id, bad)
                await self.assert_fails(start)
                self.assertIn(why, self.said[-1])
            store.plant(chunk_id, good)
            self.assertEqual(await self.read(), self.sample.data)

        return Deferred.fromCoroutine(self.mounted(store, body()))


class ChangingStoreTests(StoreCase):
    """Stores that are replaced while they are used."""

    def test_replaced(self) -> Deferred[None]:
        """Reads that are under way end on the old store, which is closed then; others go on."""
        old = SlowStore(self.memory, 4)
        new = ScriptedStore(self.memory)
        store = Reloading(old)

        async def body() -> None:
            reading = self.read()
            await self.read(len(self.sample.data) - 10, 10)
            store.replace(new)
            self.assertEqual(await reading, self.sample.data)
            while not old.closed:
                await task.deferLater(reactor, 0.01, lambda: None)
            self.assertTrue(new.calls)
            self.assertEqual(self.said, [])

        return Deferred.fromCoroutine(self.mounted(store, body()))
