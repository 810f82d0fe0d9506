# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Commands against real servers over HTTP: chains of stores, servers that fail or are stopped."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from desync.stores.local_files import LocalFiles
from tests.command_case import SIZES, CommandCase, sample
from tests.command_line import command, desync_process, process_environ
from tests.peers import peer
from tests.server_process import ServerProcess, accepts, free_port, wait_until

PATIENT = ("-e", "3", "-b", "10ms")
"""Flags that try three times, soon."""


class Case(CommandCase):
    """A store, its index, and servers."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(900_000)
        self.sample_store(self.data)
        self.chunks = len(list(self.files().all_files()))

    def serve(self, *args: str) -> ServerProcess:
        server = ServerProcess("chunk-server", *args)
        self.addCleanup(server.kill)
        return server

    def desync(self, *args: str) -> str:
        """Run a command that has to succeed; give its messages."""
        code, _, err = desync_process(*args)
        self.assertEqual(code, 0, err)
        return err

    def refuse(self, *args: str) -> str:
        """Run a command that has to fail with one line; give it."""
        code, out, err = desync_process(*args)
        self.assertEqual((code, out), (1, b""), err)
        self.assertEqual(err.count("\n"), 1, err)
        self.assertTrue(err.startswith("Error: "), err)
        return err

    def extract(self, *args: str) -> None:
        """Extract the index from stores, and make sure that it is the file."""
        out = self.path("out")
        self.desync("extract", *args, self.path("a.caibx"), out)
        self.assertEqual(self.read("out"), self.data)
        os.unlink(out)

    def count(self, store: str) -> int:
        """Count the chunks in a store."""
        return len(list(LocalFiles(self.path(store)).all_files()))


class CommandTests(Case):
    """Each command that takes a store or an index, over HTTP."""

    def test_reading(self) -> None:
        """Files are rebuilt, printed, looked at and cached from a chunk and an index server."""
        chunks = self.serve("-s", self.path("store")).url
        os.mkdir(self.path("indexes"))
        os.rename(self.path("a.caibx"), self.path("indexes/a.caibx"))
        indexes = ServerProcess("index-server", "-s", self.path("indexes"))
        self.addCleanup(indexes.kill)
        index = f"{indexes.url}a.caibx"
        self.desync("extract", "-s", chunks, index, self.path("out"))
        self.assertEqual(self.read("out"), self.data)
        code, out, err = desync_process("cat", "-s", chunks, "-o", "1000", "-l", "5000", index)
        self.assertEqual((code, out), (0, self.data[1000:6000]), err)
        code, out, _ = desync_process("info", "-s", chunks, index)
        figures = json.loads(out)
        self.assertEqual((code, figures["in-store"]), (0, figures["unique"]))
        self.store("cache")
        self.desync("cache", "-s", chunks, "-c", self.path("cache"), index)
        self.assertEqual(self.count("cache"), self.chunks)
        code, out, _ = desync_process("list-chunks", index)
        self.assertEqual(len(out.splitlines()), figures["total"])
        self.desync("verify-index", index, self.path("out"))

    def test_writing(self) -> None:
        """Files are stored by make, chop and cache, and an index is written, over HTTP."""
        file = self.write("file", self.data)
        os.mkdir(self.path("indexes"))
        indexes = ServerProcess("index-server", "-w", "-s", self.path("indexes"))
        self.addCleanup(indexes.kill)
        index = f"{indexes.url}b.caibx"
        for number, arguments in enumerate(
            (
                ("make", "-m", SIZES, index, file),
                ("chop", self.path("a.caibx"), file),
                ("cache", "-s", self.path("store"), self.path("a.caibx")),
            )
        ):
            name = f"new{number}"
            url = self.serve("-w", "-s", self.store(name)).url
            flag = "-c" if arguments[0] == "cache" else "-s"
            self.desync(arguments[0], flag, url, *arguments[1:])
            self.assertEqual(self.count(name), self.chunks)
        self.assertEqual(self.read("indexes/b.caibx"), self.read("a.caibx"))

    def test_refused(self) -> None:
        """What a server doesn't allow is said, with its words, and without a traceback."""
        url = self.serve("-s", self.path("store")).url
        file = self.write("file", b"something new" * 1000)
        error = self.refuse("make", "-m", SIZES, "-s", url, self.path("n.caibx"), file)
        self.assertIn("not enabled", error)
        self.assertFalse(Path(self.path("n.caibx")).exists())
        error = self.refuse("list-chunks", f"{url}a.caibx")
        self.assertIn("a.caibx", error)

    def test_uncompressed(self) -> None:
        """A server of uncompressed chunks is read by who is configured for it."""
        url = self.serve("-u", "-s", self.path("store")).url
        options = json.dumps({"store-options": {url: {"uncompressed": True}}})
        self.extract("--config", self.write("config", options.encode()), "-s", url)
        single = {"uncompressed": True, "single-requests": True}
        options = json.dumps({"store-options": {url: single}})
        self.extract("--config", self.write("config", options.encode()), "-s", url)


