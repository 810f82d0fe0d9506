# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Stores in memory: for tests, yours too, and for small jobs.

They answer at once, keep every promise of the interfaces, and can be made to hold what no good
store would.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, execute, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkInvalid, ChunkMissing, DesyncError, IndexMissing
from desync.formats.chunk import Chunk
from desync.formats.index import Index
from desync.formats.stored import MAX_CHUNK_SIZE, form_named, other_form
from desync.interfaces import IBatch, IBatchRenewer, IChunkRemover, IChunkTarget, IIndexTarget

from .batches import check_id, guarded, packed
from .index_files import check_index_name
from .listing import Parts
from .pruning import Pruned, membership

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from desync.chunking.digests import Digest
    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkSink

    from .batches import Guard
    from .listing import TakeIds

#: How many chunks are handed over at a time.
_BATCH: Final = 16


@implementer(IChunkTarget, IChunkRemover, IBatch, IBatchRenewer)
class MemoryStore:
    """
    A store whose chunks are in memory, in either form.

    :param chunks: what it holds from the beginning.
    :param location: how messages name it.
    :param extension: the form that is written, and looked for first: ``".cacnk"`` or ``""``.
    :param skip_verify: hand out what is there without checking it.
    :param limit: the most bytes that a chunk may have.
    :param now: tells the time in seconds; chunks take their age from it.
    """

    def __init__(
        self,
        chunks: Iterable[Chunk] = (),
        *,
        location: str = "memory",
        extension: str = ".cacnk",
        digest: Digest = SHA512_256,
        skip_verify: bool = False,
        limit: int = MAX_CHUNK_SIZE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.location = location
        self.digest = digest
        self.skip_verify = skip_verify
        self.limit = limit
        self.form = form_named(extension)
        self._other = other_form(self.form)
        self._now = now
        # By extension and id: the stored bytes, and since when they are there.
        self._held: dict[str, dict[bytes, tuple[bytes, float]]] = {
            self.form.extension: {},
            self._other.extension: {},
        }
        for chunk in chunks:
            self._put(chunk)

    def __repr__(self) -> str:
        return f"<MemoryStore {self.location}: {len(self._own)} chunks>"

    @property
    def _own(self) -> dict[bytes, tuple[bytes, float]]:
        return self._held[self.form.extension]

    def plant(self, chunk_id: bytes, stored: bytes, extension: str | None = None) -> None:
        """
        Make the store hold some bytes under an id, right or wrong.

        :param extension: the form they are in; the store's own if None.
        """
        held = self._own if extension is None else self._held[extension]
        held[chunk_id] = (stored, self._now())

    def stored(self, chunk_id: bytes, extension: str | None = None) -> bytes | None:
        """
        Give the bytes that the store holds under an id.

        :param extension: in which form; the store's own if None.
        """
        held = self._own if extension is None else self._held[extension]
        found = held.get(chunk_id)
        return None if found is None else found[0]

    def _get(self, chunk_id: bytes) -> Chunk:
        for form in (self.form, self._other):
            found = self._held[form.extension].get(chunk_id)
            if found is not None:
                break
        else:
            raise ChunkMissing(chunk_id, self.location)
        if len(found[0]) > form.stored_limit(self.limit):
            raise ChunkInvalid(chunk_id, "it is too large", self.location)
        own_form = form_named(form.extension)
        chunk = Chunk(chunk_id, stored=found[0], form=own_form, limit=self.limit)
        if not self.skip_verify:
            try:
                chunk.verify(self.digest)
            except ChunkInvalid as error:
                raise ChunkInvalid(chunk_id, error.why, self.location) from None
        return chunk

    def _put(self, chunk: Chunk) -> None:
        chunk.verify(self.digest)
        self.plant(chunk.chunk_id, chunk.stored_as(self.form))

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        check_id(chunk_id)
        return execute(self._get, chunk_id)

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        check_id(chunk_id)
        return succeed(chunk_id in self._own)

    def renew(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkTarget.renew`."""
        check_id(chunk_id)
        return succeed(self._renew(chunk_id))

    def _renew(self, chunk_id: bytes) -> bool:
        found = self._own.get(chunk_id)
        if found is None:
            return False
        self._own[chunk_id] = (found[0], self._now())
        return True

    def put(self, chunk: Chunk) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkTarget.put`."""
        check_id(chunk.chunk_id)
        return execute(self._put, chunk)

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""
        todo = iter(ids.sorted_unique())

        async def transfer(guard: Guard) -> None:
            while some := list(islice(todo, _BATCH)):
                found = []
                for chunk_id in some:
                    try:
                        found.append(self._get(chunk_id))
                    except ChunkMissing:
                        guard.absent(packed([chunk_id]))
                    except DesyncError as error:
                        guard.failed(packed([chunk_id]), Failure(error))
                await guard.deliver(found)

        return guarded(sink, transfer)

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return succeed(packed({one for one in ids if one not in self._own}))

    def renew_many(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatchRenewer.renew_many`."""
        return succeed(packed({one for one in ids if not self._renew(one)}))

    def list_ids(self, take: TakeIds) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkRemover.list_ids`."""

        async def run() -> None:
            parts = Parts(take)
            await parts.add(self._own)
            await parts.finish()

        return Deferred.fromCoroutine(run())

    def remove(self, chunk_id: bytes) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkRemover.remove`."""
        check_id(chunk_id)
        return execute(self._remove, chunk_id)

    def _remove(self, chunk_id: bytes) -> None:
        if self._own.pop(chunk_id, None) is None:
            raise ChunkMissing(chunk_id, self.location)

    def prune(self, keep: ChunkIds, min_age: float, dry_run: bool = False) -> Deferred[Pruned]:
        """See :meth:`desync.interfaces.IChunkRemover.prune`."""
        is_kept = membership(keep)
        kept = removed = removed_bytes = spared = spared_bytes = 0
        for chunk_id in sorted(self._own):
            stored, since = self._own[chunk_id]
            if is_kept(chunk_id):
                kept += 1
            elif min_age > 0 and self._now() - since < min_age:
                spared += 1
                spared_bytes += len(stored)
            else:
                removed += 1
                removed_bytes += len(stored)
                if not dry_run:
                    del self._own[chunk_id]
        return succeed(Pruned(kept, removed, removed_bytes, spared, spared_bytes))

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return succeed(None)


@implementer(IIndexTarget)
class MemoryIndexStore:
    """
    A store whose indexes are in memory, as the files they would be.

    :param location: how messages name it.
    :param digest: the algorithm that ids must be made with; either, if None.
    """

    def __init__(self, *, location: str = "memory", digest: Digest | None = None) -> None:
        self.location = location
        self.digest = digest
        self._held: dict[str, bytes] = {}

    def plant(self, name: str, data: bytes) -> None:
        """Make the store hold some bytes under a name, an index or not."""
        self._held[name] = data

    def stored(self, name: str) -> bytes | None:
        """Give the bytes that the store holds under a name."""
        return self._held.get(name)

    def _get(self, name: str) -> Index:
        check_index_name(name)
        where = f"{self.location}/{name}"
        if name not in self._held:
            raise IndexMissing(where, "no such index")
        return Index.parse(self._held[name], where, self.digest)

    def _put(self, name: str, index: Index) -> None:
        self._held[check_index_name(name)] = index.to_bytes()

    def get_index(self, name: str) -> Deferred[Index]:
        """See :meth:`desync.interfaces.IIndexSource.get_index`."""
        return execute(self._get, name)

    def put_index(self, name: str, index: Index) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexTarget.put_index`."""
        return execute(self._put, name, index)

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexSource.close`."""
        return succeed(None)
