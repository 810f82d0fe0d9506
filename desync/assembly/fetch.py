# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Getting the chunks of a file from a store of any kind, many at a time."""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from zope.interface import implementer

from desync.assembly.ahead import stream_ahead
from desync.assembly.pending import Pending
from desync.assembly.writing import copy_within
from desync.chunking import kernels
from desync.errors import ChunkInvalid, ChunkMissing
from desync.interfaces import IBatch, IChunkSink

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from twisted.python.failure import Failure

    from desync.assembly.plan import Plan
    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.formats.index import Index
    from desync.interfaces import IChunkSource

    #: Calls a function that may block in a thread: what ``deferToThreadPool`` does.
    InThread = Callable[..., Deferred[Any]]


class ChunkDownloads:
    """
    Fetches chunks from a store into files and streams.

    :param source: the store; it verifies what it hands out.
    :param in_thread: calls a function in a thread, for what waits for a disk.
    :param concurrency: how many chunks of a stream are asked for ahead of need.
    """

    def __init__(self, source: IChunkSource, in_thread: InThread, concurrency: int) -> None:
        self._source = source
        self._batch = IBatch(source)
        self._in_thread = in_thread
        self._concurrency = concurrency

    async def fetch(
        self, plan: Plan, descriptor: int, progress: Callable[[int, int], object]
    ) -> None:
        """
        Write what a plan fetches and copies into a file that has its final size.

        :param descriptor: open for reading and writing.
        :param progress: told of chunks, and bytes of them, as they are done.
        :raises ChunkMissing: if the store doesn't have a chunk.
        :raises OSError, EOFError: if the file can't be written, or is truncated meanwhile.
        :raises: whatever fetching a chunk failed with.
        """
        if not plan.totals.fetched_chunks and not plan.totals.copied_chunks:
            return
        sink = _Writer(plan, descriptor, self._in_thread, progress)
        fetching = self._batch.get_many(plan.fetched_ids(), sink)
        sink.abort = fetching.cancel
        try:
            await fetching
        except CancelledError:
            if sink.error is None:
                raise
        finally:
            await sink.pending.settled()
        if sink.error is not None:
            raise sink.error
        if sink.written != plan.totals.fetched_chunks:
            raise RuntimeError(
                f"{sink.written} of {plan.totals.fetched_chunks} chunks were delivered"
            )
        try:
            for copy in plan.copies():
                await sink.pending.watch(self._in_thread(copy_within, descriptor, *copy))
        finally:
            await sink.pending.settled()

    async def fetch_beside(
        self,
        work: Coroutine[Any, Any, None],
        plan: Plan,
        descriptor: int,
        progress: Callable[[int, int], object],
    ) -> None:
        """
        Do what :meth:`fetch` does while something else is done. When one fails the other is
        cancelled; both have ended when this does.

        :raises: what the one that failed first raised.
        """
        both = [
            Deferred.fromCoroutine(work),
            Deferred.fromCoroutine(self.fetch(plan, descriptor, progress)),
        ]
        errors: list[Failure] = []

        def stop(failure: Failure) -> None:
            errors.append(failure)
            for one in both:
                one.cancel()

        for one in both:
            one.addErrback(stop)
        await gatherResults(both)
        if errors:
            errors[0].raiseException()

    async def stream(
        self, index: Index, first: int, stop: int, take: Callable[[bytes], object]
    ) -> None:
        """
        Hand over a run of chunks in order.

        :param first: the position of the first chunk.
        :param stop: the position after the last.
        :raises: whatever fetching a chunk failed with.
        """
        ahead: deque[tuple[bytes, int, Deferred[Chunk]]] = deque()
        try:
            for _, length, chunk_id in index.chunks(first, stop):
                ahead.append((chunk_id, length, self._source.get(chunk_id)))
                if len(ahead) >= self._concurrency:
                    await _hand_over(ahead, take)
            while ahead:
                await _hand_over(ahead, take)
        finally:
            for _, _, waiting in ahead:
                waiting.addErrback(lambda failure: None)
                waiting.cancel()

    async def stream_ahead(
        self, index: Index, first: int, stop: int, take: Callable[[list[bytes]], object]
    ) -> None:
        """
        Hand over a run of chunks in order, many at a time, in threads. See
        :func:`.ahead.stream_ahead`.
        """
        await stream_ahead(self._batch, index, first, stop, take, self._in_thread)


async def _hand_over(
    ahead: deque[tuple[bytes, int, Deferred[Chunk]]], take: Callable[[bytes], object]
) -> None:
    chunk_id, length, waiting = ahead.popleft()
    chunk = await waiting
    plain = chunk.plain
    if len(plain) != length:
        raise ChunkInvalid(chunk_id, f"unexpected size: {len(plain)} instead of {length} bytes")
    take(plain)


@implementer(IChunkSink)
class _Writer:
    """Writes chunks where a plan says that they belong."""

    def __init__(
        self,
        plan: Plan,
        descriptor: int,
        in_thread: InThread,
        progress: Callable[[int, int], object],
    ) -> None:
        self._plan = plan
        self._descriptor = descriptor
        self._in_thread = in_thread
        self._progress = progress
        self.abort: Callable[[], None] = lambda: None
        self.error: BaseException | None = None
        self.written = 0
        self.pending = Pending()
        self._places = plan.fetched_positions()

    def chunks(self, batch: Sequence[Chunk]) -> Deferred[None]:
        writing: Deferred[int] = self._in_thread(self._write, batch)
        return self.pending.watch(writing.addCallback(self._count, len(batch)))

    def _write(self, batch: Sequence[Chunk]) -> int:
        index = self._plan.index
        offsets = array("Q")
        buffers: list[bytes | memoryview] = []
        for chunk in batch:
            position = self._places.of(chunk.chunk_id)
            plain = chunk.view
            size = index.length(position)
            if len(plain) != size:
                raise ChunkInvalid(
                    chunk.chunk_id, f"unexpected size: {len(plain)} instead of {size} bytes"
                )
            offsets.append(index.start(position))
            buffers.append(plain)
        kernels.write_buffers(self._descriptor, buffers, offsets)
        return sum(map(len, buffers))

    def _count(self, size: int, chunks: int) -> None:
        self.written += chunks
        self._progress(chunks, size)

    def absent(self, ids: ChunkIds) -> None:
        self._fail(ChunkMissing(ids[0]))

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        assert why.value is not None
        self._fail(why.value)

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
            self.abort()
