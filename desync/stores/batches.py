# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What stores and layers share to keep the promises of :class:`desync.interfaces.IBatch`.

:class:`Guard` stands before the caller's sink and makes sure that nothing reaches it after a
cancellation. :class:`Relay` stands between a layer and a store below it, and knows which ids are
still unanswered.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.errors import ChunkInvalid, StoreError
from desync.formats.ids import ID_SIZE, ChunkIds
from desync.interfaces import IBatch, IChunkSink

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from zope.interface.interface import InterfaceClass

    from desync.formats.chunk import Chunk
    from desync.interfaces import IChunkSource, IStore

#: How many ids a layer deals with at a time.
BLOCK: Final = 4096


def check_id(chunk_id: bytes) -> None:
    """
    Make sure that an id can be one.

    :raises ValueError: if it isn't 32 bytes.
    """
    if len(chunk_id) != ID_SIZE:
        raise ValueError(f"a chunk id has {ID_SIZE} bytes, not {len(chunk_id)}")


def require(store: object, *interfaces: InterfaceClass) -> None:
    """
    Refuse a store that a layer can't be put over.

    :raises TypeError: naming what it lacks.
    """
    for interface in interfaces:
        if not interface.providedBy(store):
            raise TypeError(f"{store!r} does not provide {interface.__name__}")


def at_store(error: BaseException, store: IChunkSource) -> BaseException:
    """Say in an error about a chunk which store it happened at, unless it says so itself."""
    if isinstance(error, ChunkInvalid) and not error.store:
        return ChunkInvalid(error.chunk_id, error.why, store.location)
    return error


def close_all(stores: Iterable[IStore]) -> Deferred[None]:
    """
    Close stores.

    :returns: fires when all are closed; fails with what the first failed with that couldn't be.
    """

    async def close() -> None:
        outcomes: list[tuple[bool, Any]] = await DeferredList(
            [store.close() for store in stores], consumeErrors=True
        )
        for succeeded, outcome in outcomes:
            if not succeeded:
                outcome.raiseException()

    return Deferred.fromCoroutine(close())


def packed(ids: Iterable[bytes]) -> ChunkIds:
    """Pack ids that are all different, sorted."""
    return ChunkIds.from_bytes(b"".join(sorted(ids)), is_sorted=True)


def blocks(ids: ChunkIds, size: int = BLOCK) -> Iterator[ChunkIds]:
    """
    Divide ids into runs of so many, each different id once.

    Layers do so because they keep an object for each id that is under way, and there may be
    millions.
    """
    ids = ids.sorted_unique()
    for begin in range(0, len(ids), size):
        yield ids[begin : begin + size]


