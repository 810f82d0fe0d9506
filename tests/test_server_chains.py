# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Servers behind servers, with our own command at the end."""

from __future__ import annotations

import json

from tests.command_line import desync_process
from tests.server_process import wait_until
from tests.test_server_process import Case


class ChainTests(Case):
    """A server that passes on what another has."""

    def extract(self, url: str, index: str | None = None, *more: str) -> bytes:
        target = self.path("out")
        args = ("extract", "-e", "1", *more, "-s", url, index or self.path("a.caibx"), target)
        self.run_process(*args)
        return self.read("out")

    def run_process(self, *args: str) -> None:
        outcome = desync_process(*args)
        self.assertEqual((outcome.code, outcome.err), (0, ""), outcome)

    def test_proxy_with_cache(self) -> None:
        """What went through the cache is served without the first server."""
        first = self.server("chunk-server", "-s", self.path("store"), "--authorization", "Bearer x")
        options = {"store-options": {first.url: {"http-auth": "Bearer x"}}}
        config = self.write("config.json", json.dumps(options).encode())
        self.store("cache")
        second = self.server(
            *("--config", config, "chunk-server", "-e", "1", "-s", first.url),
            *("-c", self.path("cache")),
        )
        third = self.server("chunk-server", "-u", "-s", second.url)
        self.assertEqual(self.extract(second.url), self.data)
        self.assertEqual({file.chunk_id for file in self.files("cache").all_files()}, self.chunks)
        self.assertEqual(first.stop(), 0)
        self.assertEqual(self.extract(second.url), self.data)
        # What isn't in the cache can't be had now, and the reason stays with the servers.
        code, said = self.fetch(second.port, self.path_of(bytes(32)))
        self.assertEqual((code, said), (500, b"internal server error\n"))
        wait_until(lambda: "failed to retrieve chunk" in second.said, "the reason")
        self.assertNotIn("Bearer", second.said)
        # In another form, too.
        uncompressed = {"store-options": {third.url: {"uncompressed": True}}}
        plain = self.write("plain.json", json.dumps(uncompressed).encode())
        self.run_process(
            *("--config", plain, "extract", "-s", third.url, self.path("a.caibx")),
            self.path("plain"),
        )
        self.assertEqual(self.read("plain"), self.data)

    def test_failover(self) -> None:
        """A group of servers is one store: when one ends, the other is asked."""
        servers = [self.server("chunk-server", "-s", self.path("store")) for _ in range(2)]
        urls = [server.url for server in servers]
        front = self.server("chunk-server", "-e", "1", "-s", "|".join(urls))
        self.assertEqual(self.extract(front.url), self.data)
        servers[0].kill()
        self.assertEqual(self.extract(front.url), self.data)

    def test_make_through(self) -> None:
        """A file is made into stores behind servers, chunks and index, and rebuilt from there."""
        self.store("new")
        self.store("indexes")
        chunks = self.server("chunk-server", "-w", "-s", self.path("new"))
        indexes = self.server("index-server", "-w", "-s", self.path("indexes"))
        front = self.server("chunk-server", "-w", "-s", chunks.url)
        before = self.server("index-server", "-w", "-s", indexes.url)
        index = f"{before.url}b.caibx"
        self.run_process("make", "-m", "1:4:16", "-s", front.url, index, self.path("a"))
        self.assertEqual({file.chunk_id for file in self.files("new").all_files()}, self.chunks)
        self.assertEqual(self.read("indexes/b.caibx"), self.read("a.caibx"))
        self.assertEqual(self.extract(front.url, index), self.data)
        self.assertEqual(self.fetch(before.port, "/none.caibx")[0], 404)
