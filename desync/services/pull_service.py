# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What ``twistd desync-pull`` runs: the casync protocol over SSH, for users without accounts."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from twisted.conch.checkers import IAuthorizedKeysDB
from twisted.conch.interfaces import IConchUser
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.protocol import Protocol
from twisted.logger import Logger, globalLogPublisher
from zope.interface import implementer

from desync.chunking import kernels
from desync.chunking.digests import Digest
from desync.errors import DesyncError, UsageError
from desync.formats.protocol import EACCES, ENOENT, Abort
from desync.stores.reloading import on_hangup
from desync.stores.threads import StoreThreads

from .casync_offer import parse_command
from .casync_pull import PullSession
from .casync_push import PushSession
from .figures import Snapshot
from .host_keys import host_key
from .listening import allow_descriptors, endpoint_description, listen
from .logs import AccessLog, log_session
from .metering import Troubles, one_line
from .open_exports import Exports, Opener
from .operating import operator_parts
from .pull_counters import PullCounters
from .pull_exports import NotNamed, ReadOnly
from .pull_links import Links
from .pull_ssh import Avatar, Factory, KeyChecker
from .service import ServerService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from twisted.conch.ssh.keys import Key
    from twisted.internet.interfaces import IListeningPort

    from .casync_offer import Asked
    from .casync_serving import ServerSession
    from .pull_settings import PullSettings
    from .ssh_transport import Transport

_log = Logger(namespace="desync.server")


class _Refusing(Protocol):
    """Says no, in the words of the protocol and in those of people."""

    exit_code = 1

    def __init__(self, code: int, text: str) -> None:
        self._code = code
        self._text = text

    def connectionMade(self) -> None:  # noqa: N802
        channel: Any = self.transport
        channel.write(Abort.saying(self._code, self._text).encode())
        channel.loseConnection()

    def readConnectionLost(self) -> None:  # noqa: N802
        pass


