# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Connections to a server of ours: what they are granted, how long they may take, and who may ask.

The parser is twisted.web's. Everything that protects the server is here, in one place for all
routes: authorization before anything else of a request is looked at, bounds on bodies before they
are read, limits on what goes on at once, and deadlines. These cost one sweep a second over the open
connections, and not a timer for each.
"""

from __future__ import annotations

import hmac
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.iweb import INonQueuedRequestFactory
from zope.interface import implementer

from .counters import Counters
from .exchange import Exchange, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IReactorTime
    from twisted.python.failure import Failure

#: A request's body that isn't wanted is read up to this size, so that the connection can be used
#: again; a larger one ends it.
_POLITE: Final = 1 << 16

_IDLE, _HEAD, _BODY, _WORK, _LINGER = range(5)

_log = Logger(namespace="desync.server")


class Limits(NamedTuple):
    """
    What one server grants. Seconds and bytes.

    :param connections: how many at once; further ones are closed.
    :param requests: how many at once; further ones are answered with 503.
    :param bodies: bytes of bodies that are held at once; what would exceed them is answered with
        503. A single body may be larger.
    :param head: until the head of a request is complete, from its first byte.
    :param idle: between requests.
    :param body: that a body may take regardless of its size.
    :param body_rate: bytes a second that it has to come in with after that, on average.
    :param sending: until the client has taken a piece of the answer.
    :param linger: until a connection that is being closed is broken off.
    :param grace: that running requests are given when the server stops.
    """

    connections: int = 10_000
    requests: int = 1_000
    bodies: int = 256 << 20
    head: float = 30
    idle: float = 120
    body: float = 30
    body_rate: int = 4096
    sending: float = 120
    linger: float = 5
    grace: float = 30


class Site(Protocol):
    """What a server serves."""

    def admit(self, exchange: Exchange) -> None:
        """
        Look at a request whose head is complete, and set the limit of its body.

        :raises Refused: if there is no point in reading its body.
        """

    def handle(self, exchange: Exchange) -> None:
        """Answer a complete request."""


# It has no annotations.
_Channel: Any = HTTPChannel


class Connection(_Channel):  # type: ignore[misc]
    """One connection; made by :class:`Server`."""

    # Ours are the deadlines.
    timeOut = None  # noqa: N815

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.requestFactory = server.new_exchange
        self.state = _IDLE
        self.since = server.now
        self.full_since = 0.0
        self.is_full = False
        self.is_talked_to = False
        self.peer = ""

    def connectionMade(self) -> None:  # noqa: N802
        self.peer = _host(self.transport.getPeer())
        self.server.connections.add(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        self.server.lost(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self.server.counters.received += len(data)
        if self.state == _IDLE:
            self.state = _HEAD
            self.since = self.server.now
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:  # noqa: N802
        exchange: Exchange = self.requests[-1]
        exchange.method, exchange.uri = self._command, self._path
        exchange.path = exchange.uri.partition(b"?")[0]
        exchange.version = self._version
        exchange.length = self.length
        self.persistent = (
            self._version == b"HTTP/1.1"
            and b"close" not in (exchange.header(b"Connection") or b"").lower()
            and not self.server.draining
        )
        self.server.admit(exchange)
        length = exchange.length
        if length == 0:
            return
        self.state = _BODY
        self.since = self.server.now
        if exchange.refusal is not None and (length is None or length > _POLITE):
            self.refuse_body(exchange)
        elif (exchange.header(b"Expect") or b"").lower() == b"100-continue":
            if exchange.refusal is not None:
                self.refuse_body(exchange)
            elif exchange.version == b"HTTP/1.1":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def allContentReceived(self) -> None:  # noqa: N802
        # A body that was refused while it was taken apart may have had an end.
        if self.state != _LINGER:
            super().allContentReceived()

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: N802
        self._respondToBadRequestAndDisconnect()

    def refuse_body(self, exchange: Exchange) -> None:
        """Answer a request whose body isn't read, and end the connection."""
        assert exchange.refusal is not None
        self.persistent = False
        self.is_talked_to = True
        exchange.refuse(exchange.refusal)

    def body_came(self, exchange: Exchange, size: int) -> None:
        """Learn that a part of a body came in."""
        self.server.hold(exchange, size)
        if exchange.refusal is not None:
            self.refuse_body(exchange)

    def complete(self, exchange: Exchange) -> None:
        """Learn that a request is complete."""
        self.state = _WORK
        self.server.handle(exchange)

    def ended(self, exchange: Exchange) -> None:
        """Learn that an exchange is over: answered, or given up."""
        self.server.ended(exchange)

    def requestDone(self, request: Exchange) -> None:  # noqa: N802
        self.state = _IDLE
        self.since = self.server.now
        if self.persistent and self.server.draining:
            self.persistent = False
        super().requestDone(request)

    def loseConnection(self) -> None:  # noqa: N802
        """Close once everything is sent. Nothing more is read."""
        self.state = _LINGER
        self.since = self.server.now
        for name in "dataReceived", "lineReceived", "rawDataReceived":
            setattr(self, name, _drop)
        if self.is_talked_to and not ISSLTransport.providedBy(self.transport):
            # Whoever is still sending gets to read the answer only if what it sends is taken.
            self._networkProducer.unregisterProducer()
            self.transport.loseWriteConnection()
        else:
            super().loseConnection()

    def abort(self) -> None:
        """Break off."""
        self.transport.abortConnection()

    def _respondToBadRequestAndDisconnect(self) -> None:  # noqa: N802
        # What the parser calls for what isn't HTTP.
        exchange = self.requests[-1] if self.requests else None
        if exchange is None:
            exchange = self.server.new_exchange(self)
            self.requests.append(exchange)
        if exchange.finished:
            self.loseConnection()
            return
        if not exchange.counted:
            self.server.count_in(exchange)
        self.persistent = False
        self.is_talked_to = True
        exchange.refuse(Refused(400, "bad request\n"))

    def common_headers(self) -> bytes:
        """Give the header lines of every answer."""
        return self.server.headers if self.persistent else self.server.closing_headers

    def send(self, data: bytes) -> None:
        """Write something."""
        self.server.counters.sent += len(data)
        self.transport.write(data)

    def send_all(self, pieces: list[bytes]) -> None:
        """Write something that is in pieces."""
        self.server.counters.sent += sum(map(len, pieces))
        self.transport.writeSequence(pieces)

    def pauseProducing(self) -> None:  # noqa: N802
        self.is_full = True
        self.full_since = self.server.now
        super().pauseProducing()

    def resumeProducing(self) -> None:  # noqa: N802
        self.is_full = False
        super().resumeProducing()
        if self.requests:
            self.requests[0].resumeProducing()

    def check(self, now: float, limits: Limits) -> None:
        """End the connection if it takes too long."""
        waited = now - self.since
        if self.state == _LINGER:
            if waited > limits.linger and not (
                self.is_full and now - self.full_since <= limits.sending
            ):
                self.abort()
        elif self.is_full and now - self.full_since > limits.sending:
            self.server.counters.timeouts += 1
            self.abort()
        elif self.state == _IDLE:
            if waited > limits.idle:
                self.loseConnection()
        elif self.state == _HEAD:
            if waited > limits.head:
                self._time_out("the head of the request took too long\n")
        elif self.state == _BODY and self.requests:
            granted = limits.body + self.requests[-1].received / limits.body_rate
            if waited > granted:
                self._time_out("the body of the request took too long\n")

    def _time_out(self, text: str) -> None:
        self.server.counters.timeouts += 1
        if not self.requests:
            exchange = self.server.new_exchange(self)
            self.requests.append(exchange)
        else:
            exchange = self.requests[-1]
        if not exchange.counted:
            self.server.count_in(exchange)
        self.persistent = False
        exchange.refuse(Refused(408, text))


