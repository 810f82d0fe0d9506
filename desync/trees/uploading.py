# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Storing an archive in a store of any kind while it is being made: it is read, cut and hashed in
threads, a segment at a time, and there is no going back in it.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from desync.assembly.pending import Pending
from desync.assembly.upload import Uploaded
from desync.chunking import kernels
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.stores.concurrently import concurrently
from desync.stores.presence import lacking

from .content import PieceReader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from twisted.internet.defer import Deferred

    from desync.chunking.digests import Digest
    from desync.chunking.sizes import ChunkSizes
    from desync.interfaces import IChunkTarget

    from .content import Piece

    InThread = Callable[..., Deferred[Any]]

#: Bytes that are read, cut and hashed together.
_SEGMENT: Final = 4 << 20


class Segment(NamedTuple):
    """
    Chunks that follow each other.

    :ivar ends: where each ends, in bytes from where the first begins.
    :ivar ids: packed, 32 bytes each.
    :ivar data: the chunks themselves, one after the other.
    """

    ends: Sequence[int]
    ids: bytes
    data: bytes


def cut_pieces(
    pieces: Iterable[Piece], sizes: ChunkSizes, digest: Digest
) -> Generator[Segment, None, None]:
    """
    Cut an archive into chunks.

    :raises FileError: if a file can't be read, or changes meanwhile.
    """
    room = _SEGMENT + sizes.max
    buffer = memoryview(bytearray(room))
    reader = PieceReader(pieces)
    null = (sizes.max, digest.null_id(sizes.max))
    ends = array("I", bytes(4 * (room // sizes.min + 2)))
    filled = 0
    try:
        while True:
            filled += reader.read_into(buffer[filled:])
            final = filled < room
            if not filled:
                return
            stop = filled if final else _SEGMENT
            count = kernels.find_cuts(buffer, 0, stop, filled, final, sizes, ends)
            end = ends[count - 1]
            ids = digest.ids_of_ranges(buffer, 0, ends, count, null)
            yield Segment(ends[:count], ids, bytes(buffer[:end]))
            if final:
                return
            rest = filled - end
            buffer[:rest] = bytes(buffer[end:filled])
            filled = rest
    finally:
        reader.close()


class StreamUploads:
    """
    Stores the chunks of a stream that a store doesn't have.

    :param target: where chunks go.
    :param in_thread: calls a function in a thread.
    :param concurrency: how many chunks are under way at a time.
    """

    def __init__(self, target: IChunkTarget, in_thread: InThread, concurrency: int) -> None:
        self._target = target
        self._in_thread = in_thread
        self._concurrency = concurrency

    async def upload(
        self,
        pieces: Iterable[Piece],
        sizes: ChunkSizes,
        digest: Digest,
        add: Callable[[Sequence[int], bytes], None],
    ) -> Uploaded:
        """
        Cut an archive and store what the store doesn't have. The next segment is read while the
        chunks of one go out.

        :param add: told the chunks in order: where each ends, counted from where the first begins
            that it is told of at a time, and the ids.
        :raises FileError: if a file can't be read, or changes meanwhile.
        :raises StoreError: if the store failed.
        """
        segments = cut_pieces(pieces, sizes, digest)
        pending = Pending()
        chunks = stored_bytes = 0

        def read() -> Segment | None:
            return next(segments, None)

        async def put(chunk: Chunk) -> None:
            nonlocal stored_bytes
            await self._target.put(chunk)
            stored_bytes += chunk.stored_size

        try:
            following = pending.watch(self._in_thread(read))
            while (segment := await following) is not None:
                following = pending.watch(self._in_thread(read))
                add(segment.ends, segment.ids)
                ids = ChunkIds.from_bytes(segment.ids).sorted_unique()
                missing = await lacking(self._target, ids)
                await concurrently(
                    (put(chunk) for chunk in _chunks(segment, missing)), self._concurrency
                )
                chunks += len(missing)
        finally:
            await pending.settled()
            segments.close()
        return Uploaded(chunks, stored_bytes)


def _chunks(segment: Segment, wanted: ChunkIds) -> Iterator[Chunk]:
    """Give those chunks of a segment that are wanted, each once."""
    given = set()
    begin = 0
    for number, end in enumerate(segment.ends):
        chunk_id = segment.ids[32 * number : 32 * number + 32]
        if chunk_id in wanted and chunk_id not in given:
            given.add(chunk_id)
            yield Chunk(chunk_id, segment.data[begin:end], verified=True)
        begin = end
