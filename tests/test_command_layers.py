# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Commands on stores that aren't all plain local directories: with caches, failover groups, and on
other machines, for which :mod:`tests.remote_program` has stand-ins.

Each runs as a process of its own, because a reactor can't be started twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

from . import bad_chunks
from .command_case import SIZES, CommandCase, sample
from .command_line import Outcome, process_environ


class LayersCase(CommandCase):
    """A file in a store."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(300_000)
        self.file = self.sample_store(self.data)
        self.index_path = self.path("a.caibx")
        self.remote = f"http://files{self.path('store')}/"

    def command(self, *args: str) -> list[str]:
        """Give what starts a command that knows the stand-ins."""
        return [sys.executable, "-m", "tests.remote_program", *args]

    def run_remote(self, *args: str, code: int = 0) -> Outcome:
        """Run a command that knows the stand-ins."""
        done = subprocess.run(
            self.command(*args),
            capture_output=True,
            env=process_environ(),
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr.decode())
        self.assertEqual(outcome.code, code, outcome)
        return outcome

    def stored(self, name: str = "store") -> set[bytes]:
        """List the chunks in a store of the folder."""
        return {file.chunk_id for file in self.files(name).all_files()}


class CacheTests(LayersCase):
    """A cache before a store."""

    def setUp(self) -> None:
        super().setUp()
        self.store("cache")
        self.arguments = ("-s", self.path("store"), "-c", self.path("cache"), self.index_path)
        self.output = self.path("out")

    def test_fill_and_use(self) -> None:
        """What is fetched is cached as it came, and needn't be fetched again."""
        self.run_remote("extract", *self.arguments, self.output)
        self.assertEqual(self.read("out"), self.data)
        ids = self.stored("cache")
        self.assertEqual(ids, set(self.index("a.caibx").ids) - {self.index_null()})
        for chunk_id in ids:
            path = self.files("cache").path_of(chunk_id)
            stored = self.files().read(chunk_id)[0]
            self.assertEqual(self.read(os.path.relpath(path, self.folder)), stored)
            os.unlink(self.files().path_of(chunk_id))
            os.utime(path, (1000, 1000))
        os.unlink(self.output)
        outcome = self.run_remote("extract", "--print-stats", *self.arguments, self.output)
        self.assertEqual(self.read("out"), self.data)
        self.assertEqual(json.loads(outcome.out)["chunks-from-store"], len(ids))
        # Found ones are young again, for clean-up by age.
        for chunk_id in ids:
            self.assertGreater(os.stat(self.files("cache").path_of(chunk_id)).st_mtime, 1000)

    def index_null(self) -> bytes:
        """Give the id of the null chunk, which is never fetched."""
        index = self.index("a.caibx")
        return index.digest.null_id(index.sizes.max)

    def test_repair(self) -> None:
        """An invalid chunk in the cache is replaced, unless that isn't wanted."""
        start, length, chunk_id = list(self.index("a.caibx"))[7]
        plain = self.data[start : start + length]
        self.files("cache").put(chunk_id, bad_chunks.BAD["other content"](plain))
        self.write("out", b"old")
        outcome = self.run_remote(
            "extract", "--cache-repair=false", *self.arguments, self.output, code=1
        )
        self.assert_error(outcome, self.path("cache"), chunk_id.hex(), "is invalid")
        self.assertEqual(self.read("out"), b"old")
        self.run_remote("extract", *self.arguments, self.output)
        self.assertEqual(self.read("out"), self.data)
        self.assertEqual(self.files("cache").get(chunk_id).plain, plain)

    def test_cat(self) -> None:
        """cat goes through the cache as well, for the part that is wanted only."""
        index = self.index("a.caibx")
        flags = ("-o", str(index.start(5)), "-l", str(index.end(8) - index.start(5)))
        outcome = self.run_remote("cat", *flags, *self.arguments)
        self.assertEqual(outcome.out, self.data[index.start(5) : index.end(8)])
        self.assertEqual(self.stored("cache"), {index.id(position) for position in range(5, 9)})

    def test_refusals(self) -> None:
        """A cache that isn't there, and a chunk that is nowhere, are errors in one line."""
        self.write("out", b"old")
        arguments = ("-s", self.path("store"), "-c", self.path("none"), self.index_path)
        outcome = self.run_remote("extract", *arguments, self.output, code=1)
        self.assert_error(outcome, f"{self.path('none')}: No such file or directory")
        gone = self.index("a.caibx").id(3)
        os.unlink(self.files().path_of(gone))
        outcome = self.run_remote("extract", *self.arguments, self.output, code=1)
        self.assert_error(outcome, f"chunk {gone.hex()} missing from store")
        self.assertEqual(self.read("out"), b"old")
        self.assertEqual(self.leftovers(), [])


