# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync make`` on local stores."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

from desync.cli import make as make_module
from desync.cli.indexes import write_index
from desync.formats.index import Index
from desync.stores.local_files import LocalFiles
from desync.workers import pool as pool_module

from .command_case import SIZES, CommandCase, as_nobody, sample
from .command_line import ROOT, desync, desync_process


class MakeTests(CommandCase):
    """What it makes."""

    def test_index_and_store(self) -> None:
        """The index covers the file, and the store has each of its chunks."""
        data = sample(500_000)
        path, store = self.write("a", data), self.store()
        outcome = self.run_command("make", "-m", SIZES, "-s", store, self.path("a.caibx"), path)
        self.assertEqual(outcome.out, b"")
        index = self.index("a.caibx")
        self.assertEqual(tuple(index.sizes), (1024, 4096, 16384))
        files = self.files()
        plain = [files.get(chunk_id).plain for chunk_id in index.ids]
        self.assertEqual(b"".join(plain), data)
        self.assertGreater(len(index), len(index.ids.sorted_unique()))
        self.assertEqual(self.leftovers(), [])

    def test_without_store(self) -> None:
        """Without a store there is the same index, and nothing else."""
        path = self.sample_store(sample(100_000))
        self.run_command("make", "-m", SIZES, self.path("b.caibx"), path)
        self.assertEqual(self.read("b.caibx"), self.read("a.caibx"))

    def test_workers(self) -> None:
        """A file that is cut by several processes has the index that one process makes."""
        path = self.write("a", sample(20 << 20))
        store = self.store()
        self.run_command("make", "-s", store, self.path("a.caibx"), path)
        self.run_command("make", "-n1", self.path("b.caibx"), path)
        self.assertEqual(self.read("a.caibx"), self.read("b.caibx"))
        self.run_command("verify-index", self.path("a.caibx"), path)
        self.assertEqual(
            {file.chunk_id for file in self.files().all_files()}, set(self.index("a.caibx").ids)
        )

    def test_stdout(self) -> None:
        """A dash writes the index to stdout."""
        path = self.write("a", sample(10_000))
        outcome = self.run_command("make", "-m", SIZES, "-", path)
        self.run_command("make", "-m", SIZES, self.path("a.caibx"), path)
        self.assertEqual(outcome.out, self.read("a.caibx"))

    def test_process(self) -> None:
        """It works as a process, with file names that aren't text, whose flags come last."""
        name = os.fsencode(self.folder) + b"/\xff\xfe"
        Path(os.fsdecode(name)).write_bytes(sample(10_000))
        outcome = desync_process("make", name + b".caibx", name, "-s", self.store())
        self.assertEqual(outcome, (0, b"", ""))
        again = desync_process("extract", "-s", self.path("store"), name + b".caibx", name + b"2")
        self.assertEqual(again, (0, b"", ""))
        self.assertEqual(Path(os.fsdecode(name + b"2")).read_bytes(), sample(10_000))

    def test_print_stats(self) -> None:
        """The counts are JSON on stderr, under Go desync's names."""
        path = self.write("a", sample(100_000))
        outcome = desync("make", "-m", SIZES, "--print-stats", self.path("a.caibx"), path)
        count = len(self.index("a.caibx"))
        self.assertEqual((outcome.code, outcome.out), (0, b""))
        self.assertEqual(
            outcome.err,
            f'{{\n  "ChunksAccepted": {count},\n  "ChunksProduced": {count}\n}}\n',
        )

    def test_verbose(self) -> None:
        """What was new to the store is said where more is wanted."""
        path = self.sample_store(sample(100_000))
        arguments = ("-m", SIZES, "-s", self.path("store"), self.path("b.caibx"), path)
        outcome = desync("make", "--verbose", *arguments)
        self.assertIn(" chunks of 100000 bytes, 0 new to the store", outcome.err)

    def test_second_time(self) -> None:
        """A chunk that is there isn't written again, but is young afterwards."""
        path = self.sample_store(sample(50_000))
        before = {}
        for file in self.files().all_files():
            os.utime(file.path, (1000, 1000))
            before[file.path] = os.stat(file.path).st_ino
        self.sample_store(Path(path).read_bytes())
        for name, inode in before.items():
            found = os.stat(name)
            self.assertEqual(found.st_ino, inode)
            self.assertGreater(found.st_mtime, 1000)

    def test_modes(self) -> None:
        """A new index has the mode of any new file; one that is replaced keeps its mode."""
        path = self.sample_store(sample(5_000))
        mask = os.umask(0)
        os.umask(mask)
        self.assertEqual(stat.S_IMODE(os.stat(self.path("a.caibx")).st_mode), 0o666 & ~mask)
        os.chmod(self.path("a.caibx"), 0o600)
        self.run_command("make", self.path("a.caibx"), path)
        self.assertEqual(stat.S_IMODE(os.stat(self.path("a.caibx")).st_mode), 0o600)

    def test_compression_level(self) -> None:
        """The level is the command line's, else the configuration's, else zstd's default."""
        sources = sorted((ROOT / "desync").rglob("*.py"))
        path = self.write("a", b"".join(source.read_bytes() for source in sources))
        options = {"store-options": {self.path("high"): {"compression-level": 19}}}
        config = self.write("config", json.dumps(options).encode())
        sizes = {}
        for name, flags in (
            ("default", ()),
            ("three", ("--compression-level=3",)),
            ("low", ("--compression-level=1",)),
            ("high", ("--config", config)),
            ("same", ("--compression-level", "19")),
        ):
            arguments = ("-s", self.store(name), self.path("a.caibx"), path)
            self.run_command("make", *flags, *arguments)
            sizes[name] = sum(os.stat(file.path).st_size for file in self.files(name).all_files())
        self.assertEqual(sizes["default"], sizes["three"])
        self.assertEqual(sizes["high"], sizes["same"])
        self.assertLess(sizes["high"], sizes["default"])
        self.assertLess(sizes["default"], sizes["low"])

    def test_uncompressed(self) -> None:
        """A store that is configured to be uncompressed gets plain chunks."""
        store = self.store()
        options = json.dumps({"store-options": {store: {"uncompressed": True}}})
        config = self.write("config", options.encode())
        path = self.write("a", sample(20_000))
        self.run_command("make", "--config", config, "-s", store, self.path("a.caibx"), path)
        index = self.index("a.caibx")
        for start, length, chunk_id in index:
            name = f"store/{chunk_id.hex()[:4]}/{chunk_id.hex()}"
            self.assertEqual(self.read(name), sample(20_000)[start : start + length])

    def test_sync(self) -> None:
        """Chunks last before the index is there: by one sync at the end, or chunk by chunk too."""
        path = self.write("a", sample(20_000))
        events: list[str] = []

        def sync(files: LocalFiles) -> None:
            events.append("each" if files.sync_each else "end")
            self.assertFalse(os.path.exists(self.path(f"{events[-1]}.caibx")))

        self.patch(LocalFiles, "sync", sync)
        fsync = os.fsync
        synced: list[bool] = []

        def spy(descriptor: int) -> None:
            synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
            fsync(descriptor)

        self.patch(os, "fsync", spy)
        counts = {}
        for mode in "none", "end", "each":
            synced.clear()
            arguments = ("-s", self.store(mode), self.path(f"{mode}.caibx"), path)
            self.run_command("make", "-m", SIZES, "--sync", mode, *arguments)
            counts[mode] = synced.count(False), synced.count(True)
        ids = self.index("end.caibx").ids.sorted_unique()
        chunks, new = len(ids), len({chunk_id[:2] for chunk_id in ids})
        self.assertEqual(events, ["end", "each"])
        # An index and its directory; chunks and theirs; the store, for each that is new in it.
        each = chunks + 1, chunks + new + 1
        self.assertEqual(counts, {"none": (0, 0), "end": (1, 1), "each": each})

    def test_progress_lines(self) -> None:
        """Progress has the form that scripts for Go desync read."""
        path = self.write("a", sample(5_000))
        outcome = desync(
            *("make", self.path("a.caibx"), path),
            environ={"HOME": "/nonexistent", "DESYNC_ENABLE_PARSABLE_PROGRESS": "1"},
        )
        self.assertEqual(outcome.code, 0)
        self.assertEqual(outcome.err.splitlines(), ["Chunking    0.00%", "Chunking  100.00% 0s"])

    def test_sha256(self) -> None:
        """The other digest makes other ids, and an index that says so."""
        path = self.write("a", sample(20_000))
        arguments = ("-s", self.store(), self.path("a.caibx"), path)
        self.run_command("make", "--digest", "sha256", *arguments)
        self.assertEqual(self.index("a.caibx").digest.name, "sha256")
        self.run_command("verify", "--quiet", "--digest=sha256", "-s", self.path("store"))


