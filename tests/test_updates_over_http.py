# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Updates from our own server, whose connections break, and which goes away and comes back."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
from typing import Any

from .bad_network import BadNetwork
from .command_case import CommandCase, sample
from .command_line import command, desync_process, process_environ
from .server_process import ServerProcess

MIB = 1 << 20


class UpdateTests(CommandCase):
    """A file of some MiB on the server, and the version before it here."""

    def setUp(self) -> None:
        super().setUp()
        self.seed = int(os.environ.get("DESYNC_TEST_SEED") or time.time_ns() % 1_000_000)
        self.random = random.Random(self.seed)
        self.old = sample(8 * MIB, 11)
        self.new = self.old[: 2 * MIB] + sample(MIB, 12) + self.old[2 * MIB : 6 * MIB]
        self.write("old", self.old)
        self.run_command("make", self.path("old.caibx"), self.path("old"))
        self.write("new", self.new)
        self.run_command("make", "-s", self.store(), self.path("new.caibx"), self.path("new"))
        self.server = self.start()

    def start(self) -> ServerProcess:
        """Start a server on the store."""
        server = ServerProcess("chunk-server", "-s", self.path("store"))
        self.addCleanup(server.kill)
        return server

    @property
    def port(self) -> int:
        """Where the server listens."""
        found = re.search(r":(\d+)", self.server.urls[0].partition("//")[2])
        assert found is not None
        return int(found[1])

    def faulty(self, count: int) -> tuple[BadNetwork, str]:
        """Put something before the server that breaks so many connections; give its location."""
        budgets = [self.random.randrange(1, 300_000) for _ in range(count)]
        network = BadNetwork(self.port, budgets=budgets)
        self.addCleanup(network.close)
        return network, network.url

    def extract(self, *args: str) -> dict[str, Any]:
        """Extract the new version, see whether it is right, and give the figures."""
        outcome = desync_process(
            *("extract", "--print-stats", "-e", "20", "-b", "5ms", *args),
            *(self.path("new.caibx"), self.path("out")),
        )
        self.assertEqual((outcome.code, outcome.err), (0, ""), f"seed {self.seed}: {outcome}")
        self.assertEqual(self.read("out"), self.new, f"seed {self.seed}")
        self.assertEqual(self.leftovers(), [])
        stats = json.loads(outcome.out)
        self.assertIsInstance(stats, dict)
        return dict(stats)

    def test_broken_connections(self) -> None:
        """Whatever breaks on the way is asked for again; what a seed has isn't asked for at all."""
        proxy, location = self.faulty(5)
        stats = self.extract("-s", location, "--seed-output=false")
        self.assertEqual(stats["bytes-total"], len(self.new))
        self.assertGreater(proxy.broken, 0)
        _, location = self.faulty(3)
        fetched = self.extract(
            "-s", location, "--seed-output=false", "--seed", self.path("old.caibx")
        )
        self.assertLess(fetched["chunks-from-store"], stats["chunks-from-store"] // 2)

    def test_in_place(self) -> None:
        """What is elsewhere in the file that is changed is moved, and the rest is fetched."""
        self.write("out", self.old)
        _, location = self.faulty(3)
        stats = self.extract("-k", "-s", location)
        self.assertGreater(stats["chunks-in-place"], 10)
        self.assertGreater(stats["chunks-from-seeds"], 20)
        self.assertLess(stats["chunks-from-store"], 40)

    def test_goes_away_and_comes_back(self) -> None:
        """
        Without its store an update fails in one line, with the old file there; with --resume and
        in place the next one completes what there was.
        """
        for flags in (), ("-k",), ("--resume",):
            self.write("out", self.old)
            proxy, location = self.faulty(0)
            arguments = ("-e", "2", "-b", "5ms", "--seed-output=false", *flags)
            running = subprocess.Popen(
                command(
                    "extract", *arguments, "-s", location, self.path("new.caibx"), self.path("out")
                ),
                stderr=subprocess.PIPE,
                env=process_environ(),
            )
            time.sleep(self.random.random() / 2)
            proxy.close()
            self.server.kill()
            _, error = running.communicate(timeout=60)
            if running.returncode:
                self.assertRegex(error.decode(), r"\AError: [^\n]+\n\Z")
                if flags != ("-k",):
                    self.assertEqual(self.read("out"), self.old)
            self.server = self.start()
            self.extract("-s", f"http://127.0.0.1:{self.port}/", *flags)
