# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Getting chunks from a store of any kind in an index's order, many at a time, ahead of need."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.assembly.pending import Pending
from desync.assembly.runs import runs_of
from desync.errors import ChunkInvalid, ChunkMissing
from desync.formats.ids import ChunkIds
from desync.interfaces import IBatch, IChunkSink

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from desync.formats.chunk import Chunk
    from desync.formats.index import Index

#: The most chunks, and bytes of them, that are asked for together.
_CHUNKS: Final = 128
_BYTES: Final = 4 << 20

#: How many such batches are under way or waiting while one is being taken.
_AHEAD: Final = 2


async def stream_ahead(
    batch: IBatch,
    index: Index,
    first: int,
    stop: int,
    take: Callable[[list[bytes]], object],
    in_thread: Callable[..., Deferred[Any]],
) -> None:
    """
    Hand over a run of chunks in order.

    At most three batches, of 4 MiB or one chunk that is larger, are in memory.

    :param first: the position of the first chunk.
    :param stop: the position after the last.
    :param take: called in a thread with some chunks at a time; the next are fetched meanwhile.
    :raises: whatever fetching a chunk failed with, or `take`. It isn't being called any more then.
    """
    ahead: deque[_Batch] = deque()
    runs = runs_of(index, first=first, stop=stop, most_chunks=_CHUNKS, most_bytes=_BYTES)
    pending = Pending()
    try:
        while True:
            while len(ahead) <= _AHEAD and (run := next(runs, None)) is not None:
                ahead.append(_Batch(batch, index, *run))
            if not ahead:
                return
            found = ahead.popleft()
            try:
                await found.complete()
            except BaseException:
                found.cancel()
                raise
            await pending.watch(in_thread(_hand_over, found, take))
    finally:
        for each in ahead:
            each.cancel()
        await pending.settled()


def _hand_over(found: _Batch, take: Callable[[list[bytes]], object]) -> None:
    take(found.plain())


@implementer(IChunkSink)
class _Batch:
    """Some neighboring chunks of an index that are being fetched."""

    def __init__(self, batch: IBatch, index: Index, begin: int, end: int) -> None:
        self._index = index
        self._begin = begin
        self._end = end
        self._found: dict[bytes, Chunk] = {}
        self._error: BaseException | None = None
        ids = {chunk_id: None for _, _, chunk_id in index.chunks(begin, end)}
        self._fetching: Deferred[None] = Deferred()
        self._fetching = batch.get_many(ChunkIds.from_iterable(ids), self)
        # What nobody waits for yet may fail.
        self._done: list[object] = []
        self._fetching.addBoth(self._done.append)
        if self._error is not None:
            self._fetching.cancel()

    async def complete(self) -> None:
        """Wait until all are there."""
        if not self._done:
            await self._fetching
        if self._error is not None:
            raise self._error
        if self._done and isinstance(self._done[0], Failure):
            self._done[0].raiseException()

    def cancel(self) -> None:
        self._fetching.cancel()

    def plain(self) -> list[bytes]:
        """Give the chunks' bytes, in order."""
        plains = []
        for _, length, chunk_id in self._index.chunks(self._begin, self._end):
            plain = self._found[chunk_id].plain
            if len(plain) != length:
                raise ChunkInvalid(
                    chunk_id, f"unexpected size: {len(plain)} instead of {length} bytes"
                )
            plains.append(plain)
        self._found.clear()
        return plains

    def chunks(self, batch: Sequence[Chunk]) -> None:
        for chunk in batch:
            self._found[chunk.chunk_id] = chunk

    def absent(self, ids: ChunkIds) -> None:
        self._fail(ChunkMissing(ids[0]))

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        assert why.value is not None
        self._fail(why.value)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
            self._fetching.cancel()
