# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``twistd desync-pull`` and the real ssh that keeps one connection for several sessions."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

from desync.formats import protocol as p
from desync.formats.ids import ChunkIds

from .server_process import PATIENCE, wait_until
from .test_pull_service import PullServiceCase


class MultiplexedCase(PullServiceCase):
    """A test case with a server and a connection to it on which sessions can begin."""

    def setUp(self) -> None:
        super().setUp()
        self.asked = 0
        self.socket = str(self.folder / "keys" / "mux")
        self.master = subprocess.Popen(
            [self.server.program, "-M", "-N", "-S", self.socket, "server"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(self.master.communicate)
        self.addCleanup(self.master.kill)
        wait_until(
            lambda: os.path.exists(self.socket) or self.master.poll() is not None, "a connection"
        )
        self.assertIsNone(self.master.poll())

    def begin(self) -> subprocess.Popen[bytes]:
        """Begin a session on the connection."""
        # ssh would make a connection of its own if there were none to be shared.
        process = self.ssh("casync pull - - - os", "-S", self.socket, "-o", "ProxyCommand=false")
        # Whoever waits for the end of its output waits for the end of the connection, too.
        self.addCleanup(self.master.kill)
        self.assertEqual(self.hear(process), [p.Hello(0x1)])
        self.say(process, p.Hello(0x40))
        return process

    def say(self, process: subprocess.Popen[bytes], message: Any) -> None:
        """Say something to the server."""
        assert process.stdin is not None
        process.stdin.write(message.encode())
        process.stdin.flush()

    def hear(self, process: subprocess.Popen[bytes]) -> list[Any]:
        """Hear what the server says next."""
        assert process.stdout is not None
        reader = p.MessageReader()
        messages: list[Any] = []
        while not messages:
            data = os.read(process.stdout.fileno(), 65536)
            self.assertTrue(data, "the session ended")
            messages += reader.feed(data)
        return messages

    def rest(self, process: subprocess.Popen[bytes]) -> list[Any]:
        """Wait for the end of a session, and give what the server said last."""
        assert process.stdout is not None
        said = p.MessageReader().feed(process.stdout.read())
        process.wait(PATIENCE)
        return list(said)

    def ask(self, process: subprocess.Popen[bytes]) -> None:
        """Ask for a chunk that isn't there."""
        self.asked += 1
        chunk_id = self.asked.to_bytes(32, "big")
        self.say(process, p.Request(ChunkIds.from_bytes(chunk_id)))
        self.assertEqual(self.hear(process), [p.Missing(chunk_id)])


class IdleTests(MultiplexedCase):
    """Sessions that are ended for being idle."""

    arguments = ("--idle-timeout", "2")

    def test_another(self) -> None:
        """What begins on the connection when one is ended goes on; with nothing on it, it ends."""
        idle = self.begin()
        [told] = self.rest(idle)
        self.assertEqual((told.code, idle.returncode), (110, 1))
        another = self.begin()
        end = time.monotonic() + 4
        while time.monotonic() < end:
            self.ask(another)
            time.sleep(0.3)
        self.assertEqual(self.server.logged("turned away"), [])
        [told] = self.rest(another)
        self.assertEqual((told.code, another.returncode), (110, 1))
        self.master.wait(PATIENCE)
        self.assertEqual(self.server.count_logged("turned away: idle for too long"), 1)


class PatientStopTests(MultiplexedCase):
    """The end of a server that gives sessions much time."""

    arguments = ("--grace", "30")

    def test_unused(self) -> None:
        """A session ends well in its time, and nobody waits for the connection that is kept."""
        first, last = self.begin(), self.begin()
        began = time.monotonic()
        self.server.process.send_signal(signal.SIGTERM)
        self.say(first, p.Goodbye())
        self.assertEqual((self.rest(first), first.returncode), ([], 0))
        time.sleep(1.5)
        self.ask(last)
        self.say(last, p.Goodbye())
        self.assertEqual((self.rest(last), last.returncode), ([], 0))
        self.server.process.wait(PATIENCE)
        self.assertLess(time.monotonic() - began, 20)
        self.assertFalse(self.server.logged("Traceback|Unhandled"))


class StopTests(MultiplexedCase):
    """The end of a server that gives sessions little time."""

    arguments = ("--grace", "1")

    def test_many(self) -> None:
        """All sessions of a connection are told."""
        sessions = [self.begin() for _ in range(8)]
        began = time.monotonic()
        self.server.process.send_signal(signal.SIGTERM)
        self.assertEqual([self.rest(each)[0].code for each in sessions], [103] * 8)
        self.assertEqual([each.returncode for each in sessions], [1] * 8)
        self.server.process.wait(PATIENCE)
        # Less, but for a machine that is busy with something else.
        self.assertLess(time.monotonic() - began, 4.5)
        self.assertFalse(self.server.logged("Traceback|Unhandled"))
