# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync extract`` with seeds: what is taken from them, and what is done about bad ones."""

from __future__ import annotations

import json
import os
from typing import Any

from .command_case import SIZES, CommandCase, as_nobody, sample
from .command_line import desync, desync_process

SIZE = 400_000


class SeedCase(CommandCase):
    """A store with the second version of a file, and the first version beside it."""

    def setUp(self) -> None:
        super().setUp()
        self.old = sample(SIZE)
        self.new = self.old[:150_000] + sample(5_000, 2) + self.old[150_000:] + bytes(50_000)
        self.sample_store(self.old, "old.caibx", "old-store")
        self.sample_store(self.new, "new.caibx")
        os.unlink(self.path("new"))

    def extract(
        self, *args: str, store: str = "store", says: str = "", run: Any = desync
    ) -> dict[str, Any]:
        """Extract the new version, see whether it is right, and give the figures."""
        outcome = run(
            *("extract", "--print-stats", *args, "-s", self.path(store)),
            *(self.path("new.caibx"), self.path("out")),
        )
        self.assertEqual((outcome.code, outcome.err), (0, says), outcome)
        self.assertEqual(self.read("out"), self.new)
        self.assertEqual(self.leftovers(), [])
        stats = json.loads(outcome.out)
        self.assertIsInstance(stats, dict)
        return dict(stats)

    def spoil(self, begin: int, end: int) -> None:
        """Change a part of the seed, so that its index is wrong."""
        self.write("old", self.old[:begin] + b"\xff" * (end - begin) + self.old[end:])

    def not_used(self, why: str) -> str:
        """Give the line that says that the seed isn't used."""
        return f"seed {self.path('old')} is not used: {why}\n"

    @property
    def mismatch(self) -> str:
        """What is said of a seed that isn't what its index says."""
        return f"seed index for {self.path('old')} doesn't match its data"


