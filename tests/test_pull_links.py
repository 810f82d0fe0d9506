# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of :mod:`desync.services.pull_links`, with connections that aren't any."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from desync.services.pull_counters import PullCounters
from desync.services.pull_links import Limits, Links

LIMITS = Limits(connections=5, per_address=3, per_user=2, handshake=10, idle=30, grace=4)


class Connection:
    """
    What the links see of a connection.

    :ivar ways: how it was ended.
    """

    def __init__(self, links: Links, address: str) -> None:
        self.transport = self
        self.active = 0
        self.ways: list[str] = []
        self._links = links
        self._address = address

    @property
    def ended(self) -> str:
        """How it was ended first: ``""`` if it wasn't."""
        return self.ways[0] if self.ways else ""

    def getPeer(self) -> IPv4Address:  # noqa: N802
        return IPv4Address("TCP", self._address, 1)

    def abortConnection(self) -> None:  # noqa: N802
        self.ways.append("aborted")

    def loseConnection(self) -> None:  # noqa: N802
        self.ways.append("closed")


class Session:
    """A session that can be told to end."""

    def __init__(self, link: Any) -> None:
        self.told: list[tuple[int, str]] = []
        self._link = link

    def abort(self, code: int, text: str, why: BaseException) -> None:
        self.told.append((code, text))
        del self._link.sessions[self]


