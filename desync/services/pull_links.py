# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The connections of ``twistd desync-pull``: how many there may be, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from desync.errors import DesyncError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.python.failure import Failure

    from .casync_serving import ServerSession
    from .pull_counters import PullCounters
    from .ssh_transport import Transport

_log = Logger(namespace="desync.server")

ECONNABORTED: Final = 103
ETIMEDOUT: Final = 110

#: Seconds in which what was said last has to arrive, and the client to leave.
_LAST_WORDS: Final = 2.0

#: The last of these seconds when the server stops, in which what waits to be sent still can be.
_CLOSING: Final = 0.5

#: Seconds that a connection goes on without sessions when the server stops, and how often it is
#: looked for such: a client drops what arrives together with the end of the connection.
_AFTERWARDS: Final = 0.5


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


class Link:
    """
    One connection.

    :ivar user: who is logged in; None before somebody is.
    :ivar sessions: its sessions that aren't over, with their verbs.
    :ivar since: when something last moved, or when it began if nobody is logged in.
    :ivar is_told: that it is to leave.
    :ivar unused_since: when the server, while it stops, first found it without sessions; None if
        it hasn't.
    :ivar is_closing: whether it is closed as soon as what was said has been sent.
    """

    def __init__(self, transport: Transport, now: float) -> None:
        self.transport = transport
        self.address = getattr(transport.transport.getPeer(), "host", "local")  # type: ignore[union-attr]
        self.user: str | None = None
        self.is_turned_away = False
        self.is_told = False
        self.unused_since: float | None = None
        self.is_closing = False
        self.since = now
        self.seen = -1
        self.sessions: dict[ServerSession, str] = {}

    def activity(self) -> int:
        """A number that changes whenever something moves; that a client is alive is not enough."""
        return self.transport.active

    def end_sessions(self, code: int, text: str) -> None:
        """End what is under way, and tell the client why."""
        self.is_told = True
        for session in list(self.sessions):
            session.abort(code, text, DesyncError(text))


