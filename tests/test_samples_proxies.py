# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The samples for other web servers in ``etc/``, run by these, with our servers behind them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.command_case import SIZES, sample
from tests.command_line import ROOT, command
from tests.peers import peer
from tests.server_process import ServerProcess, accepts, free_port, wait_until
from tests.test_http_chains import Case

ETC = ROOT / "etc"


class ProxyCase(Case):
    """A chunk server and an index server, and a program that passes on to them."""

    def setUp(self) -> None:
        super().setUp()
        self.store("pushed")
        os.mkdir(self.path("indexes"))
        os.rename(self.path("a.caibx"), self.path("indexes/a.caibx"))
        self.chunk_server = self.serve("-w", "-s", self.path("store"), "--log", self.path("log"))
        self.index_server = ServerProcess("index-server", "-w", "-s", self.path("indexes"))
        self.addCleanup(self.index_server.kill)
        self.behind = {
            "127.0.0.1:8480": f"127.0.0.1:{self.chunk_server.port}",
            "127.0.0.1:8481": f"127.0.0.1:{self.index_server.port}",
        }

    def adapted(self, name: str, replaced: dict[str, str]) -> str:
        """Give a sample's text, with other addresses and places than it has."""
        text = (ETC / name).read_text()
        for old, new in replaced.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        return text

    def start(self, port: int, *args: str) -> None:
        """Run a program until it accepts connections, and to the end of the test."""
        with open(self.path("said"), "wb") as said:
            process = subprocess.Popen(
                args,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "HOME": str(self.folder)},
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        wait_until(lambda: accepts(port) or process.poll() is not None, args[0])
        self.assertIsNone(process.poll(), self.read("said"))

    def check_proxy(self, url: str) -> None:
        """Chunks and indexes are read and written through it."""
        store, index = f"{url}/store/", f"{url}/indexes/a.caibx"
        self.write("log", b"")
        self.desync("extract", "-s", store, index, self.path("out"))
        self.assertEqual(self.read("out"), self.data)
        # Many at once gets through too.
        self.assertIn(b"POST /chunks ", self.read("log"))
        more = self.write("more", sample(300_000, 5))
        self.desync("make", "-m", SIZES, "-s", store, f"{url}/indexes/b.caibx", more)
        self.desync("extract", "-s", self.path("store"), self.path("indexes/b.caibx"), more + "2")
        self.assertEqual(self.read("more2"), sample(300_000, 5))
        error = self.refuse("list-chunks", f"{url}/other/a.caibx")
        self.assertIn("a.caibx", error)

    def check_static(self, url: str) -> None:
        """Chunks are read from what serves them by itself, as they are stored."""
        self.chunk_server.kill()
        self.desync("extract", "-s", url, self.path("indexes/a.caibx"), self.path("out2"))
        self.assertEqual(self.read("out2"), self.data)


