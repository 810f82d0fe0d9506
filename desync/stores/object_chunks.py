# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The store whose chunks are objects in a bucket: S3's, Google Cloud Storage's, or anything that
provides :class:`.objects.IBucket`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkInvalid, ChunkMissing, StoreError
from desync.formats.ids import ChunkIds
from desync.formats.stored import (
    MAX_CHUNK_SIZE,
    chunk_id_of_name,
    chunk_name,
    form_named,
    other_form,
)
from desync.interfaces import IBatch, IChunkRemover, IChunkTarget
from desync.options import DEFAULT_COMPRESSION_LEVEL, DEFAULT_CONCURRENCY

from .batches import blocks, check_id, guarded, packed
from .concurrently import concurrently
from .objects import CHUNK_TYPE, REMOVED_AT_ONCE, ObjectMissing, ObjectTooLarge
from .pruning import Pruned, membership
from .received import Codec, Received
from .retry import IRetriesRequests
from .threads import StoreThreads, Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from twisted.internet.interfaces import IReactorFromThreads

    from desync.chunking.digests import Digest
    from desync.formats.chunk import Chunk
    from desync.interfaces import IChunkSink
    from desync.options import StoreOptions

    from .batches import Guard
    from .objects import IBucket, Listed

#: How many chunks that have arrived, and bytes of them, are checked together in a thread.
_CHECKED_COUNT: Final = 32
_CHECKED_BYTES: Final = 4 << 20


