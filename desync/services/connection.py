# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Connections to a server of ours: how requests come in, how answers go out, and how long both may
take.

The parser is twisted.web's. An answer is given to the kernel at once as far as it takes it. The
rest is all that a connection holds of it, until the client has made room: nothing more is read or
answered meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.tcp import Connection as TCPConnection
from twisted.protocols.policies import ProtocolWrapper
from twisted.web.http import HTTPChannel

from .exchange import Exchange, Refused

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from .server import Limits, Server

#: A request's body that isn't wanted is read up to this size, so that the connection can be used
#: again; a larger one ends it.
_POLITE: Final = 1 << 16

_IDLE, _HEAD, _BODY, _WORK, _LINGER = range(5)

#: Bytes that are left to the transport of an answer that can be read again, so that it tells when
#: the client takes more. Over TLS nobody knows what the kernel takes at once, and there are more.
_SHARE: Final = 1 << 12
_TLS_SHARE: Final = 1 << 15

# It has no annotations.
_Channel: Any = HTTPChannel


class Connection(_Channel):  # type: ignore[misc]
    """
    One connection; made by :class:`.server.Server`.

    :ivar is_full: whether something waits in the transport for the client to take it.
    :ivar full_since: when that began.
    :ivar share: bytes that an answer which can be read again leaves to the transport.
    :ivar owed: bytes of the server's room for what waits in the transport.
    """

    # Ours are the deadlines.
    timeOut = None  # noqa: N815

    transport: Any

    # What came and hasn't been looked at, and of that what came while a request was answered.
    _buffer: bytes
    _dataBuffer: list[bytes]  # noqa: N815

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
        self.share = _TLS_SHARE
        self.owed = 0
        self._is_direct = False

    def connectionMade(self) -> None:  # noqa: N802
        self.peer = _host(self.transport.getPeer())
        self.server.connections.add(self)
        super().connectionMade()
        inner = self.transport
        if isinstance(inner, TCPConnection):
            self._is_direct = True
            self.share = _SHARE
            # As a pull producer it is told whenever everything was taken, however little it was.
            inner.unregisterProducer()
            inner.registerProducer(self, False)
            return
        while isinstance(inner, ProtocolWrapper):
            inner = inner.transport
        if isinstance(inner, TCPConnection):
            inner.bufferSize = _TLS_SHARE

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        self._is_direct = False
        self._settle()
        self.server.lost(self)
        super().connectionLost(reason)
        # Whoever still holds this doesn't hold what was to be sent.
        self.transport = self._networkProducer = _Gone()
        self._buffer, self._dataBuffer = b"", []

    def _settle(self) -> None:
        owed, self.owed = self.owed, 0
        if owed:
            self.server.room.change(owed, 0)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self.server.counters.received += len(data)
        if self.is_full:
            # This is kept until its turn comes, but no more of it.
            self._networkProducer.pauseProducing()
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        if self.state == _IDLE and not self.paused and (data or self._buffer):
            self.state = _HEAD
            self.since = self.server.now
        super().dataReceived(data)

    def setLineMode(self, extra: bytes = b"") -> None:  # noqa: N802
        # What came while a request was answered goes before what came while nothing was read.
        self.line_mode = 1
        self._buffer = extra + self._buffer
        if self._buffer and not self._busyReceiving:
            self._parse(b"")

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
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

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
        self.state = _LINGER
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

    def send(self, data: bytes, keep: int | None = None) -> int:
        """
        Write something, as much as possible at once.

        :param keep: bytes of the rest that may wait here for the client; None for all.
        :returns: the bytes that were sent or wait.
        """
        taken = 0
        if self._is_direct and not self.is_full:
            taken = self._send_now(data)
        if taken < len(data):
            if taken or keep is not None:
                data = data[taken : len(data) if keep is None else taken + keep]
            return taken + self.queue(data)
        return taken

    def _send_now(self, data: bytes) -> int:
        size, taken = len(data), 0
        while taken < size:
            sent = self.transport.writeSomeData(memoryview(data)[taken:] if taken else data)
            # If the connection is lost, the transport finds out when it is given the rest.
            if not isinstance(sent, int) or not sent:
                break
            taken += sent
        self.server.counters.sent += taken
        return taken

    def queue(self, data: bytes) -> int:
        """Write something when the reactor comes to it, and give its size."""
        self.server.counters.sent += len(data)
        self.transport.write(data)
        if self._is_direct:
            self.pauseProducing()
        return len(data)

    def pauseProducing(self) -> None:  # noqa: N802
        if not self.is_full:
            self.is_full = True
            self.full_since = self.server.now
        # No further request is looked at.
        self.paused = True
        self._waitingForTransport = True

    def resumeProducing(self) -> None:  # noqa: N802
        self.is_full = self.paused = self._waitingForTransport = False
        self._settle()
        if self.requests:
            self.requests[0].resumeProducing()
        if self.is_full or self.state == _LINGER:
            return
        waiting = sum(map(len, self._dataBuffer)) if self._handlingRequest else 0
        if waiting <= self._optimisticEagerReadSize:
            self._networkProducer.resumeProducing()
        self._parse(b"")

    def check(self, now: float, limits: Limits, is_pressed: bool) -> None:
        """
        End the connection if it takes too long.

        :param is_pressed: whether others wait for the room that this one may have.
        """
        waited = now - self.since
        sending = limits.sending
        if is_pressed and (self.owed or (self.requests and self.requests[0].room)):
            sending = limits.pressed
        if self.state == _LINGER:
            if waited > limits.linger and not (self.is_full and now - self.full_since <= sending):
                self.abort()
        elif self.is_full and now - self.full_since > sending:
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


class _Gone:
    """What stands for a transport that isn't there any more."""

    disconnecting = True

    def write(self, data: bytes) -> None:
        pass

    def _nothing(self) -> None:
        pass

    abortConnection = loseConnection = loseWriteConnection = _nothing  # noqa: N815
    pauseProducing = resumeProducing = unregisterProducer = _nothing  # noqa: N815


def _drop(data: bytes) -> None:
    """Take what is sent on a connection that is being closed."""


def _host(address: IAddress) -> str:
    return str(getattr(address, "host", "") or "-")
