# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Requests over HTTP to the services that object stores are: bounded in number, size and time.

Twisted's connection pool bounds the idle connections only, so requests take turns here.
"""

from __future__ import annotations

import os
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, succeed
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from desync import __version__
from desync.options import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from twisted.internet.interfaces import IConsumer, IDelayedCall
    from twisted.python.failure import Failure
    from twisted.web.iweb import IAgent, IResponse

    from desync.options import StoreOptions

#: Seconds that a connection is kept for the next request.
_IDLE: Final = 60

#: The most bytes that are read of an answer that isn't what was asked for.
ERROR_LIMIT: Final = 1 << 16

_USER_AGENT: Final = f"desync/{__version__}".encode()


class WebError(Exception):
    """No answer came, or not all of one. The message says why, in one line."""


class AnswerTooLarge(Exception):
    """An answer has more bytes than the caller takes."""


class Answer(NamedTuple):
    """
    What a service answered.

    :ivar status: the code.
    :ivar body: all of it.
    """

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str:
        """Give the value of a header; empty if there is none."""
        values = self.headers.getRawHeaders(name)
        return values[0] if values else ""


def time_of(answer: Answer) -> float | None:
    """Say what time it was at the service, in seconds since 1970; None if it doesn't tell."""
    try:
        return parsedate_to_datetime(answer.header("date")).timestamp()
    except (TypeError, ValueError):
        return None


def retry_after(answer: Answer) -> float:
    """Say how many seconds the service asks to wait; 0 if it doesn't."""
    text = answer.header("retry-after")
    return float(text) if text.isdecimal() and len(text) < 5 else 0.0


class Web:
    """
    Makes requests, so many at a time, over connections that are kept.

    :param reactor: connects and keeps the time.
    :param options: say how many requests at a time, how long one may take, and what is trusted.
    :param agent: makes them; one with a pool of its own if not given.
    """

    def __init__(self, reactor: Any, options: StoreOptions, agent: IAgent | None = None) -> None:
        self._reactor = reactor
        self._turns = DeferredSemaphore(max(1, options.n))
        self._timeout = (options.timeout or DEFAULT_TIMEOUT) / 1e9
        self._pool: HTTPConnectionPool | None = None
        if agent is None:
            self._pool = HTTPConnectionPool(reactor)
            self._pool.maxPersistentPerHost = max(1, options.n)
            self._pool.cachedConnectionTimeout = _IDLE
            agent = make_agent(reactor, self._pool, options)
        self._agent: IAgent = agent

    def request(
        self,
        method: bytes,
        url: bytes,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        limit: int = ERROR_LIMIT,
    ) -> Deferred[Answer]:
        """
        Make a request.

        :param headers: those beyond what belongs to the transport.
        :param limit: the most bytes that the body of a successful answer may have; others are cut.
        :raises AnswerTooLarge: if it has more.
        :raises WebError: if no whole answer came.
        """
        ending = _Ending()

        def cancel(_: Deferred[Answer]) -> None:
            ending.canceled = True
            running.cancel()

        result: Deferred[Answer] = Deferred(cancel)
        running = Deferred.fromCoroutine(self._in_turn(method, url, headers, body, limit, ending))

        def finish(outcome: Answer | Failure) -> None:
            if not result.called:
                result.callback(outcome)

        running.addBoth(finish)
        return result

    async def _in_turn(
        self,
        method: bytes,
        url: bytes,
        headers: Mapping[str, str],
        body: bytes,
        limit: int,
        ending: _Ending,
    ) -> Answer:
        await self._turns.acquire()
        try:
            timer: IDelayedCall | None = None
            if self._timeout > 0:
                timer = self._reactor.callLater(self._timeout, ending.expire)
            try:
                return await self._request(method, url, headers, body, limit, ending)
            finally:
                if timer is not None and timer.active():
                    timer.cancel()
        except AnswerTooLarge:
            raise
        except Exception as error:
            # What Twisted fails with when it is canceled is this and that.
            if ending.canceled:
                raise CancelledError from None
            if ending.late:
                raise WebError(f"no answer within {self._timeout:g} seconds") from None
            raise WebError(describe(error)) from error
        finally:
            self._turns.release()

    async def _request(
        self,
        method: bytes,
        url: bytes,
        headers: Mapping[str, str],
        body: bytes,
        limit: int,
        ending: _Ending,
    ) -> Answer:
        sent = Headers({name: [value] for name, value in headers.items()})
        sent.setRawHeaders(b"User-Agent", [_USER_AGENT])
        producer = _Bytes(body) if body or method in (b"PUT", b"POST") else None
        asking = self._agent.request(method, url, sent, producer)
        ending.stop = asking.cancel
        response: IResponse = await asking
        succeeded = 200 <= response.code < 300
        reader = _Reader(limit if succeeded else ERROR_LIMIT, cut=not succeeded)
        ending.stop = reader.collected.cancel
        response.deliverBody(reader)
        return Answer(response.code, response.headers, await reader.collected)

    def close(self) -> Deferred[None]:
        """Close the connections. Requests that are under way fail. Twice is fine."""
        return self._pool.closeCachedConnections() if self._pool is not None else succeed(None)


