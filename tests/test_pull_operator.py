# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What the operator of ``twistd desync-pull`` gets to see, with real clients."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.template import flattenString

from desync.formats import protocol as p
from desync.formats.ids import ChunkIds
from desync.services.figures import Snapshot
from desync.services.metering import Troubles
from desync.services.operator_page import Page
from desync.services.pull_counters import PullCounters
from desync.services.pull_view import SessionsView

from .server_process import wait_until
from .test_pull_service import PullServiceCase


class Ended:
    """What is counted of a session."""

    def __init__(self, chunks: int, missing: int, invalid: int, transferred: int) -> None:
        self.chunks, self.missing = chunks, missing
        self.invalid, self.transferred = invalid, transferred


class FixedFigures:
    """Figures that a test sets."""

    def __init__(self) -> None:
        self.troubles = Troubles(lambda: 1000.0)
        self.counters = PullCounters()

    def about(self) -> dict[str, str]:
        return {"export os": "/srv/os"}

    def snapshot(self) -> Deferred[Snapshot]:
        return succeed(Snapshot(self.counters, 2, 3))

    def is_ready(self) -> bool:
        return True


class CountingTests(SynchronousTestCase):
    """What is counted."""

    def test_sessions(self) -> None:
        """Sessions count when they are over, and what they transfer while they aren't, too."""
        counters = PullCounters()
        counters.ended("pull", "complete", Ended(5, 1, 0, 500))
        counters.ended("push", "left", Ended(2, 0, 1, 200))
        counters.refused("login")
        counters.refused("login")
        now = counters.with_open([("pull", Ended(1, 1, 1, 100)), ("push", Ended(1, 0, 0, 50))])
        self.assertEqual(now.sessions, {("pull", "complete"): 1, ("push", "left"): 1})
        self.assertEqual((now.chunks_sent, now.chunks_received, now.missing), (6, 3, 2))
        self.assertEqual((now.sent, now.received, now.total), (600, 250, 2))
        self.assertEqual(now.verification_failures, 2)
        self.assertEqual((counters.chunks_sent, counters.sent), (5, 500))
        self.assertEqual(counters.refusals, {"login": 2})

    def test_page(self) -> None:
        """The page speaks of sessions."""
        figures = FixedFigures()
        figures.counters.ended("pull", "complete", Ended(12345, 0, 0, 2048))
        figures.counters.refused("export")
        snapshot = self.successResultOf(figures.snapshot())
        page = Page("a server", figures, snapshot, (0, 2048.0, 0), 1090.0, SessionsView())
        text: str = self.successResultOf(flattenString(None, page)).decode()
        for part in ("Sessions</h2>", "2.0 KiB/s", "12,345", "pull, complete", "refused: export"):
            self.assertIn(part, text)


class EndpointTests(PullServiceCase):
    """The endpoint and the log of a real server."""

    arguments = ("--operator", ":0", "--log", "access.log", "--log-format", "json")

    def fetch(self, path: str) -> str:
        """Get something from the operator's endpoint."""
        pattern = r"operator's page at (http://127\.0\.0\.1:\d+)/"
        self.server.count_logged(pattern)
        found = re.search(pattern, self.server.said)
        assert found is not None
        with urllib.request.urlopen(f"{found[1]}{path}", timeout=60) as response:
            text: str = response.read().decode()
            return text

    def sample(self, name: str) -> float:
        """Give the value of a sample; 0 if there is none."""
        found = re.search(rf"^desync_{re.escape(name)} ([\d.e+]+)$", self.fetch("/metrics"), re.M)
        return float(found[1]) if found else 0.0

    def events(self) -> list[dict[str, Any]]:
        """Give what the log has."""
        path = self.folder / "keys" / "access.log"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def test_figures(self) -> None:
        """What casync does is counted by how it ended, and what is refused by kind."""
        self.assertEqual((self.fetch("/healthz"), self.fetch("/readyz")), ("ok\n", "ready\n"))
        self.casync("extract", "server:os/v1.caibx", "out")
        chunks = len(self.index("srv/v1.caibx").ids.sorted_unique())
        self.write("changed", self.data[: 1 << 20] + b"new" + self.data[1 << 20 :])
        self.casync("make", "server:os/v2.caibx", "changed")
        self.casync("extract", "server:os/no.caibx", "out", code=1)
        self.casync("extract", "server:secret/no.caibx", "out", code=1)
        self.ssh("cat /etc/passwd").communicate(timeout=60)
        self.ssh("casync pull - - os/x.sh -").communicate(timeout=60)
        self.ssh("casync push - - os/v3.caibx os", "-l", "bob").communicate(timeout=60)
        wait_until(lambda: self.sample("sessions") == 0, "the end of all sessions")
        for name, value in (
            ('sessions_total{verb="pull",outcome="complete"}', 1),
            ('sessions_total{verb="push",outcome="complete"}', 1),
            ('sessions_total{verb="pull",outcome="missing"}', 1),
            ('refusals_total{kind="export"}', 1),
            ('refusals_total{kind="command"}', 1),
            ('refusals_total{kind="name"}', 1),
            ('refusals_total{kind="read-only"}', 1),
            ("chunks_sent_total", chunks),
            ("verification_failures_total", 0),
        ):
            self.assertEqual(self.sample(name), value, name)
        self.assertGreater(self.sample("chunks_received_total"), 0)
        self.assertGreater(self.sample("received_bytes_total"), 10_000)
        self.assertGreater(self.sample("sent_bytes_total"), 1 << 20)
        page = self.fetch("/")
        for part in ("desync pull server", "pull, complete", "export os", "refused: read-only"):
            self.assertIn(part, page)
        events = self.events()
        self.assertEqual(
            [(each["user"], each["method"], each["uri"], each["status"]) for each in events],
            [
                ("alice", "PULL", "os/v1.caibx+os/default.castr", "complete"),
                ("alice", "PUSH", "os/v2.caibx+os/default.castr", "complete"),
                ("alice", "PULL", "os/no.caibx+os/default.castr", "missing"),
            ],
        )
        self.assertGreater(events[0]["bytes"], 1 << 20)

    def test_under_way(self) -> None:
        """A session that isn't over is seen, with the chunks that weren't there."""
        process = self.ssh("casync pull - - - os")
        assert process.stdin is not None
        process.stdin.write(p.Hello(0x40).encode())
        process.stdin.write(p.Request(self.index("srv/v1.caibx").ids[:1]).encode())
        process.stdin.write(p.Request(ChunkIds.from_bytes(bytes(32))).encode())
        process.stdin.flush()
        wait_until(lambda: self.sample("chunks_missing_total") == 1, "a missing chunk")
        wait_until(lambda: self.sample("chunks_sent_total") == 1, "a chunk")
        self.assertEqual((self.sample("sessions"), self.sample("connections")), (1, 1))
        process.kill()
        wait_until(lambda: self.sample("connections") == 0, "the end of the connection")


class CombinedTests(PullServiceCase):
    """The log in the combined format."""

    arguments = ("--log", "access.log")

    def test_line(self) -> None:
        """A session is a line of the combined format, with the user's name."""
        process = self.ssh("casync pull - - - os")
        process.communicate(p.Hello(0x40).encode() + p.Goodbye().encode(), timeout=60)
        path = self.folder / "keys" / "access.log"
        wait_until(lambda: path.stat().st_size > 0, "a line")
        self.assertRegex(
            path.read_text(),
            r'^127\.0\.0\.1 - alice \[[^]]+\] "PULL os casync" complete - "-" "-"\n$',
        )
