# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A layer over a store that fails now and then: it is asked again, after a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from zope.interface import Interface, implementer

from desync.errors import ChunkInvalid, StoreError, StoreRefused
from desync.formats.id_set import IdSet
from desync.interfaces import IBatch, IChunkRemover, IChunkSource, IChunkTarget

from .batches import Collecting, blocks, check_id, guarded, packed, require

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkSink
    from desync.stores.pruning import Pruned

    from .batches import Guard
    from .listing import TakeIds

_T = TypeVar("_T")


def may_pass(error: BaseException) -> bool:
    """
    Tell whether another attempt may help: the store failed, or handed out what isn't the chunk.

    That a chunk is missing is an answer, and no failure.
    """
    return isinstance(error, (StoreError, ChunkInvalid)) and not isinstance(error, StoreRefused)


def is_invalid(error: BaseException) -> bool:
    """Tell whether a store handed out what isn't the chunk: it may have been spoiled on its way."""
    return isinstance(error, ChunkInvalid)


async def tried(
    operation: Callable[[], Deferred[_T]],
    clock: IReactorTime,
    attempts: int,
    base_interval: float,
    worth: Callable[[BaseException], bool] = may_pass,
) -> _T:
    """
    Do something again while it fails in a way that may pass.

    :param attempts: how often it is done at most, at least 1.
    :param base_interval: seconds before the second attempt; the n-th wait is n times as long.
    :raises: what the last attempt failed with, or the first that isn't worth another.
    """
    for attempt in range(1, attempts):
        try:
            return await operation()
        except Exception as error:
            if not worth(error):
                raise
        await deferLater(clock, attempt * base_interval)
    return await operation()


class IRetriesRequests(Interface):
    """
    A store that makes requests again that failed, in a way of its own: what :func:`retrying` puts
    over it only asks again for what wasn't the chunk.
    """


@implementer(IChunkSource, IBatch)
class Retry:
    """
    Asks a store again when it failed. See :func:`retrying`.

    Of many chunks only those are asked for again that failed.

    :param store: must provide IChunkSource and IBatch.
    :param clock: waits between the attempts.
    :param attempts: how often the store is asked at most, at least 1.
    :param base_interval: seconds before the second attempt; the wait before each further one is
        longer by as much.
    :param worth: tells whether an error may be gone the next time.
    """

    def __init__(
        self,
        store: IChunkSource,
        clock: IReactorTime,
        attempts: int,
        base_interval: float,
        worth: Callable[[BaseException], bool] = may_pass,
    ) -> None:
        require(store, IChunkSource, IBatch)
        if attempts < 1:
            raise ValueError("a store is asked at least once")
        self._store = store
        self._clock = clock
        self._attempts = attempts
        self._base_interval = base_interval
        self._worth = worth
        self.location = store.location

    def __repr__(self) -> str:
        return f"<Retry {self._store!r}>"

    async def _pause(self, attempt: int) -> None:
        await deferLater(self._clock, attempt * self._base_interval)

    async def _try(
        self,
        operation: Callable[[], Deferred[_T]],
        worth: Callable[[BaseException], bool] | None = None,
    ) -> _T:
        return await tried(
            operation, self._clock, self._attempts, self._base_interval, worth or self._worth
        )

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._try(lambda: self._store.get(chunk_id)))

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._try(lambda: self._store.has(chunk_id)))

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return Deferred.fromCoroutine(self._try(lambda: IBatch(self._store).missing(ids)))

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""

        async def transfer(guard: Guard) -> None:
            for block in blocks(ids):
                await self._get_block(block, guard)

        return guarded(sink, transfer)

    async def _get_block(self, ids: ChunkIds, guard: Guard) -> None:
        attempt = 1
        while True:
            trying = Collecting(ids, guard, self._worth)
            await trying.run(IBatch(self._store))
            if not trying.failures:
                return
            if attempt >= self._attempts:
                trying.tell_failures()
                return
            await self._pause(attempt)
            attempt += 1
            ids = packed(trying.failed_ids())

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        return self._store.close()


