# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What is said of a measurement of servers, and the slow clients of one."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import data, report, slow_clients
from benchmarks.commands import GO
from benchmarks.serving_report import Served, Serving
from tests.test_benchmarks import sample_report


def sample_serving() -> Serving:
    """Give what a measurement of servers may come to."""
    rows = [
        Served("ours, 1 process", [900, 700, 800], 60 << 20, 0.7, 200 << 20),
        Served("ours, 2 processes", [1_100], 201 << 20, 1.2, 200 << 20),
        Served("ours, 2 processes, log", [1_500]),
        Served(GO, [1000], 30 << 20),
    ]
    return Serving({"cores": "2"}, 256 << 20, 3, 5, 1000, {GO: "1.2"}, rows)


class ServingReportTests(SynchronousTestCase):
    """What was measured of servers."""

    def test_table(self) -> None:
        """Ratios, what has to be reached, and whether it was."""
        self.assertEqual(
            sample_serving().table()[1:],
            [
                ["ours, 1 process", "800", "0.80", "0.7 x", "60", "200", "yes"],
                ["ours, 2 processes", "1,100", "1.10", "1.2 x", "201", "200", "no"],
                ["ours, 2 processes, log", "1,500", "1.50", "-", "-", "-", "-"],
                [GO, "1,000", "-", "-", "30", "-", "-"],
            ],
        )
        self.assertEqual(
            sample_serving().failures(),
            [
                "ours, 2 processes: 1.10 times Go, not 1.2",
                "ours, 2 processes: 201 MiB with slow clients, not 200",
            ],
        )

    def test_alone(self) -> None:
        """Without Go desync only the memory is judged."""
        alone = sample_serving()
        del alone.rows[-1]
        self.assertEqual(alone.table()[1][2:], ["-", "0.7 x", "60", "200", "yes"])
        self.assertEqual(len(alone.failures()), 1)

    def test_saved(self) -> None:
        """It comes back as it was, and is on the page beside the others."""
        saved = report.from_json(sample_serving().to_json())
        self.assertEqual(saved, sample_serving())
        page = report.as_page([sample_report(), saved])
        self.assertIn("Serving chunks over HTTP\n----", page)
        self.assertIn("1,000 clients", page)
        self.assertIn("not met: ours, 2 processes: 201 MiB", report.as_text(saved))


class SlowClientTests(SynchronousTestCase):
    """Clients that take nothing."""

    def test_peak(self) -> None:
        """The server is asked, and its largest resident set is given."""
        if not os.path.exists("/proc/self/status"):
            self.skipTest("no /proc here")
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.patch(slow_clients, "SETTLING", 0)
            port = listening.getsockname()[1]
            peak = slow_clients.peak_with(port, os.getpid(), ["/a", "/b"], 2)
            client, _ = listening.accept()
            with client:
                asked = client.recv(4096).split(b"\r\n\r\n")
        self.assertEqual(
            [each[:6] for each in asked], [*[b"GET /a", b"GET /b"] * 2, b"GET /a", b""]
        )
        self.assertGreater(peak, data.MIB)
