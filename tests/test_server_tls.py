# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Servers over TLS, as processes, with the commands as their clients."""

from __future__ import annotations

import os
import re
import signal
import sys

from tests.authority import Authority
from tests.command_line import Outcome, desync_process
from tests.test_server_process import Case


class TLSCase(Case):
    """An authority, and certificates of a server and of a client."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority(self.folder)
        self.certificate, self.key = self.authority.issue("server")
        self.own = [
            f"--{name}={path}"
            for name, path in zip(
                ("client-cert", "client-key"), self.authority.issue("client"), strict=True
            )
        ]

    def desync(self, *args: str) -> Outcome:
        """Run a command that trusts the authority."""
        return desync_process(*args, "--ca-cert", self.authority.path, "-e", "1", "-b", "0")


class TLSTests(TLSCase):
    """What needs a process."""

    def test_workers(self) -> None:
        """Several processes on one socket serve over TLS those who have a certificate."""
        server = self.server(
            *("chunk-server", "--workers", "2", "-s", self.path("store")),
            *("--cert", self.certificate, "--key", self.key),
            *("--mutual-tls", "--client-ca", self.authority.path),
        )
        self.assertTrue(server.url.startswith("https://"), server.url)
        extract = ("extract", "-s", server.url, self.path("a.caibx"), self.path("out"))
        self.assert_error(self.desync(*extract), "https://127.0.0.1")
        self.assertFalse(os.path.exists(self.path("out")))
        for _ in range(3):
            outcome = self.desync(*extract, *self.own)
            self.assertEqual((0, ""), (outcome.code, outcome.err))
            self.assertEqual(self.data, self.read("out"))
            os.unlink(self.path("out"))
        stranger = Authority(self.folder, "stranger").issue("other")
        with_other = [f"--client-cert={stranger[0]}", f"--client-key={stranger[1]}"]
        self.assert_error(self.desync(*extract, *with_other), "https://127.0.0.1")
        self.assertEqual(0, server.stop())
        self.assertNotIn("Traceback", server.said)

    def test_index_server_under_twistd(self) -> None:
        """An index server on an ``ssl:`` endpoint takes and gives indexes."""
        run = "import os; os.dup2(2, 1); from twisted.scripts.twistd import run; run()"
        for name in ("cwd", "indexes"):
            os.mkdir(self.path(name))
        server = self.server(
            *("desync-index-server", "-w", "-s", self.path("indexes")),
            listen=f"ssl:0:interface=127.0.0.1:certKey={self.certificate}:privateKey={self.key}",
            program=[sys.executable, "-c", run, "--nodaemon", "--pidfile="],
            cwd=self.path("cwd"),
        )
        self.assertTrue(server.url.startswith("https://"), server.url)
        made = self.desync("make", f"{server.url}a.caibx", self.write("b", self.data))
        self.assertEqual((0, ""), (made.code, made.err))
        ours = self.desync("list-chunks", f"{server.url}a.caibx")
        self.assertEqual((0, ""), (ours.code, ours.err))
        there = self.run_command("list-chunks", self.path("indexes/a.caibx"))
        self.assertEqual(there.out, ours.out)
        self.assert_error(self.desync("list-chunks", f"{server.url}b.caibx"), "b.caibx")
        untrusting = desync_process("list-chunks", "-e", "1", "-b", "0", f"{server.url}a.caibx")
        self.assert_error(untrusting, "certificate")
        self.assertEqual(-signal.SIGTERM, server.stop())
        self.assertIsNone(re.search("Traceback|Unhandled", server.said), server.said)
