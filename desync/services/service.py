# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A server as something that is started and stopped: by ``desync``, or by ``twistd``.

It has parts: what serves clients, and what the operator looks at. Each part first gets hold of the
places where it listens (:meth:`Part.prepare`), which may take rights that the process gives up
then, and afterwards begins to serve.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger, globalLogPublisher

from desync.errors import UsageError
from desync.stores.reloading import on_hangup

from .certificates import Certificates, ListeningWith, certificates_at, certificates_of
from .listening import (
    CannotListen,
    allow_descriptors,
    endpoint_description,
    is_tls_description,
    listen,
    shown_address,
)
from .logs import AccessLog, log_access
from .server import Limits, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IListeningPort, IProtocolFactory
    from twisted.python.failure import Failure

    from .counters import Counters
    from .metering import Troubles
    from .server import Site
    from .settings import ServerSettings

_log = Logger(namespace="desync.server")


class Closing(Protocol):
    """What is closed when a server stops."""

    def close(self) -> Deferred[None]: ...


class Part(Protocol):
    """A part of a server."""

    async def prepare(self) -> None:
        """Listen where it is to listen."""

    async def start(self) -> None:
        """Begin to serve."""

    async def stop(self) -> None:
        """Serve no more. That it never began to is fine."""


class Accepting(Protocol):
    """What accepts connections in the place of a port."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class ServerService(Service):
    """
    A server.

    :param parts: started in this order, and stopped in the other.
    """

    def __init__(self, parts: Sequence[Part], reactor: Any) -> None:
        self.parts = tuple(parts)
        self._reactor = reactor
        self._prepared: Deferred[None] | None = None

    async def start(self) -> None:
        """
        Listen and serve.

        :raises DesyncError: if that can't be; then nothing is left of it.
        """
        try:
            await self._prepare()
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _prepare(self) -> None:
        for part in self.parts:
            await part.prepare()

    async def _start(self) -> None:
        for part in self.parts:
            await part.start()

    async def stop(self) -> None:
        """Serve no more; running requests finish."""
        for part in reversed(self.parts):
            await part.stop()

    # What twistd calls

    def privilegedStartService(self) -> None:  # noqa: N802
        """Listen while the process may still use every port."""
        Service.privilegedStartService(self)
        self._prepared = Deferred.fromCoroutine(self._prepare())

    def startService(self) -> None:  # noqa: N802
        """Serve, and listen before unless that has been done."""
        Service.startService(self)
        if self._prepared is None:
            self._prepared = Deferred.fromCoroutine(self._prepare())
        self._prepared.addCallback(lambda _: Deferred.fromCoroutine(self._start()))
        self._prepared.addErrback(self._cannot_start)

    def _cannot_start(self, failure: Failure) -> None:
        _log.error("{error}", error=str(failure.value))
        self._reactor.callWhenRunning(self._reactor.stop)

    def stopService(self) -> Deferred[None]:  # noqa: N802
        """See :meth:`stop`."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self.stop())


