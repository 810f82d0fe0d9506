# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Web servers for the tests of what asks them: one that keeps files, and one that does as told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

reactor: Any = _reactor


class FileServer(Resource):
    """
    Keeps bytes under paths: GET, HEAD, PUT. It knows nothing else, as any web server.

    :ivar files: by path, with its slash.
    :ivar seen: methods and paths of all requests.
    :ivar headers: of the last request, by lower-case name.
    :ivar connections: how many there were.
    """

    isLeaf = True  # noqa: N815

    def __init__(self, context: Any = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.files: dict[str, bytes] = {}
        self.seen: list[tuple[str, str]] = []
        self.headers: dict[str, str] = {}
        self.connections = 0
        site = Site(self)
        build: Any = site.buildProtocol

        def count(address: Any) -> Any:
            self.connections += 1
            return build(address)

        site.buildProtocol = count  # type: ignore[method-assign]
        if context is None:
            self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        else:
            self.port = reactor.listenSSL(0, site, context, interface="127.0.0.1")
        self.scheme = "http" if context is None else "https"

    @property
    def number(self) -> int:
        """The port."""
        return int(self.port.getHost().port)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """Name something on it."""
        return f"{self.scheme}://{host}:{self.number}{path}"

    def stop(self) -> Deferred[None]:
        """Stop listening."""
        return succeed(None).addCallback(lambda _: self.port.stopListening())

    def render(self, request: Request) -> bytes:
        path = request.path.decode("ascii")
        method = request.method.decode("ascii")
        self.seen.append((method, path))
        self.headers = {
            name.decode("latin-1").lower(): values[-1].decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        if method == "PUT":
            assert request.content is not None
            created = path not in self.files
            self.files[path] = request.content.read()
            request.setResponseCode(201 if created else 200)
            return b""
        if method not in ("GET", "HEAD"):
            request.setResponseCode(405)
            return b"no"
        if path not in self.files:
            request.setResponseCode(404)
            return b"not here"
        return self.files[path]


Script = Callable[["Peer", bytes], None]


class Peer(Protocol):
    """
    A connection of :class:`ScriptedServer`: it hands each request's head to the script.

    :ivar body: of the request.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._received = b""
        self.body = b""

    def connectionMade(self) -> None:  # noqa: N802
        self._server.peers.append(self)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            length = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if len(rest) < length:
                return
            self.body, self._received = rest[:length], rest[length:]
            self._server.requests.append(head)
            self._server.script(self, head)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        self._server.lost += 1

    def say(self, data: bytes) -> None:
        """Send something."""
        assert self.transport is not None
        self.transport.write(data)

    def hang_up(self) -> None:
        """Close the connection once all is sent."""
        assert self.transport is not None
        self.transport.loseConnection()

    def reset(self) -> None:
        """Break the connection."""
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]


class ScriptedServer:
    """
    Answers each request with what a function does.

    :param script: called with the connection and the head of each request.
    :ivar requests: the heads of all requests.
    :ivar peers: all connections there were.
    :ivar lost: how many of them are closed.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self.lost = 0
        factory = Factory.forProtocol(lambda: Peer(self))
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")

    def url(self, path: str = "/") -> str:
        """Name something on it."""
        return f"http://127.0.0.1:{self.port.getHost().port}{path}"

    def stop(self) -> Deferred[None]:
        """Stop listening, and close what is open."""
        for peer in self.peers:
            if peer.transport is not None:
                peer.transport.abortConnection()  # type: ignore[attr-defined]
        return succeed(None).addCallback(lambda _: self.port.stopListening())


def response(status: str, body: bytes = b"", **headers: str) -> bytes:
    """Put a response together; underscores in the names of headers stand for dashes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
