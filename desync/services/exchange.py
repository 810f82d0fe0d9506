# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
One request to a server of ours, and its answer.

Not :class:`twisted.web.http.Request`: what that does for forms, cookies and templates costs more
than serving a chunk. The parsing is Twisted's all the same (:mod:`.connection`).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from .connection import Connection

#: The media type of chunks and indexes.
BINARY: Final = b"application/octet-stream"

#: The media type of what is said to people.
TEXT: Final = b"text/plain; charset=utf-8"

#: Bytes of a body that are handed to the transport at a time. A client has to take that many before
#: the server loses its patience.
PIECE: Final = 1 << 18

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}

#: Reads something again from a place on, as far as it likes.
Again: TypeAlias = "Callable[[int], Awaitable[bytes]]"

_log = Logger(namespace="desync.server")


class Refused(Exception):
    """
    A request that gets an answer other than what it asks for.

    :param code: the status.
    :param text: what is said to the peer; never anything about upstream.
    :param retry_after: seconds after which it may try again.
    """

    def __init__(self, code: int, text: str, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry_after = retry_after


class Exchange:
    """
    A request and its answer.

    Connections fill it in as the request comes in; a site looks at it and calls :meth:`respond`
    once, or :meth:`start`, :meth:`write` and :meth:`finish`, or has :meth:`run` wait for something.

    :ivar method: as it came, ``b"GET"``.
    :ivar uri: as it came.
    :ivar path: what precedes the question mark.
    :ivar length: bytes of the body, None if that isn't known before it ends.
    :ivar limit: bytes that the body may have.
    :ivar target: whatever the site found out from the path when it admitted the request.
    :ivar code: the status of the answer, 0 as long as there is none.
    :ivar sent: bytes of the answer's body.
    :ivar body: the request's.
    :ivar received: bytes of it that have come in.
    :ivar refusal: what it is answered with if it wasn't admitted.
    :ivar held: bytes that the server has reserved for the body.
    :ivar counted: whether it is among the requests that go on.
    :ivar outgoing: whether its answer only waits for the client.
    :ivar room: bytes that the server has reserved for the answer.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.requestHeaders = Headers()
        self.method = self.uri = self.path = b""
        self.version = b"HTTP/1.1"
        self.length: int | None = 0
        self.limit = 0
        self.target: Any = None
        self.code = 0
        self.sent = 0
        self.body = b""
        self.refusal: Refused | None = None
        self.disconnected = False
        self.finished = False
        self.received = 0
        self.held = 0
        self.counted = False
        self.outgoing = False
        self.room = 0
        self._pieces: list[bytes] = []
        self._running: Deferred[None] | None = None
        self._chunked = False
        self._drained: Deferred[None] | None = None

    # What twisted.web's channel calls

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        """Learn how long the body will be."""

    def parseCookies(self) -> None:  # noqa: N802
        """Cookies mean nothing here."""

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        """Take a part of the body."""
        self.received += len(data)
        if self.refusal is None and not self.finished:
            self.connection.body_came(self, len(data))
            if self.refusal is None:
                self._pieces.append(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802
        """Learn that the request is complete."""
        if self.finished:
            return
        pieces, self._pieces = self._pieces, []
        self.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self.connection.complete(self)

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        """Learn that nobody waits for the answer any more."""
        self.disconnected = True
        self._pieces.clear()
        running = self._running
        if running is not None:
            running.cancel()
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.errback(reason)
        if not self.finished:
            self.finished = True
            self.connection.ended(self)
            self.connection.server.check_idle()

    # What sites call

    def header(self, name: bytes) -> bytes | None:
        """Give a header's value; of one that occurs several times, the last."""
        values = self.requestHeaders.getRawHeaders(name)
        return values[-1] if values else None

    def run(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """
        Answer later: when the coroutine does. It is canceled if the client leaves.

        :class:`Refused` gives the answer; any other error is logged, and answered with 500.
        """
        running = self._running = Deferred.fromCoroutine(work)
        running.addErrback(self._failed)

    async def turn(self, size: int) -> None:
        """
        Wait until the server may hold so many bytes for the answer, in the place of what it held.

        :raises CancelledError: if the client has left.
        """
        self._hold(0)
        if not self.finished:
            waiting = self.connection.server.room.take(size)
            if waiting is not None:
                await waiting
            self.room = size
        if self.finished:
            self._hold(0)
            raise CancelledError

    def _hold(self, size: int) -> None:
        before, self.room = self.room, size
        if before != size:
            self.connection.server.room.change(before, size)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, Refused):
            self.refuse(error)
        elif self.disconnected and isinstance(error, CancelledError):
            pass
        else:
            _log.failure("internal error: {error}", failure, error=repr(error))
            self.refuse(Refused(500, "internal server error\n"))

    def refuse(self, refused: Refused) -> None:
        """Answer with an error, or break off if the answer has begun already."""
        if self.finished:
            return
        if self.code:
            # The client can tell a body that was broken off from one that ends.
            self.connection.abort()
            return
        more: list[tuple[bytes, bytes]] = [(b"X-Content-Type-Options", b"nosniff")]
        if refused.retry_after is not None:
            more.append((b"Retry-After", b"%d" % refused.retry_after))
        self.respond(refused.code, refused.text.encode(), TEXT, more)

    def respond(
        self,
        code: int,
        body: bytes = b"",
        content_type: bytes = BINARY,
        headers: Sequence[tuple[bytes, bytes]] = (),
        again: Again | None = None,
    ) -> None:
        """
        Answer, all at once.

        :param body: left away in the answer to a HEAD, as is its length.
        :param again: reads the body again from a place on, as far as it likes. With it nothing is
            held of what the client doesn't take at once. OSError breaks off the answer.
        """
        if self.finished:
            return
        self.code = code
        connection = self.connection
        head = [_STATUS_LINES[code], connection.common_headers()]
        if self.method != b"HEAD":
            head.append(b"Content-Type: %b\r\nContent-Length: %d\r\n" % (content_type, len(body)))
            self.sent = len(body)
        else:
            body = b""
        head += [b"%b: %b\r\n" % pair for pair in headers]
        # Together with the head, because casync takes no index in very small pieces.
        first = body if len(body) <= PIECE else body[:PIECE]
        head += (b"\r\n", first)
        data = b"".join(head)
        if again is None:
            connection.send(data)
            if connection.is_full or len(body) > PIECE:
                self._hold(len(body))
            at = len(first)
        else:
            at = connection.send(data, connection.share) - len(data) + len(first)
            if at < len(body):
                self._hold(0)
        if at == len(body):
            self._end()
            return
        self.outgoing = True
        connection.server.outgoing += 1
        size = len(body)
        sending = self._send_rest(body) if again is None else self._send_again(at, size, again)
        self._running = Deferred.fromCoroutine(sending)
        self._running.addErrback(self._failed)

    async def _send_rest(self, body: bytes) -> None:
        for start in range(PIECE, len(body), PIECE):
            await self.drained()
            self.connection.queue(body[start : start + PIECE])
        self._end()

    async def _send_again(self, at: int, size: int, again: Again) -> None:
        await self._pass_on(at, size, again)
        self._end()

    async def _pass_on(self, at: int, size: int, again: Again) -> None:
        """Send what can be read again from a place on, as the client takes it."""
        connection = self.connection
        already = self.sent - size
        begun, since = at, connection.full_since
        while at < size:
            self.sent = already + at
            await self.drained()
            try:
                data = await again(at)
            except OSError as error:
                why = error.strerror or str(error)
                _log.error("an answer was broken off: {why}", why=why)
                raise Refused(500, "") from None
            at += connection.send(data, connection.share)
            # It isn't to be held while the client takes its time.
            del data
            if at - begun < PIECE:
                # The client's time goes on until it has taken a piece.
                connection.full_since = since
            else:
                begun, since = at, connection.full_since
        self.sent = already + size

    def start(self, code: int, content_type: bytes) -> None:
        """Begin an answer whose length isn't known."""
        self.code = code
        head = [_STATUS_LINES[code], self.connection.common_headers()]
        head.append(b"Content-Type: %b\r\n" % content_type)
        if self.version == b"HTTP/1.1":
            self._chunked = True
            head.append(b"Transfer-Encoding: chunked\r\n")
        head.append(b"\r\n")
        self.connection.queue(b"".join(head))

    def write(self, pieces: list[bytes]) -> Deferred[None] | None:
        """
        Go on with an answer that was started.

        :returns: None, or what fires when the client has taken enough for more to be welcome.
        """
        if self.finished:
            return None
        size = sum(map(len, pieces))
        if not size:
            return None
        self.sent += size
        if self._chunked:
            pieces = [b"%x\r\n" % size, *pieces, b"\r\n"]
        self.connection.queue(b"".join(pieces))
        return self.drained() if self.connection.is_full else None

    async def pour(self, data: bytes, again: Again) -> None:
        """
        Go on with an answer that was started, by what can be read again: see :meth:`respond`.

        Nothing of the answer may be left to send; nor is there when this returns, and others have
        had their turn.
        """
        size = len(data)
        if self.finished or not size:
            return
        self.sent += size
        head = b"%x\r\n" % size if self._chunked else b""
        at = self.connection.send(head + data, self.connection.share) - len(head)
        del data
        self._hold(0)
        if at < size:
            await self._pass_on(at, size, again)
        await self.drained()
        if self._chunked:
            self.connection.queue(b"\r\n")
            await self.drained()

    def finish(self) -> None:
        """End an answer that was started."""
        if self.finished:
            return
        if self._chunked:
            self.connection.queue(b"0\r\n\r\n")
        self._end()

    def drained(self) -> Deferred[None]:
        """Fire when the client has taken what was written, or most of it."""
        waiting: Deferred[None] = Deferred(lambda _: setattr(self, "_drained", None))
        if not self.connection.is_full:
            waiting.callback(None)
        else:
            self._drained = waiting
        return waiting

    def _end(self) -> None:
        self.finished = True
        self._running = None
        connection = self.connection
        if connection.is_full:
            # What is left of it waits in the transport.
            connection.owed += self.room
            self.room = 0
        connection.ended(self)
        connection.requestDone(self)
        connection.server.check_idle()

    # What the transport tells by way of the connection

    def resumeProducing(self) -> None:  # noqa: N802
        """Learn that the client has taken what was written."""
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)
