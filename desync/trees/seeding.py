# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A directory tree as a store of the chunks that its archive would have.

Who unpacks an archive over an older version of the tree finds most of its chunks there. They are
read from the tree's files, each checked against its id when it is: files change, and are replaced
while the new version is unpacked.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from twisted.internet.defer import Deferred
from zope.interface import implementer

from desync.errors import ChunkMissing, DesyncError
from desync.formats.chunk import Chunk
from desync.formats.ids import ID_SIZE, ChunkIds
from desync.interfaces import IBatch, IChunkSource
from desync.stores.batches import blocks, check_id, guarded, packed

from .content import FileContent, open_content, read_content
from .uploading import cut_pieces

if TYPE_CHECKING:
    from desync.chunking.digests import Digest
    from desync.chunking.sizes import ChunkSizes
    from desync.interfaces import IChunkSink
    from desync.stores.batches import Guard

    from .content import Piece

    InThread = Callable[..., Deferred[Any]]

Parts: TypeAlias = tuple["bytes | tuple[FileContent, int, int]", ...]
"""What a chunk consists of: bytes, and places of files with their lengths."""

#: How many chunks are read together.
_TOGETHER = 32


def find_chunks(
    pieces: Iterable[Piece],
    sizes: ChunkSizes,
    digest: Digest,
    wanted: ChunkIds,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[bytes, Parts]:
    """
    Find out which chunks an archive would have, and where they are. Blocks.

    :param pieces: the archive.
    :param wanted: the ids that are of interest, sorted.
    :param stopped: asked now and then whether to stop.
    :returns: those found before something couldn't be read, or until it was stopped.
    """
    found: dict[bytes, Parts] = {}
    seen = _Seen(pieces)
    try:
        at = 0
        for segment in cut_pieces(seen, sizes, digest):
            begin = 0
            for number, end in enumerate(segment.ends):
                chunk_id = segment.ids[number * ID_SIZE : (number + 1) * ID_SIZE]
                if chunk_id not in found and chunk_id in wanted:
                    found[chunk_id] = seen.parts(at + begin, at + end)
                begin = end
            at += begin
            seen.forget(at)
            if stopped():
                break
    except DesyncError:
        pass  # What can't be read is fetched.
    return found


class _Seen:
    """Passes pieces on, and knows the last ones."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = iter(pieces)
        self._known: deque[tuple[int, int, Piece]] = deque()
        self._end = 0

    def __iter__(self) -> Iterator[Piece]:
        for piece in self._pieces:
            size = piece.size if isinstance(piece, FileContent) else len(piece)
            if size:
                self._known.append((self._end, self._end + size, piece))
                self._end += size
            yield piece

    def parts(self, begin: int, end: int) -> Parts:
        """Give what lies between two places."""
        parts: list[bytes | tuple[FileContent, int, int]] = []
        for start, stop, piece in self._known:
            if stop <= begin:
                continue
            if start >= end:
                break
            low, high = max(begin - start, 0), min(end, stop) - start
            if isinstance(piece, FileContent):
                parts.append((piece, low, high - low))
            else:
                parts.append(bytes(piece[low:high]))
        return tuple(parts)

    def forget(self, before: int) -> None:
        """Forget what lies before a place."""
        while self._known and self._known[0][1] <= before:
            self._known.popleft()


def read_parts(parts: Parts) -> bytes:
    """
    Read a chunk.

    :raises DesyncError: if a file isn't what it was.
    """
    pieces: list[bytes | bytearray] = []
    for part in parts:
        if isinstance(part, bytes):
            pieces.append(part)
            continue
        content, offset, length = part
        descriptor = open_content(content)
        try:
            data = bytearray(length)
            read_content(content, descriptor, offset, memoryview(data))
        finally:
            os.close(descriptor)
        pieces.append(data)
    return b"".join(pieces)


@implementer(IChunkSource, IBatch)
class TreeSeed:
    """
    A store of what :func:`find_chunks` found. What has changed since isn't in it any more.

    :param found: the chunks.
    :param location: of the tree.
    :param in_thread: calls a function that may block in a thread.
    """

    def __init__(
        self, found: dict[bytes, Parts], location: str, digest: Digest, in_thread: InThread
    ) -> None:
        self._found = found
        self.location = location
        self._digest = digest
        self._in_thread = in_thread

    def __repr__(self) -> str:
        return f"<TreeSeed {self.location}>"

    def _read(self, ids: Sequence[bytes]) -> list[Chunk]:
        chunks = []
        for chunk_id in ids:
            try:
                plain = read_parts(self._found[chunk_id])
            except (DesyncError, MemoryError):
                continue
            if self._digest.id_of(plain) == chunk_id:
                chunks.append(Chunk(chunk_id, plain, verified=True))
        return chunks

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._get(chunk_id))

    async def _get(self, chunk_id: bytes) -> Chunk:
        if chunk_id in self._found:
            chunks: list[Chunk] = await self._in_thread(self._read, [chunk_id])
            if chunks:
                return chunks[0]
        raise ChunkMissing(chunk_id, self.location)

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        check_id(chunk_id)
        return self._in_thread(lambda: bool(chunk_id in self._found and self._read([chunk_id])))

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""

        def find() -> ChunkIds:
            return packed(
                chunk_id
                for chunk_id in ids.sorted_unique()
                if chunk_id not in self._found or not self._read([chunk_id])
            )

        return self._in_thread(find)

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""

        async def transfer(guard: Guard) -> None:
            for block in blocks(ids, _TOGETHER):
                here = [chunk_id for chunk_id in block if chunk_id in self._found]
                chunks: list[Chunk] = []
                if here:
                    chunks = await self._in_thread(self._read, here)
                    await guard.deliver(chunks)
                read = {chunk.chunk_id for chunk in chunks}
                lacking = [chunk_id for chunk_id in block if chunk_id not in read]
                if lacking:
                    guard.absent(packed(lacking))

        return guarded(sink, transfer)

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        self._found = {}
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done
