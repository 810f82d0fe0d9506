# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A layer over several stores that are asked in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from desync.errors import ChunkMissing, UsageError
from desync.interfaces import IBatch, IChunkSource, ILocalFiles

from .batches import Relay, at_store, blocks, check_id, close_all, guarded, packed, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkSink

    from .batches import Guard
    from .local_files import LocalFiles


@implementer(IChunkSource, IBatch)
class Route:
    """
    Asks stores in their order, the next one only for chunks that those before don't have.

    Any other error of a store ends the search. If all stores are local, so is the route: it then
    provides :class:`desync.interfaces.ILocalFiles` too.

    :param stores: at least one; each must provide IChunkSource and IBatch.
    """

    def __init__(self, stores: Sequence[IChunkSource]) -> None:
        if not stores:
            raise UsageError("no store provided")
        for store in stores:
            require(store, IChunkSource, IBatch)
        self._stores = tuple(stores)
        self.location = ", ".join(store.location for store in stores)
        if all(ILocalFiles.providedBy(store) for store in stores):
            alsoProvides(self, ILocalFiles)

    def __repr__(self) -> str:
        return f"<Route {self.location}>"

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._get(chunk_id))

    async def _get(self, chunk_id: bytes) -> Chunk:
        for store in self._stores:
            try:
                return await store.get(chunk_id)
            except ChunkMissing:
                continue
            except Exception as error:
                raise at_store(error, store) from None
        raise ChunkMissing(chunk_id, self.location)

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._has(chunk_id))

    async def _has(self, chunk_id: bytes) -> bool:
        for store in self._stores:
            if await store.has(chunk_id):
                return True
        return False

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return Deferred.fromCoroutine(self._missing(ids.sorted_unique()))

    async def _missing(self, ids: ChunkIds) -> ChunkIds:
        for store in self._stores:
            if not ids:
                break
            ids = await IBatch(store).missing(ids)
        return ids

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""

        async def transfer(guard: Guard) -> None:
            for block in blocks(ids):
                await self._get_block(block, guard)

        return guarded(sink, transfer)

    async def _get_block(self, ids: ChunkIds, guard: Guard) -> None:
        for store in self._stores:
            passing = _Passing(ids, guard, store)
            await passing.run(IBatch(store))
            ids = packed(passing.lacking)
        guard.absent(ids)

    def local_files(self) -> tuple[LocalFiles, ...]:
        """See :meth:`desync.interfaces.ILocalFiles.local_files`."""
        return tuple(files for store in self._stores for files in ILocalFiles(store).local_files())

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return close_all(self._stores)


class _Passing(Relay):
    """Takes down what one store doesn't have, for the next."""

    def __init__(self, ids: ChunkIds, guard: Guard, store: IChunkSource) -> None:
        super().__init__(ids, guard)
        self._store = store
        self.lacking: list[bytes] = []

    def lack(self, ids: ChunkIds) -> None:
        self.lacking += ids

    def fail(self, ids: ChunkIds, why: Failure) -> None:
        if why.value is not None:
            named = at_store(why.value, self._store)
            why = why if named is why.value else Failure(named)
        super().fail(ids, why)
