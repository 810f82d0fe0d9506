# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The client of a push: an index goes out, and the chunks that the server then asks for."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from desync.errors import DesyncError, StoreError
from desync.formats.protocol import (
    EIO,
    Abort,
    ChunkData,
    Goodbye,
    Hello,
    IndexData,
    IndexEnd,
    Missing,
    RemoteProtocolError,
    Request,
)
from desync.formats.protocol_session import Service, Session
from desync.formats.stored import Compressed

from .casync_wire import PIECE, SessionProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.python.failure import Failure

    from desync.formats.chunk import Chunk
    from desync.formats.index import Index
    from desync.formats.protocol import Message

    from .threads import Threads

    #: Gives a chunk that the server asks for.
    Fetch = Callable[[bytes], Coroutine[Deferred[Any], Any, Chunk]]

#: How many chunks are fetched and sent at a time.
_LANES: Final = 8

#: Seconds after which casync is told that an index is all there is: without chunks it waits for
#: that, while others have said goodbye by then.
_SAY_GOODBYE_AFTER: Final = 5.0


class IndexPush(SessionProtocol):
    """
    Pushes an index, and the chunks of it that the server asks for.

    :param index: what is pushed.
    :param fetch: gives its chunks; None to push the index alone.
    :param threads: for compressing.
    :param where: the server, for messages.
    :param reactor: for the one time that has to be waited.
    :ivar done: fires when the server has it all.
    :ivar sent: how many chunks the server was sent.
    :ivar sent_bytes: their size as they were sent.
    """

    def __init__(
        self, index: Index, fetch: Fetch | None, threads: Threads, where: str, reactor: Any
    ) -> None:
        flags = Service.PUSH_INDEX
        if fetch is not None:
            flags |= Service.PUSH_CHUNKS | Service.PUSH_INDEX_CHUNKS
        super().__init__(Session(flags))
        self.done: Deferred[None] = Deferred(lambda _: self.finish())
        self.sent = self.sent_bytes = 0
        self._index = index
        self._fetch = fetch
        self._threads = threads
        self._where = where
        self._reactor = reactor
        self._queue: deque[bytes] = deque()
        self._tasks: set[Deferred[None]] = set()
        self._answering = 0
        self._is_complete = False
        self._timer: Any = None

    def hear(self, message: Message) -> None:
        if isinstance(message, Hello):
            self._run(self._send_index())
        elif isinstance(message, Request):
            self._queue.extend(message.ids)
        elif isinstance(message, Goodbye):
            self._is_complete = True
            self.finish()
        elif isinstance(message, Abort):
            text = message.text or f"error {message.code}"
            self.finish(StoreError(self._where, f"the server gave up: {text}"))

    def heard(self) -> None:
        while self._queue and self._answering < _LANES and not self.is_over:
            self._answering += 1
            self._run(self._answer())

    def _run(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def done(outcome: Failure | None) -> None:
            self._tasks.discard(task)
            if outcome is not None and not self.is_over:
                self.abort(EIO, "not available", outcome.value or DesyncError("it failed"))

        task.addBoth(done)

    async def _wait_for_room(self) -> None:
        while not self.is_over:
            room = self.room()
            if room is None:
                return
            await room

    async def _send_index(self) -> None:
        head, table, tail = self._index.pieces()
        # The header goes out with what follows it: casync wants 64 bytes at once.
        first = PIECE - len(head)
        self.say(IndexData(head + bytes(table[:first])))
        for begin in range(first, len(table), PIECE):
            await self._wait_for_room()
            if self.is_over:
                return
            self.say(IndexData(bytes(table[begin : begin + PIECE])))
        self.say(IndexData(tail))
        self.say(IndexEnd())
        if self._fetch is None:
            self._timer = self._reactor.callLater(_SAY_GOODBYE_AFTER, self._say_goodbye)

    def _say_goodbye(self) -> None:
        self._timer = None
        if not self.is_over:
            self.say(Goodbye())
            self._is_complete = True
            self.finish()

    async def _answer(self) -> None:
        assert self._fetch is not None
        try:
            while self._queue and not self.is_over:
                await self._wait_for_room()
                if not self._queue:
                    break
                chunk_id = self._queue.popleft()
                chunk = await self._fetch(chunk_id)
                data = chunk.held_as(_FORM)
                if data is None:
                    data = await self._threads.run(
                        lambda chunk=chunk: chunk.stored_as(Compressed())
                    )
                if self.is_over:
                    return
                if not data:
                    self.say(Missing(chunk_id))
                    continue
                self.say(ChunkData(chunk_id, data, compressed=True))
                self.sent += 1
                self.sent_bytes += len(data)
        finally:
            self._answering -= 1

    def ended(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self.done.called:
            return
        if self._is_complete:
            self.done.callback(None)
            return
        why = self.ended_by
        if not isinstance(why, DesyncError) or isinstance(why, RemoteProtocolError):
            text = "the session was closed" if why is None else str(why)
            if self.lost_by:
                text = f"{text} ({self.lost_by})"
            why = StoreError(self._where, text)
        self.done.errback(why)


_FORM: Final = Compressed()
