# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Requests to an HTTP server on a store's behalf: what they carry, how it is reached, redirects."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)

from desync import __version__
from desync.errors import StoreRefused

from .http_connection import Answer, Connections, Exchange
from .http_proxies import TunnelEndpoint, proxy_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IStreamClientEndpoint

    from desync.options import StoreOptions

    from .location import Location

_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_KEEPS_METHOD: Final = frozenset({307, 308})

#: How many redirects are followed one after another, and to how many other servers in all.
_MOST_REDIRECTS: Final = 10
_MOST_SERVERS: Final = 16

#: What may stand in the path of a URL as it is.
_SAFE: Final = "/%:@!$&'()*+,;=~-._"


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


class HTTPServer:
    """
    The server that a store is on, and those that it redirects to.

    :param location: the store's.
    :param options: of the store: credentials, certificates, time, how many requests at once.
    :param environ: may name proxies.
    :raises StoreError: if the location's host isn't one.
    :raises ConfigError: if a certificate or a proxy can't be used.
    """

    def __init__(
        self, location: Location, options: StoreOptions, reactor: Any, environ: Mapping[str, str]
    ) -> None:
        self.location = location.shown
        self._options = options
        self._reactor = reactor
        self._environ = environ
        self._timeout = options.patience
        self._policy: Any = None
        self._origin = _parse_origin(
            f"{location.scheme}://{location.host}/", self.location, "its location"
        )
        self._path = quote(location.path, safe=_SAFE)
        self._private = _private_headers(location, options)
        self._servers: dict[_Origin, tuple[Connections, str, str]] = {}
        # Found now, so that what is wrong with certificates or proxies is said at once.
        self._server(self._origin)

    def _server(self, origin: _Origin) -> tuple[Connections, str, str]:
        """Give the connections to a server, and what is before and after its requests' paths."""
        server = self._servers.get(origin)
        if server is not None:
            return server
        if len(self._servers) > _MOST_SERVERS:
            raise StoreRefused(self.location, "it redirects to too many servers")
        proxy = proxy_for(origin.scheme, origin.host, origin.port, self._environ)
        before, after = "", self._headers(origin)
        endpoint: IStreamClientEndpoint
        if proxy is None:
            endpoint = self._endpoint(origin.host, origin.port)
        else:
            endpoint = self._endpoint(proxy.host, proxy.port)
            if proxy.secure:
                endpoint = self._secured(endpoint, proxy.host, proxy.port)
            if origin.scheme == "https":
                host = f"[{origin.host}]" if ":" in origin.host else origin.host
                target = f"{host}:{origin.port}"
                endpoint = TunnelEndpoint(endpoint, target, proxy.authorization)
            else:
                before = f"http://{origin.netloc}"
                if proxy.authorization:
                    after += f"Proxy-Authorization: {proxy.authorization}\r\n"
        if origin.scheme == "https":
            endpoint = self._secured(endpoint, origin.host, origin.port)
        connections = Connections(endpoint, self._reactor, self._options.n, self._timeout)
        self._servers[origin] = server = (connections, before, after)
        return server

    def _endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        if isIPAddress(host):
            return TCP4ClientEndpoint(self._reactor, host, port)
        if isIPv6Address(host):
            return TCP6ClientEndpoint(self._reactor, host, port)
        return HostnameEndpoint(self._reactor, host, port)

    def _headers(self, origin: _Origin) -> str:
        head = f" HTTP/1.1\r\nHost: {origin.netloc}\r\nUser-Agent: desync/{__version__}\r\n"
        # Another server has no business with this one's credentials.
        return head + (self._private if origin.host == self._origin.host else "")

    def _secured(self, endpoint: Any, host: str, port: int) -> Any:
        # What TLS takes is imported only here: see desync.running.import_reactor.
        from .web_trust import SecuredEndpoint, policy_for

        if self._policy is None:
            self._policy = policy_for(self._options)
        return SecuredEndpoint(self._policy.creatorForNetloc(host.encode("ascii"), port), endpoint)

    def target(self, name: str) -> str:
        """Give the path of something in the store, by a name that may have several parts."""
        return self._path + quote(name, safe="/")

    def make_request(self, method: str, target: str, headers: str = "", body: bytes = b"") -> bytes:
        """
        Put a request to the store's server together.

        :param headers: more of them, each with its line end.
        """
        _, before, after = self._servers[self._origin]
        return _request(method, before + target, after + headers, body)

    def perform(self, exchange: Exchange) -> Deferred[Any]:
        """Send a request to the store's server. See :meth:`Connections.perform`."""
        connections = self._servers[self._origin][0]
        return Deferred.fromCoroutine(connections.perform(exchange))

    async def ask(
        self, method: str, target: str, *, limit: int = 0, headers: str = "", body: bytes = b""
    ) -> Answer:
        """
        Make a request and follow redirects.

        :param limit: the most bytes that the body of a successful response may have.
        :raises AnswerTooLarge: if it has more.
        :raises WebError: if there is no whole response.
        :raises StoreRefused: if it redirects for ever, or to nowhere.
        """
        origin = self._origin
        for _ in range(_MOST_REDIRECTS):
            connections, before, after = self._server(origin)
            request = _request(method, before + target, after + headers, body)
            exchange = Exchange(request, head=method == "HEAD", limit=limit)
            answer: Answer = await connections.perform(exchange)
            where = answer.headers.get(b"location")
            if answer.status not in _REDIRECTS or where is None:
                return answer
            if method not in ("GET", "HEAD") and answer.status not in _KEEPS_METHOD:
                return answer
            origin, target = self._follow(origin, target, where)
        raise StoreRefused(self.location, f"it redirected more than {_MOST_REDIRECTS} times")

    def _follow(self, origin: _Origin, target: str, where: bytes) -> tuple[_Origin, str]:
        base = f"{origin.scheme}://{origin.netloc}{target}"
        try:
            url = urljoin(base, where.decode("latin-1"))
            parts = urlsplit(url)
        except ValueError:
            raise StoreRefused(self.location, "it redirects to nowhere") from None
        if origin.scheme == "https" and parts.scheme == "http":
            raise StoreRefused(self.location, "it redirects from https to http")
        found = _parse_origin(url, self.location, "a redirect of it")
        path = quote(parts.path or "/", safe=_SAFE)
        return found, f"{path}?{quote(parts.query, safe=_SAFE + '?')}" if parts.query else path

    async def close(self) -> None:
        """Close all connections. Twice is fine."""
        for connections, _, _ in self._servers.values():
            await connections.close()