class FailoverTests(LayersCase):
    """A store with two places."""

    def test_second_place(self) -> None:
        """What fails in one place is had from the other."""
        broken = self.store("broken")
        for chunk_id in self.stored():
            # A file where a directory should be: the store is broken, the chunk isn't missing.
            self.write(f"broken/{chunk_id.hex()[:4]}", b"")
        group = f"{broken}|{self.path('store')}"
        self.run_remote("extract", "-s", group, self.index_path, self.path("out"))
        self.assertEqual(self.read("out"), self.data)
        outcome = self.run_remote("cat", "-s", broken, self.index_path, code=1)
        self.assert_error(outcome, broken, "Not a directory")

    def test_info(self) -> None:
        """Failover groups count as one store."""
        group = f"{self.store('empty')}|{self.path('store')}"
        found = json.loads(self.run_remote("info", "-s", group, self.index_path).out)
        self.assertEqual(found["in-store"], 0)
        found = json.loads(
            self.run_remote("info", "-s", group, "-s", self.path("store"), self.index_path).out
        )
        self.assertEqual(found["in-store"], found["unique"])


class CacheCommandTests(LayersCase):
    """``desync cache``."""

    def test_copies(self) -> None:
        """The chunks of all indexes are copied, but for those that are to be left out."""
        self.sample_store(sample(60_000, 1), "b.caibx")
        self.write("c", self.data[:100_000])
        self.run_command("make", "-m", SIZES, self.path("c.caibx"), self.path("c"))
        a, b, c = (set(self.index(f"{name}.caibx").ids) for name in "abc")
        listed = self.write("ids", self.index("b.caibx").id(0).hex().encode())
        flags = ("--ignore", self.path("c.caibx"), "--ignore-chunks", listed)
        both = (self.index_path, self.path("b.caibx"))
        arguments = ("-s", self.path("store"), "-c", self.store("target"), *both)
        outcome = self.run_remote("cache", *flags, *arguments)
        self.assertEqual((outcome.out, outcome.err), (b"", ""))
        self.assertEqual(self.stored("target"), (a | b) - c - {self.index("b.caibx").id(0)})
        outcome = self.run_remote("cache", "--verbose", *arguments)
        left = len(c & (a | b)) + 1
        self.assertEqual(outcome.err, f"{len(a | b)} chunks, {left} new to the target\n")
        self.assertEqual(self.stored("target"), a | b)
        self.run_command("verify", "--quiet", "-s", self.path("target"))

    def test_refusals(self) -> None:
        """What makes no sense is refused; what was copied before an error is good."""
        store, target = self.path("store"), self.store("target")
        index = self.index_path
        for args, why in (
            (("-c", target, index), "no source store provided"),
            (("-s", store, index), "no target cache store provided"),
            (("-s", store, "-c", self.path("none"), index), f"{self.path('none')}: No such file"),
            (("-s", self.path("none"), "-c", target, index), f"{self.path('none')}: No such file"),
            (("-s", store, "-c", self.path("a"), index), f"{self.path('a')}: not a directory"),
            (("-s", store, "-c", target, self.path("a")), "not an index file"),
            (("-n0", "-s", store, "-c", target, index), "--concurrency must be at least 1"),
            (("-s", store, "-c", target), "requires at least 1 arg(s)"),
            (("-s", store, "-c", "oci+http://host/x", index), "not supported by this version"),
        ):
            self.assert_error(self.run_remote("cache", *args, code=1), why)
        start, length, chunk_id = list(self.index("a.caibx"))[7]
        self.files().put(chunk_id, bad_chunks.BAD["a bit changed"](self.data[start:][:length]))
        outcome = self.run_remote("cache", "-s", store, "-c", target, index, code=1)
        self.assert_error(outcome, store, chunk_id.hex(), "is invalid")
        self.assertNotIn(chunk_id, self.stored("target"))
        self.run_command("verify", "--quiet", "-s", target)
        self.assertEqual(self.leftovers(), [])


