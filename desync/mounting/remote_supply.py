# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Chunks from stores of any kind, which a reactor asks for what other threads want.

What is fetched ahead of need is asked for in batches, several under way at a time; a chunk that
somebody waits for doesn't wait for a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.errors import ChunkMissing, Interrupted, StoreError
from desync.interfaces import IBatch, IChunkSink
from desync.stores.batches import packed

from .supply import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IReactorFromThreads

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkSource

    from .supply import Wanted

    #: Calls a function that may block in a thread.
    InThread = Callable[..., Deferred[Any]]


class RemoteSupply:
    """
    Chunks from a store with Deferreds. All but the constructor may be called by any thread.

    :param source: the store, which provides IBatch too; whoever made it closes it.
    :param reactor: where the store lives.
    :param in_thread: calls a function in a thread, for chunks that still have to be decoded.
    """

    batch = 32

    def __init__(
        self, source: IChunkSource, reactor: IReactorFromThreads, in_thread: InThread
    ) -> None:
        self._source = source
        self._batch = IBatch(source)
        self._reactor = reactor
        self._in_thread = in_thread
        self._running: set[Deferred[Any]] = set()
        self._stopped = False

    def fetch(self, wanted: Sequence[Wanted]) -> None:
        """See :class:`.supply.Supply`."""
        self._reactor.callFromThread(self._start, wanted)

    def fetch_ahead(self, wanted: Sequence[Wanted]) -> None:
        """See :class:`.supply.Supply`."""
        self._reactor.callFromThread(self._start, wanted)

    def _start(self, wanted: Sequence[Wanted]) -> None:
        if self._stopped:
            for each in wanted:
                each.fail(Interrupted())
            settle(wanted)
            return
        answers = _Answers(wanted, self._in_thread, self._source.location)
        if len(wanted) == 1:
            running = Deferred.fromCoroutine(self._fetch_one(wanted[0], answers))
        else:
            running = maybeDeferred(self._batch.get_many, packed(answers.by_id), answers)
        self._running.add(running)

        def ended(outcome: Any) -> None:
            self._running.discard(running)
            answers.end(outcome if isinstance(outcome, Failure) else None)

        running.addBoth(ended)

    async def _fetch_one(self, wanted: Wanted, answers: _Answers) -> None:
        answers.chunks([await self._source.get(wanted.chunk_id)])

    def stop(self) -> None:
        """See :class:`.supply.Supply`."""
        self._reactor.callFromThread(self._stop)

    def _stop(self) -> None:
        self._stopped = True
        for running in list(self._running):
            running.cancel()


@implementer(IChunkSink)
class _Answers:
    """Passes on to those who want chunks what becomes of them."""

    def __init__(self, wanted: Sequence[Wanted], in_thread: InThread, location: str) -> None:
        self.by_id: dict[bytes, list[Wanted]] = {}
        for each in wanted:
            self.by_id.setdefault(each.chunk_id, []).append(each)
        self._in_thread = in_thread
        self._location = location
        self._decoding = 0
        self._ended: Failure | bool = False

    def chunks(self, batch: Sequence[Chunk]) -> None:
        have: list[Wanted] = []
        for chunk in batch:
            if chunk.verified:
                have += self._have(chunk)
            else:
                # Nobody has looked at it, so it isn't decoded.
                self._decoding += 1
                self._in_thread(lambda chunk=chunk: chunk.plain).addBoth(self._decoded, chunk)
        settle(have)

    def _have(self, chunk: Chunk) -> list[Wanted]:
        wanted = self.by_id.pop(chunk.chunk_id, [])
        for each in wanted:
            each.have(chunk.plain)
        return wanted

    def _decoded(self, outcome: bytes | Failure, chunk: Chunk) -> None:
        self._decoding -= 1
        if isinstance(outcome, Failure):
            self._fail(chunk.chunk_id, outcome)
        else:
            settle(self._have(chunk))
        if self._ended is not False:
            self.end(None if self._ended is True else self._ended)

    def absent(self, ids: ChunkIds) -> None:
        for chunk_id in ids:
            self._fail(chunk_id, Failure(ChunkMissing(chunk_id)))

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        for chunk_id in ids:
            self._fail(chunk_id, why)

    def _fail(self, chunk_id: bytes, why: Failure) -> None:
        wanted = self.by_id.pop(chunk_id, [])
        for each in wanted:
            each.fail(why.value or StoreError(self._location, "it gave no answer for a chunk"))
        settle(wanted)

    def end(self, why: Failure | None) -> None:
        """Answer whatever is still wanted: the store has nothing more to say."""
        self._ended = why or True
        if self._decoding:
            return
        for chunk_id in list(self.by_id):
            self._fail(
                chunk_id,
                why or Failure(StoreError(self._location, "it gave no answer for a chunk")),
            )
