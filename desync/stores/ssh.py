# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The store that is read over the casync protocol, ``ssh://[user@]host/path``.

Up to *n* sessions are open; each has many requests under way. A session is never asked for the same
chunk twice, because casync answers only once: another session is asked then, if need be a new one.
Chunks travel compressed and are always verified.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.errors import ChunkInvalid, ChunkMissing, StoreError, UsageError
from desync.formats.protocol import Missing
from desync.formats.stored import DEFAULT_LEVEL
from desync.interfaces import IBatch, IChunkSink, IChunkSource

from .backlog import Backlog
from .batches import check_id, guarded, packed
from .casync_source import ChunkSession
from .concurrently import concurrently
from .received import Codec, Received
from .ssh_command import SshTarget, spawn
from .threads import StoreThreads, Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from desync.chunking.digests import Digest
    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.formats.protocol import ChunkData
    from desync.options import StoreOptions

    from .batches import Guard
    from .location import Location
    from .opening import Reactor
    from .ssh_command import PipedProcess

    #: Connects a session with a server; gives the process that was started for it, if one was.
    Connect = Callable[[ChunkSession], PipedProcess | None]

#: How many requests one session of a batch has under way, and how few make it ask for more.
_WINDOW: Final = 128
_REFILL: Final = 64

#: How many lots of answers a session has verified at a time.
_VERIFYING: Final = 2

#: A lot has so many answers, or so many bytes of them: many are hashed sooner than one at a time.
_LOT: Final = 16
_LOT_BYTES: Final = 1 << 20


def _received(answer: ChunkData) -> Received:
    return Received(answer.chunk_id, answer.data, ".cacnk" if answer.compressed else "")