class RemoteTests(LayersCase):
    """Stores on other machines."""

    def test_make(self) -> None:
        """A remote store gets the chunks that it doesn't have, then the index is written."""
        self.store("other")
        target = f"http://files{self.path('other')}"
        index = self.path("b.caibx")
        arguments = ("--verbose", "-m", SIZES, "-s", target, index, self.file)
        outcome = self.run_remote("make", "--print-stats", *arguments)
        self.assertEqual(self.read("b.caibx"), self.read("a.caibx"))
        self.assertEqual(self.stored("other"), self.stored())
        new = len(self.stored())
        self.assertIn(f" chunks of 300000 bytes, {new} new to the store", outcome.err)
        self.assertIn('"ChunksProduced": ', outcome.err)
        self.assertIn(", 0 new to the store", self.run_remote("make", *arguments).err)
        self.run_command("verify", "--quiet", "-s", self.path("other"))

    def test_chop(self) -> None:
        """chop stores the index's chunks there."""
        self.store("other")
        target = f"http://files{self.path('other')}"
        self.run_remote("chop", "-s", target, self.index_path, self.file)
        self.assertEqual(self.stored("other"), self.stored())
        self.write("a", self.data[:-1] + b"x")
        outcome = self.run_remote(
            "chop", "-s", f"http://files{self.store('third')}", self.index_path, self.file, code=1
        )
        self.assert_error(outcome, self.file, "of the index")

    def test_reading(self) -> None:
        """Files are built and streamed from there."""
        self.run_remote("extract", "-s", self.remote, self.index_path, self.path("out"))
        self.assertEqual(self.read("out"), self.data)
        flags = ("-o", "1000", "-l", "100000")
        outcome = self.run_remote("cat", *flags, "-s", self.remote, self.index_path)
        self.assertEqual(outcome.out, self.data[1000:101_000])
        found = self.run_remote(
            "info", "-s", self.remote, "-c", self.path("store"), self.index_path
        )
        for name in "in-store", "in-cache":
            self.assertEqual(json.loads(found.out)[name], len(self.stored()))

    def test_prune(self) -> None:
        """A remote store that can remove chunks is pruned; others are refused at once."""
        self.write("b", b"something else")
        self.run_command("make", self.path("b.caibx"), self.path("b"))
        outcome = self.run_remote("prune", "-s", self.remote, self.path("b.caibx"), code=1)
        self.assert_error(outcome, "store '", "does not support pruning")
        sftp = self.remote.replace("http", "sftp")
        arguments = ("-s", sftp, self.path("b.caibx"))
        count = len(self.stored())
        outcome = self.run_remote("prune", "--dry-run", "--min-age=0", *arguments)
        self.assertIn(f"{count} chunks would be removed", outcome.text)
        self.run_remote("prune", "-y", *arguments)
        self.assertEqual(len(self.stored()), count)
        self.run_remote("prune", "-y", "--min-age=0", *arguments)
        self.assertEqual(self.stored(), set())

    def test_failures(self) -> None:
        """A chunk that is missing there leaves the output as it was."""
        self.write("out", b"old")
        gone = self.index("a.caibx").id(3)
        os.unlink(self.files().path_of(gone))
        outcome = self.run_remote(
            "extract", "-s", self.remote, self.index_path, self.path("out"), code=1
        )
        self.assert_error(outcome, f"chunk {gone.hex()} missing from store")
        self.assertEqual(self.read("out"), b"old")
        self.assertEqual(self.leftovers(), [])

    def test_interrupts(self) -> None:
        """A signal ends what waits for a store that doesn't answer, and leaves nothing behind."""
        self.write("out", b"old")
        self.write("i", b"old")
        slow = f"http://slow{self.path('store')}"
        for number, args in (
            (signal.SIGINT, ("extract", "-s", slow, self.index_path, self.path("out"))),
            (signal.SIGTERM, ("cat", "-s", slow, self.index_path, self.path("out"))),
            (signal.SIGTERM, ("make", "-s", slow, self.path("i"), self.file)),
            (signal.SIGINT, ("cache", "-s", slow, "-c", self.path("store"), self.index_path)),
        ):
            if args[0] == "cache":
                os.unlink(self.files().path_of(self.index("a.caibx").id(0)))
            with subprocess.Popen(
                self.command(*args), stderr=subprocess.PIPE, env=process_environ()
            ) as process:
                assert process.stderr is not None
                self.assertEqual(process.stderr.readline(), b"asked\n", args)
                process.send_signal(number)
                said = process.stderr.read().replace(b"asked\n", b"")
                self.assertEqual((process.wait(60), said), (1, b"Error: interrupted\n"), args)
        self.assertEqual((self.read("out"), self.read("i")), (b"old", b"old"))
        self.assertEqual(self.leftovers(), [])
