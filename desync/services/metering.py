# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A layer that counts what stores answer, and how long they take."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from desync.errors import ChunkInvalid, ChunkMissing, DesyncError
from desync.interfaces import IBatch, IChunkSink, IChunkSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.python.failure import Failure

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds

    from .counters import Counters


class Trouble(NamedTuple):
    """
    Something that went wrong, for the operator's eyes.

    :param when: seconds since 1970.
    :param what: one line.
    """

    when: float
    what: str


class Troubles:
    """
    The last things that went wrong.

    :param clock: gives seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float], size: int = 20) -> None:
        self._clock = clock
        self._kept: deque[Trouble] = deque(maxlen=size)
        self._told: Callable[[str], None] = lambda what: None

    def tell(self, told: Callable[[str], None]) -> None:
        """Tell each further one to somebody too."""
        self._told = told

    def add(self, what: str) -> None:
        """Take down one more."""
        self._kept.append(Trouble(self._clock(), what))
        self._told(what)

    def latest(self) -> list[Trouble]:
        """Give them, the latest first."""
        return list(reversed(self._kept))


@implementer(IChunkSource, IBatch)
class Metered:
    """
    Counts what a store answers.

    :param store: must provide IChunkSource and IBatch.
    :param counters: where.
    :param clock: gives seconds.
    """

    def __init__(self, store: IChunkSource, counters: Counters, clock: Callable[[], float]) -> None:
        self._store = store
        self._counters = counters
        self._clock = clock
        self.location = store.location

    def __repr__(self) -> str:
        return f"<Metered {self._store!r}>"

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        begun = self._clock()

        def answered(chunk: Chunk) -> Chunk:
            self._counters.took(self._clock() - begun)
            self._counters.upstream_chunks += 1
            return chunk

        def failed(failure: Failure) -> Failure:
            if not failure.check(CancelledError):
                self._counters.took(self._clock() - begun)
                count_error(self._counters, failure.value)
            return failure

        return self._store.get(chunk_id).addCallbacks(answered, failed)

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        return self._store.has(chunk_id)

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""
        return IBatch(self._store).get_many(ids, _Counting(sink, self._counters))

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return IBatch(self._store).missing(ids)

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return self._store.close()


@implementer(IChunkSink)
class _Counting:
    """Counts what is handed to a sink."""

    def __init__(self, sink: IChunkSink, counters: Counters) -> None:
        self._sink = sink
        self._counters = counters

    def chunks(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        self._counters.upstream_chunks += len(batch)
        return self._sink.chunks(batch)

    def absent(self, ids: ChunkIds) -> None:
        self._counters.upstream_missing += len(ids)
        self._sink.absent(ids)

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        for _ in ids:
            count_error(self._counters, why.value)
        self._sink.failed(ids, why)


def count_error(counters: Counters, error: BaseException | None) -> None:
    """Count an error that a store answered with."""
    if isinstance(error, ChunkMissing):
        counters.upstream_missing += 1
        return
    counters.upstream_errors += 1
    if isinstance(error, ChunkInvalid):
        counters.verification_failures += 1


def one_line(error: BaseException) -> str:
    """Say what went wrong, secrets masked."""
    from desync.masking import mask_secrets

    text = str(error) if isinstance(error, DesyncError) else repr(error)
    return mask_secrets(" ".join(text.split()))
