# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The real casync: it cuts as we do, and each rebuilds from the other's indexes and stores."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from desync.chunking.digests import Digest
from desync.chunking.sizes import ChunkSizes
from desync.formats.index import Index
from desync.operations.make import make
from desync.progress import Progress
from desync.running import run
from desync.stores.local_files import LocalFiles
from desync.workers.pool import Pool

from .command_case import CommandCase, sample
from .command_line import desync
from .peers import peer

SIZES = (
    ChunkSizes(48, 48, 48),
    ChunkSizes(48, 64, 4096),
    ChunkSizes(48, 200, 300),
    ChunkSizes(64, 256, 1024),
    ChunkSizes(100, 1000, 1500),
    ChunkSizes(1000, 1000, 1000),
    ChunkSizes(1, 5000, 20_000),
    ChunkSizes(2048, 8192, 32768),
    ChunkSizes(4096, 4097, 4099),
    ChunkSizes(10_000, 50_000, 50_000),
    ChunkSizes.DEFAULT,
    ChunkSizes(1 << 20, 1 << 20, 1 << 20),
)


class CasyncTests(CommandCase):
    """Blobs of many sizes, cut and rebuilt by both."""

    def setUp(self) -> None:
        super().setUp()
        self.program = peer("casync")
        self.pool = Pool(1)
        self.addCleanup(self.pool.close)

    def casync(self, *args: str) -> None:
        """Run casync, which has to succeed and not to take long."""
        done = subprocess.run(
            [self.program, *args], capture_output=True, timeout=60, cwd=self.folder, check=False
        )
        self.assertEqual(done.returncode, 0, (args, done.stderr))

    def their_index(
        self, path: str, sizes: ChunkSizes, digest: str, store: str | None = None
    ) -> Index:
        """Have casync make an index; without a store to look at, in one that is thrown away."""
        self.casync(
            *("make", "--digest", digest, "--chunk-size", ":".join(map(str, sizes))),
            *("--store", store or self.path("theirs.castr")),
            *(self.path("theirs.caibx"), path),
        )
        return self.index("theirs.caibx")

    def our_index(
        self, path: str, sizes: ChunkSizes, digest: str, store: str | None = None
    ) -> Index:
        """Make an index with sizes that the command line can't name."""
        files = LocalFiles(store, digest=Digest.named(digest)) if store is not None else None
        done = make(path, sizes, Digest.named(digest), self.pool, Progress(), files)
        return run(done).index

    def assert_same(self, path: str, sizes: ChunkSizes, digest: str) -> None:
        """Make sure that both cut a file at the same places, into chunks with the same ids."""
        ours = self.our_index(path, sizes, digest)
        theirs = self.their_index(path, sizes, digest)
        self.assertEqual(tuple(ours.sizes), tuple(theirs.sizes))
        self.assertEqual(len(ours), len(theirs))
        self.assertEqual(bytes(ours.table), bytes(theirs.table))
        self.assertIs(ours.digest, theirs.digest)

    def test_sizes_of_files(self) -> None:
        """Blobs around every limit of the cut rule have the same chunks, with both digests."""
        data = sample(3 << 20)
        for turn, sizes in enumerate((ChunkSizes(64, 256, 1024), ChunkSizes.DEFAULT)):
            around = {0, 1, 47, 48, 49, *(sizes.max + n for n in (-1, 0, 1))}
            around.update(sizes.min + n for n in (-1, 0, 1))
            around.update((sizes.avg, 3 * sizes.max + 7))
            for size in sorted(around):
                path = self.write("a", data[turn : turn + size])
                for digest in ("sha512-256", "sha256"):
                    self.assert_same(path, sizes, digest)

    def test_sizes_of_chunks(self) -> None:
        """Whatever the chunk sizes are, a blob has the same chunks."""
        data = sample(100_000) + bytes(30_000) + b"abc" * 10_000
        path = self.write("a", data)
        for number, sizes in enumerate(SIZES):
            with self.subTest(sizes=sizes):
                self.assert_same(path, sizes, ("sha512-256", "sha256")[number % 2])

    def test_large(self) -> None:
        """A blob that several of our processes cut has the same chunks."""
        self.pool = Pool(2)
        self.addCleanup(self.pool.close)
        path = self.write("a", sample(14 << 20) + bytes(3 << 20) + sample(5 << 20, 1))
        self.assert_same(path, ChunkSizes.DEFAULT, "sha512-256")
        self.assert_same(path, ChunkSizes(4096, 16384, 65536), "sha256")

    def test_real_data(self) -> None:
        """Real files, those of Python's library on this machine, have the same chunks."""
        library = Path(os.__file__).parent
        files = sorted(path for path in library.rglob("*") if path.is_file())
        data = bytearray()
        for file in files:
            if len(data) > 48 << 20:
                break
            with contextlib.suppress(OSError):
                data += file.read_bytes()
        self.assertGreater(len(data), 1 << 20)
        path = self.write("a", bytes(data))
        self.assert_same(path, ChunkSizes.DEFAULT, "sha512-256")
        self.assert_same(path, ChunkSizes(1024, 2048, 65536), "sha256")

    def test_commands(self) -> None:
        """What our commands make, casync rebuilds, and the other way round, with both digests."""
        data = sample(2 << 20) + bytes(1 << 20) + sample(1 << 20, 1)
        path = self.write("a", data)
        for digest in ("sha512-256", "sha256"):
            flag = f"--digest={digest}"
            store = self.store(f"ours-{digest}.castr")
            self.run_command("make", flag, "-s", store, self.path("ours.caibx"), path)
            out = self.path(f"out-{digest}")
            self.casync("extract", "--store", store, self.path("ours.caibx"), out)
            self.assertEqual(self.read(f"out-{digest}"), data)

            store = self.path(f"theirs-{digest}.castr")
            self.their_index(path, ChunkSizes.DEFAULT, digest, store)
            index = self.path("theirs.caibx")
            self.run_command("extract", flag, "-s", store, index, self.path("out"))
            self.assertEqual(self.read("out"), data)
            self.assertEqual(self.run_command("cat", flag, "-s", store, index).out, data)
            self.run_command("verify", "--quiet", flag, "-s", store)
            self.run_command("verify-index", flag, index, path)
            # Either index goes with either store.
            ours = self.path(f"ours-{digest}.castr")
            self.run_command("extract", flag, "-s", ours, index, self.path("out"))
            self.casync("extract", "--store", store, self.path("ours.caibx"), f"{out}.2")
            self.assertEqual(self.read(f"out-{digest}.2"), data)

    def test_one_store(self) -> None:
        """Both write into one store: neither writes what the other has, all of it is good."""
        data = sample(1 << 20)
        path = self.write("a", data)
        store = self.store("shared.castr")
        self.run_command("make", "-s", store, self.path("ours.caibx"), path)
        before = {file.path: os.stat(file.path).st_ino for file in LocalFiles(store).all_files()}
        self.their_index(path, ChunkSizes.DEFAULT, "sha512-256", store)
        other = self.write("b", data + b"more")
        self.their_index(other, ChunkSizes.DEFAULT, "sha512-256", store)
        after = {file.path: os.stat(file.path).st_ino for file in LocalFiles(store).all_files()}
        self.assertEqual(before.items() - after.items(), set())
        self.assertEqual(len(after), len(before) + 1)
        outcome = desync("make", "--verbose", "-s", store, self.path("ours.caibx"), other)
        self.assertIn(" 0 new to the store", outcome.err)
        self.run_command("verify", "--quiet", "-s", store)
        # A prune by one keeps what the other's index names.
        arguments = ("--quiet", "-y", "--min-age=0", "-s", store, self.path("theirs.caibx"))
        self.run_command("prune", *arguments)
        self.casync("extract", "--store", store, self.path("ours.caibx"), self.path("out"))
        self.assertEqual(self.read("out"), data + b"more")

    def test_compressions(self) -> None:
        """Chunks that casync compresses otherwise are read, and verified."""
        data = sample(300_000)
        path = self.write("a", data)
        for compression in ("xz", "gzip", "zstd"):
            store = self.path(f"{compression}.castr")
            self.casync(
                *("make", "--compression", compression, "--store", store),
                *(self.path("theirs.caibx"), path),
            )
            arguments = ("-s", store, self.path("theirs.caibx"))
            self.run_command("extract", *arguments, self.path("out"))
            self.assertEqual(self.read("out"), data)
            self.run_command("verify", "--quiet", "-s", store)