class RefusalTests(CommandCase):
    """What it refuses, and what is left then."""

    def refuse(self, *args: str, **more: Any) -> str:
        """Run a make that has to fail, and give the line that says why."""
        outcome = desync("make", *args, **more)
        self.assert_error(outcome)
        return outcome.err

    def test_same_file(self) -> None:
        """The index must not be the file, by whatever name."""
        path = self.write("a", b"data")
        os.symlink("a", self.path("symbolic"))
        os.link(path, self.path("hard"))
        (self.folder / "sub").mkdir()
        names = ["a", "sub/../a", "symbolic", "hard"]
        for index in [self.path(name) for name in names]:
            self.assertEqual(self.refuse(index, path), "Error: input and output filenames match\n")
        self.assertEqual(self.read("a"), b"data")

    def test_no_concurrency(self) -> None:
        """No concurrency is refused."""
        self.assertIn("at least 1", self.refuse("-n0", self.path("i"), self.write("a", b"x")))

    def test_chunk_sizes(self) -> None:
        """Chunk sizes that make no sense are refused."""
        path = self.write("a", b"data")
        for sizes, why in (
            ("64:16:256", "chunk sizes out of order"),
            ("16:256:64", "chunk sizes out of order"),
            ("0:64:256", "must be over 48"),
            ("-1:64:256", "must be over 48"),
            ("16:64", "invalid chunk size '16:64'"),
            ("a:b:c", 'parsing "a"'),
            ("16:64:999999", "too large"),
        ):
            self.assertIn(why, self.refuse("-m", sizes, self.path("i"), path))
        self.assertFalse(os.path.exists(self.path("i")))

    def test_level(self) -> None:
        """There are only so many levels of compression."""
        arguments = (self.path("i"), self.write("a", b"data"))
        for level in "0", "23", "-1", "fast":
            self.assertIn(
                "--compression-level", self.refuse("--compression-level", level, *arguments)
            )

    def test_file(self) -> None:
        """What isn't there, or isn't a file with a size, is refused by name."""
        os.mkfifo(self.path("fifo"))
        for name in "nothing", "fifo", ".":
            error = self.refuse(self.path("i"), self.path(name))
            self.assertIn(self.path(name), error)
        self.assertFalse(os.path.exists(self.path("i")))

    def test_store(self) -> None:
        """A store that isn't there, or isn't a directory, is refused by name."""
        path = self.write("a", b"data")
        for name, why in (("nothing", "No such file or directory"), ("a", "not a directory")):
            error = self.refuse("-s", self.path(name), self.path("i"), path)
            self.assertEqual(error, f"Error: {self.path(name)}: {why}\n")
        self.assertFalse(os.path.exists(self.path("i")))

    def test_permissions(self) -> None:
        """A store that can't be written to, or a file that can't be read, is refused by name."""
        self.sample_store(sample(5_000))
        path, store = self.path("a"), self.path("store")
        private = self.write("private", b"data")
        os.chmod(private, 0)
        (self.folder / "theirs").mkdir()
        os.chmod(self.path("theirs"), 0o777)
        index = self.path("theirs/i")
        self.assertEqual(as_nobody(lambda: desync("make", index, path)).code, 0)
        for mode, why in ((0o555, "it can't be written to"), (0, "it can't be read")):
            os.chmod(store, mode)
            outcome = as_nobody(lambda: desync("make", "-s", store, index, path))
            self.assert_error(outcome, store, why, "Permission denied")
        outcome = as_nobody(lambda: desync("make", index, private))
        self.assert_error(outcome, private, "Permission denied")
        for index in self.path("a.caibx"), self.path("b.caibx"):  # there, and not there
            outcome = as_nobody(functools.partial(desync, "make", index, path))
            self.assert_error(outcome, index, "Permission denied")

    def test_subdirectory_without_permission(self) -> None:
        """A subdirectory of the store that can't be written to is an error, not a short index."""
        path, store = self.write("a", sample(5_000)), self.store()
        self.run_command("make", "-s", store, self.path("b.caibx"), path)
        os.chmod(store, 0o777)
        for file in list(self.files().all_files()):
            os.unlink(file.path)
            os.chmod(os.path.dirname(file.path), 0o555)
        (self.folder / "theirs").mkdir()
        os.chmod(self.path("theirs"), 0o777)
        index = self.path("theirs/i")
        outcome = as_nobody(lambda: desync("make", "-s", store, index, path))
        self.assert_error(outcome, store, "can't be stored: Permission denied")
        self.assertFalse(os.path.exists(index))

    def test_index_without_place(self) -> None:
        """An index that can't be put where it should be is refused before anything is stored."""
        path, store = self.write("a", sample(5_000)), self.store()
        for index, why in (
            ("nothing/i", "No such file or directory"),
            ("a/i", "Not a directory"),
            ("store", "Is a directory"),
            ("new/", "Is a directory"),
        ):
            location = f"{self.folder}/{index}"
            error = self.refuse("-s", store, location, path)
            self.assertEqual(error, f"Error: {location}: {why}\n")
        self.assertEqual(os.listdir(store), [])

    def test_unsupported_encryption(self) -> None:
        """A store that is configured to be encrypted gets no plain chunks."""
        store = self.store()
        options = json.dumps({"store-options": {store: {"encryption": True}}})
        config = self.write("config", options.encode())
        path = self.write("a", b"data")
        error = self.refuse("--config", config, "-s", store, self.path("i"), path)
        self.assertIn("encrypt", error)
        self.assertEqual(os.listdir(store), [])