@implementer(IChunkSource, IBatch)
class SshStore:
    """
    A store at the other end of casync-protocol sessions.

    :param location: how messages name it.
    :param connect: begins a session.
    :param digest: the algorithm of ids.
    :param threads: for decoding and verifying.
    :param n: how many sessions at once.
    """

    def __init__(
        self, location: str, connect: Connect, digest: Digest, threads: Threads, n: int = 1
    ) -> None:
        self.location = location
        self._connect = connect
        self._codec = Codec(location, digest, skip_verify=False, level=DEFAULT_LEVEL)
        self._threads = threads
        self._size = max(1, n)
        self._sessions: list[ChunkSession] = []
        self._processes: dict[ChunkSession, PipedProcess] = {}
        self._all: set[ChunkSession] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<SshStore {self.location}>"

    # Sessions

    def _begin(self) -> ChunkSession:
        if self._is_closed:
            raise StoreError(self.location, "the store is closed")
        session = ChunkSession(self.location, self._forget)
        process = self._connect(session)
        if process is not None:
            self._processes[session] = process
        self._all.add(session)
        self._sessions.append(session)
        return session

    def _forget(self, session: ChunkSession) -> None:
        if session in self._sessions:
            self._sessions.remove(session)
        self._all.discard(session)
        process = self._processes.get(session)
        if process is not None:
            # Kept until it has ended, so that closing can wait for that.
            process.wait().addCallback(lambda _: self._processes.pop(session, None))

    def _session_for(self, chunk_id: bytes) -> ChunkSession:
        """Find the session that is to be asked for a chunk: that with the least to do."""
        fit = [one for one in self._sessions if not one.was_asked(chunk_id) and not one.is_worn]
        idle = [one for one in fit if not one.owes]
        if idle:
            return idle[0]
        if len(self._sessions) < self._size:
            return self._begin()
        if fit:
            return min(fit, key=lambda one: one.owes)
        oldest = min(self._sessions, key=lambda one: one.owes)
        self._retire(oldest)
        return self._begin()

    def _retire(self, session: ChunkSession) -> None:
        self._sessions.remove(session)
        session.retire()

    def _lane_session(self, number: int) -> ChunkSession:
        """Give the session of a lane of a batch."""
        while number >= len(self._sessions):
            self._begin()
        session = self._sessions[number]
        if session.is_worn:
            self._retire(session)
            session = self._begin()
        return session

    # What a store does

    def get(self, chunk_id: bytes) -> Deferred[Chunk]:
        """See :meth:`desync.interfaces.IChunkSource.get`."""
        check_id(chunk_id)
        return Deferred.fromCoroutine(self._get(chunk_id))

    async def _get(self, chunk_id: bytes) -> Chunk:
        waiting: Deferred[ChunkData | Missing] = Deferred()

        def answered(
            messages: list[ChunkData | Missing], lost: list[bytes], why: Failure | None
        ) -> None:
            if waiting.called:
                return
            if why is not None:
                waiting.errback(why)
            else:
                waiting.callback(messages[0])

        self._session_for(chunk_id).ask([chunk_id], answered)
        answer = await waiting
        if isinstance(answer, Missing):
            raise ChunkMissing(chunk_id, self.location)
        return await self._threads.run(self._codec.check_one, _received(answer))

    def has(self, chunk_id: bytes) -> Deferred[bool]:
        """See :meth:`desync.interfaces.IChunkSource.has`. It takes as long as ``get``."""

        async def look() -> bool:
            try:
                await self.get(chunk_id)
            except ChunkMissing:
                return False
            except ChunkInvalid:
                return True
            return True

        check_id(chunk_id)
        return Deferred.fromCoroutine(look())

    def get_many(self, ids: ChunkIds, sink: IChunkSink) -> Deferred[None]:
        """See :meth:`desync.interfaces.IBatch.get_many`."""
        wanted = ids.sorted_unique()

        def transfer(guard: Guard) -> Coroutine[Deferred[Any], Any, None]:
            return _Transfer(self, wanted, guard).run()

        return guarded(sink, transfer)

    def missing(self, ids: ChunkIds) -> Deferred[ChunkIds]:
        """
        See :meth:`desync.interfaces.IBatch.missing`. The protocol has no question for that: the
        chunks are fetched and thrown away.
        """

        async def look() -> ChunkIds:
            lacking = _Lacking()
            await self.get_many(ids, lacking)
            if lacking.why is not None:
                lacking.why.raiseException()
            return packed(lacking.ids)

        return Deferred.fromCoroutine(look())

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IStore.close`."""
        if self._is_closed:
            return succeed(None)
        self._is_closed = True

        async def close() -> None:
            for session in list(self._all):
                session.leave()
            await gatherResults(
                [process.wait() for process in list(self._processes.values())], consumeErrors=True
            )
            await self._threads.stop()

        return Deferred.fromCoroutine(close())


class _Transfer:
    """One batch, in lanes: a lane has a session."""

    def __init__(self, store: SshStore, ids: ChunkIds, guard: Guard) -> None:
        self._store = store
        self._todo: Iterator[bytes] = iter(ids)
        self._count = len(ids)
        self._guard = guard
        self._again: list[bytes] = []
        self._why: Failure | None = None

    def _next(self, most: int, session: ChunkSession) -> list[bytes]:
        """Take some ids that a session wasn't asked for yet."""
        taken: list[bytes] = []
        while len(taken) < most:
            chunk_id = next(self._todo, None)
            if chunk_id is None:
                break
            if session.was_asked(chunk_id):
                self._again.append(chunk_id)
            else:
                taken.append(chunk_id)
        return taken

    async def run(self) -> None:
        store = self._store
        lanes = min(store._size, max(1, self._count // _REFILL))
        while self._count:
            try:
                await concurrently((self._lane(number) for number in range(lanes)), lanes)
            except StoreError as error:
                # No session could be begun. What was begun has been waited for.
                self._why = Failure(error)
            rest = list(self._todo) + self._again
            self._again = []
            if not rest:
                return
            if self._why is not None:
                self._guard.failed(packed(rest), self._why)
                return
            # Each session was asked for these before: new ones haven't been.
            for session in list(store._sessions):
                store._retire(session)
            self._todo, self._count = iter(sorted(rest)), len(rest)

    async def _lane(self, number: int) -> None:
        session = self._store._lane_session(number)
        lot = _Lot(session)
        backlog = Backlog(_VERIFYING)
        try:
            while True:
                if lot.awaited <= _REFILL and not session.is_over and not session.is_retired:
                    if session.is_worn and not lot.awaited:
                        session = lot.session = self._store._lane_session(number)
                    ids = [] if session.is_worn else self._next(_WINDOW - lot.awaited, session)
                    if ids:
                        lot.awaited += len(ids)
                        session.ask(ids, lot.add)
                if not lot.awaited and lot.is_empty:
                    break
                await lot.wait()
                for lost, why in lot.take_lost():
                    self._why = why
                    self._guard.failed(packed(lost), why)
                messages = lot.take()
                if messages:
                    pressure = backlog.add(self._deliver(session, messages))
                    if pressure is not None:
                        await pressure
            await backlog.finish()
        finally:
            backlog.cancel()
            lot.close()

    async def _deliver(self, session: ChunkSession, messages: list[ChunkData | Missing]) -> None:
        store = self._store
        try:
            absent = [one.chunk_id for one in messages if isinstance(one, Missing)]
            answers = [one for one in messages if not isinstance(one, Missing)]
            self._guard.absent(packed(absent))
            if answers:
                chunks, failed = await store._threads.run(
                    store._codec.check, [_received(answer) for answer in answers]
                )
                for chunk_id, why in failed:
                    self._guard.failed(packed([chunk_id]), Failure(why))
                await self._guard.deliver(chunks)
        finally:
            session.holding(-_size(messages))


class _Lot:
    """
    Answers that are gathered to be verified together.

    :param session: that they come from.
    :ivar awaited: how many answers are still to come.
    """

    def __init__(self, session: ChunkSession) -> None:
        self.session = session
        self.awaited = 0
        self._messages: list[ChunkData | Missing] = []
        self._size = 0
        self._lost: list[tuple[list[bytes], Failure]] = []
        self._wake: Deferred[None] | None = None
        self._is_closed = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing has come since the last was taken."""
        return not self._messages and not self._lost

    @property
    def _is_ready(self) -> bool:
        """Whether there is enough, or more has to be asked for, or that is all."""
        is_full = len(self._messages) >= _LOT or self._size >= _LOT_BYTES
        return is_full or bool(self._lost) or self.awaited <= _REFILL

    def add(
        self, messages: list[ChunkData | Missing], lost: list[bytes], why: Failure | None
    ) -> None:
        """Take what a session has to say about what it was asked for."""
        if self._is_closed:
            return
        size = _size(messages)
        self.session.holding(size)
        self._messages += messages
        self._size += size
        self.awaited -= len(messages) + len(lost)
        if why is not None:
            self._lost.append((lost, why))
        if self._wake is not None and self._is_ready:
            waking, self._wake = self._wake, None
            waking.callback(None)

    async def wait(self) -> None:
        """Wait until there is something to be done."""
        if self.is_empty or not self._is_ready:
            self._wake = Deferred()
            await self._wake

    def take(self) -> list[ChunkData | Missing]:
        """Give the answers; whoever takes them tells the session when they have gone on."""
        taken, self._messages, self._size = self._messages, [], 0
        return taken

    def take_lost(self) -> list[tuple[list[bytes], Failure]]:
        """Give what will have no answer, and why."""
        taken, self._lost = self._lost, []
        return taken

    def close(self) -> None:
        """Take nothing more."""
        self._is_closed = True
        self.session.holding(-self._size)


def _size(messages: Sequence[ChunkData | Missing]) -> int:
    return sum(len(one.data) for one in messages if not isinstance(one, Missing))


@implementer(IChunkSink)
class _Lacking:
    """Remembers only what isn't there."""

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.why: Failure | None = None

    def chunks(self, batch: Sequence[Chunk]) -> None:
        return None

    def absent(self, ids: ChunkIds) -> None:
        self.ids.update(ids)

    def failed(self, ids: ChunkIds, why: Failure) -> None:
        if not why.check(ChunkInvalid, CancelledError):
            self.why = why


def open_ssh(
    location: Location, options: StoreOptions, digest: Digest, reactor: Reactor
) -> SshStore:
    """
    Open a store over SSH. Nothing is connected before the first chunk is asked for.

    :raises UsageError: if the location can't be used.
    """
    if options.encryption:
        raise UsageError("encryption is not supported by casync protocol (ssh://) stores")
    target = SshTarget(location, os.environ)

    def connect(session: ChunkSession) -> PipedProcess:
        command = target.casync("pull", "-", target.path)
        process = spawn(reactor, command, session, target.shown)
        session.watch(reactor, options.patience)
        return process

    return SshStore(location.shown, connect, digest, StoreThreads(reactor), options.n)