class WebService:
    """
    The part of a server that clients talk to.

    :param settings: where it listens, and how.
    :param site: what it serves.
    :param counters: where it counts.
    :param troubles: told what goes wrong.
    :param closing: what is closed when it has stopped, in that order.
    :param on_reload: called on SIGHUP.
    :ivar adopted: what accepts connections for it, in the place of ports of its own.
    :ivar ports: where it listens, while it does.
    """

    def __init__(
        self,
        settings: ServerSettings,
        reactor: Any,
        site: Site,
        counters: Counters,
        troubles: Troubles,
        closing: list[Closing],
        on_reload: Callable[[], object] | None = None,
    ) -> None:
        self.descriptions = [endpoint_description(text) for text in settings.listen]
        if settings.cert and any(map(is_tls_description, self.descriptions)):
            raise UsageError("TLS either by an ssl: endpoint or by --cert and --key, not both")
        self.settings = settings
        self.ports: list[IListeningPort] = []
        self._reactor = reactor
        self._access_log = None
        if settings.log:
            self._access_log = AccessLog(settings.log, settings.log_format)
        limits = Limits(connections=settings.max_connections, requests=settings.max_requests)
        self.server = Server(
            site,
            reactor,
            limits,
            authorization=settings.authorization,
            counters=counters,
            access_log=log_access if self._access_log is not None else None,
        )
        self.factory: IProtocolFactory = self.server
        self._certificates: list[Certificates] = []
        own = certificates_of(settings)
        if own is not None:
            self._certificates.append(own)
            self.factory = own.over(self.server)
        self._troubles = troubles
        self._closing = closing
        self._on_reload = on_reload
        self._forget_hangup: Callable[[], None] | None = None
        self.adopted: list[Accepting] = []

    async def prepare(self) -> None:
        """
        Listen at all places.

        :raises CannotListen: at the first where that can't be.
        """
        # Stores and threads need some too.
        allow_descriptors(self.settings.max_connections + 512)
        if self._access_log is not None:
            globalLogPublisher.addObserver(self._access_log)
        if not self.adopted:
            for description in self.descriptions:
                self.ports.append(await self._listen(description))

    async def _listen(self, description: str) -> IListeningPort:
        reactor = self._reactor
        if is_tls_description(description):
            try:
                certificates = certificates_at(description)
            except Exception as error:
                raise CannotListen(f"can't listen at {description}: {error}") from None
            self._certificates.append(certificates)
            reactor = ListeningWith(reactor, certificates)
        return await listen(reactor, description, self.factory)

    async def start(self) -> None:
        """Say where it listens, and heed SIGHUP."""
        for accepting in self.adopted:
            accepting.start()
        self._forget_hangup = on_hangup(self._reactor, self._hang_up)
        for port in self.ports:
            address = shown_address(port, bool(self.settings.cert))
            _log.info("listening on {address}", address=address)

    def _hang_up(self) -> None:
        if self._access_log is not None:
            self._access_log.reopen()
        for certificates in self._certificates:
            certificates.read_again(self._report)
        if self._on_reload is not None:
            self._on_reload()

    def _report(self, line: str) -> None:
        report(line, self._troubles)

    async def stop(self) -> None:
        """Stop listening, let running requests finish, and close everything."""
        if self._forget_hangup is not None:
            self._forget_hangup()
            self._forget_hangup = None
        adopted, self.adopted = self.adopted, []
        for accepting in adopted:
            accepting.stop()
        ports, self.ports = self.ports, []
        await gatherResults([_stopped(port) for port in ports], consumeErrors=True)
        await self.server.drain()
        for each in self._closing:
            await each.close()
        if self._access_log is not None:
            globalLogPublisher.removeObserver(self._access_log)
            self._access_log.close()
            self._access_log = None


class OperatorPart:
    """
    The part that the operator looks at.

    :param description: where, as an endpoint.
    :param factory: what is there.
    :param work: is started and stopped with it.
    """

    def __init__(
        self, description: str, factory: IProtocolFactory, work: Accepting, reactor: Any
    ) -> None:
        self._description = description
        self._factory = factory
        self._work = work
        self._reactor = reactor
        self._port: IListeningPort | None = None

    async def prepare(self) -> None:
        """See :meth:`Part.prepare`."""
        self._port = await listen(self._reactor, self._description, self._factory)

    async def start(self) -> None:
        """See :meth:`Part.start`."""
        self._work.start()
        if self._port is not None:
            _log.info("operator's page at {address}", address=shown_address(self._port, False))

    async def stop(self) -> None:
        """See :meth:`Part.stop`."""
        self._work.stop()
        port, self._port = self._port, None
        if port is not None:
            await _stopped(port)


def _stopped(port: IListeningPort) -> Deferred[Any]:
    return maybeDeferred(port.stopListening)


def report(line: str, troubles: Troubles) -> None:
    """Say what came of reading something again."""
    _log.info("{line}", line=line)
    if line.startswith("failed"):
        troubles.add(line)
