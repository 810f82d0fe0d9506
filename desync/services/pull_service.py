# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What ``twistd desync-pull`` runs: the casync protocol over SSH, for users without accounts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.application.service import Service
from twisted.conch.checkers import IAuthorizedKeysDB
from twisted.conch.interfaces import IConchUser
from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, Key
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from desync.chunking.digests import SHA512_256
from desync.errors import DesyncError, UsageError
from desync.formats.protocol import ENOENT, Abort
from desync.interfaces import ILocalFiles
from desync.stores.index_local import LocalIndexStore
from desync.stores.location import parse_location
from desync.stores.opening import open_index_store, open_source, open_target
from desync.stores.reloading import on_hangup
from desync.stores.route import Route
from desync.stores.single_flight import SingleFlight
from desync.stores.threads import StoreThreads

from .casync_offer import Offer, parse_command
from .casync_pull import PullSession
from .casync_push import PushSession
from .listening import listen
from .metering import one_line
from .pull_exports import ARCHIVE_SUFFIX, NotNamed, confined, read_users_file, resolve
from .pull_ssh import Avatar, Factory, KeyChecker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IListeningPort

    from desync.chunking.digests import Digest
    from desync.options import StoreOptions

    from .casync_offer import Asked
    from .casync_serving import ServerSession
    from .pull_exports import Export, Users
    from .pull_ssh import Transport

_log = Logger(namespace="desync.server")

EACCES: Final = 13
ECONNABORTED: Final = 103
ETIMEDOUT: Final = 110


class Limits(NamedTuple):
    """
    What clients are held to.

    :param connections: at once, of all together.
    :param per_address: connections from one address.
    :param per_user: connections of one user.
    :param handshake: seconds until a client has to be logged in.
    :param idle: seconds in which something has to move.
    :param grace: seconds that sessions are given to end when the server stops.
    """

    connections: int = 1000
    per_address: int = 100
    per_user: int = 100
    handshake: float = 60
    idle: float = 600
    grace: float = 10


class OpenExport:
    """
    An export with its stores open.

    :param options: how a store is used, by its location.
    """

    def __init__(
        self,
        export: Export,
        reactor: Any,
        threads: StoreThreads,
        options: Callable[[str], StoreOptions],
        digest: Digest,
        *,
        writable: bool,
    ) -> None:
        self.export = export
        self.directory = ""
        self.source: Any = None
        self.target: Any = None
        self.indexes: Any = None
        self._opened: list[Any] = []
        try:
            self._open(reactor, threads, options, digest, writable)
        except BaseException:
            self.close().addErrback(lambda _: None)
            raise

    def _open(
        self,
        reactor: Any,
        threads: StoreThreads,
        options: Callable[[str], StoreOptions],
        digest: Digest,
        writable: bool,
    ) -> None:
        export = self.export

        def reading(location: str) -> StoreOptions:
            # Clients verify, and every chunk would have to be decompressed for it here.
            return options(location)._replace(skip_verify=True)

        if export.stores:
            source = open_source(
                export.stores, reading, reactor, digest, cache=export.cache or None
            )
            self._opened.append(source)
            # What is on another machine is fetched once for all who want it.
            self.source = source if ILocalFiles.providedBy(source) else SingleFlight(source)
        if export.stores and writable:
            self.target = open_target(export.stores[0], options, reactor, digest)
            self._opened.append(self.target)
        if export.indexes:
            if parse_location(export.indexes).is_local:
                self.directory = export.indexes
                self.indexes = LocalIndexStore(
                    export.indexes, reactor, threads, location=export.name
                )
            else:
                base = export.indexes.rstrip("/")
                self.indexes, _ = open_index_store(
                    f"{base}/any.caibx", options(base), reactor, digest
                )
            self._opened.append(self.indexes)

    def close(self) -> Deferred[None]:
        """Close its stores."""

        async def close() -> None:
            for each in self._opened:
                await each.close()

        return Deferred.fromCoroutine(close())


