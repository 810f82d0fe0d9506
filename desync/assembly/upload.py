# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What stores the chunks of a file in a store that isn't local."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from desync.errors import ChunkInvalid, not_the_chunk
from desync.formats.chunk import Chunk

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from desync.chunking.digests import Digest
    from desync.chunking.sizes import ChunkSizes
    from desync.formats.ids import ChunkIds
    from desync.formats.index import Index
    from desync.jobs.cut import CutSegment
    from desync.jobs.source import SourceFile
    from desync.progress import Progress
    from desync.workers.pool import Runner

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
    What stores chunks of a file.

    :ivar installs: whether the index goes where it is to go together with the chunks.
    """

    installs: bool

    async def upload(
        self, source: SourceFile, index: Index, ids: ChunkIds, pool: Runner, progress: Progress
    ) -> Uploaded:
        """
        Store those of some chunks that the store doesn't have, each checked against its id before
        it goes out.

        :param source: what the index describes.
        :param ids: which chunks.
        :raises FileError: if the file isn't what the index says.
        :raises StoreError: if the store failed.
        """


@runtime_checkable
class EarlyUploads(Uploads, Protocol):
    """What can store chunks of a file that aren't all known yet."""

    async def cut_and_upload(
        self,
        source: SourceFile,
        sizes: ChunkSizes,
        digest: Digest,
        take: Callable[[CutSegment], object],
        pool: Runner,
        progress: Progress,
    ) -> Uploaded:
        """
        Cut a file, and store those of its chunks that the store doesn't have. Both go on at the
        same time; a chunk that occurs several times is dealt with once.

        :param take: gets the chunks in the order of the file.
        :raises InputChanged: if the file changes meanwhile.
        :raises FileError: if it can't be read.
        :raises StoreError: if the store failed.
        """


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
        raise not_the_chunk(source.path, start, start + length, chunk_id) from None
    return chunk
