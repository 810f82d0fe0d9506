# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Real clients of others against our servers: casync and curl."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.command_case import CommandCase, sample
from tests.peers import peer
from tests.server_process import ServerProcess


class Case(CommandCase):
    """Servers of a store and of indexes."""

    def serve(self, *args: str, **more: object) -> str:
        server = ServerProcess(*args, **more)  # type: ignore[arg-type]
        self.addCleanup(server.kill)
        self.started = server
        return server.url

    def run_peer(self, *args: str, **more: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            args,
            capture_output=True,
            timeout=60,
            check=False,
            cwd=self.folder,
            env={**os.environ, **more},
        )


class CasyncTests(Case):
    """casync's client, which takes less from a server than others do."""

    def setUp(self) -> None:
        super().setUp()
        self.casync = peer("casync")

    def extract(self, index: str, store: str, target: str) -> None:
        done = self.run_peer(self.casync, "extract", f"--store={store}", index, self.path(target))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_blob(self) -> None:
        """It rebuilds a file of ours from our two servers."""
        data = sample(700_000)
        os.mkdir(self.path("indexes"))
        self.sample_store(data, "a.caibx")
        os.rename(self.path("a.caibx"), self.path("indexes/a.caibx"))
        chunks = self.serve("chunk-server", "-s", self.path("store"))
        indexes = self.serve("index-server", "-s", self.path("indexes"))
        self.extract(f"{indexes}a.caibx", chunks, "out")
        self.assertEqual(self.read("out"), data)

    def test_uncompressed_store(self) -> None:
        """Chunks that are stored uncompressed are sent compressed."""
        data = sample(200_000)
        store = self.store("plain")
        options = {"store-options": {store: {"uncompressed": True}}}
        config = self.write("config.json", json.dumps(options).encode())
        file = self.write("file", data)
        self.run_command("--config", config, "make", "-s", store, self.path("f.caibx"), file)
        self.assertEqual(list(Path(store).rglob("*.cacnk")), [])
        url = self.serve("--config", config, "chunk-server", "-s", store)
        self.extract(self.path("f.caibx"), url, "out")
        self.assertEqual(self.read("out"), data)

    def test_tree(self) -> None:
        """It unpacks a directory tree of its own making, also by way of a server with a cache."""
        tree = self.folder / "tree"
        (tree / "sub").mkdir(parents=True)
        (tree / "sub" / "file").write_bytes(sample(400_000))
        (tree / "link").symlink_to("sub/file")
        (tree / "empty").touch()
        os.mkdir(self.path("indexes"))
        made = self.run_peer(
            *(self.casync, "make", f"--store={self.path('store')}", self.path("indexes/t.caidx")),
            str(tree),
        )
        self.assertEqual(made.returncode, 0, made.stderr)
        self.store("cache")
        chunks = self.serve("chunk-server", "-s", self.path("store"), "-c", self.path("cache"))
        indexes = self.serve("index-server", "-s", self.path("indexes"))
        for target in ("one", "two"):
            self.extract(f"{indexes}t.caidx", chunks, target)
            out = self.folder / target
            self.assertEqual((out / "sub" / "file").read_bytes(), sample(400_000))
            self.assertEqual(os.readlink(out / "link"), "sub/file")
        self.assertEqual(
            {file.chunk_id for file in self.files("cache").all_files()},
            {file.chunk_id for file in self.files("store").all_files()},
        )

    def test_missing_chunk(self) -> None:
        """A chunk that is missing makes it fail, and does the server no harm."""
        self.sample_store(sample(200_000))
        first = next(self.files("store").all_files())
        os.unlink(first.path)
        url = self.serve("chunk-server", "-s", self.path("store"))
        done = self.run_peer(
            *(self.casync, "extract", f"--store={url}", self.path("a.caibx"), self.path("out"))
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.started.stop(), 0)


class CurlTests(Case):
    """curl."""

    def setUp(self) -> None:
        super().setUp()
        self.curl = peer("curl")
        self.sample_store(sample(200_000))
        self.file = next(self.files("store").all_files())
        self.name = f"{self.file.chunk_id.hex()[:4]}/{self.file.chunk_id.hex()}.cacnk"

    def test_many_on_one_connection(self) -> None:
        """It reuses its connection, after errors too, and reads all answers."""
        url = self.serve("chunk-server", "-s", self.path("store"))
        names = [self.name, "nothing", self.name, f"0000/{'0' * 64}.cacnk", self.name]
        done = self.run_peer(
            *(self.curl, "-sS", "-w", "%{http_code} %{num_connects}\n"),
            *(part for name in names for part in ("-o", "/dev/null", url + name)),
        )
        self.assertEqual(done.stdout, b"200 1\n400 0\n200 0\n404 0\n200 0\n")

    def test_upload(self) -> None:
        """It uploads with and without waiting to be told to go on, and gets to read a refusal."""
        self.store("new")
        url = self.serve("chunk-server", "-w", "-s", self.path("new"))
        for header in ("Expect: 100-continue", "Expect:", "Transfer-Encoding: chunked"):
            put = (self.curl, "-sS", "-H", header, "-w", "%{http_code}", "-T")
            done = self.run_peer(*put, self.file.path, url + self.name)
            self.assertEqual(done.stdout, b"200", header)
        big = self.write("big", bytes(2_000_000))
        done = self.run_peer(*put, big, url + "nonsense")
        self.assertTrue(done.stdout.endswith(b"400"), done)
        [kept] = self.files("new").all_files()
        self.assertEqual(kept.chunk_id, self.file.chunk_id)

    def test_mutual_tls(self) -> None:
        """It shows a certificate of our own authority, and gets nothing without or with another."""
        openssl = peer("openssl")
        for name in ("ca", "other"):
            self.run_ok(
                *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-nodes", "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2"),
                *("-subj", f"/CN={name}"),
            )
        self.write("san", b"subjectAltName=IP:127.0.0.1")
        for name, authority in (("server", "ca"), ("client", "ca"), ("stranger", "other")):
            self.run_ok(
                *(openssl, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
                *("-subj", f"/CN={name}"),
            )
            self.run_ok(
                *(openssl, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt"),
                *("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial"),
                *("-days", "2", "-extfile", "san"),
            )
        url = self.serve(
            *("chunk-server", "-s", self.path("store")),
            *("--cert", self.path("server.crt"), "--key", self.path("server.key")),
            *("--mutual-tls", "--client-ca", self.path("ca.crt")),
        )
        self.assertTrue(url.startswith("https://127.0.0.1:"), url)
        base = (self.curl, "-sS", "--cacert", "ca.crt", "-o", "got", "-w", "%{http_code}")
        done = self.run_peer(*base, "--cert", "client.crt", "--key", "client.key", url + self.name)
        self.assertEqual((done.returncode, done.stdout), (0, b"200"), done.stderr)
        self.assertEqual(self.read("got"), Path(self.file.path).read_bytes())
        for more in ((), ("--cert", "stranger.crt", "--key", "stranger.key"), ("--tls-max", "1.1")):
            done = self.run_peer(*base, *more, url + self.name)
            self.assertEqual(done.stdout, b"000", more)
            self.assertNotEqual(done.returncode, 0)
        # Whoever doesn't know the authority doesn't talk to the server.
        done = self.run_peer(self.curl, "-sS", "-o", "got", url + self.name)
        self.assertIn(b"certificate", done.stderr)
        self.assertEqual(self.started.stop(), 0)

    def run_ok(self, *args: str) -> None:
        done = self.run_peer(*args)
        self.assertEqual(done.returncode, 0, done.stderr)
