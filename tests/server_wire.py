# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Talking to a server of ours byte by byte, without a network, while a test turns the clock."""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from desync.services.connection import Connection
from desync.services.server import Limits, Server, Site


class Answer(NamedTuple):
    """What a server answered to one request."""

    code: int
    headers: dict[str, str]
    body: bytes


class Transport(StringTransport):
    """
    A transport in memory that can be closed in all ways.

    :ivar stuck: whether the client takes nothing, of which the connection is told.
    """

    protocol: Connection
    stuck = False

    def __init__(self) -> None:
        StringTransport.__init__(self, peerAddress=IPv4Address("TCP", "192.0.2.1", 54321))
        self.half_closed = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        StringTransport.write(self, data)
        if self.stuck:
            self.protocol.pauseProducing()

    def drain(self) -> None:
        """Let the client take everything from now on."""
        self.stuck = False
        self.protocol.resumeProducing()

    def loseWriteConnection(self) -> None:  # noqa: N802
        self.half_closed = True

    def loseConnection(self) -> None:  # noqa: N802
        if not self.disconnecting:
            self.disconnecting = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:  # noqa: N802
        self.aborted = True
        self.disconnecting = False
        self.loseConnection()


class Wire:
    """
    A client's connection to a server that exists only for it, or is shared with others.

    :param site: what is served.
    :ivar clock: the server's.
    """

    def __init__(
        self,
        site: Site,
        limits: Limits | None = None,
        server: Server | None = None,
        clock: Clock | None = None,
        **more: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.server = server or Server(site, self.clock, limits, **more)
        if server is None:
            factory: Any = self.server
            factory.doStart()
        self.connect()

    def connect(self) -> bool:
        """Connect anew, and tell whether that was granted."""
        protocol = self.server.buildProtocol(None)
        if protocol is None:
            return False
        self.connection = protocol
        self.transport = Transport()
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        return True

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed the connection."""
        return self.transport.disconnecting or self.transport.half_closed

    def send(self, data: bytes) -> None:
        """Send something."""
        if not self.transport.disconnecting:
            self.connection.dataReceived(data)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Make a request that is answered at once."""
        self.send(request(method, path, body, **headers))
        [answer] = self.answers(method == "HEAD")
        return answer

    def answers(self, to_head: bool = False) -> list[Answer]:
        """Take the answers that have come so far."""
        data = self.transport.value()
        self.transport.clear()
        found = []
        while data:
            answer, data = parse_answer(data, to_head)
            found.append(answer)
        return found

    def turn(self, seconds: int) -> None:
        """Let time pass, a second at a time."""
        self.clock.pump([1] * seconds)


def request(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    """Make the bytes of a request; underscores in the names of headers are dashes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: example.com"]
    if body is not None and "Transfer_Encoding" not in headers:
        headers.setdefault("Content_Length", str(len(body)))
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def parse_answer(data: bytes, to_head: bool = False) -> tuple[Answer, bytes]:
    """Take an answer apart, and give it with what follows it."""
    head, _, rest = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    version, code, _ = status.split(" ", 2)
    assert version == "HTTP/1.1", status
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines), lines
    if to_head or code == "100":
        return Answer(int(code), headers, b""), rest
    if headers.get("Transfer-Encoding") == "chunked":
        body = b""
        while True:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            body += rest[:length]
            assert rest[length : length + 2] == b"\r\n", rest[length:]
            rest = rest[length + 2 :]
            if not length:
                return Answer(int(code), headers, body), rest
    length = int(headers["Content-Length"])
    assert len(rest) >= length, (length, rest)
    return Answer(int(code), headers, rest[:length]), rest[length:]