class ChainTests(Case):
    """Several stores, some of which fail."""

    def test_failover(self) -> None:
        """What one server of a group can't give, or no longer gives, the next one is asked for."""
        first = self.serve("-s", self.path("store"))
        second = self.serve("-s", self.path("store"))
        group = f"{first.url}|{second.url}"
        self.extract("-s", group)
        first.kill()
        self.extract(*PATIENT, "-s", group)
        second.kill()
        error = self.refuse("extract", *PATIENT, "-s", group, self.path("a.caibx"), self.path("x"))
        self.assertIn("Connection refused", error)
        self.assertFalse(Path(self.path("x")).exists())

    def test_chain(self) -> None:
        """A missing chunk is asked of the next store, and all that is fetched goes to the cache."""
        self.store("half")
        for file in list(self.files().all_files())[::2]:
            there = self.files("half").path_of(file.chunk_id)
            os.makedirs(os.path.dirname(there), exist_ok=True)
            os.rename(file.path, there)
        urls = [self.serve("-s", self.path(name)).url for name in ("half", "store")]
        self.store("cache")
        chain = ("-s", f"{urls[0]}|{urls[0]}", "-s", self.path("store"), "-c", self.path("cache"))
        self.extract(*chain)
        self.assertEqual(self.count("cache"), self.chunks)
        self.extract("-s", urls[0], "-s", urls[1])

    def test_stopped_in_the_middle(self) -> None:
        """A server that is killed at work costs no chunk that has arrived: the cache has them."""
        server = self.serve("-s", self.path("store"))
        self.store("cache")
        # Enough that it takes a while: requests are made one at a time.
        data = sample(12_000_000)
        file = self.write("large", data)
        self.run_command("make", "-m", SIZES, "-s", self.path("store"), self.path("l.caibx"), file)
        options = json.dumps({"store-options": {server.url: {"single-requests": True}}})
        config = self.write("config", options.encode())
        arguments = ["--config", config, "extract", "-n", "1", "-e", "1", "-s", server.url]
        arguments += ["-c", self.path("cache"), self.path("l.caibx"), self.path("out")]
        process = subprocess.Popen(
            [*command(), *arguments], stderr=subprocess.PIPE, env=process_environ()
        )
        self.addCleanup(process.kill)
        wait_until(lambda: self.count("cache") > 20 or process.poll() is not None, "some chunks")
        server.kill()
        _, said = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1, said)
        self.assertEqual(said.count(b"\n"), 1, said)
        self.assertFalse(Path(self.path("out")).exists())
        fetched = self.count("cache")
        self.assertGreater(fetched, 20)
        log = self.path("log")
        again = self.serve("-s", self.path("store"), "--log", log)
        options = json.dumps({"store-options": {again.url: {"single-requests": True}}})
        config = self.write("config", options.encode())
        self.desync(
            *("--config", config, "extract", "-s", again.url, "-c", self.path("cache")),
            *(self.path("l.caibx"), self.path("out")),
        )
        self.assertEqual(self.read("out"), data)
        self.assertEqual(again.stop(), 0)
        requests = self.read("log").count(b'"GET ')
        self.assertEqual(requests, self.count("cache") - fetched)

    def test_bad_chunk(self) -> None:
        """Wrong bytes from one server come from the next in the group."""
        self.store("bad")
        for file in self.files().all_files():
            there = self.files("bad").path_of(file.chunk_id)
            os.makedirs(os.path.dirname(there), exist_ok=True)
            Path(there).write_bytes(b"not a chunk at all")
        bad, good = (self.serve("-s", self.path(name)).url for name in ("bad", "store"))
        self.extract(*PATIENT, "-s", f"{bad}|{good}")
        error = self.refuse("extract", *PATIENT, "-s", bad, self.path("a.caibx"), self.path("out"))
        self.assertIn(bad, error)

    def test_cache_over_http(self) -> None:
        """A cache can be on a chunk server too."""
        self.store("cache")
        cache = self.serve("-w", "-s", self.path("cache")).url
        self.extract("-s", self.path("store"), "-c", cache)
        self.assertEqual(self.count("cache"), self.chunks)
        self.store("empty")
        self.extract("-s", self.path("empty"), "-c", cache)


class NginxTests(Case):
    """A store that nginx serves: plain files under plain paths."""

    def test_nginx(self) -> None:
        """Files are rebuilt from a store behind nginx."""
        nginx = peer("nginx")
        place = Path(self.path("nginx"))
        place.mkdir()
        port = free_port()
        (place / "conf").write_text(
            f"""
            daemon off; master_process off; pid {place}/pid; error_log {place}/error;
            events {{ worker_connections 64; }}
            http {{
                access_log {place}/access; client_body_temp_path {place}/body;
                proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;
                uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
                server {{
                    listen 127.0.0.1:{port};
                    location /castr/ {{ alias {self.path("store")}/; }}
                    location /indexes/ {{ alias {self.folder}/; }}
                }}
            }}
            """
        )
        process = subprocess.Popen([nginx, "-p", str(place), "-c", str(place / "conf")])
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        wait_until(lambda: accepts(port), "nginx")
        url = f"http://127.0.0.1:{port}"
        self.extract("-s", f"{url}/castr")
        self.desync("extract", "-s", f"{url}/castr/", f"{url}/indexes/a.caibx", self.path("out"))
        self.assertEqual(self.read("out"), self.data)
        # It doesn't know requests for many chunks: it was asked once.
        requests = (place / "access").read_text()
        self.assertEqual(requests.count('"POST /castr/chunks'), 2)
        self.assertGreaterEqual(requests.count('"GET /castr/'), 2 * self.chunks)
