# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Connections to one HTTP server: bounded in number, kept for the next request, each with a limit of
time for what it is at.

This is the fast way: a request is bytes that are ready to be sent, and a response goes to whoever
wants it as it comes. Twisted's Agent takes three times as long for the same.
"""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionClosed, NotConnectingError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from .http_parser import BadResponse, response_parser
from .web import AnswerTooLarge, WebError, describe

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint

    from .http_parser import ResponseParser

#: The option of sockets that makes Linux acknowledge at once.
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)

#: Bytes that are read at once of a response that is one request for many chunks: each time that
#: this thread lets go of the interpreter, others take it.
_READ_SIZE: Final = 1 << 17

#: A read of so many bytes is acknowledged by the system as soon as it is made.
_LARGE: Final = 1 << 14

#: Seconds that a connection is kept without use.
_IDLE: Final = 60.0

#: The most bytes that are kept of the body of an answer that isn't what was asked for.
_ERROR_LIMIT: Final = 1 << 12


class Answer(NamedTuple):
    """
    A whole response.

    :ivar headers: by lower-case name.
    :ivar body: of an answer that isn't a success only the beginning.
    """

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class _Unanswered(Exception):
    """A kept connection was closed before anything of the response came: the server let it go."""


class Exchange:
    """
    One request and its response; this one collects the response.

    :param request: its head and body, as they are sent.
    :param head: whether it is a HEAD request.
    :param limit: the most bytes that the body of a successful response may have.
    :ivar done: fires with what :meth:`result` gives once the response is complete; fails with
        WebError, AnswerTooLarge or CancelledError.
    :ivar patient: whether the limit of time is for each piece of the response, not for all of it.
    """

    patient = False

    def __init__(self, request: bytes, *, head: bool = False, limit: int = _ERROR_LIMIT) -> None:
        self.request = request
        self.head = head
        self.done: Deferred[Any] = Deferred(lambda _: self._cancel())
        self.connection: Connection | None = None
        self._limit = limit
        self._answer = Answer(0, {}, b"")
        self._pieces: list[bytes] = []
        self._size = 0

    def _cancel(self) -> None:
        if self.connection is not None:
            self.connection.abort()

    def started(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Take the head of the response."""
        self._answer = Answer(status, headers, b"")

    def data(self, data: bytes) -> None:
        """Take a piece of the body."""
        succeeded = 200 <= self._answer.status < 300
        if not succeeded:
            data = data[: max(0, _ERROR_LIMIT - self._size)]
        self._size += len(data)
        if succeeded and self._size > self._limit:
            raise AnswerTooLarge
        self._pieces.append(data)

    def result(self) -> Any:
        """Give what comes of the exchange."""
        pieces = self._pieces
        return self._answer._replace(body=pieces[0] if len(pieces) == 1 else b"".join(pieces))