def _drop(data: bytes) -> None:
    """Take what is sent on a connection that is being closed."""


def _host(address: IAddress) -> str:
    return str(getattr(address, "host", "") or "-")


@implementer(INonQueuedRequestFactory)
class _Exchanges:
    """Makes exchanges for the parser."""

    def __call__(self, channel: Connection) -> Exchange:
        return Exchange(channel)


class Server(ServerFactory):
    """
    Accepts connections and leads requests to a site.

    :param site: what is served.
    :param reactor: the clock.
    :param limits: what is granted.
    :param authorization: what the Authorization header has to be; empty if anybody may ask.
    :param counters: what happens is counted there.
    :param access_log: told of each exchange that was answered.
    """

    noisy = False

    def __init__(
        self,
        site: Site,
        reactor: IReactorTime,
        limits: Limits | None = None,
        *,
        authorization: str = "",
        counters: Counters | None = None,
        access_log: Callable[[Exchange], None] | None = None,
    ) -> None:
        self.site = site
        self.limits = limits or Limits()
        self.counters = counters or Counters()
        self.connections: set[Connection] = set()
        self.active: set[Exchange] = set()
        self.held = 0
        self.draining = False
        self.new_exchange = _Exchanges()
        self._authorization = authorization.encode()
        self._access_log = access_log
        self._reactor = reactor
        self._sweeping = LoopingCall(self.sweep)
        self._sweeping.clock = reactor
        self._idle: Deferred[None] | None = None
        self._alone: Deferred[None] | None = None
        self.now = 0.0
        self.headers = self.closing_headers = b""
        self._set_time()

    def _set_time(self) -> None:
        self.now = self._reactor.seconds()
        date = datetimeToString()
        self.headers = b"Server: desync\r\nDate: " + date + b"\r\n"
        self.closing_headers = self.headers + b"Connection: close\r\n"

    def startFactory(self) -> None:  # noqa: N802
        if not self._sweeping.running:
            self._sweeping.start(1, now=False)

    def stopFactory(self) -> None:  # noqa: N802
        if self._sweeping.running and not self.connections:
            self._sweeping.stop()

    def buildProtocol(self, addr: IAddress | None) -> Connection | None:  # noqa: N802
        if len(self.connections) >= self.limits.connections or self.draining:
            self.counters.turned_away += 1
            return None
        connection = Connection(self)
        connection.factory = self
        return connection

    def sweep(self) -> None:
        """End what takes too long; done every second."""
        self._set_time()
        for connection in list(self.connections):
            connection.check(self.now, self.limits)

    def lost(self, connection: Connection) -> None:
        """Learn that a connection is gone."""
        self.connections.discard(connection)
        if self._alone is not None and not self.connections:
            alone, self._alone = self._alone, None
            alone.callback(None)

    # A request's way

    def count_in(self, exchange: Exchange) -> None:
        """Count a request among those that go on."""
        exchange.counted = True
        self.active.add(exchange)

    def admit(self, exchange: Exchange) -> None:
        """Decide what becomes of a request, before its body is read."""
        self.count_in(exchange)
        try:
            self._check_authorization(exchange)
            if len(self.active) > self.limits.requests:
                raise Refused(503, "too many requests\n", 1)
            self.site.admit(exchange)
            self._check_length(exchange)
        except Refused as refused:
            exchange.refusal = refused

    def _check_authorization(self, exchange: Exchange) -> None:
        if self._authorization and not hmac.compare_digest(
            exchange.header(b"Authorization") or b"", self._authorization
        ):
            raise Refused(401, "Unauthorized\n")

    def _check_length(self, exchange: Exchange) -> None:
        length = exchange.length
        if length is None:
            return
        if length > exchange.limit:
            raise Refused(413, "the body is too large\n")
        self._reserve(exchange, length)

    def _reserve(self, exchange: Exchange, size: int) -> None:
        if self.held and self.held + size > self.limits.bodies:
            raise Refused(503, "too many bodies at once\n", 1)
        self.held += size
        exchange.held += size

    def hold(self, exchange: Exchange, size: int) -> None:
        """Make room for a part of a body whose length wasn't known."""
        if exchange.length is not None:
            return
        try:
            if exchange.received > exchange.limit:
                raise Refused(413, "the body is too large\n")
            self._reserve(exchange, size)
        except Refused as refused:
            exchange.refusal = refused

    def handle(self, exchange: Exchange) -> None:
        """Have a complete request answered."""
        if exchange.refusal is not None:
            exchange.refuse(exchange.refusal)
            return
        try:
            self.site.handle(exchange)
        except Refused as refused:
            exchange.refuse(refused)
        except Exception as error:
            _log.failure("internal error: {error}", error=repr(error))
            exchange.refuse(Refused(500, "internal server error\n"))

    def ended(self, exchange: Exchange) -> None:
        """Learn that an exchange is over."""
        if exchange.counted:
            self.active.discard(exchange)
            self.held -= exchange.held
            exchange.held = 0
            self.counters.count(exchange.method, exchange.code)
            if self._access_log is not None:
                self._access_log(exchange)

    def check_idle(self) -> None:
        """Go on with stopping if that waits for the last request."""
        if self._idle is not None and not self.active:
            idle, self._idle = self._idle, None
            idle.callback(None)

    # Stopping

    async def drain(self) -> None:
        """
        Accept nothing more, let running requests finish for as long as they are granted, and close
        all connections.
        """
        self.draining = True
        for connection in list(self.connections):
            if not connection.requests:
                connection.loseConnection()
        if self.active:
            self._idle = Deferred(lambda _: setattr(self, "_idle", None))
            await self._at_most(self.limits.grace, self._idle)
        for connection in list(self.connections):
            connection.loseConnection()
        if self.connections:
            self._alone = Deferred(lambda _: setattr(self, "_alone", None))
            await self._at_most(self.limits.linger, self._alone)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeping.running:
            self._sweeping.stop()

    async def _at_most(self, seconds: float, waiting: Deferred[None]) -> None:
        waiting.addTimeout(seconds, self._reactor)
        with suppress(TimeoutError, CancelledError):
            await waiting
