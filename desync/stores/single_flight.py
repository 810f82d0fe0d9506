# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A layer that asks a store once for what several want at the same time.

A *flight* is one id that the store was asked about and hasn't answered. Whoever asks for an id that
is in flight waits for that flight; a batch may wait for some ids and have others fetched itself.
Nothing is kept once a flight has landed: this is no cache.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.errors import ChunkMissing, StoreError
from desync.formats.chunk import Chunk
from desync.interfaces import IBatch, IChunkSink, IChunkSource

from .batches import blocks, check_id, guarded, packed, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeAlias

    from desync.formats.ids import ChunkIds

    from .batches import Guard

_T = TypeVar("_T")

#: How many chunks that others fetched a batch keeps for its sink while that is busy. More are let
#: go, and fetched later: they can't be made to wait, because others wait for what comes after them.
_KEPT: Final = 32


class _Flight(Generic[_T]):
    """One id, who waits for it, and whose work brings it."""

    __slots__ = ("chunk_id", "waiting", "work")

    def __init__(self, chunk_id: bytes, work: _Work[_T]) -> None:
        self.chunk_id = chunk_id
        self.work = work
        self.waiting: dict[object, Callable[[_T | Failure], None]] = {}


class _Work(Generic[_T]):
    """One operation of the store, and the flights that it hasn't answered yet."""

    def __init__(self) -> None:
        self.flights: dict[bytes, _Flight[_T]] = {}
        self.running: Deferred[None] | None = None


class _Flights(Generic[_T]):
    """All flights for one kind of answer."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._by_id: dict[bytes, _Flight[_T]] = {}

    def __contains__(self, chunk_id: bytes) -> bool:
        return chunk_id in self._by_id

    def join(self, chunk_id: bytes, who: object, tell: Callable[[_T | Failure], None]) -> None:
        """Wait for a flight."""
        self._by_id[chunk_id].waiting[who] = tell

    def leave(self, chunk_id: bytes, who: object) -> None:
        """Wait no longer. What nobody waits for is given up; work that has no other use ends."""
        flight = self._by_id.get(chunk_id)
        if flight is None or flight.waiting.pop(who, None) is None or flight.waiting:
            return
        del self._by_id[chunk_id]
        del flight.work.flights[chunk_id]
        if not flight.work.flights and flight.work.running is not None:
            flight.work.running.cancel()

    def open(self, ids: Iterable[bytes]) -> _Work[_T]:
        """Make flights for ids that are in none. They have to be joined before :meth:`start`."""
        work: _Work[_T] = _Work()
        for chunk_id in ids:
            work.flights[chunk_id] = self._by_id[chunk_id] = _Flight(chunk_id, work)
        return work

    def start(self, work: _Work[_T], operation: Callable[[], Deferred[None]]) -> None:
        """Begin the store's operation, which lands flights; those left when it ends fail."""
        running = maybeDeferred(operation)
        if not running.called:
            work.running = running

        def ended(outcome: Failure | None) -> None:
            work.running = None
            why = outcome or Failure(StoreError(self.location, "it gave no answer for a chunk"))
            for chunk_id in list(work.flights):
                self.land(work, chunk_id, why)

        running.addBoth(ended)

    def land(self, work: _Work[_T], chunk_id: bytes, outcome: _T | Failure) -> None:
        """Tell all who wait for an id, unless the work has no flight for it any more."""
        flight = work.flights.pop(chunk_id, None)
        if flight is None:
            return
        # Before anybody is told, so that whoever asks again from there starts a new flight.
        del self._by_id[chunk_id]
        for tell in list(flight.waiting.values()):
            tell(_own(outcome))


def _own(outcome: _T | Failure) -> _T | Failure:
    """Give one of several who wait an outcome that nobody else changes."""
    if isinstance(outcome, Failure):
        return Failure(outcome.value, outcome.type, outcome.getTracebackObject())
    if isinstance(outcome, Chunk) and not outcome.verified:
        return cast(_T, outcome.copy())
    return outcome


