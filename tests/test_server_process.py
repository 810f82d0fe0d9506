# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Chunk servers as processes: signals, reloading under load, logs, and ``twistd``."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import threading

from tests.command_case import CommandCase, sample
from tests.server_process import ServerProcess, twistd, wait_until


class Case(CommandCase):
    """A store with the chunks of a file, and servers."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(300_000)
        self.sample_store(self.data)
        self.chunks = {chunk_id for _, _, chunk_id in self.index("a.caibx")}

    def server(self, *args: str, **more: object) -> ServerProcess:
        server = ServerProcess(*args, **more)  # type: ignore[arg-type]
        self.addCleanup(server.kill)
        return server

    def path_of(self, chunk_id: bytes) -> str:
        text = chunk_id.hex()
        return f"/{text[:4]}/{text}.cacnk"

    def fetch(self, port: int, path: str, method: str = "GET", **more: object) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(method, path, **more)  # type: ignore[arg-type]
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def assert_serves(self, port: int) -> None:
        """Each chunk is served as it is stored."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.addCleanup(connection.close)
        for chunk_id in self.chunks:
            connection.request("GET", self.path_of(chunk_id))
            answer = connection.getresponse()
            stored = (self.folder / "store" / self.path_of(chunk_id)[1:]).read_bytes()
            self.assertEqual((answer.status, answer.read()), (200, stored))


