# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A server of ours: who may ask, what is granted, and how it stops.

Everything that protects it is here and in its connections (:mod:`.connection`), in one place for
all routes: authorization before anything else of a request is looked at, bounds on bodies before
they are read, limits on what goes on at once, and deadlines. These cost one sweep a second over the
open connections, and not a timer for each.
"""

from __future__ import annotations

import hmac
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.http import datetimeToString
from twisted.web.iweb import INonQueuedRequestFactory
from zope.interface import implementer

from .connection import Connection
from .counters import Counters
from .exchange import Exchange, Refused
from .room import Room

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IReactorTime

_log = Logger(namespace="desync.server")


class Limits(NamedTuple):
    """
    What one server grants. Seconds and bytes.

    :param connections: how many at once; further ones are closed.
    :param requests: how many at once; further ones are answered with 503.
    :param bodies: bytes of requests' bodies that are held at once; what would exceed them is
        answered with 503. A single body may be larger.
    :param answers: bytes of answers that are held at once; further ones wait for their turn.
    :param head: until the head of a request is complete, from its first byte.
    :param idle: between requests.
    :param body: that a body may take regardless of its size.
    :param body_rate: bytes a second that it has to come in with after that, on average.
    :param sending: until the client has taken a piece of the answer.
    :param pressed: the same if the answer holds what others wait for.
    :param linger: until a connection that is being closed is broken off.
    :param grace: that running requests are given when the server stops.
    """

    connections: int = 10_000
    requests: int = 1_000
    bodies: int = 96 << 20
    answers: int = 64 << 20
    head: float = 30
    idle: float = 120
    body: float = 30
    body_rate: int = 4096
    sending: float = 120
    pressed: float = 10
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
    :ivar active: requests that have no complete answer yet.
    :ivar outgoing: how many of them only wait for their clients.
    :ivar held: bytes of the bodies of requests.
    :ivar room: for the answers.
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
        self.outgoing = 0
        self.held = 0
        self.room = Room(self.limits.answers)
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
        is_pressed = self.room.is_wanted
        for connection in list(self.connections):
            connection.check(self.now, self.limits, is_pressed)

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
            if len(self.active) - self.outgoing > self.limits.requests:
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
        self._check_held(length)

    def _check_held(self, size: int) -> None:
        if self.held and self.held + size > self.limits.bodies:
            raise Refused(503, "too many bodies at once\n", 1)

    def hold(self, exchange: Exchange, size: int) -> None:
        """Make room for a part of a body that has come in."""
        try:
            if exchange.received > exchange.limit:
                raise Refused(413, "the body is too large\n")
            if self.held > exchange.held:
                self._check_held(size)
        except Refused as refused:
            exchange.refusal = refused
        else:
            self.held += size
            exchange.held += size

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
        if exchange.outgoing:
            exchange.outgoing = False
            self.outgoing -= 1
        room, exchange.room = exchange.room, 0
        if room:
            self.room.change(room, 0)
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
