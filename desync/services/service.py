# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A server as something that is started and stopped: by ``desync``, or by ``twistd``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger, globalLogPublisher

from desync.errors import UsageError
from desync.stores.reloading import on_hangup

from .connection import Limits, Server
from .listening import endpoint_description, is_tls_description, listen, with_tls
from .logs import AccessLog, log_access

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IListeningPort

    from .connection import Site
    from .counters import Counters
    from .settings import ServerSettings

_log = Logger(namespace="desync.server")


class Closing(Protocol):
    """What is closed when a server stops."""

    def close(self) -> Deferred[None]: ...


class WebService(Service):
    """
    A server.

    :param settings: where it listens, and how.
    :param site: what it serves.
    :param counters: where it counts.
    :param closing: what is closed when it has stopped, in that order.
    :param on_reload: called on SIGHUP.
    :ivar ports: where it listens, while it does.
    """

    def __init__(
        self,
        settings: ServerSettings,
        reactor: Any,
        site: Site,
        counters: Counters,
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
        self.factory = with_tls(settings, self.server)
        self._closing = closing
        self._on_reload = on_reload
        self._forget_hangup: Callable[[], None] | None = None
        self._starting: Deferred[None] | None = None

    @property
    def addresses(self) -> list[str]:
        """Where it listens, for people."""
        tls = bool(self.settings.cert)
        return [_shown(port, tls) for port in self.ports]

    async def start(self) -> None:
        """
        Listen at all places.

        :raises CannotListen: at the first where that can't be; then at none.
        """
        if self._access_log is not None:
            globalLogPublisher.addObserver(self._access_log)
        try:
            for description in self.descriptions:
                self.ports.append(await listen(self._reactor, description, self.factory))
        except BaseException:
            await self.stop()
            raise
        self._forget_hangup = on_hangup(self._reactor, self._hang_up)
        for address in self.addresses:
            _log.info("listening on {address}", address=address)

    def _hang_up(self) -> None:
        if self._access_log is not None:
            self._access_log.reopen()
        if self._on_reload is not None:
            self._on_reload()

    async def stop(self) -> None:
        """Stop listening, let running requests finish, and close everything."""
        if self._forget_hangup is not None:
            self._forget_hangup()
            self._forget_hangup = None
        ports, self.ports = self.ports, []
        await gatherResults([_stopped(port) for port in ports], consumeErrors=True)
        await self.server.drain()
        for each in self._closing:
            await each.close()
        if self._access_log is not None:
            globalLogPublisher.removeObserver(self._access_log)
            self._access_log.close()
            self._access_log = None

    # What twistd calls

    def privilegedStartService(self) -> None:  # noqa: N802
        """Listen while the process may still use every port."""
        Service.privilegedStartService(self)
        self._starting = Deferred.fromCoroutine(self.start())
        self._starting.addErrback(self._cannot_start)

    def startService(self) -> None:  # noqa: N802
        """Listen, unless that has been done."""
        Service.startService(self)
        if self._starting is None:
            self.privilegedStartService()

    def _cannot_start(self, failure: Any) -> None:
        _log.error("{error}", error=str(failure.value))
        self._reactor.callWhenRunning(self._reactor.stop)

    def stopService(self) -> Deferred[None]:  # noqa: N802
        """See :meth:`stop`."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self.stop())


def _stopped(port: IListeningPort) -> Deferred[Any]:
    from twisted.internet.defer import maybeDeferred

    return maybeDeferred(port.stopListening)


def _shown(port: IListeningPort, tls: bool) -> str:
    address: Any = port.getHost()
    name = getattr(address, "name", None)
    if name is not None:
        return "unix:" + (name.decode("utf-8", "backslashreplace") if name else "")
    scheme = "https" if tls or getattr(port, "_type", "") == "TLS" else "http"
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{scheme}://{host}:{address.port}/"
