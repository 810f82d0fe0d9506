# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Packing a tree into an index and the chunks that a server at the other end of ssh lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import DeferredLock

from desync.assembly.pending import Pending
from desync.formats import flags as feature
from desync.formats.index import IndexBuilder
from desync.trees.rereading import ArchiveReader
from desync.trees.uploading import cut_pieces

from .tar import Packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from desync.assembly.push import SshUploads
    from desync.assembly.upload import InThread
    from desync.chunking.digests import Digest
    from desync.chunking.sizes import ChunkSizes
    from desync.formats.chunk import Chunk
    from desync.formats.index import Index
    from desync.progress import Progress
    from desync.trees.content import Piece


async def push_archive(
    pieces: Callable[[], Iterable[Piece]],
    name: str,
    flags: int,
    sizes: ChunkSizes,
    digest: Digest,
    in_thread: InThread,
    progress: Progress,
    uploads: SshUploads,
) -> Packed:
    """
    Cut an archive into chunks, then push its index and what chunks the server asks for.

    It says what it lacks only when it has the index, and then in any order. So the archive, which
    may be larger than the memory and is kept nowhere, is made a second time for those.

    :param pieces: makes the archive.
    :param name: of the tree, for messages.
    :param flags: the archive's feature flags.
    :raises FileError: if a file can't be read, or changes meanwhile.
    :raises StoreError: if the store failed.
    """
    pending = Pending()
    caidx = await _cut(pieces(), flags, sizes, digest, in_thread, progress, pending)
    reader = ArchiveReader(pieces, digest, name)
    turn = DeferredLock()

    async def read(start: int, length: int, chunk_id: bytes) -> Chunk:
        async with turn:
            reading = in_thread(reader.read_chunk, start, length, chunk_id)
            chunk: Chunk = await pending.watch(reading)
            return chunk

    try:
        uploaded = await uploads.push(caidx, read, progress)
    finally:
        await pending.settled()
        reader.close()
    return Packed(caidx, uploaded.chunks, uploaded.stored_bytes)


async def _cut(
    pieces: Iterable[Piece],
    flags: int,
    sizes: ChunkSizes,
    digest: Digest,
    in_thread: InThread,
    progress: Progress,
    pending: Pending,
) -> Index:
    word = feature.normalize(flags & ~feature.SHA512_256 | digest.feature_flag)
    builder = IndexBuilder(sizes, digest, word)
    segments = cut_pieces(pieces, sizes, digest)
    try:
        with progress.start("Packing", 0, "bytes") as tracker:
            while (segment := await pending.watch(in_thread(next, segments, None))) is not None:
                builder.append_segment(segment.ends, segment.ids, builder.size)
                tracker.set(builder.size)
    finally:
        await pending.settled()
        segments.close()
    return builder.finish()
