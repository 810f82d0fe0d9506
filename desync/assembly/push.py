# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Storing chunks over SSH, where they go only with an index: of a file's, or from other stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from desync.assembly.upload import Uploaded, read_chunk
from desync.formats.index import IndexBuilder, IndexSizes
from desync.stores.ssh_push import push

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from desync.assembly.upload import InThread
    from desync.chunking.digests import Digest
    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.formats.index import Index
    from desync.interfaces import IChunkSource
    from desync.jobs.source import SourceFile
    from desync.options import StoreOptions
    from desync.progress import Progress
    from desync.stores.location import Location


def index_of_chunks(indexes: Iterable[Index], ids: ChunkIds, digest: Digest) -> Index:
    """
    Make an index of some chunks, each once: of nothing that anybody would extract.

    :param indexes: where the chunks are named, with their lengths.
    :param ids: which of them, sorted.
    """
    wanted = set(ids)
    found: list[tuple[int, bytes]] = []
    for index in indexes:
        for _, length, chunk_id in index:
            if chunk_id in wanted:
                wanted.remove(chunk_id)
                found.append((length, chunk_id))
    largest = max((length for length, _ in found), default=1)
    builder = IndexBuilder(IndexSizes(1, largest, largest), digest)
    for length, chunk_id in found:
        builder.append(length, chunk_id)
    return builder.finish()


class SshUploads:
    """
    Stores chunks that a server at the other end of ssh doesn't have.

    :param location: of the store.
    :param in_thread: calls a function in a thread.
    :param note: tells the user something.
    """

    def __init__(
        self,
        location: Location,
        options: StoreOptions,
        digest: Digest,
        reactor: Any,
        in_thread: InThread,
        note: Callable[[str], None],
    ) -> None:
        self._location = location
        self._options = options
        self._digest = digest
        self._reactor = reactor
        self._in_thread = in_thread
        self._note = note

    async def upload(
        self, source: SourceFile, index: Index, ids: ChunkIds, progress: Progress
    ) -> Uploaded:
        """Store chunks of a file. See :meth:`.upload.ChunkUploads.upload`."""
        wanted = ids.sorted_unique()
        places: dict[bytes, tuple[int, int]] = {}
        chosen = set(wanted)
        for start, length, chunk_id in index:
            if chunk_id in chosen:
                places.setdefault(chunk_id, (start, length))

        async def fetch(chunk_id: bytes) -> Chunk:
            start, length = places[chunk_id]
            chunk: Chunk = await self._in_thread(read_chunk, source, index, start, length, chunk_id)
            return chunk

        return await self._push(index_of_chunks([index], wanted, index.digest), fetch, progress)

    async def copy(
        self, source: IChunkSource, indexes: Iterable[Index], ids: ChunkIds, progress: Progress
    ) -> Uploaded:
        """
        Store chunks that another store has.

        :param indexes: where they are named.
        """

        async def fetch(chunk_id: bytes) -> Chunk:
            return await source.get(chunk_id)

        index = index_of_chunks(indexes, ids, self._digest)
        return await self._push(index, fetch, progress)

    async def _push(self, index: Index, fetch: Any, progress: Progress) -> Uploaded:
        with progress.start("Storing", len(index), "chunks") as tracker:

            async def tracked(chunk_id: bytes) -> Chunk:
                chunk: Chunk = await fetch(chunk_id)
                tracker.add(1)
                return chunk

            pushed = await push(
                self._location, self._options, self._digest, self._reactor, index, tracked
            )
        self._note(f"{pushed.left} is left there: chunks go over ssh only with an index")
        return Uploaded(pushed.chunks, pushed.stored_bytes)
