# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The operator's endpoint: metrics, health, and the page, as text and in a real browser."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.template import flattenString

from desync.services.counters import LATENCIES, Counters
from desync.services.figures import Rates, Snapshot
from desync.services.metering import Troubles
from desync.services.metrics import prometheus
from desync.services.operator_page import Page
from tests.peers import peer
from tests.server_process import ServerProcess
from tests.test_server_process import Case


class FixedFigures:
    """Figures that a test sets."""

    def __init__(self) -> None:
        self.troubles = Troubles(lambda: 1000.0)
        self.counters = Counters()
        self.ready = True

    def about(self) -> dict[str, str]:
        return {"from": "<b>&store</b>"}

    def snapshot(self) -> Deferred[Snapshot]:
        return succeed(Snapshot(self.counters, 2, 3))

    def is_ready(self) -> bool:
        return self.ready


class PageTests(SynchronousTestCase):
    """The page's text."""

    def render(self, figures: FixedFigures) -> str:
        snapshot = self.successResultOf(figures.snapshot())
        page = Page("a server", figures, snapshot, (1.5, 2048.0, 0.0), 1090.0)
        text: bytes = self.successResultOf(flattenString(None, page))
        return text.decode()

    def test_shown(self) -> None:
        """It says what is served, how much, and what went wrong, how long ago."""
        figures = FixedFigures()
        figures.counters.requests = {(b"GET", 200): 12345, (b"GET", 0): 1}
        figures.counters.cache_hits, figures.counters.upstream_chunks = 3, 1
        figures.troubles.add("first")
        figures.troubles.add("second")
        text = self.render(figures)
        for part in ("a server", "12,345", "GET (client left)", "1.5", "2.0 KiB/s", "75 %"):
            self.assertIn(part, text)
        self.assertRegex(text, r"90 s ago</th><td>second.*90 s ago</th><td>first")
        self.assertIn('id="state">ready<', text)
        figures.ready = False
        self.assertIn('id="state">not ready<', self.render(figures))

    def test_escaped(self) -> None:
        """What comes from elsewhere is text, whatever it looks like."""
        figures = FixedFigures()
        figures.troubles.add("<script>alert(1)</script>")
        text = self.render(figures)
        self.assertNotIn("<script", text)
        self.assertIn("&lt;script&gt;", text)
        self.assertIn("&lt;b&gt;&amp;store", text)

    def test_no_foreign_assets(self) -> None:
        """It needs nothing from anywhere else."""
        text = self.render(FixedFigures())
        self.assertEqual(re.findall(r"(?:src|href)=|url\(|@import", text), [])


class MetricsTests(SynchronousTestCase):
    """The format of Prometheus."""

    def test_format(self) -> None:
        """Every line is a comment or a sample; each family is explained before its samples."""
        counters = Counters()
        counters.count(b"GET", 200)
        counters.count(b"GET", 404)
        for seconds in (0.001, 0.2, 100):
            counters.took(seconds)
        text = prometheus(Snapshot(counters, 1, 2, 3))
        self.assertTrue(text.endswith("\n"))
        explained: set[str] = set()
        for line in text.splitlines():
            comment = re.fullmatch(r"# (HELP|TYPE) (desync_\w+) (.+)", line)
            if comment:
                if comment[1] == "HELP":
                    self.assertNotIn(comment[2], explained)
                explained.add(comment[2])
                continue
            sample = re.fullmatch(
                r"(desync_\w+?)(_bucket|_sum|_count)?(\{[^{}]*\})? [\d.e+-]+", line
            )
            self.assertIsNotNone(sample, line)
            assert sample is not None
            self.assertIn(sample[1], explained | {f"{sample[1]}{sample[2]}"})
        self.assertIn('desync_requests_total{method="GET",code="404"} 1\n', text)
        self.assertIn('desync_upstream_seconds_bucket{le="0.25"} 2\n', text)
        self.assertIn('desync_upstream_seconds_bucket{le="+Inf"} 3\n', text)
        self.assertIn("desync_processes 3\n", text)

    def test_buckets(self) -> None:
        """A time counts in the first class whose end it doesn't exceed."""
        counters = Counters()
        for bound in LATENCIES:
            counters.took(bound)
        self.assertEqual(counters.latencies, [1] * len(LATENCIES) + [0])