class Connection(Protocol):
    """One connection; at one exchange at a time. It belongs to :class:`Connections`."""

    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._exchange: Exchange | None = None
        self._parser: ResponseParser | None = None
        self._touched = False
        self._paused = False
        self._timer: IDelayedCall | None = None
        self._socket: socket.socket | None = None
        self.used = False
        self.alive = False

    def connectionMade(self) -> None:  # noqa: N802
        self.alive = True
        set_nodelay = getattr(self.transport, "setTcpNoDelay", None)
        if set_nodelay is not None:
            set_nodelay(True)
        get_handle = getattr(self.transport, "getHandle", None)
        handle = get_handle() if get_handle is not None else None
        if isinstance(handle, socket.socket):
            self._socket = handle

    def start(self, exchange: Exchange) -> None:
        """Begin an exchange."""
        assert self.transport is not None
        self._exchange = exchange
        exchange.connection = self
        self._parser = response_parser(exchange, head=exchange.head)
        self._touched = False
        self._limit_time(self._owner.timeout)
        if exchange.patient:
            # Transports have it, though their interface doesn't say so.
            self.transport.bufferSize = _READ_SIZE  # type: ignore[attr-defined]
        self._send(exchange.request)

    def _send(self, data: bytes) -> None:
        """
        Send a request: at once where that is possible, which saves a turn of the reactor and two
        system calls.
        """
        assert self.transport is not None
        if self._socket is not None:
            with suppress(OSError):  # there is no room, or the transport will see what is wrong
                data = data[self._socket.send(data) :]
        if data:
            # From now on there may be something that the transport has still to send.
            self._socket = None
            self.transport.write(data)

    def _acknowledge(self) -> None:
        """
        Let the system acknowledge what has come, now.

        A server that sends a head and a body in pieces may wait for that before it sends the next,
        40 ms long where the system puts it off.
        """
        if _QUICK_ACK is None:
            return
        # Under TLS, that of the connection below.
        transport: Any = getattr(self.transport, "transport", self.transport)
        handle = transport.getHandle() if hasattr(transport, "getHandle") else None
        if isinstance(handle, socket.socket):
            with suppress(OSError):
                handle.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def _limit_time(self, seconds: float | None) -> None:
        if seconds is None:
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._timer = None
        elif self._timer is None or not self._timer.active():
            self._timer = self._owner.clock.callLater(seconds, self._expire)
        else:
            self._timer.reset(seconds)

    def _expire(self) -> None:
        if self._exchange is None:
            self.abort()
            return
        self._fail(Failure(WebError(f"no answer within {self._owner.timeout:g} seconds")))

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        exchange, parser = self._exchange, self._parser
        if exchange is None or parser is None:
            self.abort()  # nobody asked for anything
            return
        self._touched = True
        if exchange.patient:
            self._limit_time(self._owner.timeout)
        try:
            parser.feed(data)
        except BadResponse as error:
            self._fail(Failure(WebError(str(error))))
            return
        except Exception:
            self._fail(Failure())
            return
        if parser.complete:
            self._finish(exchange, reusable=parser.reusable)
        elif len(data) < _LARGE:
            self._acknowledge()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        self.alive = False
        self._limit_time(None)
        exchange, parser = self._exchange, self._parser
        if exchange is not None and parser is not None:
            try:
                parser.feed_end()
            except BadResponse as error:
                if self.used and not self._touched:
                    self._fail(Failure(_Unanswered()))
                elif not reason.check(ConnectionClosed) and reason.value is not None:
                    self._fail(Failure(WebError(describe(reason.value))))  # TLS, above all
                elif not self._touched:
                    self._fail(Failure(WebError("the connection was closed without an answer")))
                else:
                    self._fail(Failure(WebError(str(error))))
            except Exception:
                self._fail(Failure())
            else:
                self._finish(exchange, reusable=False)
        self._owner.lost(self)

    def _finish(self, exchange: Exchange, *, reusable: bool) -> None:
        self._exchange = self._parser = None
        exchange.connection = None
        # The end may have come with what was too much.
        self.resume()
        self.used = True
        if reusable and self.alive:
            self._owner.free(self)
        else:
            self._close()
        if not exchange.done.called:
            try:
                result = exchange.result()
            except Exception:
                exchange.done.errback(Failure())
            else:
                exchange.done.callback(result)

    def _fail(self, why: Failure) -> None:
        exchange = self._exchange
        self._exchange = self._parser = None
        self._close()
        if exchange is not None:
            exchange.connection = None
            if not exchange.done.called:
                exchange.done.errback(why)

    def _close(self) -> None:
        self._limit_time(None)
        if self.alive:
            self.alive = False
            transport: Any = self.transport
            getattr(transport, "abortConnection", transport.loseConnection)()

    def rest(self) -> None:
        """Begin a time without use, which is limited too."""
        self._limit_time(_IDLE)

    def pause(self) -> None:
        """Read nothing for now; the time that this takes isn't the server's."""
        if self.alive and self._exchange is not None:
            self._paused = True
            self._limit_time(None)
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def resume(self) -> None:
        """Read on."""
        if self.alive and self._paused:
            self._paused = False
            self._limit_time(self._owner.timeout)
            self.transport.resumeProducing()  # type: ignore[union-attr]

    def abort(self) -> None:
        """Close the connection; an exchange that is under way ends with CancelledError."""
        self._fail(Failure(CancelledError()))