@implementer(IChunkSink)
class Guard:
    """
    The caller's sink, until the transfer is canceled; made by :func:`guarded`.

    It also takes turns: of several that hand over chunks at once, :meth:`deliver` lets one at a
    time, so that whoever asks for no more for now gets no more.
    """

    def __init__(self, sink: IChunkSink) -> None:
        self._sink = sink
        self._lock = DeferredLock()
        self._broken: BaseException | None = None
        self.closed = False

    def _check(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self.closed:
            raise CancelledError

    async def deliver(self, batch: Sequence[Chunk]) -> None:
        """Hand over some chunks and wait until the sink is ready for more."""
        if not batch:
            return
        async with self._lock:
            try:
                pressure = self.chunks(batch)
                if pressure is not None:
                    await pressure
            except BaseException as error:
                # Those whose turn would be next have to stop, and for the same reason.
                self._broken = self._broken or error
                raise

    def chunks(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        self._check()
        pressure = self._sink.chunks(batch)
        # The sink may have canceled the transfer, which its coroutine can't notice while it runs.
        self._check()
        return pressure

    def absent(self, ids: ChunkIds) -> None:
        self._check()
        if ids:
            self._sink.absent(ids)
            self._check()

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        self._check()
        if ids:
            self._sink.failed(ids, why)
            self._check()


def guarded(
    sink: IChunkSink, transfer: Callable[[Guard], Coroutine[Deferred[Any], Any, None]]
) -> Deferred[None]:
    """
    Start a transfer whose cancellation takes effect at once, even from within the sink.

    :param transfer: makes the coroutine that hands chunks to the guard it is given.
    """
    guard = Guard(sink)

    def cancel(_: Deferred[None]) -> None:
        guard.closed = True
        running.cancel()

    result: Deferred[None] = Deferred(cancel)
    running = Deferred.fromCoroutine(transfer(guard))

    def finish(outcome: Failure | None) -> None:
        guard.closed = True
        if not result.called:
            result.callback(outcome)

    running.addBoth(finish)
    return result


@implementer(IChunkSink)
class Relay:
    """
    Passes to a guard what a store finds, and remembers which ids have had no answer yet.

    Layers extend it with what they do about chunks that are absent or failed. A store that answers
    twice, or unasked, is not passed on.

    :param ids: what the store is asked for, each once.
    :ivar broken: set if it was the sink, and not the store, that failed.
    """

    def __init__(self, ids: Iterable[bytes], guard: Guard) -> None:
        self.unanswered = set(ids)
        self.guard = guard
        self.broken: Failure | None = None

    def chunks(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        wanted = []
        for chunk in batch:
            if chunk.chunk_id in self.unanswered:
                self.unanswered.remove(chunk.chunk_id)
                wanted.append(chunk)
        if not wanted:
            return None
        with self._blame():
            pressure = self.take(wanted)
        if pressure is not None:
            pressure.addErrback(self._break)
        return pressure

    def absent(self, ids: ChunkIds) -> None:
        with self._blame():
            self.lack(self._settle(ids))

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        with self._blame():
            self.fail(self._settle(ids), why)

    def _settle(self, ids: ChunkIds) -> ChunkIds:
        fresh = self.unanswered.intersection(ids)
        self.unanswered -= fresh
        return ids if len(fresh) == len(ids) else packed(fresh)

    @contextmanager
    def _blame(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.broken = Failure()
            raise

    def _break(self, why: Failure) -> Failure:
        self.broken = why
        return why

    def take(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        """Do something about chunks; this passes them on."""
        return self.guard.chunks(batch)

    def lack(self, ids: ChunkIds) -> None:
        """Do something about ids that the store doesn't have; this passes them on."""
        self.guard.absent(ids)

    def fail(self, ids: ChunkIds, why: Failure) -> None:
        """Do something about ids that could not be had; this passes them on."""
        self.guard.failed(ids, why)

    async def run(self, store: IBatch) -> None:
        """
        Ask a store for the ids. Afterwards each has had an answer, if only that there was none.

        :raises: only what the sink failed with, and CancelledError.
        """
        if not self.unanswered:
            return
        why = None
        try:
            await store.get_many(packed(self.unanswered), self)
        except CancelledError:
            raise
        except BaseException:
            if self.broken is not None:
                raise
            why = Failure()
        if self.unanswered:
            rest = packed(self.unanswered)
            self.unanswered.clear()
            where = str(getattr(store, "location", store))
            self.fail(rest, why or Failure(StoreError(where, "it gave no answer for a chunk")))


class Collecting(Relay):
    """
    Collects what could not be had, because it may be tried again.

    :param worth: tells which errors are worth that; the others are passed on. All, if not given.
    :ivar failures: what was collected.
    """

    def __init__(
        self,
        ids: Iterable[bytes],
        guard: Guard,
        worth: Callable[[BaseException], bool] = lambda error: True,
    ) -> None:
        super().__init__(ids, guard)
        self._worth = worth
        self.failures: list[tuple[ChunkIds, Failure]] = []

    def fail(self, ids: ChunkIds, why: Failure) -> None:
        if why.value is not None and self._worth(why.value):
            self.failures.append((ids, why))
        else:
            super().fail(ids, why)

    def failed_ids(self) -> Iterator[bytes]:
        """Give the ids of what was collected."""
        for ids, _ in self.failures:
            yield from ids

    def tell_failures(self) -> None:
        """Pass on what was collected: there is no other try."""
        for ids, why in self.failures:
            self.guard.failed(ids, why)
