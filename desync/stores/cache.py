# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A layer that keeps the chunks of a store in another, nearer one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.errors import ChunkInvalid, ChunkMissing, StoreError
from desync.interfaces import IBatch, IBatchRenewer, IChunkSource, IChunkTarget

from .backlog import Backlog
from .batches import Relay, at_store, blocks, check_id, close_all, guarded, packed, require
from .concurrently import concurrently

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkSink

    from .batches import Guard

#: How many batches from the source may be on their way into the cache.
_BATCHES = 4

#: How many chunks of a batch are put into the cache at a time.
_PUTS = 16


@implementer(IChunkSource, IBatch)
class Cache:
    """
    Looks for chunks in a cache first, and puts there what it had to fetch from the source.

    A chunk goes into the cache in the form it came in, if that is the cache's. The age of chunks
    that are found in the cache is renewed, where the cache can do that for many at a time, so that
    the cache can be cleaned up by age. A chunk that can't be put into the cache is not handed out,
    lest a full disk go unnoticed.

    :param source: must provide IChunkSource and IBatch.
    :param cache: must provide IChunkTarget and IBatch.
    :param repair: replace an invalid chunk in the cache by the source's; otherwise it is an error.
    :param on_hits: told how many chunks were found in the cache, whenever some were.
    """

    def __init__(
        self,
        source: IChunkSource,
        cache: IChunkTarget,
        repair: bool = True,
        on_hits: Callable[[int], None] = lambda count: None,
    ) -> None:
        require(source, IChunkSource, IBatch)
        require(cache, IChunkTarget, IBatch)
        self._source = source
        self._cache = cache
        self._repair = repair
        self._on_hits = on_hits
        self._renewer = IBatchRenewer(cache, None)
        self.location = f"{source.location} with cache {cache.location}"

    def __repr__(self) -> str:
        return f"<Cache {self.location}>"

    @property
    def cache(self) -> IChunkTarget:
        """Where chunks are kept."""
        return self._cache

    def is_lacking(self, error: BaseException | None) -> bool:
        """Tell whether what the cache failed with means that the source is to be asked."""
        return isinstance(error, ChunkInvalid) and self._repair

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._get(chunk_id))

    async def _get(self, chunk_id: bytes) -> Chunk:
        try:
            chunk = await self._cache.get(chunk_id)
        except ChunkMissing:
            pass
        except ChunkInvalid as error:
            if not self.is_lacking(error):
                raise
        else:
            await self._renew([chunk_id])
            return chunk
        chunk = await self._source.get(chunk_id)
        await self.keep(chunk)
        return chunk

    async def _renew(self, ids: Iterable[bytes]) -> None:
        hits = packed(ids)
        if hits:
            self._on_hits(len(hits))
        if hits and self._renewer is not None:
            # The chunks are in hand, which is what was asked for.
            with suppress(StoreError):
                await self._renewer.renew_many(hits)

    async def keep(self, chunk: Chunk) -> None:
        """Put a chunk of the source into the cache."""
        try:
            await self._cache.put(chunk)
        except ChunkInvalid as error:
            # Only the source's own check was skipped; the cache takes nothing on trust.
            raise at_store(error, self._source) from None
        except StoreError as error:
            where = self._cache.location
            why = error.why if error.store == where else str(error)
            raise StoreError(where, f"failed to store in local cache: {why}") from None

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._has(chunk_id))

    async def _has(self, chunk_id: bytes) -> bool:
        return await self._cache.has(chunk_id) or await self._source.has(chunk_id)

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return Deferred.fromCoroutine(self._missing(ids))

    async def _missing(self, ids: ChunkIds) -> ChunkIds:
        ids = await IBatch(self._cache).missing(ids)
        return await IBatch(self._source).missing(ids) if ids else ids

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""

        async def transfer(guard: Guard) -> None:
            for block in blocks(ids):
                await self._get_block(block, guard)

        return guarded(sink, transfer)

    async def _get_block(self, ids: ChunkIds, guard: Guard) -> None:
        looking = _Looking(ids, guard, self)
        await looking.run(IBatch(self._cache))
        await self._renew(looking.hits)
        filling = _Filling(looking.lacking, guard, self)
        try:
            await filling.run(IBatch(self._source))
            await filling.backlog.finish()
        finally:
            filling.backlog.cancel()

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return close_all([self._cache, self._source])


class _Looking(Relay):
    """Passes on what the cache has, and takes down what it hasn't."""

    def __init__(self, ids: Iterable[bytes], guard: Guard, cache: Cache) -> None:
        super().__init__(ids, guard)
        self._cache = cache
        self.hits: list[bytes] = []
        self.lacking: list[bytes] = []

    def take(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        self.hits += [chunk.chunk_id for chunk in batch]
        return super().take(batch)

    def lack(self, ids: ChunkIds) -> None:
        self.lacking += ids

    def fail(self, ids: ChunkIds, why: Failure) -> None:
        if self._cache.is_lacking(why.value):
            self.lacking += ids
        else:
            super().fail(ids, why)


class _Filling(Relay):
    """Puts what the source has into the cache, and then passes it on."""

    def __init__(self, ids: Iterable[bytes], guard: Guard, cache: Cache) -> None:
        super().__init__(ids, guard)
        self._cache = cache
        self.backlog = Backlog(_BATCHES)

    def take(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        return self.backlog.add(self._keep(batch))

    async def _keep(self, batch: Sequence[Chunk]) -> None:
        kept: list[Chunk] = []

        async def keep(chunk: Chunk) -> None:
            try:
                await self._cache.keep(chunk)
            except CancelledError:
                raise
            except Exception:
                self.guard.failed(packed([chunk.chunk_id]), Failure())
            else:
                kept.append(chunk)

        await concurrently((keep(chunk) for chunk in batch), _PUTS)
        await self.guard.deliver(kept)
