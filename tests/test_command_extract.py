# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync extract`` on local stores."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
from typing import Any

from desync.chunking.digests import SHA512_256
from desync.formats.index import IndexBuilder, IndexSizes
from desync.workers import pool as pool_module

from . import bad_chunks, bad_indexes
from .command_case import SIZES, CommandCase, as_nobody, sample
from .command_line import desync, desync_process


class ExtractTests(CommandCase):
    """What it builds."""

    def extract(self, *args: str, index: str = "a.caibx", **more: Any) -> bytes:
        """Extract a file, and give its content."""
        arguments = ("-s", self.path("store"), self.path(index), self.path("out"))
        self.run_command("extract", *args, *arguments, **more)
        return self.read("out")

    def test_content(self) -> None:
        """The file comes back, in the mode of any new file, and nothing else appears."""
        data = sample(300_000)
        self.sample_store(data)
        self.assertEqual(self.extract(), data)
        mask = os.umask(0)
        os.umask(mask)
        self.assertEqual(stat.S_IMODE(os.stat(self.path("out")).st_mode), 0o666 & ~mask)
        self.assertEqual(self.leftovers(), [])

    def test_workers(self) -> None:
        """A file that several processes build is the same."""
        data = sample(9 << 20) + bytes(4 << 20) + sample(3 << 20)
        path = self.write("a", data)
        self.run_command("make", "-s", self.store(), self.path("a.caibx"), path)
        self.assertEqual(self.extract(), data)
        self.assertLess(os.stat(self.path("out")).st_blocks * 512, len(data) - (3 << 20))

    def test_empty(self) -> None:
        """An empty file comes back too, and its figures are all zero."""
        self.sample_store(b"")
        self.assertEqual(self.extract(), b"")
        arguments = ("-s", self.path("store"), self.path("a.caibx"), self.path("out"))
        stats = json.loads(self.run_command("extract", "--print-stats", *arguments).out)
        self.assertEqual(set(stats.values()), {0})

    def test_existing(self) -> None:
        """What was there is replaced as a whole, and keeps its mode and its links."""
        self.sample_store(b"new content")
        self.write("real", sample(100_000))
        os.chmod(self.path("real"), 0o640)
        os.symlink("real", self.path("out"))
        before = open(self.path("real"), "rb")  # noqa: SIM115
        self.addCleanup(before.close)
        self.assertEqual(self.extract(), b"new content")
        self.assertTrue(os.path.islink(self.path("out")))
        self.assertEqual(stat.S_IMODE(os.stat(self.path("real")).st_mode), 0o640)
        self.assertEqual(before.read(), sample(100_000))

    def test_stdin(self) -> None:
        """A dash reads the index from stdin."""
        self.sample_store(sample(10_000))
        index = self.read("a.caibx")
        arguments = ("-s", self.path("store"), "-", self.path("out"))
        self.run_command("extract", *arguments, stdin=index)
        self.assertEqual(self.read("out"), sample(10_000))

    def test_several_stores(self) -> None:
        """What one store doesn't have the next one is asked for, however they are given."""
        self.sample_store(sample(50_000))
        self.store("first")
        for file in list(self.files().all_files())[::2]:
            there = self.files("first").path_of(file.chunk_id)
            os.makedirs(os.path.dirname(there), exist_ok=True)
            os.rename(file.path, there)
        first, second = self.path("first"), self.path("store")
        for flags in (("-s", first, "-s", second), ("--store", f"{second},{first}")):
            self.run_command("extract", *flags, self.path("a.caibx"), self.path("out"))
            self.assertEqual(self.read("out"), sample(50_000))

    def test_other_form(self) -> None:
        """A chunk that is there in the other form only is found."""
        self.sample_store(sample(20_000))
        options = json.dumps({"store-options": {self.path("store"): {"uncompressed": True}}})
        config = self.write("config", options.encode())
        self.assertEqual(self.extract("--config", config), sample(20_000))

    def test_skip_verify(self) -> None:
        """A store that is configured to be trusted isn't checked."""
        self.sample_store(sample(20_000))
        start, length, chunk_id = list(self.index("a.caibx"))[1]
        self.files().put_plain(chunk_id, bytes(length))
        options = json.dumps({"store-options": {self.path("store"): {"skip-verify": True}}})
        config = self.write("config", options.encode())
        data = sample(20_000)
        wrong = data[:start] + bytes(length) + data[start + length :]
        self.assertEqual(self.extract("--config", config), wrong)

    def test_print_stats(self) -> None:
        """The figures are JSON on stdout, under Go desync's names and in its order."""
        self.sample_store(sample(100_000) + sample(100_000) + bytes(100_000))
        arguments = ("-s", self.path("store"), self.path("a.caibx"), self.path("out"))
        outcome = self.run_command("extract", "--print-stats", *arguments)
        stats = json.loads(outcome.out)
        index = self.index("a.caibx")
        null = sum(1 for chunk_id in index.ids if chunk_id == SHA512_256.null_id(16384))
        self.assertEqual(
            list(stats),
            [
                "chunks-from-seeds",
                "chunks-from-store",
                "chunks-in-place",
                "bytes-copied-from-seeds",
                "bytes-cloned-from-seeds",
                "blocksize",
                "bytes-total",
                "chunks-total",
                "seeds",
            ],
        )
        self.assertGreater(null, 3)
        self.assertEqual(stats["chunks-from-seeds"], null)
        self.assertEqual(stats["chunks-from-store"], len(index.ids.sorted_unique()) - 1)
        unique = sum(length for length in {i: length for _, length, i in index}.values())
        copied = 300_000 - unique - (null - 1) * 16384
        self.assertGreater(copied, 50_000)
        self.assertEqual(stats["bytes-copied-from-seeds"], copied)
        self.assertEqual((stats["bytes-total"], stats["chunks-total"]), (300_000, len(index)))
        self.assertEqual(stats["blocksize"], os.stat(self.path("out")).st_blksize)
        self.assertEqual(stats["seeds"], 1)
        self.assertTrue(outcome.text.startswith('{\n  "chunks-from-seeds": '))

    def test_progress_lines(self) -> None:
        """Progress has the form that scripts for Go desync read."""
        self.sample_store(sample(5_000))
        outcome = desync(
            *("extract", "-s", self.path("store"), self.path("a.caibx"), self.path("out")),
            environ={"HOME": "/nonexistent", "DESYNC_ENABLE_PARSABLE_PROGRESS": "1"},
        )
        self.assertEqual(
            outcome.err.splitlines(),
            ["Attempt 1: Assembling    0.00%", "Attempt 1: Assembling  100.00% 0s"],
        )

    def test_process(self) -> None:
        """It works as a process too."""
        self.sample_store(sample(10_000))
        arguments = (self.path("a.caibx"), self.path("out"), "-s", self.path("store"))
        self.assertEqual(desync_process("extract", *arguments), (0, b"", ""))
        self.assertEqual(self.read("out"), sample(10_000))

    def test_sync(self) -> None:
        """The file lasts when the command is done, unless that isn't wanted."""
        self.sample_store(sample(10_000))
        synced: list[int] = []
        self.patch(os, "fsync", synced.append)
        self.extract("--sync=none")
        self.assertEqual(synced, [])
        self.extract()
        self.assertEqual(len(synced), 2)