class _Ending:
    """
    How a request ended before its time, if it did.

    :ivar stop: breaks off what is under way.
    """

    def __init__(self) -> None:
        self.canceled = False
        self.late = False
        self.stop: Callable[[], object] = lambda: None

    def expire(self) -> None:
        self.late = True
        self.stop()


class _Reader(Protocol):
    """
    Collects the body of an answer.

    :param limit: the most bytes that it may have.
    :param cut: whether only so many are wanted of a longer one.
    """

    def __init__(self, limit: int, *, cut: bool) -> None:
        self._pieces: list[bytes] = []
        self._room = limit
        self._cut = cut
        self.collected: Deferred[bytes] = Deferred(lambda _: self._abort())

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        if self.collected.called:
            return
        self._pieces.append(data[: self._room])
        self._room -= len(data)
        if self._room < 0:
            if self._cut:
                self._finish()
            else:
                self.collected.errback(AnswerTooLarge())
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        if self.collected.called:
            return
        if reason.check(ResponseDone):
            self._finish()
        else:
            self.collected.errback(reason)

    def _finish(self) -> None:
        pieces = self._pieces
        self.collected.callback(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _abort(self) -> None:
        abort = getattr(self.transport, "abortConnection", None)
        if abort is not None:
            abort()
        elif self.transport is not None:
            self.transport.loseConnection()


@implementer(IBodyProducer)
class _Bytes:
    """A body that is there as a whole."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:  # noqa: N802
        consumer.write(self._body)
        return succeed(None)

    def pauseProducing(self) -> None:  # noqa: N802
        pass

    def resumeProducing(self) -> None:  # noqa: N802
        pass

    def stopProducing(self) -> None:  # noqa: N802
        pass


def make_agent(reactor: Any, pool: HTTPConnectionPool, options: StoreOptions) -> IAgent:
    """
    Make what connects, with the trust that the options ask for.

    :raises UsageError: if a file with certificates can't be used.
    """
    from .web_trust import policy_for

    return Agent(reactor, policy_for(options), pool=pool)


def describe(error: BaseException) -> str:
    """Say in one line why there was no answer."""
    reasons = getattr(error, "reasons", None)
    while reasons:
        error = reasons[0].value
        reasons = getattr(error, "reasons", None)
    if isinstance(error, DNSLookupError):
        return "there is no such host"
    if isinstance(error, ConnectError) and isinstance(error.osError, int):
        return os.strerror(error.osError)
    if isinstance(error, VerificationError):
        return "TLS failed: the server's certificate is for another name"
    if isinstance(error, SSL.Error):
        return f"TLS failed: {_tls_reason(error)}"
    words = " ".join(str(error).split())
    return words or type(error).__name__


def _tls_reason(error: SSL.Error) -> str:
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(entry[-1] for entry in queue if entry) or "the connection was closed"
