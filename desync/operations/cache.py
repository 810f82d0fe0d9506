# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Copying chunks from store to store."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from desync.errors import ChunkMissing
from desync.interfaces import IBatch, IChunkSink
from desync.stores.concurrently import concurrently
from desync.stores.presence import lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkSource, IChunkTarget
    from desync.progress import Progress, Tracker


class Cached(NamedTuple):
    """
    What a cache run did.

    :ivar wanted: how many different chunks were asked for.
    :ivar copied: how many of them were new to the target.
    """

    wanted: int
    copied: int


async def cache(
    ids: ChunkIds,
    source: IChunkSource,
    target: IChunkTarget,
    progress: Progress,
    concurrency: int,
) -> Cached:
    """
    Copy those of some chunks that the target doesn't have, in the form they come in where the
    target has the same.

    :param ids: which; repeated ones are copied once.
    :param concurrency: how many chunks are stored at a time.
    :raises ChunkMissing: if the source doesn't have a chunk. Chunks that were copied before stay.
    :raises: whatever a store failed with.
    """
    wanted = ids.sorted_unique()
    missing = await lacking(target, wanted)
    with progress.start("", len(wanted), "chunks") as tracker:
        tracker.add(len(wanted) - len(missing))
        copier = _Copier(target, tracker, concurrency)
        fetching = IBatch(source).get_many(missing, copier)
        copier.abort = fetching.cancel
        try:
            await fetching
        except CancelledError:
            if copier.error is None:
                raise
        if copier.error is not None:
            raise copier.error
    return Cached(len(wanted), len(missing))


@implementer(IChunkSink)
class _Copier:
    """Puts what it is given into a store."""

    def __init__(self, target: IChunkTarget, tracker: Tracker, concurrency: int) -> None:
        self._target = target
        self._tracker = tracker
        self._concurrency = concurrency
        self.abort: Callable[[], None] = lambda: None
        self.error: BaseException | None = None

    def chunks(self, batch: Sequence[Chunk]) -> Deferred[None]:
        return Deferred.fromCoroutine(concurrently(map(self._put, batch), self._concurrency))

    async def _put(self, chunk: Chunk) -> None:
        await self._target.put(chunk)
        self._tracker.add(1)

    def absent(self, ids: ChunkIds) -> None:
        self._fail(ChunkMissing(ids[0]))

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        assert why.value is not None
        self._fail(why.value)

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
            self.abort()