class Exports:
    """
    What a users file says, with everything open that it names.

    :param path: of the users file.
    """

    def __init__(
        self,
        path: str,
        reactor: Any,
        threads: StoreThreads,
        options: Callable[[str], StoreOptions],
        digest: Digest = SHA512_256,
    ) -> None:
        self.users: Users = read_users_file(path)
        self.open: dict[str, OpenExport] = {}
        writable = {name for user in self.users.users.values() for name in user.write}
        try:
            for name, export in self.users.exports.items():
                self.open[name] = OpenExport(
                    export, reactor, threads, options, digest, writable=name in writable
                )
        except BaseException:
            self.close().addErrback(lambda _: None)
            raise

    def offer(self, user: str, asked: Asked) -> Offer:
        """
        Give what a command asks for, if its user may have it.

        :raises NotNamed: if there is no such thing.
        :raises PermissionError: if it isn't for this user, which he is not told apart from that.
        """
        allowed = self.users.users.get(user)
        if allowed is None:
            raise PermissionError("unknown user")
        pushing = asked.verb == "push"
        offer = Offer()
        for kind, path in (
            *(("file", path) for path in (asked.archive_path, asked.index_path) if path),
            *(("store", path) for path in asked.stores),
        ):
            named = resolve(path)
            if named.export not in allowed.read:
                raise PermissionError(f"export {named.export} is not for {user}")
            if pushing and named.export not in allowed.write:
                raise PermissionError(f"export {named.export} is read-only for {user}")
            if bool(named.file) != (kind == "file"):
                raise NotNamed("no such thing")
            export = self.open[named.export]
            if kind == "store":
                offer = self._with_store(offer, export, pushing)
            elif path == asked.archive_path:
                offer = self._with_archive(offer, export, named.file, pushing)
            else:
                offer = self._with_index(offer, export, named.file, pushing)
        return offer

    def _with_store(self, offer: Offer, export: OpenExport, pushing: bool) -> Offer:
        if export.source is None:
            raise NotNamed("no such store")
        if pushing:
            return offer._replace(target=export.target)
        if offer.source is None:
            return offer._replace(source=export.source)
        if offer.source is export.source:
            return offer
        return offer._replace(source=Route([offer.source, export.source]))

    def _with_archive(self, offer: Offer, export: OpenExport, name: str, pushing: bool) -> Offer:
        if not export.directory or not name.endswith(ARCHIVE_SUFFIX):
            raise NotNamed("no such archive")
        path = _confined(export.directory, name)
        return offer._replace(archive_target=path) if pushing else offer._replace(archive=path)

    def _with_index(self, offer: Offer, export: OpenExport, name: str, pushing: bool) -> Offer:
        if export.indexes is None or name.endswith(ARCHIVE_SUFFIX):
            raise NotNamed("no such index")
        if export.directory:
            _confined(export.directory, name)
        if pushing:
            return offer._replace(index_target=export.indexes, index_name=name)
        return offer._replace(indexes=export.indexes, index_name=name)

    def close(self) -> Deferred[None]:
        """Close all stores."""

        async def close() -> None:
            for each in self.open.values():
                await each.close()

        return Deferred.fromCoroutine(close())


def _confined(directory: str, name: str) -> str:
    try:
        return confined(directory, name)
    except FileNotFoundError:
        raise NotNamed("no such file") from None


class _Refusing(Protocol):
    """Says no, in the words of the protocol and in those of people."""

    def __init__(self, code: int, text: str) -> None:
        self._code = code
        self._text = text

    def connectionMade(self) -> None:  # noqa: N802
        channel: Any = self.transport
        channel.exit_code = 1
        channel.write(Abort.saying(self._code, self._text).encode())
        channel.loseConnection()

    def readConnectionLost(self) -> None:  # noqa: N802
        pass


class _Link:
    """What the service knows of one connection."""

    def __init__(self, transport: Transport, now: float) -> None:
        self.transport = transport
        self.address = getattr(transport.transport.getPeer(), "host", "local")  # type: ignore[union-attr]
        self.user: str | None = None
        self.is_turned_away = False
        self.since = now
        self.seen = -1
        self.sessions: set[ServerSession] = set()

    def activity(self) -> int:
        """A number that changes whenever something moves."""
        return self.transport.active + sum(session.active for session in self.sessions)