@implementer(IChunkTarget)
class RetryTarget(Retry):
    """
    Asks a store that can be written to again when it failed.

    :param store: must provide IChunkTarget and IBatch.
    """

    def __init__(
        self,
        store: IChunkTarget,
        clock: IReactorTime,
        attempts: int,
        base_interval: float,
        worth: Callable[[BaseException], bool] = may_pass,
    ) -> None:
        require(store, IChunkTarget)
        super().__init__(store, clock, attempts, base_interval, worth)
        self._target = store

    def put(self, chunk: Chunk) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkTarget.put`."""
        check_id(chunk.chunk_id)

        def worth(error: BaseException) -> bool:
            # A chunk that isn't what it says is so each time.
            return not isinstance(error, ChunkInvalid) and self._worth(error)

        return Deferred.fromCoroutine(self._try(lambda: self._target.put(chunk), worth))

    def renew(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkTarget.renew`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._try(lambda: self._target.renew(chunk_id)))


@implementer(IChunkRemover)
class RetryRemover(RetryTarget):
    """
    Asks a store again whose chunks can also be listed and removed. A prune, which is long, is made
    once: what of it can be repeated, such stores repeat by themselves.
    """

    def __init__(
        self,
        store: IChunkTarget,
        clock: IReactorTime,
        attempts: int,
        base_interval: float,
        worth: Callable[[BaseException], bool] = may_pass,
    ) -> None:
        require(store, IChunkRemover)
        super().__init__(store, clock, attempts, base_interval, worth)
        self._remover = IChunkRemover(store)

    def list_ids(self, take: TakeIds) -> Deferred[None]:
        """
        See :meth:`desync.interfaces.IChunkRemover.list_ids`.

        A listing that is begun anew hands over what it hasn't yet; that costs 45 bytes an id, so
        stores that make requests again by themselves go without.
        """
        if not self._worth(StoreError(self.location, "")):
            return self._remover.list_ids(take)
        seen = IdSet()
        broken: list[BaseException] = []

        def take_new(ids: ChunkIds) -> Deferred[None] | None:
            fresh = packed(chunk_id for chunk_id in ids if seen.add(chunk_id))
            return Deferred.fromCoroutine(hand_over(fresh)) if fresh else None

        async def hand_over(ids: ChunkIds) -> None:
            try:
                pressure = take(ids)
                if pressure is not None:
                    await pressure
            except BaseException as error:
                broken.append(error)
                raise

        def worth(error: BaseException) -> bool:
            return not broken and self._worth(error)

        return Deferred.fromCoroutine(self._try(lambda: self._remover.list_ids(take_new), worth))

    def remove(self, chunk_id: bytes) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkRemover.remove`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._try(lambda: self._remover.remove(chunk_id)))

    def prune(self, keep: ChunkIds, min_age: float, dry_run: bool = False) -> Deferred[Pruned]:
        """See :meth:`desync.interfaces.IChunkRemover.prune`."""
        return self._remover.prune(keep, min_age, dry_run)


def retrying(
    store: IChunkSource,
    clock: IReactorTime,
    error_retry: int,
    base_interval: float,
    worth: Callable[[BaseException], bool] | None = None,
) -> Retry:
    """
    Put retries over a store; they can be written to, and pruned, if it can.

    :param error_retry: as in the store options: 0 and 1 both mean that the store is asked once.
    :param base_interval: seconds; see :class:`Retry`.
    :param worth: tells which errors to try again after; what is usual for the store, if None.
    """
    attempts = max(1, error_retry)
    if worth is None:
        worth = is_invalid if IRetriesRequests.providedBy(store) else may_pass
    if IChunkTarget.providedBy(store) and IChunkRemover.providedBy(store):
        return RetryRemover(IChunkTarget(store), clock, attempts, base_interval, worth)
    if IChunkTarget.providedBy(store):
        return RetryTarget(IChunkTarget(store), clock, attempts, base_interval, worth)
    return Retry(store, clock, attempts, base_interval, worth)
