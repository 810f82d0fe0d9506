# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A chunk server in several processes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from desync.options import StoreFlags
from desync.services.counters import LATENCIES, Counters
from desync.services.figures import Snapshot, add_up
from desync.services.settings import ChunkServerSettings
from tests.server_process import ServerProcess, wait_until
from tests.test_server_process import Case


def children(pid: int) -> list[int]:
    """List the processes that a process has started."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        raise SkipTest("the system doesn't say which processes a process has") from None


def is_alive(pid: int) -> bool:
    """Tell whether a process has not ended; whoever got it for a child may not have noticed yet."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


class WorkersCase(Case):
    """A server in two processes, with an operator's endpoint."""

    def start(self, *args: str, **more: object) -> ServerProcess:
        server = self.server(
            *("chunk-server", "--workers", "2", "--operator", ":0", *args),
            **more,
        )
        found = re.search(r"operator's page at http://127\.0\.0\.1:(\d+)/", self.said(server))
        assert found is not None
        self.operator = int(found[1])
        # Each child of its own: it isn't said to be ready before one of them is.
        wait_until(lambda: self.metric("processes") == 2, "both processes")
        return server

    def said(self, server: ServerProcess) -> str:
        wait_until(lambda: "operator's page" in server.said, "the operator's page")
        return server.said

    def metric(self, name: str) -> float:
        _, text = self.fetch(self.operator, "/metrics")
        found = re.search(rf"^desync_{name} (\S+)$", text.decode(), re.MULTILINE)
        assert found is not None, text
        return float(found[1])

    def answered(self) -> float:
        return self.metric(r'requests_total\{method="GET",code="200"\}')