class NginxTests(ProxyCase):
    """nginx."""

    def run_nginx(self, name: str, replaced: dict[str, str], port: int) -> None:
        nginx = peer("nginx")
        place = Path(self.path("nginx"))
        place.mkdir()
        temporary = "".join(
            f"{kind}_temp_path {place / kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        config = place / "nginx.conf"
        config.write_text(
            f"{user} daemon off; master_process off; pid {place / 'pid'};\n"
            f"error_log {place / 'error'};\nevents {{ worker_connections 64; }}\n"
            f"http {{ {temporary} access_log off;\n{self.adapted(name, replaced)} }}\n"
        )
        self.start(port, nginx, "-p", str(place), "-c", str(config))

    def test_proxy(self) -> None:
        """Before the servers."""
        port = free_port()
        listen = {"listen 8083;": f"listen 127.0.0.1:{port};"}
        self.run_nginx("nginx/proxy.conf", {**self.behind, **listen}, port)
        self.check_proxy(f"http://127.0.0.1:{port}")

    def test_static(self) -> None:
        """In their place, for chunks and for indexes."""
        port = free_port()
        replaced = {
            "listen 8082;": f"listen 127.0.0.1:{port};",
            "root /srv/desync;": f"root {self.folder};",
        }
        self.run_nginx("nginx/static-store.conf", replaced, port)
        url = f"http://127.0.0.1:{port}"
        self.check_static(f"{url}/store")
        listed = self.desync("list-chunks", f"{url}/indexes/a.caibx")
        self.assertEqual(listed, "")
        # Nothing else in the folder is anybody's business.
        self.write("secret", b"")
        self.refuse("list-chunks", f"{url}/secret")


class CaddyTests(ProxyCase):
    """Caddy."""

    def test_caddy(self) -> None:
        """Before the servers, and in the place of one of them."""
        caddy = peer("caddy")
        port = free_port()
        site = {
            "desync.example.com {": f"http://127.0.0.1:{port} {{",
            "/srv/desync/store": self.path("store"),
        }
        text = self.adapted("caddy/Caddyfile", {**self.behind, **site})
        config = self.write("Caddyfile", f"{{\n\tadmin off\n}}\n{text}".encode())
        self.start(port, caddy, "run", "--config", config, "--adapter", "caddyfile")
        url = f"http://127.0.0.1:{port}"
        self.check_proxy(url)
        self.check_static(f"{url}/static")
        self.refuse("list-chunks", f"{url}/static/a.caibx")

    def test_valid(self) -> None:
        """The sample as it is can be used."""
        done = subprocess.run(
            [peer("caddy"), "validate", "--config", str(ETC / "caddy" / "Caddyfile")],
            capture_output=True,
            timeout=60,
            check=False,
            env={**os.environ, "HOME": str(self.folder)},
        )
        said = done.stderr.decode()
        self.assertEqual(done.returncode, 0, said)
        self.assertNotIn('"level":"warn"', said)


class SocketActivationTests(Case):
    """systemd's own way of handing over a socket, with what the units say."""

    def activate(self, unit: str, replaced: dict[str, str]) -> tuple[int, str]:
        """Have systemd listen where a unit's service is told to be, and give the port."""
        program = peer("systemd-socket-activate")
        text = (ETC / "systemd" / f"{unit}.service").read_text()
        found = re.search(r"^ExecStart=/usr/bin/env desync (.+)$", text, re.MULTILINE)
        assert found is not None
        words = [replaced.get(word, word) for word in found[1].split()]
        self.assertTrue(set(replaced.values()) <= set(words), words)
        port = free_port("::1")
        with open(self.path("said"), "wb") as said:
            process = subprocess.Popen(
                [
                    program,
                    "-l",
                    f"[::1]:{port}",
                    f"--fdname={unit}.socket",
                    *_environment(),
                    *command(*words),
                ],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=ROOT,
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        wait_until(lambda: accepts(port, "::1") or process.poll() is not None, "systemd")
        self.assertIsNone(process.poll(), self.read("said"))
        return port, f"http://[::1]:{port}/"

    def test_chunk_server(self) -> None:
        """The first connection starts the chunk server, and is served."""
        stores = self.write("stores.json", json.dumps({"stores": [self.path("store")]}).encode())
        operator = free_port()
        _, url = self.activate(
            "desync-chunk-server",
            {
                "/etc/desync/stores.json": stores,
                "127.0.0.1:9480": f"127.0.0.1:{operator}",
            },
        )
        self.extract("-s", url)
        self.assertTrue(accepts(operator))

    def test_index_server(self) -> None:
        """So it is with the index server."""
        operator = free_port()
        _, url = self.activate(
            "desync-index-server",
            {
                "/srv/desync/indexes": str(self.folder),
                "127.0.0.1:9481": f"127.0.0.1:{operator}",
            },
        )
        self.desync("list-chunks", f"{url}a.caibx")


def _environment() -> list[str]:
    # It starts programs with nothing but what it is told of.
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return [f"--setenv=PATH={os.environ.get('PATH', os.defpath)}", f"--setenv=PYTHONPATH={path}"]
