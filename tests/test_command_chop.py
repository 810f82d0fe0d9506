# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync chop`` into local stores."""

from __future__ import annotations

import os

from desync.stores.local_files import LocalFiles

from . import bad_indexes
from .command_case import SIZES, CommandCase, as_nobody, sample
from .command_line import desync, desync_process


class ChopTests(CommandCase):
    """A file and its index; an empty store."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(60_000)
        self.file = self.write("a", self.data)
        self.index_path = self.path("a.caibx")
        self.run_command("make", "-m", SIZES, self.index_path, self.file)
        self.arguments = ("-s", self.store(), self.index_path, self.file)

    def stored(self) -> set[bytes]:
        """List the chunks in the store."""
        return {file.chunk_id for file in self.files().all_files()}

    def test_all(self) -> None:
        """The store gets the index's chunks, and neither file is changed."""
        before = self.read("a.caibx")
        self.assertEqual(self.run_command("chop", *self.arguments).out, b"")
        self.assertEqual(self.stored(), set(self.index("a.caibx").ids))
        self.assertEqual((self.read("a"), self.read("a.caibx")), (self.data, before))
        self.run_command("verify", "--quiet", "-s", self.path("store"))

    def test_other_sizes(self) -> None:
        """Chunks are cut where the index says, whatever would be cut there."""
        self.run_command("make", "-m", "2:3:5", self.index_path, self.file)
        self.run_command("chop", *self.arguments)
        self.assertEqual(self.stored(), set(self.index("a.caibx").ids))

    def test_workers(self) -> None:
        """Several processes store the same."""
        self.write("a", sample(9 << 20))
        self.run_command("make", self.index_path, self.file)
        self.run_command("chop", *self.arguments)
        self.assertEqual(self.stored(), set(self.index("a.caibx").ids))

    def test_process(self) -> None:
        """It works as a process, with the index from stdin."""
        arguments = ("-s", self.path("store"), "-", self.file)
        outcome = desync_process("chop", *arguments, stdin=self.read("a.caibx"))
        self.assertEqual(outcome, (0, b"", ""))
        self.assertEqual(self.stored(), set(self.index("a.caibx").ids))

    def test_second_time(self) -> None:
        """What is there is only made young."""
        self.run_command("chop", *self.arguments)
        for file in self.files().all_files():
            os.utime(file.path, (1000, 1000))
        outcome = desync("chop", "--verbose", *self.arguments)
        self.assertIn(" chunks, 0 new to the store", outcome.err)
        for file in self.files().all_files():
            self.assertGreater(os.stat(file.path).st_mtime, 1000)

    def test_ignore(self) -> None:
        """Chunks of other indexes, or listed in files, aren't stored."""
        self.write("b", self.data[:20_000])
        self.run_command("make", "-m", SIZES, self.path("b.caibx"), self.path("b"))
        ids = self.index("a.caibx").ids
        others = set(self.index("b.caibx").ids)
        self.assertTrue(others & set(ids))
        lines = f"\n{ids[8].hex().upper()}  \r\n\n {ids[9].hex()}"
        listed = self.write("ids", lines.encode())
        flags = ("--ignore", self.path("b.caibx"), f"--ignore-chunks={listed}")
        self.run_command("chop", *flags, *self.arguments)
        self.assertEqual(self.stored(), set(ids) - others - {ids[8], ids[9]})

    def test_bad_lists(self) -> None:
        """A list with something else in it, or none at all, is refused by name."""
        listed = self.write("ids", b"ab" * 32 + b"\nnonsense\n")
        outcome = desync("chop", "--ignore-chunks", listed, *self.arguments)
        self.assert_error(outcome, f"{listed}: line 2: not a chunk id")
        outcome = desync("chop", "--ignore-chunks", self.path("nothing"), *self.arguments)
        self.assert_error(outcome, f"{self.path('nothing')}: No such file or directory")
        outcome = desync("chop", "--ignore", self.path("nothing"), *self.arguments)
        self.assert_error(outcome, f"{self.path('nothing')}: No such file or directory")
        self.assertEqual(self.stored(), set())

    def test_other_file(self) -> None:
        """A file that isn't what the index says stores nothing that is wrong."""
        for data, why in (
            (self.data[:-1], "index size (60000) does not match file size (59999)"),
            (self.data + b"x", "index size (60000) does not match file size (60001)"),
            (self.data[:30_000] + b"x" + self.data[30_001:], "are not chunk"),
        ):
            self.write("a", data)
            self.assert_error(desync("chop", *self.arguments), self.file, why)
        self.run_command("verify", "--quiet", "-s", self.path("store"))
        self.assertLessEqual(self.stored(), set(self.index("a.caibx").ids))

    def test_sync(self) -> None:
        """The store is made to last at the end, unless that isn't wanted."""
        synced: list[LocalFiles] = []
        self.patch(LocalFiles, "sync", lambda files: synced.append(files))
        self.run_command("chop", "--sync=none", *self.arguments)
        self.assertEqual(synced, [])
        self.run_command("chop", *self.arguments)
        self.assertEqual(len(synced), 1)

    def test_refusals(self) -> None:
        """Stores, files and concurrency that make no sense are refused."""
        index, file = self.index_path, self.file
        for args, why in (
            ((index, file), "no target store provided"),
            (("-s", self.path("nothing"), index, file), "No such file or directory"),
            (("-s", file, index, file), "not a directory"),
            (("-n0", *self.arguments), "--concurrency must be at least 1"),
            (("--compression-level=23", *self.arguments), "--compression-level"),
            ((*self.arguments[:3], self.path("nothing")), self.path("nothing")),
            ((*self.arguments[:2], self.path("nothing"), file), self.path("nothing")),
            (("--digest=sha256", *self.arguments), "index file uses SHA512-256"),
        ):
            self.assert_error(desync("chop", *args), why)
        self.assertEqual(self.stored(), set())

    def test_permissions(self) -> None:
        """A store that can't be written to is refused."""
        self.run_command("chop", *self.arguments)
        outcome = as_nobody(lambda: desync("chop", *self.arguments))
        self.assert_error(outcome, self.path("store"), "it can't be written to: Permission denied")

    def test_indexes(self) -> None:
        """An index that can't be one is refused by name."""
        good = self.read("a.caibx")
        for spoil, why in bad_indexes.BAD.values():
            bad = self.write("bad.caibx", spoil(good))
            self.assert_error(desync("chop", *self.arguments[:2], bad, self.file), bad, why)
