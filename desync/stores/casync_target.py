# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The client of a push: an index goes out, and the chunks that the server then asks for."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred

from desync.errors import DesyncError, StoreError
from desync.formats.protocol import (
    EBADMSG,
    EIO,
    Abort,
    ChunkData,
    Goodbye,
    Hello,
    IndexData,
    IndexEnd,
    Request,
)
from desync.formats.protocol_session import Service, Session
from desync.formats.stored import DEFAULT_LEVEL, Compressed

from .casync_client import ClientSession
from .casync_wire import PIECE
from .received import Codec

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from twisted.python.failure import Failure

    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds
    from desync.formats.index import Index
    from desync.formats.protocol import Message

    from .threads import Threads

#: How many chunks are fetched and sent at a time.
_LANES: Final = 8

#: How many chunks the server may have asked for before it isn't listened to for a while.
_MOST_QUEUED: Final = 1 << 13

#: Seconds after which casync is told that an index is all there is: without chunks it waits for
#: that, while others have said goodbye by then.
_SAY_GOODBYE_AFTER: Final = 5.0


class ChunkSupply(Protocol):
    """Where the chunks come from that a server asks for."""

    def in_order(self, ids: ChunkIds) -> Iterable[bytes]:
        """
        Give some ids in the order that they are best fetched in.

        :raises StoreError: if one isn't of the index that was pushed.
        """

    def fetch(self, chunk_id: bytes) -> Coroutine[Deferred[Any], Any, Chunk]:
        """Give a chunk, checked against its id."""


class IndexPush(ClientSession):
    """
    Pushes an index, and the chunks of it that the server asks for.

    :param index: what is pushed.
    :param supply: has its chunks; None to push the index alone.
    :param threads: for compressing.
    :param where: the server, for messages.
    :param reactor: for the one time that has to be waited.
    :param level: zstd's.
    :ivar done: fires when the server has it all.
    :ivar sent: how many chunks the server was sent.
    :ivar sent_bytes: their size as they were sent.
    """

    def __init__(
        self,
        index: Index,
        supply: ChunkSupply | None,
        threads: Threads,
        where: str,
        reactor: Any,
        level: int = DEFAULT_LEVEL,
    ) -> None:
        flags = Service.PUSH_INDEX
        if supply is not None:
            flags |= Service.PUSH_CHUNKS | Service.PUSH_INDEX_CHUNKS
        super().__init__(Session(flags), where)
        self.done: Deferred[None] = Deferred(lambda _: self.finish())
        self.sent = self.sent_bytes = 0
        self._index = index
        self._supply = supply
        self._threads = threads
        self._codec = Codec(where, index.digest, skip_verify=False, level=level)
        self._reactor = reactor
        self._queue: deque[bytes] = deque()
        self._tasks: set[Deferred[None]] = set()
        self._answering = 0
        self._fetching = 0
        self._is_deaf = False
        self._is_complete = False
        self._timer: Any = None

    def is_owed(self) -> bool:
        # A request, or goodbye; unless it waits for a chunk, or hasn't been heard for a while.
        return not self._fetching and not self._is_deaf

    def hear(self, message: Message) -> None:
        if isinstance(message, Hello):
            self._run(self._send_index())
        elif isinstance(message, Request):
            self._take(message.ids)
        elif isinstance(message, Goodbye):
            self._is_complete = True
            self.finish()
        elif isinstance(message, Abort):
            self.given_up(message)

    def _take(self, ids: ChunkIds) -> None:
        assert self._supply is not None
        try:
            self._queue.extend(self._supply.in_order(ids))
        except StoreError as error:
            self.abort(EBADMSG, "not in the index", error)
            return
        if len(self._queue) > _MOST_QUEUED and not self._is_deaf:
            self._is_deaf = True
            self.transport_.pauseProducing()

    def _next(self) -> bytes:
        chunk_id = self._queue.popleft()
        if self._is_deaf and len(self._queue) <= _MOST_QUEUED // 2:
            self._is_deaf = False
            self.transport_.resumeProducing()
        return chunk_id

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
        if self._supply is None:
            self._timer = self._reactor.callLater(_SAY_GOODBYE_AFTER, self._say_goodbye)

    def _say_goodbye(self) -> None:
        self._timer = None
        if not self.is_over:
            self.say(Goodbye())
            self._is_complete = True
            self.finish()

    async def _answer(self) -> None:
        assert self._supply is not None
        try:
            while self._queue and not self.is_over:
                await self._wait_for_room()
                if not self._queue:
                    break
                chunk_id = self._next()
                self._fetching += 1
                try:
                    data = await self._data(chunk_id)
                finally:
                    self._fetching -= 1
                if self.is_over:
                    return
                self.say(ChunkData(chunk_id, data, compressed=True))
                self.sent += 1
                self.sent_bytes += len(data)
        finally:
            self._answering -= 1

    async def _data(self, chunk_id: bytes) -> bytes:
        assert self._supply is not None
        chunk = await self._supply.fetch(chunk_id)
        data = chunk.held_as(_FORM)
        if data is None:
            data = await self._threads.run(self._codec.encode, chunk, _FORM.extension)
        return data

    def ended(self) -> None:
        super().ended()
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        if self.done.called:
            return
        if self._is_complete:
            self.done.callback(None)
        else:
            self.done.errback(self.why())


_FORM: Final = Compressed()
