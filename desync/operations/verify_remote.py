# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Checking every chunk of a store on another machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from desync.errors import ChunkInvalid, ChunkMissing
from desync.interfaces import IBatch, IChunkRemover, IChunkSink
from desync.jobs.check import BadChunk
from desync.operations.verify import Verified
from desync.stores.backlog import Backlog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.progress import Progress, Tracker


async def verify_remote(
    store: IChunkRemover,
    progress: Progress,
    report: Callable[[BadChunk], object],
    repair: bool = False,
) -> Verified:
    """
    Fetch every chunk of a store in the form that it is configured for, and compare it with its id.

    :param store: must provide IBatch, and verify what it hands out.
    :param report: told of each bad chunk as it is found.
    :param repair: remove bad chunks.
    :raises StoreError: if the store failed, which says nothing about a chunk.
    """
    with progress.start("", 0, "chunks") as tracker:
        sink = _Checked(tracker)
        # While the chunks of one part are fetched, the next part is listed.
        parts = Backlog(2)

        async def check(ids: ChunkIds) -> None:
            await IBatch(store).get_many(ids, sink)

        async def check_all() -> None:
            await store.list_ids(lambda ids: parts.add(check(ids)))
            await parts.finish()

        checking = Deferred.fromCoroutine(check_all())
        sink.abort = checking.cancel
        try:
            await checking
        except CancelledError:
            if sink.error is None:
                raise
        finally:
            parts.cancel()
        if sink.error is not None:
            raise sink.error
    removed = 0
    for why in sink.bad:
        is_removed = repair and await _remove(store, why.chunk_id)
        removed += is_removed
        report(BadChunk(why.chunk_id, str(why), is_removed))
    return Verified(sink.checked, sink.checked_bytes, len(sink.bad), removed)


async def _remove(store: IChunkRemover, chunk_id: bytes) -> bool:
    try:
        await store.remove(chunk_id)
    except ChunkMissing:
        return False
    return True


@implementer(IChunkSink)
class _Checked:
    """Counts good chunks and keeps what is wrong with the others."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.abort: Callable[[], None] = lambda: None
        self.error: BaseException | None = None
        self.bad: list[ChunkInvalid] = []
        self.checked = 0
        self.checked_bytes = 0

    def chunks(self, batch: Sequence[Chunk]) -> None:
        self.checked_bytes += sum(len(chunk.plain) for chunk in batch)
        self._count(len(batch))

    def absent(self, ids: ChunkIds) -> None:
        # Somebody removed it since it was listed.
        self._tracker.add(len(ids))

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        if isinstance(why.value, ChunkInvalid):
            self.bad.append(why.value)
            self._count(len(ids))
        elif self.error is None:
            self.error = why.value
            self.abort()

    def _count(self, chunks: int) -> None:
        self.checked += chunks
        self._tracker.add(chunks)
