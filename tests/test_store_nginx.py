# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Stores and indexes on nginx, which knows nothing of chunks: read, redirected, and written to."""

from __future__ import annotations

import os
import socket
import subprocess
import time

from .command_case import SIZES
from .command_line import desync_process
from .peers import peer
from .server_process import PATIENCE
from .test_command_http import HTTPCase


def free_port() -> int:
    """Find a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class NginxTests(HTTPCase):
    """A web server that knows nothing of chunks."""

    def start(self, port: int, *args: str) -> None:
        """Start a program, and wait until it listens."""
        with open(self.path("said"), "wb") as said:
            process = subprocess.Popen(
                args, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=self.folder
            )

        def stop() -> None:
            process.terminate()
            process.wait(PATIENCE)

        self.addCleanup(stop)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    self.fail(f"{args[0]}: {self.read('said')!r}")
                time.sleep(0.02)
            else:
                return

    def start_nginx(self, location: str) -> str:
        """Start one whose root is the folder, and give its URL."""
        nginx = peer("nginx")
        port = free_port()
        os.makedirs(self.path("temp"), exist_ok=True)
        user = "user root;" if os.geteuid() == 0 else ""
        temporary = " ".join(
            f"{kind}_temp_path temp/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = f"""
            daemon off; master_process off; pid nginx.pid; error_log error.log; {user}
            events {{ worker_connections 64; }}
            http {{
                access_log access.log; {temporary}
                server {{
                    listen 127.0.0.1:{port}; root {self.folder}; keepalive_requests 20;
                    absolute_redirect off;
                    location /old/ {{ rewrite ^/old/(.*)$ /store/$1 redirect; }}
                    location / {{ {location} }}
                }}
            }}
        """
        path = self.write("nginx.conf", config.encode())
        self.start(port, nginx, "-p", str(self.folder), "-c", path)
        return f"http://127.0.0.1:{port}/"

    def test_read(self) -> None:
        """The files of a store are a store, with an index beside it, also through redirects."""
        url = self.start_nginx("")
        for store in "store", "old":
            self.ok("extract", "-s", f"{url}{store}", f"{url}a.caibx", self.path("out"))
            self.assertEqual(self.read("out"), self.data)
            os.unlink(self.path("out"))
        posts = [line for line in self.read("access.log").splitlines() if b'"POST ' in line]
        self.assertEqual(len(posts), 2)

    def test_missing(self) -> None:
        """What isn't there is missing, and asked of the next store."""
        url = self.start_nginx("")
        lost = self.index("a.caibx").id(3)
        self.store("second")
        os.rename(self.files().path_of(lost), self._make_place(self.files("second").path_of(lost)))
        arguments = (self.path("a.caibx"), self.path("out"))
        outcome = desync_process("extract", "-s", f"{url}store", *arguments)
        self.assert_error(outcome, f"chunk {lost.hex()} missing")
        self.ok("extract", "-s", f"{url}store", "-s", f"{url}second", *arguments)
        self.assertEqual(self.read("out"), self.data)

    def _make_place(self, path: str) -> str:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def test_write(self) -> None:
        """One that takes uploads (WebDAV) is a store and a place for indexes to be written to."""
        url = self.start_nginx(
            "dav_methods PUT; create_full_put_path on; client_max_body_size 100m;"
        )
        for _ in range(2):
            self.ok("make", "-m", SIZES, "-s", f"{url}new", f"{url}new/n.caibx", self.file)
        self.assertEqual(self.read("new/n.caibx"), self.read("a.caibx"))
        self.ok("extract", "-s", f"{url}new", f"{url}new/n.caibx", self.path("out"))
        self.assertEqual(self.read("out"), self.data)
