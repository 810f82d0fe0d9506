# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Storing chunks over SSH, where they go only with an index: of a file's, or from other stores."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

from desync.assembly.plan import first_positions
from desync.assembly.upload import Uploaded, read_chunk
from desync.chunking import kernels
from desync.errors import StoreError
from desync.formats.index import IndexBuilder, IndexSizes
from desync.stores.ssh_push import path_at, push

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from twisted.internet.defer import Deferred

    from desync.assembly.upload import InThread
    from desync.chunking.digests import Digest
    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.formats.index import Index
    from desync.interfaces import IChunkSource
    from desync.jobs.source import SourceFile
    from desync.options import StoreOptions
    from desync.progress import Progress
    from desync.stores.casync_target import ChunkSupply
    from desync.stores.location import Location
    from desync.workers.pool import Runner

    #: Reads a chunk, given where it begins, its length and its id, and checks it.
    ReadChunk: TypeAlias = Callable[[int, int, bytes], Awaitable[Chunk]]


class IndexPlaces:
    """
    Finds the first place of an id in an index. Takes four bytes a chunk.

    :param where: the server that asks for chunks by their ids.
    """

    def __init__(self, index: Index, where: str) -> None:
        self._ids = index.ids
        self._order = memoryview(kernels.sort_ids(*self._ids.layout)).cast("I")
        self._where = where

    def of(self, chunk_id: bytes) -> int:
        """
        Give the position of the first chunk that has an id.

        :raises StoreError: if none has it.
        """
        found = bisect_left(self._order, chunk_id, key=self._ids.__getitem__)
        if found < len(self._order) and self._ids[self._order[found]] == chunk_id:
            return self._order[found]
        raise StoreError(
            self._where, f"it asks for chunk {chunk_id.hex()}, which the index doesn't name"
        )

    def in_order(self, ids: ChunkIds) -> list[bytes]:
        """Sort ids by their places."""
        return sorted(ids, key=self.of)


def index_of_chunks(indexes: Sequence[Index], ids: ChunkIds, digest: Digest) -> Index:
    """
    Make an index of some chunks, each once: of nothing that anybody would extract.

    :param indexes: where the chunks are named, with their lengths.
    :param ids: which of them, sorted.
    """
    largest = max((index.sizes.max for index in indexes), default=1)
    builder = IndexBuilder(IndexSizes(1, largest, largest), digest)
    is_taken = bytearray(len(ids))
    for index in indexes:
        places = enumerate(first_positions(index.ids))
        for (_, length, chunk_id), (position, first) in zip(index, places, strict=True):
            number = _number(ids, chunk_id) if first == position else -1
            if number >= 0 and not is_taken[number]:
                is_taken[number] = 1
                builder.append(length, chunk_id)
    return builder.finish()


def _number(ids: ChunkIds, chunk_id: bytes) -> int:
    """Say where an id is among sorted ones; -1 if it isn't."""
    number = bisect_left(ids, chunk_id)
    return number if number < len(ids) and ids[number] == chunk_id else -1


class _OfFile:
    """Gives chunks of a file or a stream, in its order."""

    def __init__(
        self,
        read: ReadChunk,
        index: Index,
        where: str,
        done: Callable[[int], object],
    ) -> None:
        self._read = read
        self._index = index
        self._places = IndexPlaces(index, where)
        self._done = done
        self.in_order = self._places.in_order

    async def fetch(self, chunk_id: bytes) -> Chunk:
        position = self._places.of(chunk_id)
        start, length = self._index.start(position), self._index.length(position)
        chunk = await self._read(start, length, chunk_id)
        self._done(1)
        return chunk


class _OfStore:
    """Gives chunks that another store has."""

    def __init__(
        self, source: IChunkSource, index: Index, where: str, done: Callable[[int], object]
    ) -> None:
        self._source = source
        self._done = done
        self.in_order = IndexPlaces(index, where).in_order

    async def fetch(self, chunk_id: bytes) -> Chunk:
        chunk = await self._source.get(chunk_id)
        self._done(1)
        return chunk


class SshUploads:
    """
    Stores chunks that a server at the other end of ssh doesn't have.

    :param location: of the store.
    :param in_thread: calls a function in a thread.
    :param note: tells the user something.
    :param index: where the index of what is stored is to go. If that is on the same machine as the
        store, it goes there with the chunks, and nothing else is left.
    :ivar installs: whether it does.
    """

    def __init__(
        self,
        location: Location,
        options: StoreOptions,
        digest: Digest,
        reactor: Any,
        in_thread: InThread,
        note: Callable[[str], None],
        index: str | None = None,
    ) -> None:
        self._location = location
        self._options = options
        self._digest = digest
        self._reactor = reactor
        self._in_thread = in_thread
        self._note = note
        self._path = path_at(location, index) if index is not None else None
        self.installs = self._path is not None

    async def upload(
        self, source: SourceFile, index: Index, ids: ChunkIds, pool: Runner, progress: Progress
    ) -> Uploaded:
        """See :meth:`.upload.Uploads.upload`."""

        def read(start: int, length: int, chunk_id: bytes) -> Deferred[Chunk]:
            return self._in_thread(read_chunk, source, index, start, length, chunk_id)

        wanted = ids.sorted_unique()
        if len(wanted) == len(index.ids.sorted_unique()):
            return await self.push(index, read, progress)
        return await self.push(index, read, progress, wanted)

    async def push(
        self,
        index: Index,
        read: ReadChunk,
        progress: Progress,
        ids: ChunkIds | None = None,
    ) -> Uploaded:
        """
        Store chunks that can be read by their places.

        :param read: reads one.
        :param ids: which of the index's chunks, sorted; all, if None.
        """
        pushed = index if ids is None else index_of_chunks([index], ids, index.digest)

        def supply(done: Callable[[int], object]) -> ChunkSupply:
            return _OfFile(read, index, self._location.shown, done)

        return await self._push(pushed, supply, progress)

    async def copy(
        self, source: IChunkSource, indexes: Sequence[Index], ids: ChunkIds, progress: Progress
    ) -> Uploaded:
        """
        Store chunks that another store has.

        :param indexes: where they are named.
        :param ids: which, sorted.
        """
        index = index_of_chunks(indexes, ids, self._digest)

        def supply(done: Callable[[int], object]) -> ChunkSupply:
            return _OfStore(source, index, self._location.shown, done)

        return await self._push(index, supply, progress)

    async def _push(
        self,
        index: Index,
        supply: Callable[[Callable[[int], object]], ChunkSupply],
        progress: Progress,
    ) -> Uploaded:
        with progress.start("Storing", len(index), "chunks") as tracker:
            pushed = await push(
                self._location,
                self._options,
                self._digest,
                self._reactor,
                index,
                supply(tracker.add),
                self._path,
            )
        if not self.installs:
            self._note(f"{pushed.left} is left there: chunks go over ssh only with an index")
        return Uploaded(pushed.chunks, pushed.stored_bytes)
