# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Files that are rebuilt from seeds on several file systems: with shared blocks or without, the
content is what plain concatenation gives.

What is tried is chosen by chance; ``DESYNC_TEST_SEED`` repeats what a failure's message names.
"""

from __future__ import annotations

import os
import random
import time
from typing import NamedTuple

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from desync.assembly import cloning
from desync.assembly.plan import Plan
from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.formats.index import Index, IndexBuilder
from desync.jobs import rebuild
from desync.jobs.rebuild import RebuildJob
from desync.jobs.source import SourceFile
from desync.stores.local_files import LocalFiles
from desync.workers.pool import run_here

from .command_case import CommandCase
from .loop_devices import MIB, SHARING, file_system, for_test

SIZES = ChunkSizes(48, 4096, 65536)
NULL = SHA512_256.null_id(SIZES.max)
BLOCK = 4096
ROUNDS = 12


class Made(NamedTuple):
    """What a rebuild left."""

    job: RebuildJob
    content: bytes


class SharingCase(SynchronousTestCase):
    """A file system, a store on it, and files made of random chunks."""

    def setUp(self) -> None:
        self.seed = int(os.environ.get("DESYNC_TEST_SEED") or time.time_ns() % 1_000_000)
        self.random = random.Random(self.seed)

    def go_to(self, folder: str) -> None:
        """Work in a folder."""
        self.folder = folder
        self.store = LocalFiles(os.path.join(folder, "store"))
        os.makedirs(self.store.path, exist_ok=True)

    def chunks(self, count: int, whole: bool = False) -> list[bytes]:
        """Make chunks, some of them zeros, of any length or only of whole blocks."""
        lengths = []
        for _ in range(count):
            any_length = BLOCK if whole else self.random.randrange(48, SIZES.max)
            lengths.append(self.random.choice((BLOCK, 4 * BLOCK, SIZES.max, any_length)))
        kinds = (self.random.randbytes, self.random.randbytes, bytes)
        return [self.random.choice(kinds)(length) for length in lengths] + [bytes(SIZES.max)]

    def index_of(self, pieces: list[bytes]) -> Index:
        """Make the index of some chunks, and have the store hold them."""
        builder = IndexBuilder(SIZES, SHA512_256)
        for piece in pieces:
            chunk_id = SHA512_256.id_of(piece)
            if not self.store.has(chunk_id):
                self.store.put_plain(chunk_id, piece)
            builder.append(len(piece), chunk_id)
        return builder.finish()

    def write(self, name: str, data: bytes) -> str:
        """Write a file."""
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def rebuild(
        self, pieces: list[bytes], seeds: list[list[bytes]], there: bytes | None = None
    ) -> Made:
        """
        Build a file.

        :param there: what the target holds already; None for a fresh one.
        """
        index = self.index_of(pieces)
        indexes = [self.index_of(seed) for seed in seeds]
        kept = None
        if there is not None:
            there = there[: index.size].ljust(index.size, b"\0")
            kept = bytes(
                there[start : start + length] == pieces[position]
                for position, (start, length, _) in enumerate(index)
            )
        target = self.write("target", there or b"")
        os.truncate(target, index.size)
        files = [SourceFile(self.write(f"seed{n}", b"".join(s))) for n, s in enumerate(seeds)]
        try:
            job = RebuildJob(
                Plan(index, NULL, indexes, kept),
                target,
                [self.store],
                SHA512_256,
                lambda chunks: None,
                seeds=files,
                block=BLOCK,
                blank=there is None,
            )
            run_here(job)
            job.check_complete()
        finally:
            for file in files:
                file.close()
        with open(target, "rb") as result:
            return Made(job, result.read())

    def try_some(self) -> int:
        """Build random files of random seeds; give how many bytes were shared in all."""
        shared = 0
        for turn in range(ROUNDS):
            what = f"seed {self.seed}, turn {turn}"
            # In every other turn the blocks of all files lie so that they can be shared.
            whole = bool(turn % 2)
            self.patch(rebuild, "LEAST", self.random.choice((1, 3 * BLOCK)))
            self.patch(rebuild, "PIECE", self.random.choice((BLOCK, 5 * BLOCK + 7, 64 << 20)))
            self.patch(rebuild, "_BYTES", self.random.choice((1, 100_000, 4 << 20)))
            known = self.chunks(30, whole)
            seeds = []
            for _ in range(self.random.randrange(4)):
                first = self.random.randrange(20)
                seeds.append(known[first:] + self.random.choices(known, k=5))
            pieces = self.chunks(3, whole)
            for _ in range(4):
                first = self.random.randrange(25)
                pieces += known[first : first + self.random.randrange(20)]
                pieces += self.random.choices(known, k=2)
            wanted = b"".join(pieces)
            changed = bytearray(wanted)
            at = self.random.randrange(len(changed))
            changed[at : at + 200_000] = self.random.choice((b"\xff" * 200_000, b"", b"moved"))
            for there in (None, bytes(changed), b"\xee" * len(wanted)):
                made = self.rebuild(pieces, seeds, there)
                self.assertEqual(made.content, wanted, what)
                self.assertEqual(len(made.job.bad), 0, what)
                shared += made.job.cloned_bytes
        return shared


class FileSystemTests(SharingCase):
    """Each file system."""

    def check(self, kind: str) -> None:
        """Build random files on one."""
        self.go_to(for_test(file_system(kind, 400 * MIB), self.addCleanup))
        with open(self.write("any", b""), "rb") as file:
            self.assertEqual(cloning.moves_all_bytes(file.fileno()), kind not in SHARING)
        shared = self.try_some()
        if kind in SHARING:
            self.assertGreater(shared, 0)
        else:
            self.assertEqual(shared, 0)

    def test_ext4(self) -> None:
        """On ext4 everything is copied, and right."""
        self.check("ext4")

    def test_xfs(self) -> None:
        """On XFS blocks are shared, and the content is right."""
        self.check("xfs")

    def test_btrfs(self) -> None:
        """On Btrfs blocks are shared, and the content is right."""
        self.check("btrfs")

    def test_tmpfs(self) -> None:
        """In memory everything is copied, and right."""
        folder = "/dev/shm"
        if not os.access(folder, os.W_OK):
            raise SkipTest("there is no /dev/shm")
        import tempfile

        place = tempfile.TemporaryDirectory(dir=folder)
        self.addCleanup(place.cleanup)
        self.go_to(place.name)
        self.assertEqual(self.try_some(), 0)

    def test_here(self) -> None:
        """Where the tests run it is right, too."""
        self.go_to(self.mktemp())
        self.try_some()


class RefusedTests(SharingCase):
    """What the system may refuse, or do in part."""

    def setUp(self) -> None:
        super().setUp()
        self.go_to(self.mktemp())
        self.patch(rebuild, "LEAST", 1)
        self.seeds = [self.chunks(20, whole=True)]

    def test_nothing_is_shared_or_copied_by_the_system(self) -> None:
        """Without any help of the system the bytes are written."""
        self.patch(cloning, "_control", lambda *arguments: False)
        self.patch(cloning, "copy_in_kernel", lambda *arguments: False)
        made = self.rebuild(self.seeds[0], self.seeds, b"\xee" * (1 << 20))
        self.assertEqual(made.content, b"".join(self.seeds[0]))

    def test_something_else_is_placed(self) -> None:
        """If the system places wrong bytes, they are found and named."""

        def wrong(source: int, target: int, offset: int, place: int, length: int) -> bool:
            os.pwrite(target, b"\xff" * length, place)
            return True

        self.patch(cloning, "clone", wrong)
        made = self.rebuild([chunk for chunk in self.seeds[0] if any(chunk)], self.seeds)
        self.assertGreater(len(made.job.bad), 0)
        self.assertEqual(made.job.cloned_bytes % BLOCK, 0)

    def test_some_pieces_are_refused(self) -> None:
        """A run of which the system placed only a part is written as a whole."""
        self.patch(rebuild, "PIECE", BLOCK)

        def sometimes(source: int, target: int, offset: int, place: int, length: int) -> bool:
            if self.random.randrange(4):
                os.pwrite(target, os.pread(source, length, offset), place)
                return True
            os.pwrite(target, b"\xff" * length, place)
            return False

        self.patch(cloning, "clone", sometimes)
        self.patch(cloning, "copy_in_kernel", lambda *arguments: False)
        made = self.rebuild(self.seeds[0], self.seeds)
        self.assertEqual(made.content, b"".join(self.seeds[0]))

    def test_never_without_a_length(self) -> None:
        """Nothing to share is never asked for: it would mean everything up to the end."""
        self.patch(cloning, "_control", lambda *arguments: self.fail("it was asked for"))
        self.assertFalse(cloning.clone(3, 4, 0, 0, 0))

    def test_alignment(self) -> None:
        """The part that can be shared is made of whole blocks of both files."""
        for _ in range(2000):
            block = self.random.choice((512, 4096, 131072))
            source, target, length = (self.random.randrange(400_000) for _ in range(3))
            if self.random.randrange(2):
                source = target + self.random.randrange(-(target // block), 5) * block
            begin, end = cloning.aligned(source, target, length, block)
            self.assertLessEqual(begin, end)
            if begin == end:
                whole = (target + length) // block - -(-target // block)
                self.assertTrue((source - target) % block or whole <= 0)
                continue
            self.assertTrue(target <= begin and end <= target + length)
            self.assertTrue(begin - target < block and target + length - end < block)
            self.assertEqual((begin % block, end % block), (0, 0))
            self.assertEqual((begin + source - target) % block, 0)


class SpaceTests(CommandCase):
    """What an update takes of the disk, by the file system's own account."""

    def test_difference_only(self) -> None:
        """On XFS the second version takes the space of what changed, not of a whole file."""
        place = for_test(file_system("xfs", 400 * MIB), self.addCleanup)
        chance = random.Random(1)
        old = chance.randbytes(48 * MIB)
        # Changed in two places, and longer by two blocks: the rest moves by whole blocks.
        new = bytearray(old)
        new[5 * MIB : 6 * MIB] = chance.randbytes(MIB)
        new[20 * MIB : 20 * MIB] = chance.randbytes(8192)
        self.store()
        for name, data in ("v1", old), ("v2", bytes(new)):
            path = os.path.join(place, name)
            with open(path, "wb") as file:
                file.write(data)
            self.run_command("make", "-s", self.path("store"), f"{path}.caibx", path)
        os.unlink(os.path.join(place, "v2"))
        before = self.free(place)
        out = os.path.join(place, "out")
        arguments = ("--seed", f"{place}/v1.caibx", f"{place}/v2.caibx", out)
        self.run_command("extract", "-s", self.path("store"), *arguments)
        taken = before - self.free(place)
        with open(out, "rb") as file:
            self.assertEqual(file.read(), new)
        self.assertLess(taken, 3 * MIB)

    def free(self, place: str) -> int:
        """Say how much room there is, once all is written."""
        os.sync()
        found = os.statvfs(place)
        return found.f_bfree * found.f_frsize
