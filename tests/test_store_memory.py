# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The stores in memory."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.chunking.digests import SHA256, SHA512_256
from desync.errors import ChunkInvalid, WrongDigest
from desync.stores.memory import MemoryIndexStore, MemoryStore
from desync.testing.batch_contract import BatchContract, RenewerContract
from desync.testing.contract import RemoverContract, SourceContract, TargetContract
from desync.testing.index_contract import IndexTargetContract, sample_index
from desync.testing.samples import sample_chunk


class CompressedTests(
    SourceContract, TargetContract, BatchContract, RenewerContract, RemoverContract, TestCase
):
    """A store in memory whose chunks are compressed."""

    def make_store(self) -> MemoryStore:
        self.clock = Clock()
        self.memory = MemoryStore(
            extension=self.extension, digest=self.digest, now=self.clock.seconds
        )
        return self.memory

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.memory.plant(chunk_id, stored, extension)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)


class UncompressedTests(CompressedTests):
    """A store in memory whose chunks are as they are, with the other digest."""

    extension = ""
    digest = SHA256


class MemoryStoreTests(SynchronousTestCase):
    """What a store in memory has beyond the contract."""

    def test_initial_chunks(self) -> None:
        """A store can hold chunks from the beginning."""
        chunk = sample_chunk()
        store = MemoryStore([chunk])
        self.assertEqual(self.successResultOf(store.get(chunk.chunk_id)).plain, chunk.plain)
        self.assertIn("1 chunks", repr(store))

    def test_skip_verify(self) -> None:
        """A store that skips verification hands out what it has, and says that it is unverified."""
        store = MemoryStore(skip_verify=True, extension="")
        store.plant(bytes(32), b"whatever")
        found = self.successResultOf(store.get(bytes(32)))
        self.assertEqual((found.plain, found.verified), (b"whatever", False))

    def test_limit(self) -> None:
        """A chunk larger than the limit is refused in either form."""
        chunk = sample_chunk(size=5000)
        for extension in "", ".cacnk":
            store = MemoryStore([chunk], extension=extension, limit=4999)
            self.failureResultOf(store.get(chunk.chunk_id), ChunkInvalid)


class MemoryIndexStoreTests(IndexTargetContract, TestCase):
    """A store of indexes in memory."""

    def make_store(self) -> MemoryIndexStore:
        self.memory = MemoryIndexStore()
        return self.memory

    def plant(self, name: str, data: bytes) -> None:
        self.memory.plant(name, data)

    async def test_digest(self) -> None:
        """An index made with another digest than the store's is refused."""
        self.store.digest = SHA512_256
        await self.store.put_index("a", sample_index())
        await self.store.get_index("a")
        self.store.digest = SHA256
        await self.fails(WrongDigest, self.store.get_index, "a")
