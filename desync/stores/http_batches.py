# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Many chunks in one request to a chunk server, where it offers that: see docs/http-protocol.rst.

Whether a server does shows when it is asked for the first time. One that doesn't is asked for each
chunk alone, then and afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from desync.errors import StoreError
from desync.formats.ids import ID_SIZE, ChunkIds
from desync.formats.protocol import (
    ChunkData,
    Goodbye,
    MessageReader,
    Missing,
    RemoteProtocolError,
)

from .backlog import Backlog
from .batches import blocks, guarded, packed
from .concurrently import concurrently
from .http_connection import Answer, Exchange
from .received import Received
from .web import AnswerTooLarge, WebError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from typing import Any, TypeAlias

    from desync.interfaces import IChunkSink

    from .batches import Guard
    from .http_server import HTTPServer

    #: Fetches chunks with a request for each.
    Singly: TypeAlias = Callable[[ChunkIds, Guard], Awaitable[None]]

    #: Checks chunks that have arrived, and hands them over.
    Check: TypeAlias = Callable[[list[Received], Guard], Coroutine[Deferred[Any], Any, None]]

IDS_TYPE: Final = "application/vnd.desync.ids"
CHUNKS_TYPE: Final = "application/vnd.desync.chunks"

#: The most ids in a request.
MOST_IDS: Final = 4096

#: Ids in a request for chunks: enough that a request costs nothing beside what it brings, few
#: enough that there is something left for the other requests.
_IDS: Final = 512

#: How many requests for chunks are under way at once. More only take turns: the server fills each.
_WIDTH: Final = 3

#: Bytes of chunks that have arrived and wait, above which no more is read, and below which it is.
_FULL: Final = 8 << 20
_ROOM: Final = 4 << 20

#: Chunks, and bytes of them, that are checked together.
_CHECKED_COUNT: Final = 64
_CHECKED_BYTES: Final = 4 << 20

#: How many such lots of one answer are decoded or written at a time.
_CHECKS: Final = 2

#: Statuses below 500 that say nothing about what the server offers.
_NOT_NOW: Final = frozenset({408, 425, 429})


class _NotOffered(Exception):
    """The server doesn't know such requests."""


class BatchClient:
    """
    Asks a chunk server for many chunks at once.

    :param server: where the store is.
    :param concurrency: how many requests it may have under way.
    """

    def __init__(self, server: HTTPServer, concurrency: int) -> None:
        self._server = server
        self._width = max(1, min(concurrency, _WIDTH))
        self._offered: bool | None = None

    def worth_trying(self, ids: ChunkIds) -> bool:
        """Tell whether some ids should be asked for together."""
        return self._offered is not False and len(ids) > 1

    def _post(self, what: str, ids: ChunkIds) -> bytes:
        headers = f"Content-Type: {IDS_TYPE}\r\n"
        return self._server.make_request("POST", self._server.target(what), headers, ids.to_bytes())

    def _judge(self, answer: Answer, wanted: str) -> None:
        """
        See whether a server answered as one that offers batches.

        :raises _NotOffered: if it doesn't offer them.
        :raises StoreError: if it doesn't tell.
        """
        status = answer.status
        kind = answer.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if status == 200 and kind == wanted.encode("ascii"):
            self._offered = True
            return
        if status in _NOT_NOW or (status >= 500 and status != 501):
            raise StoreError(self._server.location, f"unexpected status code {status} for chunks")
        if self._offered is None:
            self._offered = False
        raise _NotOffered

    def get_many(
        self, ids: ChunkIds, sink: IChunkSink, singly: Singly, check: Check
    ) -> Deferred[None]:
        """
        Fetch chunks.

        :param singly: does it if the server doesn't offer more, and for what it leaves out.
        """

        async def transfer(guard: Guard) -> None:
            todo = blocks(ids, _IDS)
            if self._offered is None:
                await self._fetch_blocks(todo, guard, singly, check, most=1)
            lanes = (self._fetch_blocks(todo, guard, singly, check) for _ in range(self._width))
            await concurrently(lanes, self._width)

        return guarded(sink, transfer)

    async def _fetch_blocks(
        self,
        todo: Iterator[ChunkIds],
        guard: Guard,
        singly: Singly,
        check: Check,
        most: int | None = None,
    ) -> None:
        for done, block in enumerate(todo, 1):
            if self._offered is False:
                await singly(block, guard)
            else:
                await self._fetch(block, guard, singly, check)
            if done == most:
                return

    async def _fetch(self, ids: ChunkIds, guard: Guard, singly: Singly, check: Check) -> None:
        exchange = _ChunkExchange(self._post("chunks", ids), ids, self._judge)
        performing = self._server.perform(exchange)
        ended = Deferred[None]()
        outcome: list[Any] = []
        # While some chunks wait to be written the next ones are decoded.
        checking = Backlog(_CHECKS)

        def end(result: Any) -> None:
            outcome.append(result)
            exchange.wake()
            ended.callback(None)

        performing.addBoth(end)
        try:
            while True:
                absent, received = exchange.take()
                if absent:
                    guard.absent(packed(absent))
                if received:
                    room = checking.add(check(received, guard))
                    if room is not None:
                        await room
                elif outcome:
                    break
                elif not absent:
                    await exchange.more()
            await checking.finish()
        except BaseException:
            performing.cancel()
            checking.cancel()
            await ended
            raise
        try:
            if isinstance(outcome[0], Failure):
                outcome[0].raiseException()
        except _NotOffered:
            pass
        except (WebError, RemoteProtocolError, StoreError, AnswerTooLarge) as error:
            why = error if isinstance(error, StoreError) else self._failure(error)
            guard.failed(packed(exchange.unanswered), Failure(why))
            return
        if exchange.unanswered:
            # What isn't offered, and what the server couldn't give: asked for alone, it says why.
            await singly(packed(exchange.unanswered), guard)

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(self._server.location, f"many chunks at once: {error}")

    def missing(
        self, ids: ChunkIds, singly: Callable[[ChunkIds], Deferred[ChunkIds]]
    ) -> Deferred[ChunkIds]:
        """
        Find out which chunks the server lacks.

        :param singly: does it if the server doesn't offer more.
        """
        return Deferred.fromCoroutine(self._missing(ids, singly))

    async def _missing(
        self, ids: ChunkIds, singly: Callable[[ChunkIds], Deferred[ChunkIds]]
    ) -> ChunkIds:
        found = bytearray()
        for block in blocks(ids, MOST_IDS):
            if self._offered is not False:
                try:
                    found += await self._missing_block(block)
                    continue
                except _NotOffered:
                    pass
            found += (await singly(block)).to_bytes()
        return ChunkIds.from_bytes(bytes(found), is_sorted=True)

    async def _missing_block(self, ids: ChunkIds) -> bytes:
        exchange = Exchange(self._post("missing", ids), limit=len(ids) * ID_SIZE)
        try:
            answer: Answer = await self._server.perform(exchange)
        except (WebError, AnswerTooLarge) as error:
            raise self._failure(error) from None
        self._judge(answer, IDS_TYPE)
        body = answer.body
        if len(body) % ID_SIZE:
            raise self._failure(RemoteProtocolError("an answer that ends within an id"))
        lacking = [body[at : at + ID_SIZE] for at in range(0, len(body), ID_SIZE)]
        if not set(ids).issuperset(lacking):
            raise self._failure(RemoteProtocolError("ids that nobody asked about"))
        return b"".join(sorted(set(lacking)))