class ServerTests(Case):
    """A server's life."""

    def test_life(self) -> None:
        """It serves, logs, finishes what runs when it is told to end, and exits with 0."""
        server = self.server("chunk-server", "-s", self.path("store"), "--log", self.path("log"))
        self.assert_serves(server.port)
        waiting = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.addCleanup(waiting.close)
        self.assertEqual(self.fetch(server.port, "/x")[0], 400)
        self.assertEqual(server.stop(), 0)
        self.assertEqual(waiting.recv(1), b"")
        self.assertEqual(server.said, f"listening on {server.url}\n")
        lines = self.read("log").decode().splitlines()
        self.assertEqual(len(lines), len(self.chunks) + 1)
        self.assertRegex(
            lines[-1],
            r'^127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}(:\d\d){3} [+-]\d{4}\] "GET /x HTTP/1\.1" 400 \d+'
            r' "-" "-"$',
        )

    def test_interrupt(self) -> None:
        """SIGINT ends it too; the second of two listeners that can't be had ends it at once."""
        server = self.server("chunk-server", "-s", self.path("store"))
        with self.assertRaisesRegex(AssertionError, "Error: can't listen at .*in use"):
            self.server(
                *("chunk-server", "-s", self.path("store"), "-l", "127.0.0.1:0"),
                listen=f"127.0.0.1:{server.port}",
            )
        self.assertEqual(server.stop(signal.SIGINT), 0)

    def test_unix_and_json(self) -> None:
        """It listens on a socket of the file system, and logs as JSON to stderr."""
        path = self.path("socket")
        server = self.server(
            *("chunk-server", "-s", self.path("store"), "--log", "-", "--log-format", "json"),
            listen=f"unix:{path}",
        )
        self.assertEqual(server.url, f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(b'GET /"x\x7f HTTP/1.0\r\nUser-Agent: a"b\xff\r\n\r\n')
            self.assertTrue(connection.recv(1 << 16).startswith(b"HTTP/1.1 400 "))
        self.assertEqual(server.stop(), 0)
        event = json.loads(server.said.splitlines()[-1])
        self.assertEqual((event["status"], event["method"], event["client"]), (400, "GET", "-"))
        self.assertEqual((event["uri"], event["agent"]), ("/\\x22x\\x7f", "a\\x22b\\xff"))
        self.assertFalse(os.path.exists(path))

    def test_reload_under_load(self) -> None:
        """SIGHUP changes the stores while requests run, none of which fails; bad files don't."""
        self.store("other")
        file = self.path("stores.json")

        def write(content: object) -> None:
            with open(file, "w") as out:
                json.dump(content, out)

        both = [self.path("other"), self.path("store")]
        write({"stores": both})
        server = self.server("chunk-server", "--store-file", file, "--log", self.path("log"))
        wrong: list[object] = []
        asked = [0]
        done = threading.Event()

        def ask() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            try:
                while not done.is_set():
                    for chunk_id in self.chunks:
                        connection.request("GET", self.path_of(chunk_id))
                        answer = connection.getresponse()
                        if answer.status != 200 or not answer.read():
                            wrong.append(answer.status)
                        asked[0] += 1
            except Exception as error:
                wrong.append(error)
            finally:
                connection.close()

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        try:
            for turn in range(1, 9):
                if turn % 4 == 0:
                    write({"stores": ["/nonexistent"]})
                elif turn % 2:
                    write({"stores": both[1:], "cache": both[0]})
                else:
                    write({"stores": both})
                before = asked[0]
                server.send_signal(signal.SIGHUP)
                self.wait_for(server, "reload", turn)
                self.wait_for_more(asked, before + 20)
            # The last good file names a cache. What it lacked is put there.
            wait_until(
                lambda: {file.chunk_id for file in self.files("other").all_files()} == self.chunks,
                "all chunks in the cache",
            )
        finally:
            done.set()
            for thread in asking:
                thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual(server.said.count("failed to reload configuration: /nonexistent"), 2)
        self.assertEqual(server.said.count(f"reloaded {file}: "), 6)
        self.assertEqual({file.chunk_id for file in self.files("other").all_files()}, self.chunks)
        self.assertEqual(server.stop(), 0)

    def wait_for(self, server: ServerProcess, text: str, times: int) -> None:
        wait_until(lambda: server.said.count(text) == times, text)

    def wait_for_more(self, count: list[int], than: int) -> None:
        wait_until(lambda: count[0] > than, "requests")

    def test_moved_log(self) -> None:
        """After SIGHUP a log that was moved away is made anew."""
        server = self.server("chunk-server", "-s", self.path("store"), "--log", self.path("log"))
        self.fetch(server.port, "/one")
        os.rename(self.path("log"), self.path("log.1"))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: os.path.exists(self.path("log")), "the new log")
        self.fetch(server.port, "/two")
        self.assertEqual(server.stop(), 0)
        self.assertIn(b"/one", self.read("log.1"))
        self.assertIn(b"/two", self.read("log"))

    def test_authorization(self) -> None:
        """It wants to see what the environment says."""
        server = self.server(
            "chunk-server", "-s", self.path("store"), environ={"DESYNC_HTTP_AUTH": "Bearer abc"}
        )
        path = self.path_of(min(self.chunks))
        self.assertEqual(self.fetch(server.port, path)[0], 401)
        code, _ = self.fetch(server.port, path, headers={"Authorization": "Bearer abc"})
        self.assertEqual(code, 200)

    def test_upload(self) -> None:
        """What is put into a server is in its store, and only if it is right."""
        self.store("new")
        server = self.server("chunk-server", "-w", "-s", self.path("new"))
        for chunk_id in self.chunks:
            stored = (self.folder / "store" / self.path_of(chunk_id)[1:]).read_bytes()
            code, _ = self.fetch(server.port, self.path_of(chunk_id), "PUT", body=stored)
            self.assertEqual(code, 200)
        code, said = self.fetch(server.port, self.path_of(bytes(32)), "PUT", body=stored)
        self.assertEqual(code, 400, said)
        self.assertEqual({file.chunk_id for file in self.files("new").all_files()}, self.chunks)
        self.assertEqual(self.leftovers("new"), [])


class TwistdTests(Case):
    """The server under ``twistd``."""

    def test_twistd(self) -> None:
        """It serves, and ends at a signal."""
        os.mkdir(self.path("cwd"))
        server = self.server(
            *("desync-chunk-server", "-s", self.path("store")),
            listen="tcp:0:interface=127.0.0.1",
            program=twistd(),
            cwd=self.path("cwd"),
        )
        self.assert_serves(server.port)
        # It ends itself by the signal that it got, once all is done.
        self.assertEqual(server.stop(), -signal.SIGTERM)
        self.assertIsNone(re.search("Traceback|Unhandled", server.said), server.said)
