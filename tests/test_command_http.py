# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Commands with stores and indexes on real HTTP servers: as they should be, and while they fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from typing import Any

from .bad_network import BadNetwork
from .command_case import SIZES, CommandCase, sample
from .command_line import Outcome, command, desync_process, process_environ
from .server_process import ServerProcess, wait_until


class HTTPCase(CommandCase):
    """A file, its index and its store, and servers of them."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(600_000)
        self.file = self.sample_store(self.data)
        self.ids = set(self.index("a.caibx").ids)

    def serve(self, *args: str, store: str = "store", **more: Any) -> ServerProcess:
        """Start a chunk server."""
        server = ServerProcess("chunk-server", "-s", self.path(store), *args, **more)
        self.addCleanup(server.stop)
        return server

    def serve_indexes(self, folder: str = "indexes") -> ServerProcess:
        """Start a server of indexes that can be written to."""
        os.mkdir(self.path(folder))
        server = ServerProcess("index-server", "-w", "-s", self.path(folder))
        self.addCleanup(server.stop)
        return server

    def bad_network(self, server: ServerProcess, *args: Any) -> BadNetwork:
        """Put something between the client and a server."""
        network = BadNetwork(server.port, *args)
        self.addCleanup(network.close)
        return network

    def configure(self, **options: Any) -> str:
        """Write a configuration with options for all servers on this machine, and give its path."""
        content = {"store-options": {"http://127.0.0.1:*/": options}}
        return self.write("config.json", json.dumps(content).encode())

    def ok(self, *args: str) -> Outcome:
        """Run a command in a process of its own that has to succeed."""
        outcome = desync_process(*args)
        self.assertEqual((outcome.code, outcome.err), (0, ""), outcome)
        return outcome

    def stored(self, name: str) -> set[bytes]:
        """List the chunks in a store of the folder."""
        return {file.chunk_id for file in self.files(name).all_files()}

    def requests(self, log: str) -> list[str]:
        """List what a server was asked for, as its log has it."""
        return re.findall(r'"((?:GET|HEAD|PUT|POST) \S+) ', self.read(log).decode())


class CommandTests(HTTPCase):
    """What commands ask of servers that are as they should be."""

    def test_chop_and_cache(self) -> None:
        """Chunks that are on the server already aren't sent again, by chop and by cache."""
        self.store("remote")
        server = self.serve("-w", "--log", self.path("log"), store="remote")
        self.ok("chop", "-s", server.url, self.path("a.caibx"), self.file)
        self.assertEqual(self.stored("remote"), self.ids)
        puts = [each for each in self.requests("log") if each.startswith("PUT")]
        self.assertEqual(len(puts), len(self.ids))
        self.ok("chop", "-s", server.url, self.path("a.caibx"), self.file)
        self.ok("cache", "-s", self.path("store"), "-c", server.url, self.path("a.caibx"))
        again = [each for each in self.requests("log") if each.startswith("PUT")]
        self.assertEqual(again, puts)

    def test_info(self) -> None:
        """info counts what is on a server, asked for many at once or by HEAD."""
        lost = self.index("a.caibx").id(3)
        os.unlink(self.files().path_of(lost))
        server = self.serve("--log", self.path("log"))
        for single in False, True:
            config = self.configure(**{"single-requests": single})
            found = json.loads(
                self.ok("--config", config, "info", "-s", server.url, self.path("a.caibx")).out
            )
            self.assertEqual(
                (found["unique"], found["in-store"]), (len(self.ids), len(self.ids) - 1)
            )
        asked = self.requests("log")
        self.assertEqual(asked.count("POST /missing"), 1)
        self.assertEqual(len([each for each in asked if each.startswith("HEAD")]), len(self.ids))

    def test_authorization(self) -> None:
        """Without what the server wants to see there is an error that doesn't show it either."""
        server = self.serve("--authorization", "Bearer sesame")
        arguments = ("extract", "-s", server.url, self.path("a.caibx"), self.path("out"))
        config = self.configure(**{"http-auth": "Bearer sesame"})
        self.ok("--config", config, *arguments)
        self.assertEqual(self.read("out"), self.data)
        os.unlink(self.path("out"))
        config = self.configure(**{"http-auth": "Bearer wrong-secret"})
        outcome = desync_process("--config", config, *arguments)
        self.assert_error(outcome, "status code 401")
        self.assertNotIn("wrong-secret", outcome.err)