@implementer(IChunkTarget, IChunkRemover, IBatch, IRetriesRequests)
class ObjectChunkStore:
    """
    Chunks as objects, with the names they have as files: ``<prefix>abcd/abcd...ef.cacnk``.

    The age of a chunk is that of its object; finding it present doesn't renew it.

    :param bucket: where the objects are.
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
        bucket: IBucket,
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
        self.location = bucket.location
        self._bucket = bucket
        self._prefix = prefix
        self._form = form_named(extension)
        self._forms = (self._form, other_form(self._form)) if any_form else (self._form,)
        self._codec = Codec(self.location, digest, skip_verify=skip_verify, level=level)
        self._concurrency = concurrency
        self._threads: Threads = StoreThreads(reactor) if threads is None else threads
        self._owns_threads = threads is None
        self._limit = limit

    def __repr__(self) -> str:
        return f"<ObjectChunkStore {self.location}>"

    def _key(self, chunk_id: bytes, extension: str | None = None) -> str:
        extension = self._form.extension if extension is None else extension
        return self._prefix + chunk_name(chunk_id, extension)

    def _id_of(self, key: str) -> bytes | None:
        """Read a chunk's id out of a key; None if it isn't the one that this chunk has here."""
        chunk_id = chunk_id_of_name(key.rpartition("/")[2], self._form.extension)
        return chunk_id if chunk_id is not None and self._key(chunk_id) == key else None

    async def _receive(self, chunk_id: bytes) -> Received:
        for form in self._forms:
            try:
                stored = await self._bucket.get(
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
        return self._bucket.has(self._key(chunk_id))

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
            return body, self._bucket.checksum(body)

        body, checksum = await self._threads.run(encode)
        await self._bucket.put(self._key(chunk.chunk_id), body, CHUNK_TYPE, checksum)

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""

        async def transfer(guard: Guard) -> None:
            arrivals = _Arrivals(self._check_together, guard, self._concurrency)
            todo = iter(ids.sorted_unique())
            lanes = (self._receive_lane(todo, arrivals, guard) for _ in range(self._concurrency))
            await concurrently(lanes, self._concurrency)

        return guarded(sink, transfer)

    async def _receive_lane(self, todo: Iterator[bytes], arrivals: _Arrivals, guard: Guard) -> None:
        for chunk_id in todo:
            try:
                received = await self._receive(chunk_id)
            except ChunkMissing:
                guard.absent(packed([chunk_id]))
            except (ChunkInvalid, StoreError):
                guard.failed(packed([chunk_id]), Failure())
            else:
                await arrivals.take(received)

    async def _check_together(self, received: list[Received], guard: Guard) -> None:
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
                if not await self._bucket.has(self._key(chunk_id)):
                    absent.append(chunk_id)

            await concurrently(map(look, block), self._concurrency)
            found += b"".join(sorted(absent))
        return ChunkIds.from_bytes(bytes(found), is_sorted=True)

    async def _list(self, take: Callable[[list[Listed], float], Awaitable[None]]) -> None:
        """Go through the listing, page by page, with the time that it is at the service."""
        token = ""
        while True:
            page = await self._bucket.list_page(self._prefix, token)
            await take(list(page.objects), time.time() if page.now is None else page.now)
            if not page.token:
                return
            if page.token == token:
                raise StoreError(self.location, "its listing doesn't go on")
            token = page.token

    def list_ids(self) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IChunkRemover.list_ids`."""
        return Deferred.fromCoroutine(self._list_ids())

    async def _list_ids(self) -> ChunkIds:
        found = bytearray()

        async def take(objects: list[Listed], now: float) -> None:
            for one in objects:
                chunk_id = self._id_of(one.key)
                if chunk_id is not None:
                    found.extend(chunk_id)

        await self._list(take)
        return ChunkIds.from_bytes(bytes(found)).sorted_unique()

    def remove(self, chunk_id: bytes) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkRemover.remove`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._remove(chunk_id))

    async def _remove(self, chunk_id: bytes) -> None:
        # Services don't say whether there was something to remove.
        if not await self._bucket.has(self._key(chunk_id)):
            raise ChunkMissing(chunk_id, self.location)
        await self._bucket.remove(self._key(chunk_id))

    def prune(self, keep: ChunkIds, min_age: float, dry_run: bool = False) -> Deferred[Pruned]:
        """
        See :meth:`desync.interfaces.IChunkRemover.prune`.

        Neither the listing nor what is to be removed is kept as a whole. While a thousand chunks
        are removed, the listing goes on.
        """
        return Deferred.fromCoroutine(self._prune(keep, min_age, dry_run))

    async def _prune(self, keep: ChunkIds, min_age: float, dry_run: bool) -> Pruned:
        is_kept = membership(keep)
        kept = removed = removed_bytes = spared = spared_bytes = 0
        doomed: list[str] = []
        removing: Deferred[None] | None = None

        async def take(objects: list[Listed], now: float) -> None:
            nonlocal kept, removed, removed_bytes, spared, spared_bytes, removing
            for one in objects:
                chunk_id = self._id_of(one.key)
                if chunk_id is None:
                    continue
                if is_kept(chunk_id):
                    kept += 1
                elif min_age > 0 and now - one.modified < min_age:
                    spared += 1
                    spared_bytes += one.size
                else:
                    removed += 1
                    removed_bytes += one.size
                    if not dry_run:
                        doomed.append(one.key)
            while len(doomed) >= REMOVED_AT_ONCE:
                if removing is not None:
                    await removing
                removing = self._bucket.remove_many(doomed[:REMOVED_AT_ONCE])
                del doomed[:REMOVED_AT_ONCE]

        try:
            await self._list(take)
            if removing is not None:
                await removing
            if doomed:
                await self._bucket.remove_many(doomed)
        except BaseException:
            if removing is not None:
                removing.addErrback(lambda _: None)
                removing.cancel()
            raise
        return Pruned(kept, removed, removed_bytes, spared, spared_bytes)

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self._bucket.close()
        if self._owns_threads:
            await self._threads.stop()


class _Arrivals:
    """
    Chunks that have arrived and wait to be checked, in the order of their arrival.

    One of those that bring them checks what there is, while the others fetch more, until as many
    wait as requests are under way.
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
        self._checking = False
        self._room: list[Deferred[None]] = []

    async def take(self, received: Received) -> None:
        """Take a chunk; returns when another may be brought."""
        self._arrived.append(received)
        self._bytes += len(received.stored)
        if not self._checking:
            self._checking = True
            try:
                while self._arrived:
                    await self._check(self._next(), self._guard)
            finally:
                self._checking = False
        elif len(self._arrived) >= self._most or self._bytes >= _CHECKED_BYTES:
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


def open_chunks(
    bucket: IBucket,
    prefix: str,
    options: StoreOptions,
    digest: Digest,
    reactor: IReactorFromThreads,
) -> ObjectChunkStore:
    """Make the store of chunks that the options ask for."""
    return ObjectChunkStore(
        bucket,
        prefix,
        reactor,
        extension="" if options.uncompressed else ".cacnk",
        digest=digest,
        skip_verify=options.skip_verify,
        any_form=options.any_form,
        level=options.compression_level,
        concurrency=options.n,
    )
