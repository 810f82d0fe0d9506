# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The store whose chunks are asked for by key, one a request: objects in a bucket, files of a web
server, or anything that provides :class:`.objects.IObjects`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkInvalid, ChunkMissing, StoreError
from desync.formats.ids import ChunkIds
from desync.formats.stored import MAX_CHUNK_SIZE, chunk_name, form_named, other_form
from desync.interfaces import IBatch, IChunkTarget
from desync.options import DEFAULT_COMPRESSION_LEVEL, DEFAULT_CONCURRENCY

from .batches import blocks, check_id, guarded, packed
from .concurrently import concurrently
from .objects import CHUNK_TYPE, ObjectMissing, ObjectTooLarge
from .received import Codec, Received
from .threads import StoreThreads, Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from twisted.internet.interfaces import IReactorFromThreads

    from desync.chunking.digests import Digest
    from desync.formats.chunk import Chunk
    from desync.interfaces import IChunkSink

    from .batches import Guard
    from .objects import IObjects

#: How many chunks that have arrived, and bytes of them, are checked together in a thread.
_CHECKED_COUNT: Final = 64
_CHECKED_BYTES: Final = 4 << 20

#: How many that have arrived are worth checking beside others.
_MANY: Final = 16


@implementer(IChunkTarget, IBatch)
class KeyedChunkStore:
    """
    Chunks under the names that they have as files: ``<prefix>abcd/abcd...ef.cacnk``. Finding one
    present doesn't renew its age.

    :param objects: what is asked.
    :param prefix: what the keys of all its chunks begin with; empty, or ends with a slash.
    :param reactor: where the results of threads arrive.
    :param extension: the form that is written and read: ``".cacnk"`` or ``""``.
    :param skip_verify: hand out what is there without checking it.
    :param any_form: also read a chunk that is there in the other form only.
    :param level: zstd's.
    :param concurrency: how many requests a batch has under way.
    :param threads: what takes time; some of the store's own if not given.
    :param limit: the most bytes that a chunk may have.
    """

    def __init__(
        self,
        objects: IObjects,
        prefix: str,
        reactor: IReactorFromThreads,
        *,
        extension: str = ".cacnk",
        digest: Digest = SHA512_256,
        skip_verify: bool = False,
        any_form: bool = False,
        level: int = DEFAULT_COMPRESSION_LEVEL,
        concurrency: int = DEFAULT_CONCURRENCY,
        threads: Threads | None = None,
        limit: int = MAX_CHUNK_SIZE,
    ) -> None:
        self.location = objects.location
        self._objects = objects
        self._prefix = prefix
        self._form = form_named(extension)
        self._forms = (self._form, other_form(self._form)) if any_form else (self._form,)
        self._codec = Codec(self.location, digest, skip_verify=skip_verify, level=level)
        self._concurrency = concurrency
        self._threads: Threads = StoreThreads(reactor) if threads is None else threads
        self._owns_threads = threads is None
        self._limit = limit

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location}>"

    def _key(self, chunk_id: bytes, extension: str | None = None) -> str:
        extension = self._form.extension if extension is None else extension
        return self._prefix + chunk_name(chunk_id, extension)

    async def _receive(self, chunk_id: bytes) -> Received:
        for form in self._forms:
            try:
                stored = await self._objects.get(
                    self._key(chunk_id, form.extension), form.stored_limit(self._limit)
                )
            except ObjectMissing:
                continue
            except ObjectTooLarge:
                raise ChunkInvalid(chunk_id, "it is too large", self.location) from None
            return Received(chunk_id, stored, form.extension)
        raise ChunkMissing(chunk_id, self.location)

    async def _get(self, chunk_id: bytes) -> Chunk:
        return await self._threads.run(self._codec.check_one, await self._receive(chunk_id))

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._get(chunk_id))

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        check_id(chunk_id)
        return self._objects.has(self._key(chunk_id))

    def renew(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkTarget.renew`."""
        return self.has(chunk_id)

    def put(self, chunk: Chunk) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkTarget.put`."""
        check_id(chunk.chunk_id)
        # A thread converts the chunk while the caller may go on using it.
        own = chunk if chunk.verified else chunk.copy()
        return Deferred.fromCoroutine(self._put(own))

    async def _put(self, chunk: Chunk) -> None:
        def encode() -> tuple[bytes, str]:
            body = self._codec.encode(chunk, self._form.extension)
            return body, self._objects.checksum(body)

        body, checksum = await self._threads.run(encode)
        await self._objects.put(self._key(chunk.chunk_id), body, CHUNK_TYPE, checksum)

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""

        return guarded(sink, lambda guard: self.fetch_singly(ids, guard))

    async def fetch_singly(self, ids: ChunkIds, guard: Guard) -> None:
        """Fetch chunks with a request for each, so many at a time."""
        arrivals = Arrivals(self.check_together, guard, self._concurrency)
        todo = iter(ids.sorted_unique())
        lanes = (self._receive_lane(todo, arrivals, guard) for _ in range(self._concurrency))
        await concurrently(lanes, self._concurrency)

    async def _receive_lane(self, todo: Iterator[bytes], arrivals: Arrivals, guard: Guard) -> None:
        for chunk_id in todo:
            try:
                received = await self._receive(chunk_id)
            except ChunkMissing:
                guard.absent(packed([chunk_id]))
            except (ChunkInvalid, StoreError):
                guard.failed(packed([chunk_id]), Failure())
            else:
                await arrivals.take(received)

    async def check_together(self, received: list[Received], guard: Guard) -> None:
        """Check chunks that have arrived, and hand them over."""
        chunks, failed = await self._threads.run(self._codec.check, received)
        for chunk_id, why in failed:
            guard.failed(packed([chunk_id]), Failure(why))
        await guard.deliver(chunks)

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return Deferred.fromCoroutine(self._missing(ids))

    async def _missing(self, ids: ChunkIds) -> ChunkIds:
        found = bytearray()
        for block in blocks(ids):
            absent: list[bytes] = []

            async def look(chunk_id: bytes, absent: list[bytes] = absent) -> None:
                if not await self._objects.has(self._key(chunk_id)):
                    absent.append(chunk_id)

            await concurrently(map(look, block), self._concurrency)
            found += b"".join(sorted(absent))
        return ChunkIds.from_bytes(bytes(found), is_sorted=True)

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self._objects.close()
        if self._owns_threads:
            await self._threads.stop()


class Arrivals:
    """
    Chunks that have arrived and wait to be checked, in the order of their arrival.

    One of those that bring them checks what there is, and another one what has come meanwhile if
    that is much; the others fetch more, until as many wait as are checked together, or as
    requests are under way.
    """

    def __init__(
        self,
        check: Callable[[list[Received], Guard], Awaitable[None]],
        guard: Guard,
        most: int,
    ) -> None:
        self._check = check
        self._guard = guard
        self._most = most
        self._arrived: list[Received] = []
        self._bytes = 0
        self._checking = 0
        self._room: list[Deferred[None]] = []

    async def take(self, received: Received) -> None:
        """Take a chunk; returns when another may be brought."""
        self._arrived.append(received)
        self._bytes += len(received.stored)
        if not self._checking or (self._checking == 1 and len(self._arrived) >= _MANY):
            self._checking += 1
            try:
                while self._arrived:
                    await self._check(self._next(), self._guard)
            finally:
                self._checking -= 1
        elif len(self._arrived) >= max(self._most, _CHECKED_COUNT) or self._bytes >= _CHECKED_BYTES:
            room: Deferred[None] = Deferred(self._room.remove)
            self._room.append(room)
            await room

    def _next(self) -> list[Received]:
        count = size = 0
        for received in self._arrived[:_CHECKED_COUNT]:
            count += 1
            size += len(received.stored)
            if size >= _CHECKED_BYTES:
                break
        some, self._arrived = self._arrived[:count], self._arrived[count:]
        self._bytes -= size
        waiting, self._room = self._room, []
        for room in waiting:
            room.callback(None)
        return some
