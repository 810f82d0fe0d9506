# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A layer over stores that hold the same chunks, one of which is used as long as it works."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from desync.errors import ChunkMissing, UsageError
from desync.interfaces import IBatch, IChunkSource

from .batches import Collecting, blocks, check_id, close_all, guarded, packed, require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkSink

    from .batches import Guard

_T = TypeVar("_T")


@implementer(IChunkSource, IBatch)
class Failover:
    """
    Uses one of its stores until that fails, then the next, and so on around.

    That a store doesn't have a chunk is an answer, not a failure. Which store is in use is one
    state for all operations: of several that fail at the same time, only the first moves it on. An
    operation tries each store at most once.

    :param stores: at least one; each must provide IChunkSource and IBatch.
    """

    def __init__(self, stores: Sequence[IChunkSource]) -> None:
        if not stores:
            raise UsageError("a failover group needs a store")
        for store in stores:
            require(store, IChunkSource, IBatch)
        self._stores = tuple(stores)
        self._active = 0
        self.location = "|".join(store.location for store in stores)

    def __repr__(self) -> str:
        return f"<Failover {self.location}>"

    @property
    def active(self) -> IChunkSource:
        """The store that is in use."""
        return self._stores[self._active]

    def _next(self, tried: set[int]) -> int | None:
        """Choose the store in use, or the first after it that hasn't been tried yet."""
        count = len(self._stores)
        for step in range(count):
            which = (self._active + step) % count
            if which not in tried:
                tried.add(which)
                return which
        return None

    def _give_up(self, which: int) -> None:
        if which == self._active:
            self._active = (which + 1) % len(self._stores)

    async def _try(self, operation: Callable[[IChunkSource], Deferred[_T]]) -> _T:
        tried: set[int] = set()
        failed: Exception | None = None
        while (which := self._next(tried)) is not None:
            try:
                return await operation(self._stores[which])
            except (ChunkMissing, CancelledError):
                raise
            except Exception as error:
                failed = error
                self._give_up(which)
        assert failed is not None
        raise failed

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._try(lambda store: store.get(chunk_id)))

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._try(lambda store: store.has(chunk_id)))

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return Deferred.fromCoroutine(self._try(lambda store: IBatch(store).missing(ids)))

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""

        async def transfer(guard: Guard) -> None:
            for block in blocks(ids):
                await self._get_block(block, guard)

        return guarded(sink, transfer)

    async def _get_block(self, ids: ChunkIds, guard: Guard) -> None:
        tried: set[int] = set()
        while (which := self._next(tried)) is not None:
            attempt = Collecting(ids, guard)
            await attempt.run(IBatch(self._stores[which]))
            if not attempt.failures:
                return
            self._give_up(which)
            ids = packed(attempt.failed_ids())
        attempt.tell_failures()

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return close_all(self._stores)