class WorkersTests(WorkersCase):
    """What several processes do together."""

    def test_life(self) -> None:
        """They serve, their figures add up, and all end when the first is told to."""
        server = self.start("-s", self.path("store"), "--log", self.path("log"))
        workers = children(server.process.pid)
        self.assertEqual(len(workers), 2)
        for _ in range(6):
            self.assert_serves(server.port)
        self.assertEqual(self.answered(), 6 * len(self.chunks))
        self.assertEqual(self.fetch(self.operator, "/readyz"), (200, b"ready\n"))
        self.assertEqual(server.stop(), 0)
        self.assertEqual([pid for pid in workers if os.path.exists(f"/proc/{pid}")], [])
        lines = self.read("log").splitlines()
        self.assertEqual(len(lines), 6 * len(self.chunks))
        self.assertTrue(all(line.startswith(b"127.0.0.1 - - [") for line in lines))
        self.assertEqual(len(server.said.splitlines()), 2, server.said)

    def test_death(self) -> None:
        """One that dies is started again; nobody notices, and what it counted isn't forgotten."""
        server = self.start("-s", self.path("store"))
        self.assert_serves(server.port)
        before = self.answered()
        first, second = children(server.process.pid)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: "signal SIGKILL" in server.said, "word of the death")
        self.assert_serves(server.port)
        wait_until(lambda: self.metric("processes") == 2, "another process")
        self.assertIn(second, children(server.process.pid))
        self.assertGreaterEqual(self.answered(), before)
        self.assert_serves(server.port)
        self.assertEqual(server.stop(), 0)

    def test_reload(self) -> None:
        """SIGHUP reaches all of them, and what they say is passed on."""
        file = Path(
            self.write("stores.json", json.dumps({"stores": [self.path("store")]}).encode())
        )
        server = self.start("--store-file", str(file))
        self.store("empty")
        file.write_text(json.dumps({"stores": [self.path("empty")]}))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.said.count("reloaded ") == 2, "both reloads")
        for _ in range(4):
            self.assertEqual(self.fetch(server.port, self.path_of(min(self.chunks)))[0], 404)
        file.write_text("nonsense")
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.said.count("failed to reload") == 2, "both failures")
        _, page = self.fetch(self.operator, "/")
        self.assertIn(b"failed to reload configuration", page)
        self.assertEqual(server.stop(), 0)

    def test_reload_while_starting(self) -> None:
        """One that doesn't serve yet heeds SIGHUP when it does, and isn't ended by it."""
        file = self.write("stores.json", json.dumps({"stores": [self.path("store")]}).encode())
        server = self.server("chunk-server", "--store-file", file, "--workers", "5")
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.said.count("reloaded ") == 5, "all reloads")
        self.assertNotIn("ended", server.said)
        self.assertEqual(server.stop(), 0)

    def test_parent_dies(self) -> None:
        """They don't outlive their parent."""
        server = self.start("-s", self.path("store"))
        workers = children(server.process.pid)
        server.kill()
        wait_until(lambda: not any(map(is_alive, workers)), "their end")

    def test_unix_socket(self) -> None:
        """They share a socket of the file system too, and may write."""
        self.store("new")
        path = self.path("socket")
        server = self.start("-w", "-s", self.path("new"), listen=f"unix:{path}")
        chunk_id = min(self.chunks)
        stored = (self.folder / "store" / self.path_of(chunk_id)[1:]).read_bytes()
        for code, body in ((200, stored), (400, stored[:-1])):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                connection.sendall(
                    b"PUT %b HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b"
                    % (self.path_of(chunk_id).encode(), len(body), body)
                )
                self.assertTrue(connection.recv(4096).startswith(b"HTTP/1.1 %d " % code))
        self.assertEqual([f.chunk_id for f in self.files("new").all_files()], [chunk_id])
        self.assertEqual(server.stop(), 0)

    def test_bad_store(self) -> None:
        """A store that can't be used ends the server at once, with the reason."""
        with self.assertRaisesRegex(AssertionError, "/nonexistent: No such file(.|\n)*Error: "):
            self.start("-s", "/nonexistent")

    def test_systemd_socket(self) -> None:
        """A socket that systemd has opened is handed down."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        port = listening.getsockname()[1]
        run = (
            "import os, sys; os.dup2(int(sys.argv.pop(1)), 3, inheritable=True);"
            " os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1',"
            " LISTEN_FDNAMES='desync.socket');"
            " from desync.cli.main import main; main()"
        )
        server = self.start(
            *("-s", self.path("store")),
            listen="systemd:domain=INET:index=0",
            program=[sys.executable, "-c", run, str(listening.fileno())],
            pass_fds=[listening.fileno()],
        )
        self.assert_serves(port)
        self.assertEqual(server.stop(), 0)


class SummingTests(SynchronousTestCase):
    """Figures of several processes, and settings on their way."""

    def test_add_up(self) -> None:
        """Everything adds up, what the dead counted included."""
        parts = []
        for number in (1, 2):
            counters = Counters()
            counters.count(b"GET", 200)
            counters.sent += number
            counters.took(0.003)
            counters.took(100)
            parts.append(json.loads(json.dumps(Snapshot(counters, number, 5).to_json())))
        dead = Counters()
        dead.count(b"PUT", 500)
        total = add_up(parts, dead)
        self.assertEqual(total.counters.requests, {(b"GET", 200): 2, (b"PUT", 500): 1})
        self.assertEqual((total.counters.sent, total.in_flight, total.connections), (3, 3, 10))
        self.assertEqual(total.counters.latencies, [2] + [0] * (len(LATENCIES) - 1) + [2])
        self.assertEqual(total.processes, 2)

    def test_settings(self) -> None:
        """Settings survive being sent to another process."""
        settings = ChunkServerSettings(
            store=("/a", "http://b/"),
            listen=("tcp:1", "unix:/x"),
            authorization="Bearer x",
            uncompressed=True,
            store_flags=StoreFlags(concurrency=3, ca_cert="/c"),
        )
        sent = json.loads(json.dumps(settings.to_json()))
        self.assertEqual(ChunkServerSettings.from_json(sent), settings)
