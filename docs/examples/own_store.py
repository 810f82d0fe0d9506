# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A store of one's own: chunks in an SQLite database. The package's contract tests check it:

    python -m twisted.trial own_store.py
"""

from __future__ import annotations

from sqlite3 import Connection, IntegrityError, OperationalError, connect
from typing import Any

from twisted.enterprise.adbapi import ConnectionPool
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from desync import Chunk, ChunkIds
from desync.chunking.digests import SHA512_256, Digest
from desync.errors import ChunkInvalid, ChunkMissing, StoreError
from desync.formats.stored import Compressed
from desync.interfaces import IBatch, IChunkSink, IChunkTarget
from desync.stores.batches import Guard, blocks, check_id, guarded, packed
from desync.testing.batch_contract import BatchContract
from desync.testing.contract import SourceContract, TargetContract

TABLE = "CREATE TABLE IF NOT EXISTS chunk (id BLOB PRIMARY KEY, stored BLOB NOT NULL)"


def prepare(connection: Connection) -> None:
    """Make a new connection ready for use."""
    connection.execute(TABLE)
    connection.commit()


@implementer(IChunkTarget, IBatch)
class SQLiteStore:
    """
    Chunks in a database, compressed.

    What blocks (the database) and what takes long (decoding, hashing) happens in threads, where
    adbapi runs the methods that get a cursor.

    :param path: the database's file, made if it isn't there.
    """

    def __init__(self, path: str, digest: Digest = SHA512_256) -> None:
        self.location = f"sqlite:{path}"
        self._digest = digest
        self._pool = ConnectionPool(
            "sqlite3", path, check_same_thread=False, cp_openfun=prepare, cp_noisy=False
        )
        self._closed = False

    async def _run(self, work: Any, *args: Any) -> Any:
        try:
            return await self._pool.runInteraction(work, *args)
        except (IntegrityError, OperationalError) as error:
            # Never ChunkMissing: a database that can't be read hasn't lost its chunks.
            raise StoreError(self.location, str(error)) from None

    def _verified(self, chunk_id: bytes, stored: bytes) -> Chunk:
        chunk = Chunk(chunk_id, stored=stored, form=Compressed())
        try:
            chunk.verify(self._digest)
        except ChunkInvalid as error:
            raise ChunkInvalid(chunk_id, error.why, self.location) from None
        return chunk

    # IChunkSource

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._run(self._get, chunk_id))

    def _get(self, cursor: Any, chunk_id: bytes) -> Chunk:
        row = cursor.execute("SELECT stored FROM chunk WHERE id = ?", [chunk_id]).fetchone()
        if row is None:
            raise ChunkMissing(chunk_id, self.location)
        return self._verified(chunk_id, row[0])

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._run(self._has, chunk_id))

    def _has(self, cursor: Any, chunk_id: bytes) -> bool:
        return cursor.execute("SELECT 1 FROM chunk WHERE id = ?", [chunk_id]).fetchone() is not None

    def close(self) -> Deferred[None]:
        if not self._closed:
            self._closed = True
            self._pool.close()
        return succeed(None)

    # IChunkTarget

    def put(self, chunk: Chunk) -> Deferred[None]:
        check_id(chunk.chunk_id)
        # The caller may go on using the chunk while a thread converts it.
        return Deferred.fromCoroutine(self._run(self._put, chunk.copy()))

    def _put(self, cursor: Any, chunk: Chunk) -> None:
        chunk.verify(self._digest)
        row = [chunk.chunk_id, chunk.stored_as(Compressed())]
        cursor.execute("INSERT OR REPLACE INTO chunk VALUES (?, ?)", row)

    def renew(self, chunk_id: bytes) -> Deferred[bool]:
        # There are no ages here to renew.
        return self.has(chunk_id)

    # IBatch

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        async def transfer(guard: Guard) -> None:
            for block in blocks(ids, 32):
                found, absent, failed = await self._run(self._get_some, block)
                guard.absent(packed(absent))
                for chunk_id, why in failed:
                    guard.failed(packed([chunk_id]), Failure(why))
                # Waits as long as the sink wants no more.
                await guard.deliver(found)

        # Sees to it that nothing reaches the sink after a cancellation.
        return guarded(sink, transfer)

    def _get_some(
        self, cursor: Any, ids: ChunkIds
    ) -> tuple[list[Chunk], set[bytes], list[tuple[bytes, ChunkInvalid]]]:
        marks = ",".join("?" * len(ids))
        rows = cursor.execute(f"SELECT id, stored FROM chunk WHERE id IN ({marks})", list(ids))
        found, absent, failed = [], set(ids), []
        for chunk_id, stored in rows.fetchall():
            absent.discard(chunk_id)
            try:
                found.append(self._verified(chunk_id, stored))
            except ChunkInvalid as error:
                failed.append((chunk_id, error))
        return found, absent, failed

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        async def look() -> ChunkIds:
            absent: list[bytes] = []
            for block in blocks(ids, 512):
                absent += await self._run(self._missing, block)
            return packed(absent)

        return Deferred.fromCoroutine(look())

    def _missing(self, cursor: Any, ids: ChunkIds) -> set[bytes]:
        marks = ",".join("?" * len(ids))
        rows = cursor.execute(f"SELECT id FROM chunk WHERE id IN ({marks})", list(ids))
        return set(ids).difference(row[0] for row in rows.fetchall())


class SQLiteStoreTests(SourceContract, TargetContract, BatchContract, TestCase):
    """The store keeps what the interfaces promise."""

    finds_other_form = False

    def make_store(self) -> SQLiteStore:
        self.path = self.mktemp()  # type: ignore[no-untyped-call]
        return SQLiteStore(self.path, self.digest)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        if extension != self.extension:
            return  # it has no place for chunks in the other form
        connection = connect(self.path)
        connection.execute("PRAGMA synchronous = OFF")
        prepare(connection)
        with connection:
            connection.execute("INSERT OR REPLACE INTO chunk VALUES (?, ?)", [chunk_id, stored])
        connection.close()