class SeedTests(SeedCase):
    """What seeds are, and what comes from them."""

    def test_forms(self) -> None:
        """A seed is an index beside its data, an index with its data, or data alone."""
        index, data = self.path("old.caibx"), self.path("old")
        os.link(index, self.path("a:b"))
        os.link(data, self.path("c:d"))
        expected = None
        for seed in (index, f"{index}:{data}", data, f"{self.path('a:b')}:{data}"):
            stats = self.extract("--seed", seed)
            self.assertEqual(stats["seeds"], 2)
            self.assertLess(stats["chunks-from-store"], 10)
            self.assertGreater(stats["bytes-copied-from-seeds"], SIZE * 9 // 10)
            os.unlink(self.path("out"))
            expected = expected or stats
            self.assertEqual(stats, expected, seed)
        self.extract("--seed", f"{index}:{self.path('c:d')}")

    def test_directory(self) -> None:
        """Of a directory all files with indexes beside them are seeds, but not the output's."""
        os.makedirs(self.path("images/deep"))
        for name in ("old", "old.caibx"):
            os.rename(self.path(name), self.path(f"images/deep/{name}"))
        self.write("images/bad.caibx", b"no index")
        self.write("images/bad", b"data")
        self.write("images/alone.caibx", self.read("new.caibx"))
        bad = self.path("images/bad")
        says = f"seed {bad} is not used: {bad}.caibx: not an index file: only 8 bytes\n"
        stats = self.extract("--seed-dir", self.path("images"), says=says)
        self.assertEqual(stats["seeds"], 2)
        self.assertLess(stats["chunks-from-store"], 10)
        outcome = desync(
            *("extract", "-s", self.path("store"), "--seed-dir", self.path("nothing")),
            *(self.path("new.caibx"), self.path("out")),
        )
        self.assert_error(outcome, self.path("nothing"), "No such file or directory")

    def test_old_output(self) -> None:
        """What the output had is a seed, unless that isn't wanted."""
        self.write("out", self.old)
        self.assertLess(self.extract()["chunks-from-store"], 10)
        self.write("out", self.old)
        stats = self.extract("--seed-output=false")
        self.assertEqual((stats["seeds"], stats["chunks-in-place"]), (1, 0))
        self.assertGreater(stats["chunks-from-store"], 50)

    def test_old_output_that_cannot_be_read(self) -> None:
        """An old output that is of no use as a seed is replaced without a word."""
        (self.folder / "place").mkdir()
        os.chmod(self.path("place"), 0o777)
        for flags in (), ("--strict-seeds",):
            self.write("place/out", self.old)
            os.chmod(self.path("place/out"), 0o200)
            arguments = ("-s", self.path("store"), self.path("new.caibx"), self.path("place/out"))
            outcome = as_nobody(lambda: desync("extract", *flags, *arguments))  # noqa: B023
            self.assertEqual((outcome.code, outcome.err), (0, ""))
            self.assertEqual(self.read("place/out"), self.new)

    def test_nothing_but_seeds(self) -> None:
        """What seeds have altogether needs nothing of a store."""
        self.write("new", self.new)
        self.store("empty")
        stats = self.extract("--seed", self.path("new"), store="empty")
        self.assertEqual(stats["chunks-from-store"], 0)
        self.assertEqual(stats["chunks-from-seeds"], stats["chunks-total"])

    def test_cache(self) -> None:
        """With stores that need a reactor it is the same, and the cache gets what is fetched."""
        self.spoil(200_000, 220_000)
        stats = self.extract(
            *("-c", self.store("cache"), "--seed", self.path("old.caibx")),
            says=self.not_used(self.mismatch),
            run=desync_process,
        )
        self.assertGreater(stats["chunks-from-seeds"], 50)
        cached = len(list(self.files("cache").all_files()))
        self.assertEqual(stats["chunks-from-store"], cached)

    def test_workers(self) -> None:
        """Several processes do it together."""
        self.old = sample(9 << 20)
        self.new = self.old[: 3 << 20] + sample(1 << 20, 3) + self.old[3 << 20 :]
        for name, data in ("old", self.old), ("new", self.new):
            path = self.write(name, data)
            self.run_command("make", "-s", self.path("store"), self.path(f"{name}.caibx"), path)
        stats = self.extract("--seed", self.path("old.caibx"))
        self.assertGreater(stats["bytes-copied-from-seeds"], 8 << 20)
        self.spoil(4 << 20, 8 << 20)
        os.unlink(self.path("out"))
        self.extract("--seed", self.path("old.caibx"), says=self.not_used(self.mismatch))

    def test_dry_run(self) -> None:
        """A dry run prints every range and what it all adds up to, and writes nothing."""
        outcome = self.run_command(
            *("extract", "--dry-run", "-s", self.path("store"), "--seed", self.path("old.caibx")),
            *(self.path("new.caibx"), self.path("out")),
        )
        self.assertFalse(os.path.exists(self.path("out")))
        lines = outcome.text.splitlines()
        place = 0
        found = bytearray(len(self.new))
        for line in lines[:-5]:
            start, length, origin, *source = line.split("\t")
            self.assertEqual(int(start), place)
            here = slice(place, place + int(length))
            if origin == self.path("old"):
                found[here] = self.old[int(source[0]) : int(source[0]) + int(length)]
            elif origin != "zeros":
                found[here] = self.new[here]
            place += int(length)
        self.assertEqual(bytes(found), self.new)
        self.assertRegex(lines[-5], r"^to fetch: \d+ bytes in \d chunks$")
        self.assertRegex(lines[-1], r"^zeros: \d+ bytes in \d chunks$")
        os.rename(self.path("old"), self.path("o\tl\x1bd"))
        arguments = ("-s", self.path("store"), "--seed", self.path("o\tl\x1bd"))
        outcome = self.run_command(
            "extract", "--dry-run", *arguments, self.path("new.caibx"), self.path("out")
        )
        self.assertIn("o\\tl\\x1bd", outcome.text)
        self.assertNotIn("\x1b", outcome.text)


class BadSeedTests(SeedCase):
    """A bad seed costs time, and never anything else."""

    def test_wrong_data(self) -> None:
        """What isn't right in a seed is fetched."""
        self.spoil(200_000, 220_000)
        for flags in ((), ("--skip-invalid-seeds",)):
            says = self.not_used(self.mismatch)
            stats = self.extract("--seed", self.path("old.caibx"), *flags, says=says)
            self.assertGreater(stats["chunks-from-seeds"], 50)
            self.assertGreater(stats["chunks-from-store"], 4)
            os.unlink(self.path("out"))

    def test_another_seed_has_it(self) -> None:
        """What isn't right in one seed is taken from another one that has it."""
        self.write("good", self.old)
        self.spoil(200_000, 220_000)
        index = self.path("old.caibx")
        seeds = ("--seed", index, "--seed", f"{index}:{self.path('good')}")
        stats = self.extract(*seeds, says=self.not_used(self.mismatch))
        self.assertLess(stats["chunks-from-store"], 10)

    def test_regenerate(self) -> None:
        """The index of a bad seed is made anew on demand, and what it really has is used."""
        self.write("old", sample(7_000, 5) + self.old)
        stats = self.extract("--seed", self.path("old.caibx"), "--regenerate-invalid-seeds")
        self.assertLess(stats["chunks-from-store"], 10)

    def test_strict(self) -> None:
        """On demand a bad seed is an error, and the output is as it was."""
        self.spoil(200_000, 220_000)
        self.write("out", b"old")
        for is_there in True, False:
            if not is_there:
                os.unlink(self.path("old"))
            outcome = desync(
                *("extract", "--strict-seeds", "-s", self.path("store")),
                *("--seed", self.path("old.caibx"), self.path("new.caibx"), self.path("out")),
            )
            self.assert_error(outcome, self.path("old"))
            self.assertEqual(self.read("out"), b"old")
            self.assertEqual(self.leftovers(), [])

    def test_shorter(self) -> None:
        """A seed that is shorter than its index says is used as far as it goes."""
        self.write("old", self.old[:300_000])
        stats = self.extract("--seed", self.path("old.caibx"), says=self.not_used(self.mismatch))
        self.assertGreater(stats["chunks-from-seeds"], 50)

    def test_gone(self) -> None:
        """A seed that isn't there is done without."""
        os.unlink(self.path("old"))
        why = f"{self.path('old')}: No such file or directory"
        self.extract("--seed", self.path("old.caibx"), says=self.not_used(why))

    def test_no_file(self) -> None:
        """Neither is one that is no file."""
        os.unlink(self.path("old"))
        os.mkfifo(self.path("old"))
        why = f"{self.path('old')}: it is neither a regular file nor a block device"
        self.extract("--seed", self.path("old.caibx"), says=self.not_used(why))
        self.extract("--seed", self.path("old"), says=self.not_used(why))

    def test_changes_meanwhile(self) -> None:
        """A seed that changes, shrinks or is replaced while it is used only costs time."""

        def replace() -> None:
            os.rename(self.write("other", bytes(SIZE)), self.path("old"))

        for change in (
            lambda: self.write("old", bytes(SIZE)),
            lambda: self.write("old", self.old[:250_000]),
            lambda: self.write("old", b""),
            replace,
        ):
            self.write("old", self.old)
            self.meddle(on_start=change)
            self.extract("--quiet", "--seed", self.path("old.caibx"))
            os.unlink(self.path("out"))

    def test_an_index_that_lies_about_lengths(self) -> None:
        """Chunks that have other lengths in the seed's index than in the target's are fetched."""
        from desync.chunking.digests import SHA512_256
        from desync.formats.index import IndexBuilder, IndexSizes

        index = self.index("new.caibx")
        builder = IndexBuilder(IndexSizes(1, 4096, 16384), SHA512_256)
        for chunk_id in index.ids:
            builder.append(1000, chunk_id)
        lies = self.write("lies.caibx", builder.finish().to_bytes())
        says = self.not_used(self.mismatch)
        self.extract("--seed", f"{lies}:{self.path('old')}", says=says)

    def test_names(self) -> None:
        """What names no seed is refused."""
        os.rename(self.path("old.caibx"), self.path("old.index"))
        for seed, why in (
            (self.path("nothing"), "is neither a file nor INDEX:DATA"),
            (self.path("nothing:there"), "is neither a file nor INDEX:DATA"),
            (self.path("old.index"), "name its data too"),
        ):
            outcome = desync(
                *("extract", "-s", self.path("store"), "--seed", seed),
                *(self.path("new.caibx"), self.path("out")),
            )
            self.assert_error(outcome, seed, why)

    def test_other_digest(self) -> None:
        """A seed's index has to be made with the digest in use."""
        other = ("--digest=sha256", "make", "-m", SIZES, self.path("old.caibx"), self.path("old"))
        self.run_command(*other)
        outcome = desync(
            *("extract", "-s", self.path("store"), "--seed", self.path("old.caibx")),
            *(self.path("new.caibx"), self.path("out")),
        )
        self.assert_error(outcome, self.path("old.caibx"), "index file uses SHA256")
