# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A store for tests of what is put over stores: it waits and fails as it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.formats.ids import ChunkIds
from desync.interfaces import IBatch, IChunkTarget

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from desync.formats.chunk import Chunk
    from desync.interfaces import IChunkSink
    from desync.stores.memory import MemoryStore

_T = TypeVar("_T")


@implementer(IChunkTarget, IBatch)
class ScriptedStore:
    """
    Passes everything to a store in memory, when and if the test wants.

    :param inner: where the chunks are.
    :ivar calls: for each operation its name and the ids it was about.
    :ivar canceled: the names of the operations that were canceled while they waited.
    :ivar failing: errors for single ids, for :meth:`get` and :meth:`get_many`; each is used once.
    :ivar closed: how often it was closed.
    """

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner
        self.location = inner.location
        self.calls: list[tuple[str, list[bytes]]] = []
        self.canceled: list[str] = []
        self.failing: dict[bytes, list[Exception]] = {}
        self.closed = 0
        self._errors: list[tuple[Exception | None, int | None]] = []
        self._held = False
        self._waiting: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<ScriptedStore {self.location}>"

    def hold(self) -> None:
        """Let operations that begin from now on wait for :meth:`release`."""
        self._held = True

    def release(self, count: int | None = None) -> None:
        """
        Let waiting operations go on.

        :param count: only that many, the oldest, while others go on to wait; if None all, and
            operations wait no longer.
        """
        if count is None:
            self._held = False
            count = len(self._waiting)
        released, self._waiting = self._waiting[:count], self._waiting[count:]
        for waiting in released:
            waiting.callback(None)

    @property
    def waiting(self) -> int:
        """How many operations wait."""
        return len(self._waiting)

    def fail_next(self, *errors: Exception | None, after: int | None = None) -> None:
        """
        Let the next operations fail, one for each error; None lets one succeed.

        :param after: how many chunks a ``get_many`` hands over before; its first ids.
        """
        self._errors += [(error, after) for error in errors]

    async def _enter(self, name: str, ids: list[bytes]) -> tuple[Exception, int | None] | None:
        self.calls.append((name, ids))
        if self._held:
            waiting: Deferred[None] = Deferred(lambda d: self._waiting.remove(d))
            self._waiting.append(waiting)
            try:
                await waiting
            except CancelledError:
                self.canceled.append(name)
                raise
        error, after = self._errors.pop(0) if self._errors else (None, None)
        return None if error is None else (error, after)

    def _do(self, name: str, ids: list[bytes], work: Callable[[], Awaitable[_T]]) -> Deferred[_T]:
        async def run() -> _T:
            error = await self._enter(name, ids)
            if error is not None:
                raise error[0]
            return await work()

        return Deferred.fromCoroutine(run())

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""

        async def work() -> Chunk:
            if self.failing.get(chunk_id):
                raise self.failing[chunk_id].pop(0)
            return await self.inner.get(chunk_id)

        return self._do("get", [chunk_id], work)

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`."""
        return self._do("has", [chunk_id], lambda: self.inner.has(chunk_id))

    def renew(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkTarget.renew`."""
        return self._do("renew", [chunk_id], lambda: self.inner.renew(chunk_id))

    def put(self, chunk: Chunk) -> Deferred[None]:
        """See :meth:`desync.interfaces.IChunkTarget.put`."""
        return self._do("put", [chunk.chunk_id], lambda: self.inner.put(chunk))

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """See :meth:`desync.interfaces.IBatch.missing`."""
        return self._do("missing", list(ids), lambda: self.inner.missing(ids))

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""

        async def run() -> None:
            wanted = list(ids)
            error = await self._enter("get_many", wanted)
            if error is not None:
                first = wanted[: error[1] or 0]
                await self.inner.get_many(ChunkIds.from_iterable(first), sink)
                raise error[0]
            good = []
            for chunk_id in wanted:
                if self.failing.get(chunk_id):
                    why = Failure(self.failing[chunk_id].pop(0))
                    sink.failed(ChunkIds.from_bytes(chunk_id), why)
                else:
                    good.append(chunk_id)
            await self.inner.get_many(ChunkIds.from_iterable(good), sink)

        running: Deferred[Any] = Deferred.fromCoroutine(run())
        return running

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        self.closed += 1
        return self.inner.close()
