# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Requests to the services that object stores are: bounded in number, size and time."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from desync.errors import StoreRefused

from .http_connection import Exchange
from .http_server import HTTPServer
from .location import Location

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.defer import Deferred

    from desync.options import StoreOptions

    from .http_connection import Answer

#: The most bytes that the body of a successful answer may have which the caller doesn't want.
UNWANTED: int = 1 << 16


class Requests:
    """
    Makes requests, so many at a time to each server, over connections that are kept.

    :param location: the store's, for errors.
    :param options: say how many requests at a time, how long one may take, and what is trusted.
    :param reactor: connects and keeps the time.
    :param environ: may name proxies.
    """

    def __init__(
        self, location: str, options: StoreOptions, reactor: Any, environ: Mapping[str, str]
    ) -> None:
        self._location = location
        # What is configured for web servers isn't meant for these.
        self._options = options._replace(http_auth="", http_cookie="")
        self._reactor = reactor
        self._environ = environ
        self._servers: dict[tuple[str, str], HTTPServer] = {}

    def _server(self, scheme: str, netloc: str) -> HTTPServer:
        server = self._servers.get((scheme, netloc))
        if server is None:
            where = Location(self._location, scheme, "", netloc, "/", "")
            server = HTTPServer(where, self._options, self._reactor, self._environ)
            self._servers[scheme, netloc] = server
        return server

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        limit: int = UNWANTED,
    ) -> Deferred[Answer]:
        """
        Make a request. Redirects aren't followed.

        :param url: escaped.
        :param headers: those beyond Host, User-Agent and Content-Length.
        :param limit: the most bytes that the body of a successful answer may have; others are cut.
        :raises AnswerTooLarge: if it has more.
        :raises WebError: if no whole answer came.
        :raises StoreRefused: if the server's name, or a header, can't be one.
        """
        scheme, _, rest = url.partition("://")
        netloc, slash, target = rest.partition("/")
        server = self._server(scheme, netloc)
        lines = ""
        for name, value in headers.items():
            if not value.isascii() or not value.isprintable():
                raise StoreRefused(self._location, f"the header {name} can't be sent")
            lines += f"{name}: {value}\r\n"
        request = server.make_request(method, slash + target, lines, body)
        return server.perform(Exchange(request, head=method == "HEAD", limit=limit))

    async def close(self) -> None:
        """Close all connections. Twice is fine."""
        for server in self._servers.values():
            await server.close()


def header(answer: Answer, name: bytes) -> str:
    """Give the value of a header, by its name in lower case; empty if there is none."""
    return answer.headers.get(name, b"").decode("latin-1")


def time_of(answer: Answer) -> float | None:
    """Say what time it was at the service, in seconds since 1970; None if it doesn't tell."""
    try:
        return parsedate_to_datetime(header(answer, b"date")).timestamp()
    except (TypeError, ValueError):
        return None


def retry_after(answer: Answer) -> float:
    """Say how many seconds the service asks to wait; 0 if it doesn't."""
    text = header(answer, b"retry-after")
    return float(text) if text.isdecimal() and len(text) < 5 else 0.0