class Links:
    """
    All connections.

    :param counters: where those are counted that were turned away.
    :param clock: the reactor, or a clock.
    :ivar closed: whether no more are let in.
    """

    def __init__(self, limits: Limits, counters: PullCounters, clock: Any) -> None:
        self.limits = limits
        self.closed = False
        self._counters = counters
        self._clock = clock
        self._links: dict[Transport, Link] = {}
        self._waiting: list[Deferred[None]] = []
        self._sweep = LoopingCall(self.look)
        self._sweep.clock = clock

    def __len__(self) -> int:
        return len(self._links)

    def of(self, transport: Transport) -> Link:
        """Give what is known of a connection."""
        return self._links[transport]

    def sessions(self) -> Iterator[tuple[str, ServerSession]]:
        """Go through all sessions that aren't over, each with its verb before it."""
        for link in self._links.values():
            for session, verb in link.sessions.items():
                yield verb, session

    # Who comes and goes

    def begun(self, transport: Transport) -> None:
        """Take note of a connection, and turn it away if it is one too many."""
        link = Link(transport, self._clock.seconds())
        self._links[transport] = link
        same = sum(each.address == link.address for each in self._links.values())
        if self.closed:
            self._turn_away(link, "stopping", "the server is stopping")
        elif len(self._links) > self.limits.connections:
            self._turn_away(link, "connections", "too many connections")
        elif same > self.limits.per_address:
            self._turn_away(link, "address", "too many connections from an address")

    def logged_in(self, transport: Transport, user: str) -> None:
        """Take note of who it is, and turn him away if he has too many."""
        link = self._links[transport]
        link.user = user
        if sum(each.user == user for each in self._links.values()) > self.limits.per_user:
            self._turn_away(link, "user", f"too many connections of {user}")

    def lost(self, transport: Transport) -> None:
        """Take note that a connection is gone."""
        link = self._links.pop(transport, None)
        if link is not None and link.user is None and not link.is_turned_away:
            self._counters.refused("login")
            _log.info("{address} left without having logged in", address=link.address)
        if not self._links:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    def not_understood(self, transport: Transport, why: Failure) -> None:
        """Take note that what a connection sent can't be dealt with; it is being ended."""
        link = self._links[transport]
        link.is_turned_away = True
        self._counters.refused("not-ssh")
        place = why.frames[-1][0] if why.frames else "?"
        _log.warn(
            "{address} sent what isn't understood: {why!r} in {place}",
            address=link.address,
            why=why.value,
            place=place,
        )

    def _turn_away(self, link: Link, kind: str, why: str) -> None:
        link.is_turned_away = True
        if kind in ("login-timeout", "idle"):
            self._counters.timeouts += 1
        else:
            self._counters.turned_away += 1
        self._counters.refused(kind)
        _log.warn("{address} turned away: {why}", address=link.address, why=why)
        link.transport.transport.abortConnection()  # type: ignore[union-attr]

    # Time

    def start(self) -> None:
        """Begin to look for what takes too long, once a second."""
        self._sweep.start(1, now=False).addErrback(
            lambda why: _log.failure("sweeping connections", why)
        )

    def look(self) -> None:
        """End what takes too long."""
        now = self._clock.seconds()
        for link in [each for each in self._links.values() if not each.is_turned_away]:
            if link.user is None:
                if now - link.since > self.limits.handshake:
                    self._turn_away(link, "login-timeout", "not logged in in time")
                continue
            activity = link.activity()
            if link.is_told and link.sessions:
                # Whoever was told is gone: this is another, on a connection that ssh keeps for
                # several.
                link.is_told = False
                link.seen = -1
            if activity != link.seen and not link.is_told:
                link.seen, link.since = activity, now
            elif now - link.since > self.limits.idle + _LAST_WORDS:
                self._turn_away(link, "idle", "idle for too long")
            elif now - link.since > self.limits.idle:
                # Most clients leave by themselves when they are told.
                link.end_sessions(ETIMEDOUT, "idle for too long")

    # The end

    async def stop(self) -> None:
        """
        Let sessions end for a while, then end them, and all connections.

        It takes no longer than :attr:`Limits.grace` and two seconds, however many sessions there
        are.
        """
        self.closed = True
        if self._sweep.running:
            self._sweep.stop()
        for link in list(self._links.values()):
            if not link.sessions:
                self._close(link)
        await self._unused_closed(self.limits.grace)
        for link in list(self._links.values()):
            link.end_sessions(ECONNABORTED, "the server is stopping")
        await self._unused_closed(_LAST_WORDS - _CLOSING)
        for link in list(self._links.values()):
            self._close(link)
        await self._all_gone(_CLOSING)
        for link in list(self._links.values()):
            link.transport.transport.abortConnection()  # type: ignore[union-attr]

    async def _unused_closed(self, seconds: float) -> None:
        """
        Wait until no connection is left, or so long, and close those whose sessions are over.

        Not every client leaves after its last session: ssh keeps connections for later ones.
        """
        end = self._clock.seconds() + seconds
        while self._links and (left := end - self._clock.seconds()) > 0:
            await self._all_gone(min(left, _AFTERWARDS))
            now = self._clock.seconds()
            for link in [each for each in self._links.values() if not each.sessions]:
                if link.unused_since is None:
                    link.unused_since = now
                elif now - link.unused_since >= _AFTERWARDS:
                    self._close(link)

    def _close(self, link: Link) -> None:
        """Close a connection when what was said has been sent."""
        if not link.is_closing:
            link.is_closing = True
            link.transport.loseConnection()  # type: ignore[no-untyped-call]

    async def _all_gone(self, seconds: float) -> None:
        """Wait until no connection is left, or so long."""
        if not self._links:
            return
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        timer = self._clock.callLater(
            seconds, lambda: None if waiting.called else waiting.callback(None)
        )
        await waiting
        if waiting in self._waiting:
            self._waiting.remove(waiting)
        if timer.active():
            timer.cancel()