class RefusalTests(CommandCase):
    """What it refuses, and what is left then."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(60_000)
        self.sample_store(self.data)
        self.write("out", b"old")
        self.arguments = ("-s", self.path("store"), self.path("a.caibx"), self.path("out"))

    def refuse(self, *args: str, **more: Any) -> str:
        """Run an extract that has to fail and to leave the output as it was; give its message."""
        outcome = desync("extract", *args, **more)
        self.assert_error(outcome)
        self.assertEqual(self.read("out"), b"old")
        self.assertEqual(self.leftovers(), [])
        return outcome.err

    def test_both_seed_flags(self) -> None:
        """Invalid seeds can't be skipped and made anew."""
        error = self.refuse("--skip-invalid-seeds", "--regenerate-invalid-seeds", *self.arguments)
        self.assertIn("is not possible to use at the same time", error)

    def test_same_file(self) -> None:
        """The output must not be the index, by whatever name."""
        os.link(self.path("a.caibx"), self.path("hard"))
        os.symlink("a.caibx", self.path("symbolic"))
        before = self.read("a.caibx")
        for output in ("a.caibx", "hard", "symbolic", "store/../a.caibx"):
            arguments = ("-s", self.path("store"), self.path("a.caibx"), self.path(output))
            self.assertEqual(self.refuse(*arguments), "Error: input and output filenames match\n")
        self.assertEqual(self.read("a.caibx"), before)

    def test_no_store(self) -> None:
        """Without a store there is nothing to build from."""
        self.assertEqual(self.refuse(*self.arguments[2:]), "Error: no store provided\n")

    def test_store(self) -> None:
        """A store that isn't there, or isn't a directory, is refused by name."""
        for name, why in (("nothing", "No such file or directory"), ("a", "not a directory")):
            error = self.refuse("-s", self.path(name), *self.arguments)
            self.assertEqual(error, f"Error: {self.path(name)}: {why}\n")

    def test_permissions(self) -> None:
        """What can't be read or written is named."""
        (self.folder / "theirs").mkdir()
        os.chmod(self.path("theirs"), 0o777)
        # What is there already would need no store.
        arguments = ("--seed-output=false", *self.arguments[:3], self.path("theirs/out"))
        self.assertEqual(as_nobody(lambda: desync("extract", *arguments)).code, 0)
        outcome = as_nobody(lambda: desync("extract", *self.arguments[:3], self.path("new")))
        self.assert_error(outcome, self.path("new"), "Permission denied")
        os.chmod(self.path("store"), 0)
        outcome = as_nobody(lambda: desync("extract", *arguments))
        self.assert_error(outcome, self.path("store"), "it can't be read: Permission denied")
        os.chmod(self.path("store"), 0o755)
        file = next(self.files().all_files())
        os.chmod(file.path, 0)
        outcome = as_nobody(lambda: desync("extract", *arguments))
        self.assert_error(outcome, self.path("store"), file.chunk_id.hex(), "Permission denied")
        os.chmod(self.path("a.caibx"), 0)
        outcome = as_nobody(lambda: desync("extract", *arguments))
        self.assert_error(outcome, self.path("a.caibx"), "Permission denied")
        self.assertEqual(os.listdir(self.path("theirs")), ["out"])

    def test_no_concurrency(self) -> None:
        """No concurrency is refused."""
        self.assertIn("at least 1", self.refuse("-n", "0", *self.arguments))

    def test_indexes(self) -> None:
        """An index that is truncated, foreign, oversized or inconsistent is refused by name."""
        good = self.read("a.caibx")
        for what, (spoil, why) in bad_indexes.BAD.items():
            bad = self.write("bad.caibx", spoil(good))
            error = self.refuse(*self.arguments[:2], bad, self.path("out"))
            self.assertTrue(error.startswith(f"Error: {bad}: "), (what, error))
            self.assertIn(why, error, what)
            error = self.refuse(*self.arguments[:2], "-", self.path("out"), stdin=spoil(good))
            self.assertTrue(error.startswith("Error: standard input: "), (what, error))

    def test_no_index(self) -> None:
        """An index that isn't there, or is a directory, is refused by name."""
        for name, why in (("nothing", "No such file or directory"), ("store", "Is a directory")):
            error = self.refuse(*self.arguments[:2], self.path(name), self.path("out"))
            self.assertEqual(error, f"Error: {self.path(name)}: {why}\n")

    def test_other_digest(self) -> None:
        """An index of the other digest is refused."""
        error = self.refuse("--digest=sha256", *self.arguments)
        self.assertEqual(error, f"Error: {self.path('a.caibx')}: index file uses SHA512-256\n")

    def test_output(self) -> None:
        """An output that can't be written is refused by name."""
        for name, why in (
            ("store", "Is a directory"),
            ("nothing/out", "No such file or directory"),
            ("a/out", "Not a directory"),
        ):
            error = self.refuse(*self.arguments[:3], self.path(name))
            self.assertEqual(error, f"Error: {self.path(name)}: {why}\n")
        error = self.refuse(*self.arguments[:3], "/dev/null")
        self.assertEqual(error, "Error: /dev/null: it isn't a regular file\n")

    def test_missing_chunk(self) -> None:
        """A chunk that no store has is named, and so is the store if there is but one."""
        file = sorted(self.files().all_files())[3]
        os.unlink(file.path)
        message = f"chunk {file.chunk_id.hex()} missing from store"
        self.assertEqual(self.refuse(*self.arguments), f"Error: {self.path('store')}: {message}\n")
        error = self.refuse("-s", self.store("empty"), *self.arguments)
        self.assertEqual(error, f"Error: {message}\n")

    def test_bad_chunks(self) -> None:
        """A chunk that isn't what its name says is named, with the store and what is wrong."""
        start, length, chunk_id = list(self.index("a.caibx"))[4]
        plain = self.data[start : start + length]
        path = self.files().path_of(chunk_id)
        for what, spoil in bad_chunks.BAD.items():
            with open(path, "wb") as file:
                file.write(spoil(plain))
            error = self.refuse(*self.arguments)
            begin = f"Error: {self.path('store')}: chunk {chunk_id.hex()} is invalid: "
            self.assertTrue(error.startswith(begin), (what, error))
        # A later store isn't asked: the first one has it, only not right.
        shutil.copytree(self.path("store"), self.path("good"))
        self.files("good").put_plain(chunk_id, plain)
        self.refuse(*self.arguments, "-s", self.path("good"))
        self.run_command("extract", "-s", self.path("good"), *self.arguments)
        self.assertEqual(self.read("out"), self.data)

    def test_bad_uncompressed_chunks(self) -> None:
        """Plain chunks are checked as well."""
        options = json.dumps({"store-options": {self.path("plain"): {"uncompressed": True}}})
        config = self.write("config", options.encode())
        arguments = ("--config", config, "-s", self.store("plain"))
        sizes = ("-m", SIZES)
        self.run_command("make", *sizes, *arguments, self.path("a.caibx"), self.path("a"))
        file = next(self.files("plain", extension="").all_files())
        good = self.read(os.path.relpath(file.path, self.folder))
        for bad in (b"", good[:-1], good + b"x", bytes(len(good))):
            with open(file.path, "wb") as out:
                out.write(bad)
            error = self.refuse(*arguments, self.path("a.caibx"), self.path("out"))
            self.assertIn(file.chunk_id.hex(), error)

    def test_lying_index(self) -> None:
        """An index that gives a chunk another length than it has is refused."""
        index = self.index("a.caibx")
        builder = IndexBuilder(IndexSizes(1, 4096, 1 << 20), SHA512_256)
        for _, length, chunk_id in index:
            builder.append(length + 1, chunk_id)
        bad = self.write("bad.caibx", builder.finish().to_bytes())
        error = self.refuse(*self.arguments[:2], bad, self.path("out"))
        self.assertIn("unexpected size", error)

    def test_huge_index(self) -> None:
        """An index of a file larger than there can be one here is an error in one line."""
        builder = IndexBuilder(IndexSizes(1, 1 << 20, 128 << 20), SHA512_256)
        count = 1 << 17
        builder.append_segment(
            range(128 << 20, (count + 1) * (128 << 20), 128 << 20), bytes(32) * count
        )
        bad = self.write("bad.caibx", builder.finish().to_bytes())
        error = self.refuse(*self.arguments[:2], bad, self.path("out"))
        # Where files can be as large, it's the first chunk that fails.
        self.assertTrue(self.path("out") in error or "missing from store" in error, error)

    def test_worker_killed(self) -> None:
        """If the workers are killed there is an error, and the output is as it was."""
        data = sample(30 << 20)
        self.write("a", data)
        self.run_command("make", *self.arguments[:3], self.path("a"))
        crews: list[pool_module.Crew] = []

        class Recorded(pool_module.Crew):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                crews.append(self)

        def kill_all(tracker: Any) -> None:
            # Those at work: a crew that is found dead before the job begins is replaced.
            for worker in crews[-1].workers if crews else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

        self.patch(pool_module, "Crew", Recorded)
        self.meddle(on_change=kill_all)
        self.assertIn("a worker process ended", self.refuse(*self.arguments))