@implementer(IRealm, IAuthorizedKeysDB)
class PullService(Service):
    """
    The server.

    :param description: of the endpoint that it listens on.
    :param key: the host key.
    :param load: reads the users file, at the start and on SIGHUP.
    :ivar port: where it listens, while it does.
    """

    def __init__(
        self,
        description: str,
        key: Key,
        load: Callable[[], Exports],
        threads: StoreThreads,
        reactor: Any,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.exports = load()
        self.port: IListeningPort | None = None
        self._description = description
        self._load = load
        self._threads = threads
        self._reactor = reactor
        self._links: dict[Transport, _Link] = {}
        self._old: set[Exports] = set()
        self._factory = Factory(
            key, Portal(self, [KeyChecker(self)]), self._begun, self._logged_in, self._lost
        )
        self._sweep = LoopingCall(self._look)
        self._sweep.clock = reactor
        self._forget_hangup: Callable[[], None] = lambda: None
        self._waiting: list[Deferred[None]] = []
        self._stopping = False

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

    def _logged_in(self, transport: Transport, user: str) -> None:
        link = self._links[transport]
        link.user = user
        if sum(each.user == user for each in self._links.values()) > self.limits.per_user:
            self._turn_away(link, f"too many connections of {user}")

    def _begun(self, transport: Transport) -> None:
        link = _Link(transport, self._reactor.seconds())
        self._links[transport] = link
        same = sum(each.address == link.address for each in self._links.values())
        if self._stopping or len(self._links) > self.limits.connections:
            self._turn_away(link, "too many connections")
        elif same > self.limits.per_address:
            self._turn_away(link, "too many connections from an address")

    def _turn_away(self, link: _Link, why: str) -> None:
        link.is_turned_away = True
        _log.warn("{address} turned away: {why}", address=link.address, why=why)
        link.transport.transport.abortConnection()  # type: ignore[union-attr]

    def _lost(self, transport: Transport) -> None:
        link = self._links.pop(transport, None)
        if link is not None and link.user is None and not link.is_turned_away:
            _log.info("{address} left without having logged in", address=link.address)
        if not self._links:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    # What is run

    def _run(self, transport: Transport, user: str, command: bytes) -> Protocol:
        link = self._links[transport]
        text = command.decode("utf-8", "surrogateescape")
        address = link.address
        exports = self.exports
        try:
            if self._stopping:
                raise UsageError("the server is stopping")
            asked = parse_command(text)
            offer = exports.offer(user, asked)
        except (UsageError, PermissionError) as error:
            forbidden = isinstance(error, PermissionError)
            _log.warn(
                "{user} {address} refused: {why}: {command}",
                user=user,
                address=address,
                why=str(error),
                command=ascii(text[:200]),
            )
            # What isn't there and what isn't for him look the same, but for writing.
            code = EACCES if forbidden and "read-only" in str(error) else ENOENT
            return _Refusing(code, "permission denied" if code == EACCES else "no such thing")
        kind = PullSession if asked.verb == "pull" else PushSession
        began = self._reactor.seconds()

        def ended(session: ServerSession) -> None:
            link.sessions.discard(session)
            self._report(session, user, address, asked, self._reactor.seconds() - began)

        session = kind(offer, self._threads, ended)
        link.sessions.add(session)
        return session

    def _report(
        self, session: ServerSession, user: str, address: str, asked: Asked, seconds: float
    ) -> None:
        """Log a session, once."""
        names = " ".join(
            path for path in (asked.archive_path, asked.index_path, *asked.stores) if path
        )
        why = session.ended_by
        _log.info(
            "{user} {address} {verb} {names}: {chunks} chunks, {missing} missing,"
            " {transferred} bytes, {seconds:.1f} s{outcome}",
            user=user,
            address=address,
            verb=asked.verb,
            names=ascii(names)[1:-1],
            chunks=session.chunks,
            missing=session.missing,
            transferred=session.transferred,
            seconds=seconds,
            outcome="" if why is None else f": {one_line(why)}",
        )
        for trouble in session.troubles:
            _log.error("{trouble}", trouble=trouble)

    # Time

    def _look(self) -> None:
        """Once a second: end what takes too long."""
        now = self._reactor.seconds()
        for link in list(self._links.values()):
            if link.user is None:
                if now - link.since > self.limits.handshake:
                    self._turn_away(link, "not logged in in time")
                continue
            activity = link.activity()
            if activity != link.seen:
                link.seen, link.since = activity, now
            elif now - link.since > self.limits.idle:
                for session in list(link.sessions):
                    session.abort(ETIMEDOUT, "idle for too long", DesyncError("idle for too long"))
                self._turn_away(link, "idle for too long")

    # Life

    async def start(self) -> None:
        """
        Listen.

        :raises CannotListen: if that can't be.
        """
        self.port = await listen(self._reactor, self._description, self._factory)
        self._sweep.start(1, now=False).addErrback(
            lambda why: _log.failure("sweeping connections", why)
        )
        self._forget_hangup = on_hangup(self._reactor, self.reload)
        host: Any = self.port.getHost()
        _log.info(
            "listening on ssh://{host}:{port}",
            host=getattr(host, "host", host),
            port=getattr(host, "port", 0),
        )

    def reload(self) -> None:
        """Read the users file again. What is wrong with it is logged, and the old one holds."""
        try:
            exports = self._load()
        except DesyncError as error:
            _log.error("not reloaded: {why}", why=one_line(error))
            return
        # Sessions go on with what they have; its stores are closed at the end.
        self._old.add(self.exports)
        self.exports = exports
        _log.info("users file reloaded")

    async def stop(self) -> None:
        """Let sessions end for a while, then end them, and close everything."""
        self._stopping = True
        self._forget_hangup()
        if self._sweep.running:
            self._sweep.stop()
        port, self.port = self.port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        for link in list(self._links.values()):
            if not link.sessions:
                link.transport.loseConnection()  # type: ignore[no-untyped-call]
        await self._all_gone(self.limits.grace)
        for link in list(self._links.values()):
            for session in list(link.sessions):
                text = "the server is stopping"
                session.abort(ECONNABORTED, text, DesyncError(text))
        # What was said last has to arrive before the connection is ended.
        await self._all_gone(2)
        for link in list(self._links.values()):
            link.transport.loseConnection()  # type: ignore[no-untyped-call]
        await self._all_gone(2)
        for link in list(self._links.values()):
            link.transport.transport.abortConnection()  # type: ignore[union-attr]
        for exports in (self.exports, *self._old):
            await exports.close()
        await self._threads.stop()

    async def _all_gone(self, seconds: float) -> None:
        """Wait until no connection is left, or so long."""
        if not self._links:
            return
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        timer = self._reactor.callLater(
            seconds, lambda: None if waiting.called else waiting.callback(None)
        )
        await waiting
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        if timer.active():
            timer.cancel()

    def privilegedStartService(self) -> None:  # noqa: N802
        """Listen while the process may still use every port."""
        Service.privilegedStartService(self)
        starting = Deferred.fromCoroutine(self.start())
        starting.addErrback(self._cannot_start)

    def _cannot_start(self, why: Any) -> None:
        _log.error("{error}", error=str(why.value))
        self._reactor.callWhenRunning(self._reactor.stop)

    def stopService(self) -> Deferred[None]:  # noqa: N802
        """See :meth:`stop`."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self.stop())


def host_key(path: str) -> Key:
    """
    Read the host key, or make one and keep it there for nobody else to read.

    :raises UsageError: if it can't be read, or made.
    """
    try:
        with open(path, "rb") as file:
            key: Key = Key.fromString(file.read(1 << 16))
            if key.isPublic():
                raise BadKeyError
            return key
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (BadKeyError, EncryptedKeyError, ValueError, TypeError):
        raise UsageError(f"{path}: not a private key, or one with a passphrase") from None
    key = Key(Ed25519PrivateKey.generate())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(key.toString("OPENSSH", subtype="v1"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    return key