class LinksTests(SynchronousTestCase):
    """Who may stay."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.counters = PullCounters()
        self.links = Links(LIMITS, self.counters, self.clock)
        self.links.start()

    def connect(self, address: str, user: str = "") -> Any:
        """Connect, and log in if there is a user."""
        connection: Any = Connection(self.links, address)
        self.links.begun(connection)
        if user and not connection.ended:
            self.links.logged_in(connection, user)
        return connection

    def test_address(self) -> None:
        """No address has more connections than it may, until one of them is gone."""
        first = [self.connect("a") for _ in range(3)]
        self.assertEqual(self.connect("a").ended, "aborted")
        self.assertEqual([each.ended for each in first], [""] * 3)
        self.assertEqual(self.connect("b").ended, "")
        self.assertEqual(self.counters.refusals, {"address": 1})

    def test_user(self) -> None:
        """No user has more than he may, wherever from."""
        self.assertEqual([self.connect(each, "u").ended for each in "abc"], ["", "", "aborted"])
        self.assertEqual(self.connect("d", "v").ended, "")
        self.assertEqual(self.counters.refusals, {"user": 1})

    def test_all(self) -> None:
        """All together have no more than they may; one that is turned away goes on to count."""
        some = [self.connect(str(each)) for each in range(5)]
        one_more = self.connect("x")
        self.assertEqual(one_more.ended, "aborted")
        self.links.lost(one_more)
        self.links.lost(some[0])
        self.assertEqual(self.connect("y").ended, "")
        self.assertEqual(self.counters.refusals, {"connections": 1, "login": 1})
        self.assertEqual(self.counters.turned_away, 1)

    def test_login(self) -> None:
        """Who doesn't log in in time is sent away; who has may stay."""
        slow, quick = self.connect("a"), self.connect("a")
        self.clock.pump([1] * 9)
        self.links.logged_in(quick, "u")
        self.clock.pump([1] * 3)
        self.assertEqual((slow.ended, quick.ended), ("aborted", ""))
        self.assertEqual((self.counters.timeouts, self.counters.turned_away), (1, 0))

    def test_idle(self) -> None:
        """So is who does nothing for too long, and his sessions are told why."""
        busy, idle = self.connect("a", "u"), self.connect("b", "v")
        link = self.links.of(idle)
        session: Any = Session(link)
        link.sessions[session] = "pull"
        self.assertEqual(list(self.links.sessions()), [("pull", session)])
        told = False
        for second in range(40):
            busy.active += 1
            idle.active = 1 if second > 31 else 0  # what it is told counts for nothing
            self.clock.advance(1)
            if session.told and not told:
                told = True
                self.assertEqual(idle.ended, "")
        self.assertEqual((busy.ended, idle.ended), ("", "aborted"))
        self.assertEqual(session.told, [(110, "idle for too long")])

    def test_another(self) -> None:
        """A connection on which another session begins when one is ended stays for that."""
        kept = self.connect("a", "u")
        link = self.links.of(kept)
        idle: Any = Session(link)
        link.sessions[idle] = "pull"
        self.clock.pump([1] * 31)
        self.assertEqual((idle.told, kept.ended), ([], ""))
        self.clock.advance(1)
        self.assertEqual(idle.told, [(110, "idle for too long")])
        another: Any = Session(link)
        link.sessions[another] = "pull"
        self.clock.pump([1] * 20)
        kept.active += 1
        self.clock.pump([1] * 31)
        self.assertEqual((another.told, kept.ended), ([], ""))
        self.clock.advance(1)
        self.assertEqual((another.told, kept.ended), ([(110, "idle for too long")], ""))
        self.clock.pump([1] * 2)
        self.assertEqual((kept.ended, self.counters.refusals), ("aborted", {"idle": 1}))

    def test_stop(self) -> None:
        """At the end sessions are given some time, then told, then connections are ended."""
        idle, busy = self.connect("a", "u"), self.connect("b", "v")
        link = self.links.of(busy)
        session: Any = Session(link)
        link.sessions[session] = "push"
        stopping = Deferred.fromCoroutine(self.links.stop())
        self.assertEqual((idle.ended, busy.ended), ("closed", ""))
        self.links.lost(idle)
        self.assertEqual(self.connect("c").ended, "aborted")
        self.clock.advance(3.9)
        self.assertEqual(session.told, [])
        self.clock.advance(0.2)
        self.assertEqual(session.told, [(103, "the server is stopping")])
        self.clock.pump([2, 2, 2])
        self.successResultOf(stopping)
        self.assertEqual(busy.ended, "closed")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_unused(self) -> None:
        """A connection that is kept after its last session is closed then, not after all others."""
        kept, busy = self.connect("a", "u"), self.connect("b", "v")
        sessions: list[Any] = []
        for each in (kept, kept, busy):
            link = self.links.of(each)
            sessions.append(Session(link))
            link.sessions[sessions[-1]] = "pull"
        stopping = Deferred.fromCoroutine(self.links.stop())
        del self.links.of(kept).sessions[sessions[0]]
        self.clock.pump([0.25] * 6)
        self.assertEqual(kept.ended, "")
        del self.links.of(kept).sessions[sessions[1]]
        self.clock.advance(0.25)
        self.assertEqual(kept.ended, "")  # what was said last has to arrive
        self.clock.pump([0.25] * 3)
        self.assertEqual((kept.ended, busy.ended), ("closed", ""))
        self.links.lost(kept)
        self.assertEqual(sessions[2].told, [])
        del self.links.of(busy).sessions[sessions[2]]
        self.links.lost(busy)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_in_time(self) -> None:
        """However many sessions there are, and whatever clients do, it takes little longer."""
        stuck = [self.connect("a", "u"), self.connect("b", "v")]
        sessions: list[Any] = []
        for connection in stuck:
            link = self.links.of(connection)
            sessions += [Session(link) for _ in range(16)]
            link.sessions.update(dict.fromkeys(sessions[-16:], "pull"))
        stopping = Deferred.fromCoroutine(self.links.stop())
        self.clock.pump([0.25] * 15)
        self.assertNoResult(stopping)
        self.assertEqual([each.told for each in sessions], [[]] * 32)
        self.clock.pump([0.25] * 9)
        self.successResultOf(stopping)
        self.assertEqual([each.told for each in sessions], [[(103, "the server is stopping")]] * 32)
        self.assertEqual([each.ways for each in stuck], [["closed", "aborted"]] * 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_at_once(self) -> None:
        """When all have gone, nobody waits."""
        only = self.connect("a", "u")
        stopping = Deferred.fromCoroutine(self.links.stop())
        self.links.lost(only)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])
