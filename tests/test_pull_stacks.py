# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
``twistd desync-pull`` in front of stores on other machines, and pushes that overlap; with casync as
the client.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from .server_process import ServerProcess, wait_until
from .test_pull_service import PullServiceCase

_RELAY = Path(__file__).with_name("casync_relay.py")


class FrontTests(PullServiceCase):
    """Chunks and indexes come from servers of HTTP."""

    def exports(self) -> dict[str, Any]:
        store = str(self.served / "default.castr")
        self.chunks = ServerProcess("chunk-server", "-s", store)
        self.addCleanup(self.chunks.kill)
        indexes = ServerProcess("index-server", "-w", "-s", str(self.served))
        self.addCleanup(indexes.kill)
        pushed = ServerProcess("chunk-server", "-w", "-s", self.store("pushed"))
        self.addCleanup(pushed.kill)
        cache = self.store("cache")
        nowhere = self.store("nowhere")
        return {
            "os": {"stores": [nowhere, self.chunks.url], "indexes": indexes.url, "cache": cache},
            "bare": {"stores": [self.chunks.url], "indexes": indexes.url},
            "new": {"stores": [pushed.url], "indexes": indexes.url},
        }

    def users(self) -> dict[str, Any]:
        return {"alice": {"read": ["os", "bare"], "write": ["new"]}}

    def test_blob(self) -> None:
        """casync rebuilds an image through a route with a cache, then from the cache alone."""
        self.casync("extract", "server:bare/v1.caibx", "out1")
        self.casync("extract", "server:os/v1.caibx", "out2")
        for name in ("out1", "out2"):
            self.assertEqual(self.read(name), self.data)
        self.chunks.stop()
        self.casync("extract", "server:os/v1.caibx", "out3")
        self.assertEqual(self.read("out3"), self.data)

    def test_failing(self) -> None:
        """casync is told when a store fails, without where it is; the log says that."""
        url = self.chunks.url
        self.chunks.stop()
        outcome = self.casync("extract", "server:bare/v1.caibx", "out", code=1)
        self.assertNotIn(url.rstrip("/"), outcome.err)
        self.assertFalse((self.folder / "out").exists())
        self.assertEqual(self.server.count_logged(r"alice 127.0.0.1 pull bare/v1.caibx.*http"), 1)
        self.assertFalse(self.server.logged("Traceback|Unhandled"))

    def test_push(self) -> None:
        """casync pushes a tree to stores of HTTP, lists and unpacks it."""
        tree = self.folder / "tree"
        tree.mkdir()
        (tree / "large").write_bytes(self.data[: 1 << 20])
        self.casync("make", "server:new/t.caidx", str(tree))
        self.assertIn(b"large", self.casync("list", "server:new/t.caidx").out)
        self.casync("extract", "server:new/t.caidx", "out")
        self.assertEqual(self.read("out/large"), self.data[: 1 << 20])
        self.assertTrue((self.served / "t.caidx").exists())


class OverlapTests(PullServiceCase):
    """Chunks travel while the client still makes its index."""

    def test_casync(self) -> None:
        """casync sends chunks, and the server takes them, before it has sent its index's end."""
        log = self.path("frames")
        relay = self.folder / "relay"
        relay.write_text(
            f'#!/bin/sh\nexec {sys.executable} {_RELAY} {self.server.program} {log} "$@"\n'
        )
        relay.chmod(0o755)
        self.server.program = str(relay)
        changed = os.urandom(1 << 20) + self.data
        self.write("changed", changed)
        self.casync("make", "server:os/v2.caibx", "changed")
        names = Path(log).read_text().split()
        self.assertEqual(names[0], "HELLO")
        self.assertIn("INDEX_EOF", names)
        self.assertIn("CHUNK", names)
        wait_until((self.served / "v2.caibx").exists, "the index")
        store = str(self.served / "default.castr")
        out = self.run_command("cat", "-s", store, str(self.served / "v2.caibx")).out
        self.assertEqual(out, changed)