def _request(method: str, target: str, headers: str, body: bytes) -> bytes:
    head = f"{method} {target}{headers}"
    if body or method in ("PUT", "POST"):
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode("latin-1") + b"\r\n" + body


def _parse_origin(url: str, location: str, what: str) -> _Origin:
    try:
        parts = urlsplit(url)
        host = unquote(parts.hostname or "").partition("%")[0]
        origin = _Origin(parts.scheme, _ascii(host), parts.port or _PORTS[parts.scheme])
    except (ValueError, KeyError):
        raise StoreRefused(location, f"{what} names no server that can be reached") from None
    if not origin.host:
        raise StoreRefused(location, f"{what} names no server that can be reached")
    return origin


def _ascii(host: str) -> str:
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _private_headers(location: Location, options: StoreOptions) -> str:
    authorization = options.http_auth
    if not authorization and location.user_info:
        user, colon, password = location.user_info.partition(":")
        pair = unquote(user) + (colon or ":") + unquote(password)
        authorization = f"Basic {b64encode(pair.encode()).decode('ascii')}"
    headers = ""
    for name, value in (("Authorization", authorization), ("Cookie", options.http_cookie)):
        if not value:
            continue
        if not value.isprintable() or not _is_latin(value):
            raise StoreRefused(location.shown, f"the {name} that is configured can't be sent")
        headers += f"{name}: {value}\r\n"
    return headers


def _is_latin(text: str) -> bool:
    return all(ord(character) < 256 for character in text)