@implementer(IRealm, IAuthorizedKeysDB)
class PullService:
    """
    The part of the server that clients talk to.

    :param settings: where it listens, and how.
    :param key: the host key.
    :param load: reads the users file, at the start and on SIGHUP.
    :param threads: stopped with it.
    :ivar links: the connections.
    :ivar ports: where it listens, while it does.
    :ivar troubles: the last things that went wrong.
    """

    def __init__(
        self,
        settings: PullSettings,
        key: Key,
        load: Callable[[], Exports],
        counters: PullCounters,
        threads: StoreThreads,
        reactor: Any,
    ) -> None:
        self.descriptions = [endpoint_description(text) for text in settings.listen]
        self.links = Links(settings.limits(), counters, reactor)
        self.troubles = Troubles(time.time)
        self.ports: list[IListeningPort] = []
        self._settings = settings
        self._counters = counters
        self._load = load
        self._threads = threads
        self._reactor = reactor
        self._factory = Factory(
            key,
            Portal(self, [KeyChecker(self)]),
            self.links.begun,
            self.links.logged_in,
            self.links.lost,
            self.links.not_understood,
            reactor.callLater,
        )
        self._forget_hangup: Callable[[], None] = lambda: None
        self._old: set[Exports] = set()  # in use by sessions that began before a reload
        self._ending: set[ServerSession] = set()  # over, and not settled
        self.exports = load()
        self._access_log = None
        if settings.log:
            self._access_log = AccessLog(settings.log, settings.log_format)

    # Who comes in

    def getAuthorizedKeys(self, username: bytes) -> Iterable[Key]:  # noqa: N802
        """Give the keys that let a user in: Conch's ``IAuthorizedKeysDB``."""
        user = self.exports.users.users.get(username.decode("ascii", "replace"))
        return () if user is None else user.keys

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:  # noqa: N802, N803
        """Let a user in who has shown his key: cred's ``IRealm``."""
        if IConchUser not in interfaces:
            raise NotImplementedError
        user = avatarId.decode("ascii", "replace")
        return IConchUser, Avatar(user, self._run), lambda: None

    # What is run

    def _run(self, transport: Transport, user: str, command: bytes) -> Protocol:
        link = self.links.of(transport)
        text = command.decode("utf-8", "surrogateescape")
        try:
            if self.links.closed:
                return self._refuse(user, link.address, text, "stopping", "the server is stopping")
            asked = parse_command(text)
            exports = self.exports
            offer = exports.offer(user, asked)
        except ReadOnly as error:
            return self._refuse(user, link.address, text, "read-only", str(error), EACCES)
        except PermissionError as error:
            return self._refuse(user, link.address, text, "export", str(error))
        except NotNamed as error:
            return self._refuse(user, link.address, text, "name", str(error))
        except UsageError as error:
            return self._refuse(user, link.address, text, "command", str(error))
        kind = PullSession if asked.verb == "pull" else PushSession
        began = self._reactor.seconds()

        def ended(session: ServerSession) -> None:
            del link.sessions[session]
            self._ending.add(session)
            Deferred.fromCoroutine(session.settled()).addCallback(
                lambda _: self._settled(session, exports)
            )
            self._counters.ended(asked.verb, session.outcome, session)
            self._report(session, user, link.address, asked, self._reactor.seconds() - began)

        session = kind(offer, self._threads, ended)
        link.sessions[session] = asked.verb
        exports.sessions += 1
        return session

    def _settled(self, session: ServerSession, exports: Exports) -> None:
        """Take note that a session needs its stores no longer."""
        self._ending.discard(session)
        exports.sessions -= 1
        self._close_old()

    def _refuse(
        self, user: str, address: str, command: str, kind: str, why: str, code: int = ENOENT
    ) -> Protocol:
        """Refuse a command. What isn't there and what isn't for him look the same to a client."""
        self._counters.refused(kind)
        _log.warn(
            "{user} {address} refused: {why}: {command}",
            user=user,
            address=address,
            why=why,
            command=ascii(command[:200]),
        )
        return _Refusing(code, "permission denied" if code == EACCES else "no such thing")

    def _report(
        self, session: ServerSession, user: str, address: str, asked: Asked, seconds: float
    ) -> None:
        """Log a session, once."""
        names = " ".join(
            path for path in (asked.archive_path, asked.index_path, *asked.stores) if path
        )
        names = ascii(names)[1:-1]
        why = session.ended_by
        _log.info(
            "{user} {address} {verb} {names}: {chunks} chunks, {missing} missing,"
            " {transferred} bytes, {seconds:.1f} s{outcome}",
            user=user,
            address=address,
            verb=asked.verb,
            names=names,
            chunks=session.chunks,
            missing=session.missing,
            transferred=session.transferred,
            seconds=seconds,
            outcome="" if why is None else f": {one_line(why)}",
        )
        if self._access_log is not None:
            log_session(user, address, asked.verb, names, session.outcome, session.transferred)
        if why is not None and session.outcome == "failed":
            self.troubles.add(one_line(why))
        for trouble in session.troubles:
            _log.error("{trouble}", trouble=trouble)
            self.troubles.add(trouble)

    # What the operator is shown

    def about(self) -> dict[str, str]:
        """See :meth:`.figures.Figures.about`."""
        return {"at": ", ".join(self._settings.listen), **self.exports.about()}

    def snapshot(self) -> Deferred[Snapshot]:
        """See :meth:`.figures.Figures.snapshot`."""
        sessions = list(self.links.sessions())
        counters = self._counters.with_open(sessions)
        return succeed(Snapshot(counters, len(sessions), len(self.links)))

    def is_ready(self) -> bool:
        """See :meth:`.figures.Figures.is_ready`."""
        return bool(self.ports) and not self.links.closed

    # Life

    async def prepare(self) -> None:
        """
        Listen at all places.

        :raises CannotListen: at the first where that can't be.
        """
        allow_descriptors(self._settings.max_connections + 512)
        if self._access_log is not None:
            globalLogPublisher.addObserver(self._access_log)
        for description in self.descriptions:
            self.ports.append(await listen(self._reactor, description, self._factory))

    async def start(self) -> None:
        """Say where it listens, and heed SIGHUP."""
        self.links.start()
        self._forget_hangup = on_hangup(self._reactor, self.reload)
        for port in self.ports:
            host: Any = port.getHost()
            _log.info(
                "listening on ssh://{host}:{port}",
                host=getattr(host, "host", host),
                port=getattr(host, "port", 0),
            )

    def reload(self) -> None:
        """Read the users file again. What is wrong with it is logged, and the old one holds."""
        if self._access_log is not None:
            self._access_log.reopen()
        try:
            exports = self._load()
        except DesyncError as error:
            why = f"not reloaded: {one_line(error)}"
            _log.error("{why}", why=why)
            self.troubles.add(why)
            return
        # Sessions go on with what they have.
        self._old.add(self.exports)
        self.exports = exports
        self._close_old()
        _log.info("users file reloaded")

    def _close_old(self) -> None:
        """Close the stores of former users files that no session uses any longer."""
        for exports in [each for each in self._old if not each.sessions]:
            self._old.discard(exports)
            exports.close().addErrback(lambda why: _log.failure("closing stores", why))

    async def stop(self) -> None:
        """Let sessions end for a while, then end them, and close everything."""
        self.links.closed = True
        self._forget_hangup()
        ports, self.ports = self.ports, []
        await gatherResults(
            [maybeDeferred(port.stopListening) for port in ports], consumeErrors=True
        )
        await self.links.stop()
        for session in list(self._ending):
            await session.settled()
        for exports in (self.exports, *self._old):
            await exports.close()
        await self._threads.stop()
        if self._access_log is not None:
            globalLogPublisher.removeObserver(self._access_log)
            self._access_log.close()
            self._access_log = None


def pull_service(
    settings: PullSettings, reactor: Any, environ: Mapping[str, str] = os.environ
) -> ServerService:
    """
    Make the server: what clients talk to, and what the operator looks at.

    :raises DesyncError: if something that the settings name can't be used.
    """
    # Files and packets are just large enough for malloc to return each to the system: a fifth of
    # the time that sending takes.
    kernels.keep_memory()
    config = settings.load_config(environ)
    counters = PullCounters()
    threads = StoreThreads(reactor)
    opener = Opener(
        reactor,
        threads,
        lambda location: config.options_for(location, settings.store_flags),
        Digest.named(settings.digest),
        counters,
    )
    assert settings.users is not None
    users = settings.users
    key = host_key(settings.host_key)
    part = PullService(settings, key, lambda: Exports(users, opener), counters, threads, reactor)
    operating = []
    if settings.operator:
        from .pull_view import SessionsView

        operating = operator_parts(settings, "desync pull server", part, reactor, SessionsView())
    return ServerService([part, *operating], reactor)
