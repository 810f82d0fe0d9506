# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Servers over TLS, as processes, with the commands as their clients."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import ssl
import threading
from contextlib import closing

from tests.authority import Authority
from tests.command_line import Outcome, desync_process
from tests.server_process import ServerProcess, twistd, wait_until
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
        for name in ("cwd", "indexes"):
            os.mkdir(self.path(name))
        server = self.server(
            *("desync-index-server", "-w", "-s", self.path("indexes")),
            listen=f"ssl:0:interface=127.0.0.1:certKey={self.certificate}:privateKey={self.key}",
            program=twistd(),
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


class Visitors:
    """
    Clients that connect to a server again and again, and look at what it shows.

    :param port: the server's.
    :param authority: path of the certificate that they trust.
    :ivar seen: how often each certificate was shown.
    :ivar wrong: what went wrong.
    """

    def __init__(self, port: int, authority: str) -> None:
        self.seen: dict[bytes, int] = {}
        self.wrong: list[object] = []
        self._port = port
        self._trust = ssl.create_default_context(cafile=authority)
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._visit) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def connect(self) -> tuple[http.client.HTTPSConnection, bytes]:
        """Connect, and give the certificate that was shown too."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=60, context=self._trust
        )
        connection.connect()
        shown = connection.sock.getpeercert(True)
        assert shown is not None
        return connection, shown

    def _visit(self) -> None:
        while not self._done.is_set():
            try:
                connection, shown = self.connect()
                with closing(connection):
                    if ask(connection) != 404:
                        self.wrong.append("another answer")
                with self._lock:
                    self.seen[shown] = self.seen.get(shown, 0) + 1
            except Exception as error:
                self.wrong.append(error)
                return

    def wait_for(self, shown: bytes, more: int = 5) -> None:
        """Wait until they have been shown a certificate some times more."""
        before = self.seen.get(shown, 0)
        wait_until(lambda: self.seen.get(shown, 0) >= before + more or bool(self.wrong), "visitors")

    def stop(self) -> None:
        """Send them away. Twice is fine."""
        self._done.set()
        for thread in self._threads:
            thread.join()


def ask(connection: http.client.HTTPSConnection) -> int:
    """Ask for something that isn't there, and give the status."""
    connection.request("GET", f"/0000/{'0' * 64}.cacnk")
    answer = connection.getresponse()
    answer.read()
    return answer.status


class RenewalTests(TLSCase):
    """Certificates that are replaced while the server runs, which is told by SIGHUP."""

    def renew(self) -> bytes:
        """Put another certificate and key in the place of the server's, and give it as DER."""
        self.authority.issue("server")
        with open(self.certificate) as file:
            return ssl.PEM_cert_to_DER_cert(file.read())

    def check(self, server: ServerProcess, processes: int = 1) -> None:
        """Renew twice under load; what is no pair meanwhile is reported, and isn't used."""
        said = "reloaded certificates"
        with open(self.certificate) as file:
            first = ssl.PEM_cert_to_DER_cert(file.read())
        visitors = Visitors(server.port, self.authority.path)
        self.addCleanup(visitors.stop)
        visitors.wait_for(first)
        old, shown = visitors.connect()
        self.addCleanup(old.close)
        self.assertEqual((shown, ask(old)), (first, 404))
        for turn in (1, 2):
            new = self.renew()
            server.send_signal(signal.SIGHUP)
            wait_until(lambda turn=turn: server.said.count(said) == turn * processes, said)  # type: ignore[misc]
            count = visitors.seen.get(first, 0)
            visitors.wait_for(new)
            # At most those who were about to note down what they had been shown before.
            self.assertLessEqual(visitors.seen[first], count + 3)
            first = new
            # Who is there already stays.
            self.assertEqual(ask(old), 404)
        shutil.copy(self.authority.issue("another")[1], self.key)
        server.send_signal(signal.SIGHUP)
        failed = "failed to reload certificates: "
        wait_until(lambda: server.said.count(failed) == processes, failed)
        visitors.wait_for(new)
        os.unlink(self.certificate)
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: server.said.count(failed) == 2 * processes, failed)
        visitors.wait_for(new)
        visitors.stop()
        self.assertEqual(visitors.wrong, [])
        self.assertEqual(len(visitors.seen), 3)
        self.assertEqual(server.said.count(said), 2 * processes)

    def test_chunk_server(self) -> None:
        """A chunk server shows the new certificate."""
        flags = ("--cert", self.certificate, "--key", self.key)
        server = self.server("chunk-server", "-s", self.path("store"), *flags)
        self.check(server)
        self.assertEqual(0, server.stop())

    def test_processes(self) -> None:
        """So do all processes of one."""
        flags = ("--cert", self.certificate, "--key", self.key, "--workers", "2")
        server = self.server("chunk-server", "-s", self.path("store"), *flags)
        self.check(server, 2)
        self.assertEqual(0, server.stop())

    def test_index_server(self) -> None:
        """So does an index server."""
        os.mkdir(self.path("indexes"))
        flags = ("--cert", self.certificate, "--key", self.key)
        server = self.server("index-server", "-s", self.path("indexes"), *flags)
        self.check(server)
        self.assertEqual(0, server.stop())

    def test_endpoint(self) -> None:
        """So does ``twistd`` at an ``ssl:`` endpoint."""
        os.mkdir(self.path("cwd"))
        where = f"ssl:0:interface=127.0.0.1:certKey={self.certificate}:privateKey={self.key}"
        server = self.server(
            *("desync-chunk-server", "-s", self.path("store")),
            listen=where,
            program=twistd(),
            cwd=self.path("cwd"),
        )
        self.check(server)
        self.assertEqual(-signal.SIGTERM, server.stop())
        self.assertIsNone(re.search("Traceback|Unhandled", server.said), server.said)

    def test_mutual(self) -> None:
        """The authorities of clients are read again too."""
        flags = ("--cert", self.certificate, "--key", self.key, "--mutual-tls")
        authorities = self.path("clients.crt")
        shutil.copy(Authority(self.folder, "stranger").path, authorities)
        server = self.server(
            *("chunk-server", "-s", self.path("store"), *flags, "--client-ca", authorities)
        )
        extract = ("extract", "-s", server.url, self.path("a.caibx"), self.path("out"))
        self.assert_error(self.desync(*extract, *self.own), "https://127.0.0.1")
        shutil.copy(self.authority.path, authorities)
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded certificates" in server.said, "the authorities")
        outcome = self.desync(*extract, *self.own)
        self.assertEqual((0, ""), (outcome.code, outcome.err))
        self.assertEqual(0, server.stop())