if TYPE_CHECKING:
    _ChunkFlights: TypeAlias = _Flights[Chunk]


@implementer(IChunkSource, IBatch)
class SingleFlight:
    """
    Asks a store once for what several want at the same time.

    Cancelling the wait of one leaves the others alone; when the last is canceled, so is the store's
    operation. A failure reaches each of those who wait.

    :param store: must provide IChunkSource and IBatch.
    """

    def __init__(self, store: IChunkSource) -> None:
        require(store, IChunkSource, IBatch)
        self._store = store
        self.location = store.location
        self._chunks: _ChunkFlights = _Flights(self.location)
        self._presences: _Flights[bool] = _Flights(self.location)

    def __repr__(self) -> str:
        return f"<SingleFlight {self._store!r}>"

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        return self._one(self._chunks, chunk_id, self._store.get)

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        return self._one(self._presences, chunk_id, self._store.has)

    def _one(
        self, flights: _Flights[_T], chunk_id: bytes, ask: Callable[[bytes], Deferred[_T]]
    ) -> Deferred[_T]:
        check_id(chunk_id)
        result: Deferred[_T] = Deferred(lambda _: flights.leave(chunk_id, result))

        def tell(outcome: _T | Failure) -> None:
            if not result.called:
                result.callback(outcome)

        if chunk_id in flights:
            flights.join(chunk_id, result, tell)
            return result
        work = flights.open([chunk_id])
        flights.join(chunk_id, result, tell)

        def land(outcome: _T | Failure) -> None:
            flights.land(work, chunk_id, outcome)

        flights.start(work, lambda: ask(chunk_id).addBoth(land))
        return result

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return Deferred.fromCoroutine(self._missing(ids))

    async def _missing(self, ids: ChunkIds) -> ChunkIds:
        absent: list[bytes] = []
        for block in blocks(ids):
            absent += await self._missing_block(block)
        return packed(absent)

    async def _missing_block(self, ids: ChunkIds) -> list[bytes]:
        flights = self._presences
        done: Deferred[None] = Deferred()
        owed = set(ids)
        absent: list[bytes] = []

        def join(chunk_id: bytes) -> None:
            def tell(outcome: bool | Failure) -> None:
                owed.discard(chunk_id)
                if isinstance(outcome, Failure):
                    if not done.called:
                        done.errback(outcome)
                    return
                if not outcome:
                    absent.append(chunk_id)
                if not owed and not done.called:
                    done.callback(None)

            flights.join(chunk_id, done, tell)

        new = [chunk_id for chunk_id in ids if chunk_id not in flights]
        work = flights.open(new)
        for chunk_id in ids:
            join(chunk_id)

        async def ask() -> None:
            lacking = frozenset(await IBatch(self._store).missing(packed(new)))
            for chunk_id in new:
                flights.land(work, chunk_id, chunk_id not in lacking)

        if new:
            flights.start(work, lambda: Deferred.fromCoroutine(ask()))
        try:
            await done
        finally:
            for chunk_id in list(owed):
                flights.leave(chunk_id, done)
        return absent

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""

        async def transfer(guard: Guard) -> None:
            for block in blocks(ids):
                again: Sequence[bytes] = block
                while again:
                    waiting = _Waiting(self._chunks, guard)
                    again = await waiting.run(again, IBatch(self._store))

        return guarded(sink, transfer)

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return self._store.close()