class Connections:
    """
    The connections to one server.

    :param endpoint: connects to it.
    :param clock: measures the time.
    :param most: how many connections there are at most; more exchanges wait for their turn.
    :param timeout: seconds that connecting and an exchange may take; None for ever.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        most: int,
        timeout: float | None,
    ) -> None:
        self._endpoint = endpoint
        self.clock = clock
        self.timeout = timeout
        self._most = max(1, most)
        self._open: set[Connection] = set()
        self._connecting: set[Deferred[Any]] = set()
        self._idle: list[Connection] = []
        self._waiting: deque[Deferred[Connection]] = deque()
        self._is_closed = False
        self._when_empty: list[Deferred[None]] = []
        self._factory = Factory.forProtocol(lambda: Connection(self))
        self._factory.noisy = False

    async def perform(self, exchange: Exchange) -> Any:
        """
        Send a request, as soon as there is a connection for it.

        A request that met a connection which the server was just letting go is sent again.

        :returns: what the exchange's ``result`` gives.
        :raises WebError: if there is no whole response.
        :raises: whatever the exchange's methods did.
        """
        while True:
            connection = await self._acquire()
            connection.start(exchange)
            try:
                return await exchange.done
            except _Unanswered:
                exchange.done = Deferred(lambda _: exchange._cancel())

    async def _acquire(self) -> Connection:
        if self._is_closed:
            raise _closed()
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        waiting: Deferred[Connection] = Deferred()
        self._waiting.append(waiting)
        self._grow()
        try:
            return await waiting
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _grow(self) -> None:
        """Connect for those that wait, as far as there may be more connections."""
        while (
            not self._is_closed
            and len(self._waiting) > len(self._connecting)
            and len(self._open) + len(self._connecting) < self._most
        ):
            self._connect()

    def _connect(self) -> None:
        # Whoever waits for it may go meanwhile: the next one takes it.
        connecting: Deferred[Any] = self._endpoint.connect(self._factory)
        self._connecting.add(connecting)
        late: list[bool] = []

        def give_up() -> None:
            late.append(True)
            with suppress(NotConnectingError):
                connecting.cancel()

        timer = None
        if self.timeout is not None:
            timer = self.clock.callLater(self.timeout, give_up)

        def ended(outcome: Connection | Failure) -> None:
            self._connecting.discard(connecting)
            if timer is not None and timer.active():
                timer.cancel()
            if not isinstance(outcome, Failure):
                self._open.add(outcome)
                self.free(outcome)
                return
            if late:
                why = WebError(f"no connection within {self.timeout:g} seconds")
            else:
                assert outcome.value is not None
                why = WebError(describe(outcome.value))
            if self._waiting:
                self._waiting.popleft().errback(why)
            self._grow()
            self._tell_empty()

        connecting.addBoth(ended)

    def free(self, connection: Connection) -> None:
        """Learn that a connection can be used."""
        if self._is_closed:
            connection.abort()
        elif self._waiting:
            self._waiting.popleft().callback(connection)
        else:
            connection.rest()
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """Learn that a connection is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._grow()
        self._tell_empty()

    def _tell_empty(self) -> None:
        if not (self._open or self._connecting):
            waiting, self._when_empty = self._when_empty, []
            for each in waiting:
                each.callback(None)

    async def close(self) -> None:
        """Close all connections; exchanges that are under way fail. Twice is fine."""
        self._is_closed = True
        while self._waiting:
            self._waiting.popleft().errback(_closed())
        for connecting in list(self._connecting):
            with suppress(NotConnectingError):
                connecting.cancel()
        for connection in list(self._open):
            connection.abort()
        if self._open or self._connecting:
            empty: Deferred[None] = Deferred()
            self._when_empty.append(empty)
            await empty


def _closed() -> WebError:
    return WebError("the store was closed")