class _ChunkExchange(Exchange):
    """
    A request for many chunks, whose answer is taken as it comes.

    :param judge: tells from the head of the answer whether it is one, by raising if it isn't.
    :ivar unanswered: ids of which nothing has come.
    """

    patient = True

    def __init__(self, request: bytes, ids: ChunkIds, judge: Callable[[Answer, str], None]) -> None:
        super().__init__(request)
        self.unanswered = set(ids)
        self._judge = judge
        self._reader = MessageReader()
        self._absent: list[bytes] = []
        self._received: list[Received] = []
        self._bytes = 0
        self._paused = False
        self._complete = False
        self._waiting: Deferred[None] | None = None

    def started(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._judge(Answer(status, headers, b""), CHUNKS_TYPE)

    def data(self, data: bytes) -> None:
        for message in self._reader.feed(data):
            if self._complete:
                raise RemoteProtocolError("something comes after the goodbye")
            if isinstance(message, ChunkData):
                self._answered(message.chunk_id)
                extension = ".cacnk" if message.compressed else ""
                self._received.append(Received(message.chunk_id, message.data, extension))
                self._bytes += len(message.data)
            elif isinstance(message, Missing):
                self._answered(message.chunk_id)
                self._absent.append(message.chunk_id)
            elif isinstance(message, Goodbye):
                self._complete = True
            else:
                raise RemoteProtocolError(f"a {type(message).__name__} among chunks")
        if self._bytes > _FULL and not self._paused and self.connection is not None:
            self._paused = True
            self.connection.pause()
        if self._received or self._absent:
            self.wake()

    def _answered(self, chunk_id: bytes) -> None:
        try:
            self.unanswered.remove(chunk_id)
        except KeyError:
            raise RemoteProtocolError("a chunk that nobody asked for, or a second time") from None

    def result(self) -> None:
        if not self._complete:
            raise RemoteProtocolError("the answer ends before its goodbye")

    def take(self) -> tuple[list[bytes], list[Received]]:
        """Give some of what has come: ids of missing chunks, and chunks."""
        count = size = 0
        for received in self._received[:_CHECKED_COUNT]:
            count += 1
            size += len(received.stored)
            if size >= _CHECKED_BYTES:
                break
        some, self._received = self._received[:count], self._received[count:]
        self._bytes -= size
        if self._paused and self._bytes < _ROOM and self.connection is not None:
            self._paused = False
            self.connection.resume()
        absent, self._absent = self._absent, []
        return absent, some

    async def more(self) -> None:
        """Wait until more has come, or the exchange has ended."""
        self._waiting = Deferred()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def wake(self) -> None:
        """End a wait."""
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)
