# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Our servers in front of a bucket, as processes, with real clients."""

from __future__ import annotations

import os
import subprocess

from desync.formats.index import Index
from desync.formats.stored import chunk_name

from .command_case import SIZES, CommandCase, sample
from .command_line import Outcome, command, desync_process, process_environ
from .object_peers import moto
from .peers import peer
from .pull_server import PullServer
from .server_process import ServerProcess


class FrontedTests(CommandCase):
    """The bucket's keys are known to the servers alone."""

    def setUp(self) -> None:
        super().setUp()
        self.service = moto()
        self.bucket = self.service.new_bucket()
        self.url = f"s3+http://{self.service.netloc}/{self.bucket}/store"
        self.indexes = f"s3+http://{self.service.netloc}/{self.bucket}/indexes"
        self.data = sample(700_000)
        self.file = self.write("v1", self.data)

    def fill(self) -> None:
        """Put the file into the bucket, and its index."""
        self.run_program(
            *command("make", "-s", self.url, f"{self.indexes}/v1.caibx", self.file),
            **self.service.environ,
        )

    def serve(self, *args: str) -> str:
        """Start a server that has the keys; gives its URL."""
        server = ServerProcess(*args, environ=self.service.environ)
        self.addCleanup(server.kill)
        return server.url

    def run_program(self, *words: str, **environ: str) -> Outcome:
        """Run a program that has to succeed."""
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=100,
            check=False,
            cwd=self.folder,
            env=process_environ(**environ),
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))
        self.assertEqual(outcome.code, 0, outcome)
        return outcome

    def check(self, name: str) -> None:
        """Make sure that a file is the one that was stored."""
        self.assertEqual(self.read(name), self.data)
        os.unlink(self.path(name))

    def clients(self) -> dict[str, list[str]]:
        """Name those who extract over HTTP, with what they are called as."""
        clients = {"ours": command("extract"), "casync": [peer("casync"), "extract"]}
        go = os.environ.get("GO_DESYNC")
        if go:
            clients["Go desync"] = [go, "extract"]
        return clients

    def test_chunk_server(self) -> None:
        """Clients rebuild the file from a server of chunks and one of indexes."""
        self.fill()
        chunks = self.serve("chunk-server", "-s", self.url)
        indexes = self.serve("index-server", "-s", self.indexes)
        for name, words in self.clients().items():
            store = [f"--store={chunks}"] if name == "casync" else ["-s", chunks]
            self.run_program(*words, *store, f"{indexes}v1.caibx", self.path("copy"))
            self.check("copy")

    def test_missing(self) -> None:
        """What isn't in the bucket, or which bucket isn't there, is said without its keys."""
        self.fill()
        self.service.empty(self.bucket)
        chunks = self.serve("chunk-server", "-s", self.url)
        index = self.sample_store(self.data) and self.path("a.caibx")
        outcome = desync_process("extract", "-s", chunks, index, self.path("copy"))
        self.assert_error(outcome, "missing")
        nowhere = self.serve("chunk-server", "-s", f"s3+http://{self.service.netloc}/nowhere")
        outcome = desync_process("extract", "-b", "1ms", "-s", nowhere, index, self.path("copy"))
        self.assert_error(outcome)
        self.assertNotIn("nowhere", outcome.err)
        self.assertNotIn(self.service.netloc, outcome.err)

    def test_writing(self) -> None:
        """What is put to servers that take it is in the bucket, and comes back."""
        chunks = self.serve("chunk-server", "-w", "-s", self.url)
        indexes = self.serve("index-server", "-w", "-s", self.indexes)
        outcome = desync_process("make", "-m", SIZES, "-s", chunks, f"{indexes}v1.caibx", self.file)
        self.assertEqual(outcome.code, 0, outcome)
        stored = self.service.get(self.bucket, "indexes/v1.caibx")
        assert stored is not None
        for chunk_id in set(Index.parse(stored, "v1.caibx").ids):
            key = "store/" + chunk_name(chunk_id, ".cacnk")
            self.assertIsNotNone(self.service.get(self.bucket, key))
        self.run_program(*command("extract", "-s", chunks, f"{indexes}v1.caibx", self.path("copy")))
        self.check("copy")

    def test_pull(self) -> None:
        """casync and our command pull from, and push to, an SSH server in front of the bucket."""
        peer("ssh")
        casync = peer("casync")
        self.fill()
        keys = self.folder / "keys"
        keys.mkdir(mode=0o700)
        server = PullServer(
            keys,
            {"os": {"stores": [self.url], "indexes": self.indexes}},
            {"alice": {"write": ["os"]}},
            environ=self.service.environ,
        )
        self.addCleanup(server.stop)
        ssh = {"CASYNC_SSH_PATH": server.program}
        ours = command("extract", "-s", "ssh://server/os", "ssh://server/os/v1.caibx")
        for words in [casync, "extract", "server:os/v1.caibx"], ours:
            self.run_program(*words, self.path("copy"), **ssh)
            self.check("copy")
        self.data = sample(500_000, seed=2)
        self.run_program(casync, "make", "server:os/v2.caibx", self.write("v2", self.data), **ssh)
        self.assertIsNotNone(self.service.get(self.bucket, "indexes/v2.caibx"))
        self.run_program(casync, "extract", "server:os/v2.caibx", self.path("copy"), **ssh)
        self.check("copy")
