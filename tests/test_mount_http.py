# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync mount-index`` over our own HTTP servers, which end, return, and hold bad chunks."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

from .mounts import Mounted
from .server_process import ServerProcess
from .test_mount_index import SIZE, MountCase

ONE_TRY = ("-e", "1", "-b", "1ms")


class HttpCase(MountCase):
    """A chunk server with the sample's chunks."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve("store")

    def serve(self, store: str, *more: str, listen: str = "127.0.0.1:0") -> ServerProcess:
        """Start a chunk server of a store in the folder."""
        server = ServerProcess("chunk-server", "-s", self.path(store), *more, listen=listen)
        self.addCleanup(server.kill)
        return server

    def mount_url(self, *more: str) -> Mounted:
        """Mount the sample with the server's chunks, each asked for once."""
        return Mounted(
            "-s",
            self.server.url,
            *ONE_TRY,
            *more,
            self.path("a.caibx"),
            mountpoint=self.mountpoint,
        )


class ReadingTests(HttpCase):
    """Servers that are as they should be."""

    def test_whole(self) -> None:
        """cmp finds the blob, though chunks and index are on servers and nothing is local."""
        os.mkdir(self.path("indexes"))
        os.rename(self.path("a.caibx"), self.path("indexes/a.caibx"))
        indexes = ServerProcess("index-server", "-s", self.path("indexes"))
        self.addCleanup(indexes.kill)
        with Mounted(
            "-s", self.server.url, f"{indexes.url}a.caibx", mountpoint=self.mountpoint
        ) as mounted:
            subprocess.run(["cmp", mounted.file, self.file], check=True, timeout=60)
            self.assertEqual(mounted.end(), (0, b"", ""))
        self.assert_unmounted()

    def test_cache(self) -> None:
        """What was read is in the cache, from which the next mount is served without the server."""
        self.store("cache")
        with self.mount_url("-c", self.path("cache")) as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
        self.server.stop()
        with self.mount_url("-c", self.path("cache")) as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertEqual(mounted.end(), (0, b"", ""))

    def test_kept(self) -> None:
        """With a file that keeps what was read, the next mount needs no server for that."""
        keep = ("--cor-file", self.path("kept"), "--cor-state-save", self.path("state"))
        with self.mount_url(*keep) as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertEqual(mounted.end(), (0, b"", ""))
        self.assertEqual(self.read("kept"), self.data)
        self.server.stop()
        with self.mount_url(*keep) as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)


class FaultTests(HttpCase):
    """Servers that aren't."""

    def test_ends_and_returns(self) -> None:
        """While the server is away reading fails with a line; when it is back it goes on."""
        with self.mount_url() as mounted, open(mounted.file, "rb", buffering=0) as file:
            self.assertEqual(os.pread(file.fileno(), 100, 0), self.data[:100])
            self.server.kill()
            error = self.assertRaises(OSError, os.pread, file.fileno(), 100, SIZE)
            self.assertEqual(error.errno, errno.EIO)
            mounted.wait_until(lambda: bool(mounted.lines))
            self.assertIn(self.server.url, mounted.lines[0])
            self.server = self.serve("store", listen=f"127.0.0.1:{self.server.port}")
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertEqual(mounted.end().code, 0)
        self.assert_unmounted()

    def test_killed_under_load(self) -> None:
        """A server that is killed while many read, and returns, costs errors, never wrong bytes."""
        wrong: list[int] = []
        failed: list[int] = []
        done = threading.Event()

        def read(path: Path, step: int) -> None:
            with open(path, "rb", buffering=0) as file:
                while not done.is_set():
                    for offset in range(0, len(self.data), step):
                        try:
                            found = os.pread(file.fileno(), 5000, offset)
                        except OSError:
                            failed.append(offset)
                            done.wait(0.01)
                            continue
                        # The kernel gives what it has before a page that can't be read.
                        if found != self.data[offset : offset + len(found)]:
                            wrong.append(offset)

        with self.mount_url() as mounted:
            readers = [
                threading.Thread(target=read, args=(mounted.file, 40_000 + 7919 * number))
                for number in range(6)
            ]
            for reader in readers:
                reader.start()
            self.server.kill()
            port = self.server.port
            try:
                mounted.wait_until(lambda: bool(failed))
                self.server = self.serve("store", listen=f"127.0.0.1:{port}")
                done.wait(0.3)
            finally:
                done.set()
                for reader in readers:
                    reader.join()
            self.assertEqual(wrong, [])
            self.assertEqual(mounted.file.read_bytes(), self.data)

    def test_bad_chunk(self) -> None:
        """A chunk that is bad on the server is an error, until it has been put right there."""
        start, _, chunk_id = list(self.index("a.caibx"))[30]
        path = Path(self.files().path_of(chunk_id))
        good = path.read_bytes()
        path.write_bytes(self.files().form.encode(b"something else"))
        with self.mount_url() as mounted, open(mounted.file, "rb", buffering=0) as file:
            error = self.assertRaises(OSError, os.pread, file.fileno(), 100, start)
            self.assertEqual(error.errno, errno.EIO)
            mounted.wait_until(lambda: bool(mounted.lines))
            self.assertIn(chunk_id.hex(), mounted.said)
            path.write_bytes(good)
            self.assertEqual(os.pread(file.fileno(), 100, start), self.data[start : start + 100])

    def test_ended_while_it_waits(self) -> None:
        """The command ends when it is told to, also while it waits for a server that hangs."""
        with self.mount_url() as mounted:
            os.kill(self.server.process.pid, signal.SIGSTOP)
            try:
                reader = subprocess.Popen(
                    ["dd", f"if={mounted.file}", "of=/dev/null", "status=none"],
                    stderr=subprocess.DEVNULL,
                )
                threading.Event().wait(0.3)
                self.assertEqual(mounted.end(), (0, b"", ""))
                self.assertNotEqual(reader.wait(60), 0)
            finally:
                os.kill(self.server.process.pid, signal.SIGCONT)
        self.assert_unmounted()