class _Waiting:
    """A batch that waits for flights, its own and others', and passes on what they bring."""

    def __init__(self, flights: _ChunkFlights, guard: Guard) -> None:
        self._flights = flights
        self._guard = guard
        self._owed: set[bytes] = set()
        self._inbox: deque[Chunk] = deque()
        self._again: list[bytes] = []
        self._delivering: Deferred[None] | None = None
        self._is_delivering = False
        self._emptied: list[Deferred[None]] = []
        self._done: Deferred[None] = Deferred()
        self.ended = False

    async def run(self, ids: Iterable[bytes], store: IBatch) -> list[bytes]:
        """
        See to it that each id is answered.

        :returns: those that have to be asked for again.
        """
        flights = self._flights
        self._owed.update(ids)
        new = [chunk_id for chunk_id in self._owed if chunk_id not in flights]
        work = flights.open(new)
        own = frozenset(new)
        for chunk_id in self._owed:
            flights.join(chunk_id, self, self._teller(chunk_id, chunk_id in own))
        try:
            if new:
                landing = _Landing(flights, work, self)
                flights.start(work, lambda: store.get_many(packed(new), landing))
            self._check_done()
            await self._done
        finally:
            self.ended = True
            for chunk_id in list(self._owed):
                flights.leave(chunk_id, self)
            if self._delivering is not None:
                self._delivering.cancel()
            self._tell_emptied()
        return self._again

    def _teller(self, chunk_id: bytes, is_own: bool) -> Callable[[Chunk | Failure], None]:
        def tell(outcome: Chunk | Failure) -> None:
            self._owed.discard(chunk_id)
            if self.ended:
                return
            try:
                if not isinstance(outcome, Failure):
                    self._take(outcome, is_own)
                elif outcome.check(ChunkMissing):
                    self._guard.absent(packed([chunk_id]))
                else:
                    self._guard.failed(packed([chunk_id]), outcome)
            except BaseException:
                self._fail(Failure())
            self._check_done()

        return tell

    def _take(self, chunk: Chunk, is_own: bool) -> None:
        if not is_own and len(self._inbox) >= _KEPT:
            self._again.append(chunk.chunk_id)
            return
        self._inbox.append(chunk)
        if not is_own:
            self.deliver()

    def deliver(self) -> Deferred[None] | None:
        """
        Pass on what has been brought, unless that is under way.

        :returns: fires when nothing is left to be passed on; None if that is so already.
        """
        if not self._is_delivering and self._inbox and not self.ended:
            self._is_delivering = True
            self._delivering = Deferred.fromCoroutine(self._deliver())
            self._delivering.addBoth(self._delivered)
        if self.ended or not self._is_delivering:
            return None
        emptied: Deferred[None] = Deferred()
        self._emptied.append(emptied)
        return emptied

    async def _deliver(self) -> None:
        while self._inbox:
            batch = list(self._inbox)
            self._inbox.clear()
            await self._guard.deliver(batch)

    def _delivered(self, outcome: Failure | None) -> None:
        self._is_delivering = False
        if isinstance(outcome, Failure):
            self._fail(outcome)
        self._tell_emptied()
        self._check_done()

    def _tell_emptied(self) -> None:
        emptied, self._emptied = self._emptied, []
        for one in emptied:
            if not one.called:
                one.callback(None)

    def _check_done(self) -> None:
        if not (self._owed or self._inbox or self._is_delivering or self._done.called):
            self._done.callback(None)

    def _fail(self, why: Failure) -> None:
        if not self._done.called:
            self._done.errback(why)


@implementer(IChunkSink)
class _Landing:
    """What the store hands chunks to: they go to all who wait for them."""

    def __init__(self, flights: _ChunkFlights, work: _Work[Chunk], leader: _Waiting) -> None:
        self._flights = flights
        self._work = work
        self._leader = leader

    def chunks(self, batch: Sequence[Chunk]) -> Deferred[None] | None:
        for chunk in batch:
            self._flights.land(self._work, chunk.chunk_id, chunk)
        # Only the sink of the batch that this is fetched for can slow it down.
        return self._leader.deliver()

    def absent(self, ids: ChunkIds) -> None:
        for chunk_id in ids:
            missing = Failure(ChunkMissing(chunk_id, self._flights.location))
            self._flights.land(self._work, chunk_id, missing)

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        for chunk_id in ids:
            self._flights.land(self._work, chunk_id, why)
