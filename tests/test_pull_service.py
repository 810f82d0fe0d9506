# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``twistd desync-pull``, with the real ssh and casync, Go desync and our commands as clients."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

from desync.formats import protocol as p
from desync.formats.ids import ChunkIds
from desync.formats.index import Index
from desync.formats.stored import Compressed
from desync.services.ssh_packets import CIPHERS
from desync.testing.samples import sample_chunk

from .command_case import CommandCase, sample
from .command_line import Outcome, command, process_environ
from .peers import peer
from .pull_server import PullServer
from .server_process import wait_until
from .ssh_server import make_key

#: The number of REQUEST.
REQUEST = 0x8AB427E0F89D9210


class PullServiceCase(CommandCase):
    """A test case with a server that has an image."""

    arguments: tuple[str, ...] = ()

    def setUp(self) -> None:
        super().setUp()
        self.casync_program = peer("casync")
        peer("ssh")
        self.data = sample(3 << 20)
        self.blob = self.write("blob", self.data)
        self.served = self.folder / "srv"
        (self.served / "default.castr").mkdir(parents=True)
        self.run_command(
            "make",
            "-s",
            str(self.served / "default.castr"),
            str(self.served / "v1.caibx"),
            self.blob,
        )
        (self.folder / "other").mkdir()
        keys = self.folder / "keys"
        keys.mkdir(mode=0o700)
        self.server = PullServer(keys, self.exports(), self.users(), *self.arguments)
        self.addCleanup(self.server.stop)

    def exports(self) -> dict[str, Any]:
        """What is served."""
        return {
            "os": {"stores": [str(self.served / "default.castr")], "indexes": str(self.served)},
            "secret": {"stores": [self.path("other")], "indexes": self.path("other")},
        }

    def users(self) -> dict[str, Any]:
        """Who may do what."""
        return {"alice": {"write": ["os"]}, "bob": {"read": ["os"]}}

    def run_program(self, *words: str, code: int = 0) -> Outcome:
        """Run a program that uses ssh."""
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
            cwd=self.folder,
            env=process_environ(CASYNC_SSH_PATH=self.server.program),
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))
        self.assertEqual(outcome.code, code, (words, outcome.err, self.server.said))
        return outcome

    def casync(self, *words: str, code: int = 0) -> Outcome:
        """Run casync."""
        return self.run_program("timeout", "100", self.casync_program, *words, code=code)

    def desync(self, *words: str, code: int = 0) -> Outcome:
        """Run our command."""
        return self.run_program(*command(*words), code=code)

    def ssh(self, command: str, *options: str) -> subprocess.Popen[bytes]:
        """Run a command on the server, with pipes to speak with it."""
        process = subprocess.Popen(
            [self.server.program, *options, "server", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(_end, process)
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate()


class ClientTests(PullServiceCase):
    """Clients that do as they should."""

    def test_casync(self) -> None:
        """casync rebuilds an image, and pushes one that others find whole."""
        self.casync("extract", "server:os/v1.caibx", "out")
        self.assertEqual(self.read("out"), self.data)
        self.casync("extract", "--store=server:/os", "srv/v1.caibx", "out2")
        self.assertEqual(self.read("out2"), self.data)
        changed = self.data[: 1 << 20] + b"new" + self.data[1 << 20 :]
        self.write("changed", changed)
        self.casync("make", "server:os/v2.caibx", "changed")
        index = self.served / "v2.caibx"
        out = self.run_command("cat", "-s", str(self.served / "default.castr"), str(index)).out
        self.assertEqual(out, changed)
        self.assertEqual(self.server.count_logged(r"alice 127.0.0.1 (pull|push) .* bytes", 3), 3)

    def test_trees(self) -> None:
        """casync pushes a tree as an archive and as chunks, and lists and unpacks both."""
        tree = self.folder / "tree"
        tree.mkdir()
        (tree / "large").write_bytes(self.data[: 1 << 20])
        for number, name in enumerate(("t.catar", "t.caidx")):
            self.casync("make", f"server:os/{name}", str(tree))
            self.assertIn(b"large", self.casync("list", f"server:os/{name}").out)
            self.casync("extract", f"server:os/{name}", f"out{number}")
            self.assertEqual(self.read(f"out{number}/large"), self.data[: 1 << 20])

    def test_ciphers(self) -> None:
        """With each cipher and code that is offered, all arrives, through many changes of keys."""
        ids = Index.parse((self.served / "v1.caibx").read_bytes(), "v1").ids.sorted_unique()
        said = p.Hello(0x40).encode() + p.Request(ids, high_priority=False).encode()
        ways = [(cipher, "hmac-sha2-256") for cipher in CIPHERS] + [(CIPHERS[-1], "hmac-sha2-512")]
        for cipher, code in ways:
            name = cipher.decode()
            options = ("-o", f"Ciphers={name}", "-o", f"MACs={code}", "-o", "RekeyLimit=64K", "-vv")
            client = self.ssh("casync pull - - - os", *options)
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(said)
            client.stdin.flush()
            reader, found = p.MessageReader(), 0
            while found < len(ids):
                data = os.read(client.stdout.fileno(), 1 << 20)
                self.assertTrue(data, self.server.said)
                for message in reader.feed(data):
                    if isinstance(message, p.ChunkData):
                        plain = Compressed().decode(message.data, 1 << 20)
                        self.assertEqual(
                            hashlib.new("sha512_256", plain).digest(), message.chunk_id
                        )
                        found += 1
            client.stdin.write(p.Goodbye().encode())
            _, told = client.communicate(timeout=60)
            self.assertEqual(client.returncode, 0, told)
            self.assertIn(f"kex: server->client cipher: {name}".encode(), told)
            self.assertGreater(told.count(b"SSH2_MSG_NEWKEYS received"), 2)

    def test_preferred(self) -> None:
        """An ssh that isn't told otherwise gets the fastest cipher."""
        client = self.ssh("casync pull - - - os", "-vv")
        _, told = client.communicate(p.Hello(0x40).encode() + p.Goodbye().encode(), timeout=60)
        self.assertRegex(told, rb"kex: server->client cipher: aes\d+-gcm@openssh.com")

    def test_desync(self) -> None:
        """Our command and Go desync's rebuild an image."""
        self.desync("extract", "-n", "2", "-s", "ssh://server/os", "srv/v1.caibx", "out")
        self.assertEqual(self.read("out"), self.data)
        program = os.environ.get("GO_DESYNC")
        if not program:
            raise SkipTest("GO_DESYNC names no binary")
        self.run_program(
            program, "extract", "-n", "2", "-s", "ssh://server/os", "srv/v1.caibx", "go"
        )
        self.assertEqual(self.read("go"), self.data)


class RefusalTests(PullServiceCase):
    """Clients that want more than they may."""

    def refused(self, words: str, code: int, *options: str) -> None:
        """Make sure that a command is refused with an error number, before anything is read."""
        process = self.ssh(words, *options)
        out, _ = process.communicate(timeout=60)
        found = p.MessageReader().feed(out)
        self.assertIsInstance(found[0], p.Abort, words)
        self.assertEqual((found[0].code, len(found)), (code, 1), words)  # type: ignore[union-attr]
        self.assertNotIn(str(self.folder).encode(), out)

    def test_exports(self) -> None:
        """What isn't there and what is another's can't be told apart, by any spelling."""
        os.symlink("/etc/passwd", self.served / "link.caibx")
        os.symlink(self.path("other"), self.served / "dir")
        (self.folder / "other" / "x.caibx").write_bytes(b"")
        for path in (
            "secret/x.caibx",
            "nothing/x.caibx",
            "os/link.caibx",
            "os/dir/x.caibx",
            "os/../other/x.caibx",
            f"{self.folder}/srv/v1.caibx",
            "os/%2e%2e/x.caibx",
        ):
            self.refused(f"casync pull - - {path} -", 2)
        self.refused("casync pull - - - secret", 2)
        self.refused("casync pull - os/v1.caibx - -", 2)
        self.refused("casync push - - os/v1.caibx secret", 2)
        self.refused("cat /etc/passwd", 2)
        self.refused("casync push - - os/v1.caibx os", 13, "-l", "bob")
        self.assertFalse(self.server.logged("Traceback|Unhandled"))

    def test_told(self) -> None:
        """casync is told what isn't there in the system's words."""
        outcome = self.casync("extract", "server:os/no.caibx", "out", code=1)
        self.assertIn("No such file or directory", outcome.err)
        self.assertEqual(self.server.count_logged("no such index", 1), 1)

    def test_not_for_shells(self) -> None:
        """There is no shell, no terminal, no sftp, no forwarding."""
        for words in (
            ["server"],
            ["-s", "server", "sftp"],
            ["-tt", "server", "casync pull - - - os"],
        ):
            done = subprocess.run(
                [self.server.program, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
            if words[0] != "-tt":
                self.assertIn(b"request failed", done.stderr)
                self.assertNotEqual(done.returncode, 0)
        forwarding = subprocess.run(
            [self.server.program, "-W", f"127.0.0.1:{self.server.port}", "server"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertNotEqual(forwarding.returncode, 0)

    def test_strangers(self) -> None:
        """A wrong key and an unknown user don't get in."""
        other = Path(self.path("keys")) / "stranger"
        make_key(other)
        common = [
            *(peer("ssh"), "-F", "none", "-p", str(self.server.port), "-o", "BatchMode=yes"),
            *("-o", f"UserKnownHostsFile={self.folder}/keys/known_hosts"),
            *("-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
        ]
        for user, key in (("alice", other), ("nobody", other.with_name("client"))):
            done = subprocess.run(
                [*common, "-i", str(key), f"{user}@127.0.0.1", "casync pull - - - os"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
            self.assertIn(b"Permission denied", done.stderr)
            self.assertEqual(done.stdout, b"")
        self.assertEqual(self.server.count_logged("127.0.0.1 left without having logged in", 2), 2)


class BadClientTests(PullServiceCase):
    """Clients that do what they shouldn't, or nothing."""

    def say(self, words: str, said: bytes) -> list[Any]:
        """Say something to a server, and give its answer."""
        process = self.ssh(words)
        out, _ = process.communicate(said, timeout=60)
        return p.MessageReader().feed(out)

    def test_garbage(self) -> None:
        """What isn't the protocol gets an abort, is logged once, and harms nobody else."""
        hello = p.Hello(0x40).encode()
        good = self.ssh("casync pull - - - os")
        assert good.stdin is not None
        good.stdin.write(hello)
        good.stdin.flush()
        for said, code in (
            (b"GET / HTTP/1.1\r\n\r\n", 74),
            (p.Goodbye().encode(), 74),
            (p.Hello(0x2040).encode(), 93),
            (p.Hello(0x200).encode(), 52),
            (hello + hello, 74),
            (hello + p.IndexEnd().encode(), 74),
            (hello + p.ChunkData(bytes(32), b"x").encode(), 74),
            (hello + b"\xff" * 16, 74),
            (hello + struct.pack("<2Q", (16 << 20) + 1, REQUEST), 74),
            (hello + struct.pack("<2Q", 1 << 63, REQUEST), 74),
            (hello + struct.pack("<2Q", 15, REQUEST), 74),
            (hello + struct.pack("<3Q", 24 + 32, REQUEST, 2) + bytes(32), 74),
            (hello + struct.pack("<3Q", 24 + 33, REQUEST, 1) + bytes(33), 74),
            (hello + p.Missing(bytes(32)).encode(), 74),
        ):
            messages = self.say("casync pull - - - os", said)
            self.assertEqual(messages[0], p.Hello(0x1), said)
            self.assertIsInstance(messages[-1], p.Abort, said)
            self.assertEqual(messages[-1].code, code, said)
        self.assertEqual(self.server.count_logged("alice 127.0.0.1 pull os", 14), 14)
        chunk_id = bytes.fromhex(next((self.served / "default.castr").glob("*/*.cacnk")).stem)
        ids = ChunkIds.from_bytes(chunk_id + bytes(32))
        good.stdin.write(p.Request(ids).encode())
        good.stdin.flush()
        reader = p.MessageReader()
        said_last: list[Any] = []
        while len(said_last) < 3:
            assert good.stdout is not None
            said_last += reader.feed(os.read(good.stdout.fileno(), 1 << 20))
        self.assertEqual(said_last.pop(0), p.Hello(0x1))
        said_last.remove(p.Missing(bytes(32)))
        self.assertEqual(said_last[0].chunk_id, chunk_id)
        good.communicate(p.Goodbye().encode(), timeout=60)
        self.assertFalse(self.server.logged("Traceback|Unhandled"))

    def test_truncated(self) -> None:
        """A client that leaves at any point leaves nothing behind."""
        index = (self.served / "v1.caibx").read_bytes()
        whole = p.Hello(0xE00).encode() + p.IndexData(index).encode() + p.IndexEnd().encode()
        lengths = (0, 10, 24, 30, 100, len(whole) - 5)
        for length in lengths:
            self.say("casync push - - os/new.caibx os", whole[:length])
        pattern = "alice 127.0.0.1 push os/new.caibx"
        self.assertEqual(self.server.count_logged(pattern, len(lengths)), len(lengths))
        for length in lengths:
            process = self.ssh("casync push - os/new.catar - -")
            assert process.stdin is not None
            said = p.Hello(0x1000).encode() + p.ArchiveData(bytes(100_000)).encode()
            process.stdin.write(said[: length * 100])
            process.stdin.flush()
            wait_until(lambda process=process: _greeted(process), "a greeting")  # type: ignore[misc]
            process.kill()
        pattern = "alice 127.0.0.1 push os/new.catar.*the connection ended"
        self.server.count_logged(pattern, len(lengths))
        self.server.stop()
        self.assertEqual(sorted(os.listdir(self.served)), ["default.castr", "v1.caibx"])
        self.assertFalse(self.server.logged("Traceback|Unhandled"))

    def test_never_asked_for(self) -> None:
        """A chunk that nobody asked for ends a push, and isn't stored."""
        store = self.served / "default.castr"
        before = sorted(path.name for path in store.rglob("*"))
        chunk = sample_chunk(5)
        said = p.Hello(0xE00).encode()
        said += p.ChunkData(chunk.chunk_id, chunk.plain, compressed=False).encode()
        messages = self.say("casync push - - os/new.caibx os", said)
        self.assertEqual([type(each) for each in messages], [p.Hello, p.Abort])
        self.assertEqual(messages[1].code, 74)
        self.assertEqual(self.server.count_logged("push os/new.caibx.*nobody asked for"), 1)
        self.assertEqual(sorted(path.name for path in store.rglob("*")), before)

    def test_wrong_chunk(self) -> None:
        """A wrong chunk under an id ends a push; neither it nor the index is kept."""
        data = sample(1 << 20, 7)
        self.write("fresh", data)
        self.run_command("make", self.path("fresh.caibx"), self.path("fresh"))
        index = self.index("fresh.caibx")
        process = self.ssh("casync push - - os/fresh.caibx os")
        assert process.stdin is not None
        said = p.Hello(0xE00).encode() + p.IndexData(index.to_bytes()).encode()
        process.stdin.write(said + p.IndexEnd().encode())
        process.stdin.flush()
        reader = p.MessageReader()
        messages: list[Any] = []
        assert process.stdout is not None
        while not any(isinstance(each, p.Request) for each in messages):
            messages += reader.feed(os.read(process.stdout.fileno(), 65536))
        process.stdin.write(p.ChunkData(index.id(0), b"bad", False).encode())
        process.stdin.flush()
        out = process.stdout.read()
        self.assertEqual([type(each) for each in reader.feed(out)], [p.Abort])
        self.assertEqual(self.server.count_logged("push os/fresh.caibx"), 1)
        self.assertEqual(sorted(os.listdir(self.served)), ["default.castr", "v1.caibx"])
        name = index.id(0).hex()
        self.assertFalse((self.served / "default.castr" / name[:4] / f"{name}.cacnk").exists())

    def test_never_reads(self) -> None:
        """A client that asks for everything and reads nothing costs a bounded amount of memory."""
        index = self.index("srv/v1.caibx")
        process = self.ssh("casync pull - - - os")
        assert process.stdin is not None
        process.stdin.write(p.Hello(0x40).encode())
        for _ in range(20):
            # Asked for again and again, as nobody has read the answers.
            process.stdin.write(p.Request(index.ids.sorted_unique()).encode())
        process.stdin.flush()
        self.desync("extract", "-n", "1", "-s", "ssh://server/os", "srv/v1.caibx", "out")
        with open(f"/proc/{self.server.process.pid}/status") as file:
            resident = next(line for line in file if line.startswith("VmRSS"))
        self.assertLess(int(resident.split()[1]), 400_000)


class TimeoutTests(PullServiceCase):
    """Clients that take too long."""

    arguments = ("--handshake-timeout", "5", "--idle-timeout", "2")

    def test_silent(self) -> None:
        """Who doesn't log in, or says nothing afterwards, is sent away."""
        with socket.create_connection(("127.0.0.1", self.server.port)) as link:
            link.settimeout(60)
            with contextlib.suppress(ConnectionResetError):
                while link.recv(4096):
                    pass
        process = self.ssh("casync pull - - - os")
        assert process.stdout is not None
        out = process.stdout.read()
        self.assertEqual([type(each) for each in p.MessageReader().feed(out)], [p.Hello, p.Abort])
        self.assertGreater(self.server.count_logged("not logged in in time"), 0)
        self.assertEqual(self.server.count_logged("pull os.*idle for too long", 1), 1)

    def test_alive_is_not_enough(self) -> None:
        """One that only keeps the connection alive is sent away, too."""
        process = self.ssh("casync pull - - - os", "-o", "ServerAliveInterval=1")
        self.assertNotEqual(process.wait(60), 0)

    def test_never_reads(self) -> None:
        """So is one that asks for chunks and never reads them."""
        index = self.index("srv/v1.caibx")
        process = self.ssh("casync pull - - - os", "-o", "ServerAliveInterval=1")
        assert process.stdin is not None
        process.stdin.write(p.Hello(0x40).encode())
        process.stdin.write(p.Request(index.ids.sorted_unique()).encode())
        process.stdin.flush()
        self.assertEqual(self.server.count_logged("pull os.*idle for too long", 1), 1)


class LimitTests(PullServiceCase):
    """Clients that are too many."""

    arguments = ("--max-per-user", "2")

    def test_many(self) -> None:
        """One user has no more connections than he may have."""
        running = [self.ssh("casync pull - - - os") for _ in range(2)]
        wait_until(lambda: all(_greeted(one) for one in running), "both")
        third = self.ssh("casync pull - - - os")
        third.communicate(timeout=60)
        self.assertGreater(
            self.server.count_logged("turned away: too many connections of alice"), 0
        )


def _greeted(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout is not None
    return bool(os.read(process.stdout.fileno(), 24))


class LifeTests(PullServiceCase):
    """The server's life."""

    arguments = ("--grace", "0.2")

    def test_reload(self) -> None:
        """SIGHUP reads the users file again; a bad one is refused and the old one holds."""
        exports = self.exports()
        self.server.users_file.write_text("{")
        self.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: bool(self.server.logged("not reloaded: .*not JSON")), "a refusal")
        self.casync("extract", "server:os/v1.caibx", "out")
        exports["again"] = exports.pop("os")
        self.server.configure(exports, {"alice": {"read": ["again"]}})
        self.server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: bool(self.server.logged("users file reloaded")), "a reload")
        self.casync("extract", "server:again/v1.caibx", "out2")
        self.assertEqual(self.read("out2"), self.data)
        self.casync("extract", "server:os/v1.caibx", "out3", code=1)

    def test_stop(self) -> None:
        """A server that is stopped tells the sessions, and ends."""
        process = self.ssh("casync pull - - - os")
        assert process.stdout is not None
        wait_until(lambda: _greeted(process), "a greeting")
        self.server.stop()
        out, _ = process.communicate(timeout=60)
        self.assertEqual([type(each) for each in p.MessageReader().feed(out)], [p.Abort])
        self.assertFalse(self.server.logged("Traceback|Unhandled"))

    def test_bad_start(self) -> None:
        """What is wrong with the command line is one line."""
        for words, why in (
            ([], "--users is missing"),
            (["--users", "/no/such"], "/no/such: No such file"),
            (["--users", str(self.server.users_file), "--host-key", "/"], "/: "),
            (["--users", str(self.server.users_file), "-l", "nowhere"], "names no port"),
        ):
            done = subprocess.run(
                [
                    *(sys.executable, "-c", "from twisted.scripts.twistd import run; run()"),
                    *("--nodaemon", "--pidfile=", "desync-pull", *words),
                ],
                capture_output=True,
                timeout=60,
                check=False,
                cwd=self.folder,
                env=process_environ(),
            )
            self.assertEqual(done.returncode, 1)
            self.assertIn(why, (done.stdout + done.stderr).decode())
