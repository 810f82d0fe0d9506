# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Proxies for HTTP, as the environment names them: HTTP_PROXY, HTTPS_PROXY, NO_PROXY, in capitals or
not.

As with Go's programs, what is on this machine is asked directly whatever the environment says.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib import request
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from desync.errors import ConfigError

from .web import WebError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IProtocol, IProtocolFactory

#: The most bytes of a proxy's answer to CONNECT.
_ANSWER_LIMIT: Final = 1 << 14

_PORTS: Final = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """
    A proxy.

    :ivar secure: whether it is reached over TLS.
    :ivar authorization: value of the Proxy-Authorization header; empty for none. A secret.
    """

    host: str
    port: int
    secure: bool
    authorization: str


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """
    Find the proxy that requests to a server go through.

    :param scheme: ``http`` or ``https``.
    :returns: None if they go to the server directly.
    :raises ConfigError: if the environment names something that isn't one.
    """
    name = f"{scheme}_proxy"
    text = environ.get(name) or environ.get(name.upper()) or ""
    if not text or _is_near(host):
        return None
    if scheme == "http" and environ.get("REQUEST_METHOD"):
        return None  # in a CGI program the variable in capitals is a header of the client's
    bypassed = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    is_bypassed: Any = vars(request)["proxy_bypass_environment"]
    if is_bypassed(f"{host}:{port}", {"no": bypassed}):
        return None
    return _parse(text, name.upper())


def _is_near(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parse(text: str, name: str) -> Proxy:
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        usual = _PORTS[url.scheme]
        port = url.port or usual
        host = url.hostname
    except (KeyError, ValueError):
        host = None
    if not host:
        # Not the value, which may hold a password.
        raise ConfigError(f"{name} names no proxy that can be used (http:// or https://)")
    authorization = ""
    if url.username is not None:
        user = f"{unquote(url.username)}:{unquote(url.password or '')}"
        authorization = f"Basic {b64encode(user.encode()).decode('ascii')}"
    return Proxy(host, port, url.scheme == "https", authorization)


@implementer(IStreamClientEndpoint)
class TunnelEndpoint:
    """
    Connects to a server through a proxy that is asked to connect to it (CONNECT).

    :param endpoint: connects to the proxy.
    :param target: ``host:port`` of the server.
    :param authorization: for the proxy; empty for none.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, target: str, authorization: str) -> None:
        self._endpoint = endpoint
        head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
        if authorization:
            head += f"Proxy-Authorization: {authorization}\r\n"
        self._request = head.encode("ascii") + b"\r\n"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        """
        Connect.

        :returns: fires with the factory's protocol once the proxy has connected; fails with
            WebError if it doesn't.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        tunnel = await self._endpoint.connect(
            Factory.forProtocol(lambda: _Tunnel(self._request, factory))
        )
        assert isinstance(tunnel, _Tunnel)
        return await tunnel.ready


class _Tunnel(Protocol):
    """Asks the proxy, and then hands on what comes through it."""

    def __init__(self, request: bytes, factory: IProtocolFactory) -> None:
        self._request = request
        self._inner_factory = factory
        self._inner: IProtocol | None = None
        self._answer = b""
        self.ready: Deferred[IProtocol] = Deferred(lambda _: self._refuse(CancelledError()))

    def connectionMade(self) -> None:  # noqa: N802
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if not end:
            if len(self._answer) > _ANSWER_LIMIT:
                self._refuse(WebError("the proxy's answer is too large"))
            return
        status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        if status is None:
            self._refuse(WebError("the proxy's answer isn't HTTP"))
        elif not status[1].startswith(b"2"):
            self._refuse(WebError(f"the proxy refused: status {status[1].decode()}"))
        else:
            self._open(rest)

    def _open(self, rest: bytes) -> None:
        assert self.transport is not None
        inner = self._inner_factory.buildProtocol(self.transport.getPeer())
        if inner is None:
            self._refuse(WebError("nothing to connect"))
            return
        self._inner = inner
        inner.makeConnection(self.transport)
        if not self.ready.called:
            self.ready.callback(inner)
        if rest:
            inner.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.ready.called:
            self.ready.errback(WebError("the proxy closed the connection"))

    def _refuse(self, error: Exception) -> None:
        if not self.ready.called:
            self.ready.errback(Failure(error))
        if self.transport is not None:
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()
