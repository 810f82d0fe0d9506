# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The programs in ``docs/examples``."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from desync import ChunkIds, read_index
from desync.formats.stored import Compressed, chunk_name

from .command_line import ROOT, desync, process_environ

EXAMPLES = ROOT / "docs" / "examples"


class ExampleTestCase(SynchronousTestCase):
    """A file, its index and its store."""

    def setUp(self) -> None:
        """Make them."""
        self.work = Path(self.mktemp()).absolute()
        self.store = self.work / "store"
        self.store.mkdir(parents=True)
        content = random.Random(1).randbytes(700_000)
        self.blob = self.work / "blob"
        self.blob.write_bytes(content + bytes(600_000) + content)
        self.index = self.work / "blob.caibx"
        made = desync("make", "-s", str(self.store), str(self.index), str(self.blob))
        self.assertEqual((0, ""), (made.code, made.err))
        self.ids: ChunkIds = read_index(str(self.index)).ids

    def example(self, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run one to its end."""
        return subprocess.run(
            [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
            cwd=self.work,
            env=process_environ(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


class ExtractTests(ExampleTestCase):
    """``extract.py``."""

    def check(self, done: subprocess.CompletedProcess[str], target: Path) -> None:
        """Make sure that it worked."""
        self.assertEqual("", done.stderr)
        self.assertEqual(0, done.returncode)
        self.assertRegex(done.stdout, r"^2000000 bytes, \d+ chunks: \d+ fetched\n$")
        self.assertEqual(self.blob.read_bytes(), target.read_bytes())

    def test_local(self) -> None:
        """It rebuilds a file from two local stores."""
        target, empty = self.work / "target", self.work / "empty"
        empty.mkdir()
        self.check(self.example("extract.py", self.index, target, empty, self.store), target)

    def test_cache(self) -> None:
        """It rebuilds a file through a cache, which then holds what was fetched."""
        target, cache, empty = (self.work / name for name in ("target", "cache", "empty"))
        cache.mkdir()
        empty.mkdir()
        arguments = (f"--cache={cache}", self.index, target)
        self.check(self.example("extract.py", *arguments, empty, self.store), target)
        target.unlink()
        self.check(self.example("extract.py", *arguments, empty), target)

    def test_missing(self) -> None:
        """A missing chunk is one line and exit code 1, and no target is left."""
        target, cache, empty = (self.work / name for name in ("target", "cache", "empty"))
        cache.mkdir()
        empty.mkdir()
        for options in ((), (f"--cache={cache}",)):
            done = self.example("extract.py", *options, self.index, target, empty)
            self.assertEqual((1, ""), (done.returncode, done.stdout))
            self.assertRegex(done.stderr, r"^Error: .*chunk [0-9a-f]{64} missing from store\n$")
            self.assertFalse(target.exists())


class OwnStoreTests(SynchronousTestCase):
    """``own_store.py``."""

    def test_contract(self) -> None:
        """Its store passes the contract tests."""
        work = Path(self.mktemp())
        work.mkdir()
        program = [sys.executable, "-m", "twisted.trial", "--reporter=text"]
        done = subprocess.run(
            [*program, str(EXAMPLES / "own_store.py")],
            cwd=work,
            env=process_environ(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"PASSED \(successes=[3-9]\d\)\n$")


class ServingTests(ExampleTestCase):
    """``serving.py``."""

    def setUp(self) -> None:
        """Start it on a free port."""
        super().setUp()
        self.process = subprocess.Popen(
            [
                *(sys.executable, str(EXAMPLES / "serving.py"), str(self.store)),
                "tcp:0:interface=127.0.0.1",
            ],
            env=process_environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.stop)
        assert self.process.stdout is not None
        started = self.process.stdout.readline()
        self.assertRegex(started, r"^serving .* port=\d+\)$")
        self.port = int(started.rpartition("port=")[2].rstrip(")\n"))

    def stop(self) -> str:
        """Stop it as a service manager would, and give what it said on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=60)[1]

    def request(self, method: str, path: str) -> tuple[int, bytes]:
        """Make one request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    def test_chunks(self) -> None:
        """Each chunk is had, compressed; what isn't one isn't there; a broken one stays."""
        form = Compressed()
        for chunk_id in set(self.ids):
            status, body = self.request("GET", "/" + chunk_name(chunk_id, ".cacnk"))
            self.assertEqual(200, status)
            stored = (self.store / chunk_name(chunk_id, ".cacnk")).read_bytes()
            self.assertEqual(form.decode(stored, 1 << 20), form.decode(body, 1 << 20))
        name = chunk_name(self.ids[0], ".cacnk")
        self.assertEqual((200, b""), self.request("HEAD", "/" + name))
        for path in ("/", "/x", "/0000/" + name[5:], "/" + chunk_name(bytes(32), ".cacnk")):
            self.assertEqual((404, b""), self.request("GET", path))
        (self.store / name).write_bytes(form.encode(b"something else"))
        self.assertEqual((500, b""), self.request("GET", "/" + name))
        self.assertRegex(self.stop(), f"^.*chunk {self.ids[0].hex()} is invalid: .*\n$")

    def test_stops(self) -> None:
        """SIGTERM ends it, quietly."""
        self.assertEqual("", self.stop())
        # Newer versions of Twisted end by the signal itself.
        self.assertIn(self.process.returncode, (0, -signal.SIGTERM))


class LargeFilesTests(ExampleTestCase):
    """``large_files.py``."""

    def test_largest(self) -> None:
        """The largest files are listed, the largest first, and as many as were asked for."""
        tree = self.work / "tree"
        (tree / "sub").mkdir(parents=True)
        for name, size in (("a", 5), ("sub/b", 700), ("sub/c", 70), ("d", 1)):
            (tree / name).write_bytes(bytes(size))
        archive = self.work / "tree.catar"
        packed = desync("tar", str(archive), str(tree))
        self.assertEqual((0, ""), (packed.code, packed.err))
        done = self.example("large_files.py", archive, 3)
        self.assertEqual(("700 sub/b\n70 sub/c\n5 a\n", ""), (done.stdout, done.stderr))
