# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Storing the chunks of a file in a store of any kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from desync.assembly.pending import Pending
from desync.errors import ChunkInvalid, FileError
from desync.formats.chunk import Chunk
from desync.stores.concurrently import concurrently
from desync.stores.presence import lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twisted.internet.defer import Deferred

    from desync.formats.ids import ChunkIds
    from desync.formats.index import Index
    from desync.interfaces import IChunkTarget
    from desync.jobs.source import SourceFile
    from desync.progress import Progress

    #: Calls a function that may block in a thread: what ``deferToThreadPool`` does.
    InThread = Callable[..., Deferred[Any]]


class Uploaded(NamedTuple):
    """
    What an upload did.

    :ivar chunks: how many chunks were new to the store.
    :ivar stored_bytes: the size of those in the form that they were sent in.
    """

    chunks: int
    stored_bytes: int


class Uploads(Protocol):
    """
    What stores chunks of a file: :class:`ChunkUploads`, or what does it over SSH.

    :ivar installs: whether the index goes where it is to go together with the chunks.
    """

    installs: bool

    async def upload(
        self, source: SourceFile, index: Index, ids: ChunkIds, progress: Progress
    ) -> Uploaded:
        """See :meth:`ChunkUploads.upload`."""


class ChunkUploads:
    """
    Stores what a store doesn't have.

    :param target: where chunks go.
    :param in_thread: calls a function in a thread, for reading, hashing and compressing.
    :param concurrency: how many chunks are under way at a time.
    """

    installs = False

    def __init__(self, target: IChunkTarget, in_thread: InThread, concurrency: int) -> None:
        self._target = target
        self._in_thread = in_thread
        self._concurrency = concurrency

    async def upload(
        self, source: SourceFile, index: Index, ids: ChunkIds, progress: Progress
    ) -> Uploaded:
        """
        Store those of some chunks that the store doesn't have, each checked against its id before
        it goes out.

        :param source: what the index describes.
        :param ids: which chunks.
        :raises FileError: if the file isn't what the index says.
        :raises StoreError: if the store failed.
        """
        wanted = ids.sorted_unique()
        missing = await lacking(self._target, wanted)
        pending = Pending()
        stored_bytes = 0
        with progress.start("Storing", len(wanted), "chunks") as tracker:
            tracker.add(len(wanted) - len(missing))

            async def put(start: int, length: int, chunk_id: bytes) -> None:
                nonlocal stored_bytes
                chunk = await pending.watch(
                    self._in_thread(read_chunk, source, index, start, length, chunk_id)
                )
                await self._target.put(chunk)
                stored_bytes += chunk.stored_size
                tracker.add(1)

            try:
                await concurrently(
                    (put(*where) for where in _places(index, missing)), self._concurrency
                )
            finally:
                await pending.settled()
        return Uploaded(len(missing), stored_bytes)


def _places(index: Index, ids: ChunkIds) -> Iterator[tuple[int, int, bytes]]:
    """Find the first place of each of some sorted ids, in the order of the file."""
    sent = bytearray(len(ids))
    for start, length, chunk_id in index:
        try:
            number = ids.index(chunk_id)
        except ValueError:
            continue
        if not sent[number]:
            sent[number] = 1
            yield start, length, chunk_id


def read_chunk(source: SourceFile, index: Index, start: int, length: int, chunk_id: bytes) -> Chunk:
    """
    Read a chunk of a file. Blocks.

    :raises FileError: if the file isn't what the index says.
    """
    buffer = bytearray(length)
    source.read_into(memoryview(buffer), start)
    chunk = Chunk(chunk_id, bytes(buffer))
    try:
        chunk.verify(index.digest)
    except ChunkInvalid:
        raise FileError(
            source.path,
            f"its bytes {start} to {start + length} are not chunk {chunk_id.hex()} of the index",
        ) from None
    return chunk