class BadLuckTests(CommandCase):
    """What happens in the middle of the work."""

    def assert_nothing_written(self) -> None:
        """Make sure that the index is the old one, nothing else is left, and no chunk is bad."""
        self.assertEqual(self.read("i"), b"old")
        self.assertEqual(self.leftovers(), [])
        self.run_command("verify", "--quiet", "-s", self.path("store"))

    def start(self, size: int) -> tuple[str, ...]:
        """Make a file, mostly a hole, and give the arguments to make its index."""
        path = self.write("a", sample(100_000))
        os.truncate(path, size)
        self.write("i", b"old")
        return "make", "-s", self.store(), self.path("i"), path

    def test_shrinking(self) -> None:
        """A file that shrinks while it is chunked has no index."""
        arguments = self.start(50 << 20)
        self.meddle(on_change=lambda tracker: os.truncate(self.path("a"), 9 << 20))
        self.assert_error(desync(*arguments), self.path("a"), "while it was being read")
        self.assert_nothing_written()

    def test_changing(self) -> None:
        """A file that is written to while it is chunked has no index."""
        arguments = self.start(50 << 20)

        def write(tracker: Any) -> None:
            with open(self.path("a"), "r+b") as file:
                file.write(b"new")

        self.meddle(on_change=write)
        self.assert_error(desync(*arguments), self.path("a"), "changed while it was being read")
        self.assert_nothing_written()

    def test_replaced(self) -> None:
        """A file that is replaced before the workers open it has no index."""
        arguments = self.start(50 << 20)

        def replace() -> None:
            self.write("b", bytes(50 << 20))
            os.rename(self.path("b"), self.path("a"))

        self.meddle(on_start=replace)
        self.assert_error(desync(*arguments), self.path("a"), "was replaced")
        self.assert_nothing_written()

    def test_a_killed_worker(self) -> None:
        """A worker killed at its work means an error and no index, else it has no effect."""
        crews = self.record_crews()
        arguments = self.start(100 << 20)
        killed: list[int] = []

        def kill_one(tracker: Any) -> None:
            for worker in [worker for worker in crews[0].workers if worker.leases][:1]:
                if not killed:
                    killed.append(worker.pid)
                    os.kill(worker.pid, signal.SIGKILL)

        self.meddle(on_change=kill_one)
        outcome = desync(*arguments)
        if outcome.code:
            self.assert_error(outcome, "a worker process ended", "SIGKILL")
            self.assert_nothing_written()
        else:
            self.assertEqual(self.index("i").size, 100 << 20)

    def test_all_workers_killed(self) -> None:
        """If all workers are killed there is an error, and no index."""
        crews = self.record_crews()
        arguments = self.start(100 << 20)

        def kill_all(tracker: Any) -> None:
            for worker in crews[0].workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

        self.meddle(on_change=kill_all)
        self.assert_error(desync(*arguments), "a worker process ended", "SIGKILL")
        self.assert_nothing_written()

    def test_no_workers(self) -> None:
        """If no worker can be started there is an error, and no index."""
        arguments = self.start(50 << 20)
        self.patch(sys, "executable", self.path("nothing"))
        self.assert_error(desync(*arguments), "a worker process can't be started")
        self.patch(sys, "executable", "/bin/false")
        self.assert_error(desync(*arguments), "a worker process ended before it had started")
        self.assert_nothing_written()

    def record_crews(self) -> list[pool_module.Crew]:
        """Find out about the workers of the commands that follow."""
        crews: list[pool_module.Crew] = []

        class Recorded(pool_module.Crew):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                crews.append(self)

        self.patch(pool_module, "Crew", Recorded)
        return crews

    def test_a_prune_before_the_index_is_written(self) -> None:
        """An old chunk that no index names, reused by a make, survives a prune before its index."""
        data = sample(100_000)
        self.sample_store(data)
        self.sample_store(sample(30_000, 1), "other.caibx")
        os.unlink(self.path("a.caibx"))
        for file in self.files().all_files():
            os.utime(file.path, (1000, 1000))
        pruned = []

        def prune_first(invocation: Any, location: str, index: Index, **more: Any) -> None:
            arguments = ("--yes", "-s", self.path("store"), self.path("other.caibx"))
            pruned.append(desync("prune", *arguments))
            write_index(invocation, location, index, **more)

        self.patch(make_module, "write_index", prune_first)
        self.sample_store(data)
        self.assertEqual(pruned[0].code, 0)
        self.assertIn("spared for being young", pruned[0].err)
        arguments = ("-s", self.path("store"), self.path("a.caibx"), self.path("rebuilt"))
        self.run_command("extract", *arguments)
        self.assertEqual(self.read("rebuilt"), data)