class ReloadTests(HttpCase):
    """``--store-file``, and SIGHUP."""

    def setUp(self) -> None:
        super().setUp()
        self.stores = Path(self.path("stores.json"))

    def name_stores(self, *stores: str, cache: str | None = None) -> None:
        """Write the store file."""
        self.stores.write_text(json.dumps({"stores": stores, "cache": cache}))

    def mount_stores(self, *more: str) -> Mounted:
        """Mount the sample with the stores of the file."""
        return Mounted(
            "--store-file",
            str(self.stores),
            *ONE_TRY,
            *more,
            self.path("a.caibx"),
            mountpoint=self.mountpoint,
        )

    def hang_up(self, mounted: Mounted) -> str:
        """Send SIGHUP, and give what the command says to that."""
        said = len(mounted.lines)
        mounted.process.send_signal(signal.SIGHUP)
        mounted.wait_until(lambda: len(mounted.lines) > said)
        return mounted.lines[-1]

    def test_other_store(self) -> None:
        """After SIGHUP chunks come from the stores that the file names then."""
        self.name_stores(self.server.url)
        with self.mount_stores() as mounted, open(mounted.file, "rb", buffering=0) as file:
            self.assertEqual(os.pread(file.fileno(), 100, 0), self.data[:100])
            self.server.kill()
            self.assertRaises(OSError, os.pread, file.fileno(), 100, SIZE)
            mounted.wait_until(lambda: bool(mounted.lines))
            self.store("cache")
            self.name_stores(self.path("store"), cache=self.path("cache"))
            self.assertIn(f"reloaded {self.stores}", self.hang_up(mounted))
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertTrue(os.listdir(self.path("cache")))
            self.assertEqual(mounted.end().code, 0)
        self.assert_unmounted()

    def test_bad_file(self) -> None:
        """A file that can't be used is a line, and the stores stay as they are."""
        self.name_stores(self.server.url)
        with self.mount_stores() as mounted:
            for content in ("nonsense", '{"stores": []}', '{"stores": ["/no/such/store"]}'):
                self.stores.write_text(content)
                self.assertIn("failed to reload configuration: ", self.hang_up(mounted))
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertEqual(mounted.end().code, 0)

    def test_under_load(self) -> None:
        """Reloading again and again while somebody reads disturbs nobody."""
        self.name_stores(self.server.url)
        locations = (self.path("store"), self.server.url)
        with self.mount_stores("--cor-file", self.path("kept")) as mounted:
            reader = subprocess.Popen(["cmp", mounted.file, self.file])
            for number in range(10):
                self.name_stores(locations[number % 2])
                self.assertIn("reloaded", self.hang_up(mounted))
            self.assertEqual(reader.wait(60), 0)
            self.assertEqual(mounted.end().code, 0)
            self.assertTrue(all("reloaded" in line for line in mounted.lines), mounted.said)