class FailingTests(HTTPCase):
    """Servers that fail in the middle of a transfer."""

    def setUp(self) -> None:
        super().setUp()
        self.index_path = self.path("a.caibx")
        self.output = self.path("out")
        self.quick = {"error-retry-base-interval": 1_000_000, "timeout": 1_000_000_000}

    def chain(self, first: str, *, single: bool) -> tuple[str, ...]:
        """Give what extracts through a failover group, a local store and a cache."""
        self.store("local")
        self.store("cache")
        second = self.serve().url
        config = self.configure(**{"single-requests": single, **self.quick})
        return (
            *("--config", config, "extract", "-s", f"{first}|{second}"),
            *("-s", self.path("local"), "-c", self.path("cache"), self.index_path, self.output),
        )

    def check_chain(self, event: str, *, single: bool) -> None:
        network = self.bad_network(self.serve(), 100_000, event)
        self.ok(*self.chain(network.url, single=single))
        self.assertTrue(network.happened)
        self.assertEqual(self.read("out"), self.data)
        self.assertGreaterEqual(self.stored("cache"), self.ids - self.null_ids())
        self.run_command("verify", "--quiet", "-s", self.path("cache"))

    def null_ids(self) -> set[bytes]:
        index = self.index("a.caibx")
        return {index.digest.null_id(index.sizes.max)}

    def test_failover_killed(self) -> None:
        """The first server is killed while it sends: the second one gives the rest."""
        server = self.serve()
        network = self.bad_network(server, 100_000, "cut", server.kill)
        self.ok(*self.chain(network.url, single=False))
        self.assertIsNotNone(server.process.poll())
        self.assertEqual(self.read("out"), self.data)

    def test_failover_killed_single(self) -> None:
        """The same with a request for each chunk."""
        self.check_chain("cut", single=True)

    def test_failover_stalled(self) -> None:
        """A server that says nothing more is left when a request's time is over."""
        self.check_chain("stall", single=False)

    def test_failover_wrong_bytes(self) -> None:
        """Wrong bytes count for nothing; the right ones come from the other server."""
        self.check_chain("flip", single=True)

    def test_failover_trickle(self) -> None:
        """A server that sends a byte now and then doesn't keep the transfer for ever."""
        self.check_chain("trickle", single=True)

    def test_second_run(self) -> None:
        """With a cache the run after one that failed fetches only what is missing."""
        self.store("cache")
        server = self.serve("--log", self.path("log"))
        network = self.bad_network(server, 200_000, "cut")
        config = self.configure(**{"single-requests": True, **self.quick})
        self.write("out", b"old")
        arguments = ("-c", self.path("cache"), self.index_path, self.output)
        outcome = desync_process("--config", config, "extract", "-s", network.url, *arguments)
        self.assert_error(outcome, network.url)
        self.assertEqual((self.read("out"), self.leftovers()), (b"old", []))
        had = self.stored("cache")
        self.assertTrue(had)
        self.write("log", b"")
        self.ok("--config", config, "extract", "-s", server.url, *arguments)
        self.assertEqual(self.read("out"), self.data)
        asked = {bytes.fromhex(each[-70:-6]) for each in self.requests("log")}
        self.assertTrue(asked)
        self.assertFalse(asked & had)

    def test_second_run_in_place(self) -> None:
        """With -k it fetches only what the file lacks."""
        server = self.serve("--log", self.path("log"))
        network = self.bad_network(server, 300_000, "cut")
        config = self.configure(**{"single-requests": True, **self.quick})
        arguments = (self.index_path, self.output)
        outcome = desync_process("--config", config, "extract", "-k", "-s", network.url, *arguments)
        self.assert_error(outcome, network.url)
        self.write("log", b"")
        self.ok("--config", config, "extract", "-k", "-s", server.url, *arguments)
        self.assertEqual(self.read("out"), self.data)
        self.assertLess(len(self.requests("log")), len(self.ids))

    def test_errors(self) -> None:
        """Without another server there is one line that says what happened, and nothing is left."""
        for event, single, word in (
            ("cut", False, ""),
            ("cut", True, ""),
            ("stall", False, "1 seconds"),
            ("stall", True, "1 seconds"),
        ):
            self.write("out", b"old")
            network = self.bad_network(self.serve(), 50_000, event)
            config = self.configure(**{**self.quick, "single-requests": single, "error-retry": 1})
            outcome = desync_process(
                "--config", config, "extract", "-s", network.url, self.index_path, self.output
            )
            self.assert_error(outcome, network.url, word)
            self.assertEqual((self.read("out"), self.leftovers()), (b"old", []))

    def test_make(self) -> None:
        """make fails with one line and no index; the next one sends only what is missing."""
        self.store("remote")
        server = self.serve("-w", "--log", self.path("log"), store="remote")
        network = self.bad_network(server, 3_000, "cut")
        config = self.configure(**self.quick)
        arguments = ("-m", SIZES, self.path("new.caibx"), self.file)
        outcome = desync_process("--config", config, "make", "-s", network.url, *arguments)
        self.assert_error(outcome, network.url)
        self.assertFalse(os.path.exists(self.path("new.caibx")))
        had = self.stored("remote")
        self.write("log", b"")
        self.ok("--config", config, "make", "-s", server.url, *arguments)
        self.assertEqual(self.stored("remote"), self.ids)
        puts = [each for each in self.requests("log") if each.startswith("PUT")]
        self.assertEqual(len(puts), len(self.ids) - len(had))

    def test_interrupt(self) -> None:
        """A signal ends a wait for a server at once, and leaves nothing behind."""
        for number, single in ((signal.SIGINT, False), (signal.SIGTERM, True)):
            network = self.bad_network(self.serve(), 50_000, "stall")
            config = self.configure(**{"single-requests": single})
            args = ("--config", config, "extract", "-s", network.url, self.index_path, self.output)
            with subprocess.Popen(
                command(*args), stderr=subprocess.PIPE, env=process_environ()
            ) as process:
                wait_until(lambda network=network: network.happened, "a stall")  # type: ignore[misc]
                process.send_signal(number)
                assert process.stderr is not None
                said = process.stderr.read()
                self.assertEqual((process.wait(60), said), (1, b"Error: interrupted\n"))
            self.assertEqual(self.leftovers(), [])
            self.assertFalse(os.path.exists(self.output))
