# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The store whose chunks are objects in a bucket: S3's, Google Cloud Storage's, or anything that
provides :class:`.objects.IBucket`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from desync.errors import ChunkMissing, StoreError
from desync.formats.stored import chunk_id_of_name
from desync.interfaces import IChunkRemover

from .batches import check_id
from .keyed_chunks import KeyedChunkStore
from .listing import Parts
from .objects import REMOVED_AT_ONCE
from .pruning import Pruned, membership
from .retry import IRetriesRequests

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from twisted.internet.interfaces import IReactorFromThreads

    from desync.chunking.digests import Digest
    from desync.formats.ids import ChunkIds
    from desync.options import StoreOptions

    from .listing import TakeIds
    from .objects import IBucket, Listed


@implementer(IChunkRemover, IRetriesRequests)
class ObjectChunkStore(KeyedChunkStore):
    """
    Chunks as objects. The age of a chunk is that of its object.

    :param bucket: where the objects are.
    """

    def __init__(
        self, bucket: IBucket, prefix: str, reactor: IReactorFromThreads, **more: Any
    ) -> None:
        super().__init__(bucket, prefix, reactor, **more)
        self._bucket = bucket

    def _id_of(self, key: str) -> bytes | None:
        """Read a chunk's id out of a key; None if it isn't the one that this chunk has here."""
        chunk_id = chunk_id_of_name(key.rpartition("/")[2], self._form.extension)
        return chunk_id if chunk_id is not None and self._key(chunk_id) == key else None

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

    def list_ids(self, take: TakeIds) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkRemover.list_ids`."""
        return Deferred.fromCoroutine(self._list_ids(Parts(take)))

    async def _list_ids(self, parts: Parts) -> None:
        async def look(objects: list[Listed], now: float) -> None:
            found = (self._id_of(one.key) for one in objects)
            await parts.add(chunk_id for chunk_id in found if chunk_id is not None)

        await self._list(look)
        await parts.finish()

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
        doomed: list[Listed] = []
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
                        doomed.append(one)
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