class RatesTests(SynchronousTestCase):
    """How much there is to do lately."""

    def test_rates(self) -> None:
        """They are of the last minute."""
        figures, clock = FixedFigures(), Clock()
        rates = Rates(figures, clock)
        self.assertEqual(rates.per_second(), (0, 0, 0))
        rates.start()
        for _ in range(60):
            figures.counters.requests[(b"GET", 200)] = (
                figures.counters.requests.get((b"GET", 200), 0) + 50
            )
            figures.counters.sent += 500
            clock.advance(5)
        self.assertEqual(rates.per_second(), (10, 100, 0))
        rates.stop()
        self.assertEqual(clock.getDelayedCalls(), [])


class EndpointTests(Case):
    """The endpoint of a real server."""

    def start(self, *args: str) -> ServerProcess:
        server = self.server(*args, "--operator", ":0")
        found = re.search(r"operator's page at http://127\.0\.0\.1:(\d+)/", server.said)
        if found is None:
            server.stop()
            found = re.search(r"operator's page at http://127\.0\.0\.1:(\d+)/", server.said)
        assert found is not None, server.said
        self.operator = int(found[1])
        return server

    def test_endpoints(self) -> None:
        """All answer; nothing is to be had there that isn't the operator's."""
        server = self.start(
            *("chunk-server", "-s", self.path("store"), "--authorization", "Bearer secret")
        )
        path = self.path_of(min(self.chunks))
        self.assertEqual(self.fetch(server.port, path)[0], 401)
        self.fetch(server.port, path, headers={"Authorization": "Bearer secret"})
        for name, code, part in (
            ("/", 200, b"<!DOCTYPE html>"),
            ("/metrics", 200, b'desync_requests_total{method="GET",code="401"} 1'),
            ("/healthz", 200, b"ok\n"),
            ("/readyz", 200, b"ready\n"),
            (path, 404, b""),
            ("/nothing", 404, b""),
        ):
            found, body = self.fetch(self.operator, name)
            self.assertEqual(found, code, name)
            self.assertIn(part, body)
            self.assertNotIn(b"secret", body)
        self.assertEqual(self.fetch(self.operator, "/metrics", "POST")[0], 405)
        self.assertEqual(server.stop(), 0)

    def test_index_server(self) -> None:
        """An index server has one too."""
        server = self.start("index-server", "-s", str(self.folder))
        self.assertEqual(self.fetch(server.port, "/a.caibx")[0], 200)
        _, page = self.fetch(self.operator, "/")
        self.assertIn(b"desync index server", page)
        self.assertIn(b"GET 200", page)
        self.assertEqual(server.stop(signal.SIGINT), 0)

    def test_browser(self) -> None:
        """A real browser shows it, as a page that isn't empty and breaks no rule of its own."""
        browser = peer("chromium")
        server = self.start("chunk-server", "-s", self.path("store"))
        self.fetch(server.port, self.path_of(min(self.chunks)))
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--window-size=900,1000",
        ]
        done = subprocess.run(
            [
                *(browser, *flags, f"--user-data-dir={self.path('profile')}"),
                *("--enable-logging=stderr", f"--screenshot={self.path('page.png')}", "--dump-dom"),
                f"http://127.0.0.1:{self.operator}/",
            ],
            capture_output=True,
            timeout=120,
            check=False,
            cwd=self.folder,
        )
        text = done.stdout.decode()
        self.assertIn('<span class="ready" id="state">ready</span>', text)
        self.assertRegex(text, r"<th>GET 200</th><td class=\"number\">1</td>")
        self.assertNotIn("Content Security Policy", done.stderr.decode("utf-8", "replace"))
        picture = Path(self.path("page.png")).read_bytes()
        self.assertTrue(picture.startswith(b"\x89PNG\r\n"))
        self.assertGreater(len(picture), 20_000)
