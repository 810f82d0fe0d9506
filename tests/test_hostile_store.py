# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Stores in which there is something else than chunks."""

from __future__ import annotations

import os
from collections.abc import Callable

from desync.errors import StoreError
from desync.formats.chunk import Chunk
from desync.stores.local_files import LocalFiles

from .command_case import CommandCase, as_nobody, sample
from .command_line import desync


class StrangeFilesTests(CommandCase):
    """Something that isn't a chunk has a chunk's name."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(60_000)
        self.file = self.sample_store(self.data)
        self.chunk_id = self.index("a.caibx").id(3)
        self.chunk_path = self.files().path_of(self.chunk_id)

    def put_in_place(self, make: Callable[[str], object]) -> None:
        """Put something where a chunk is."""
        os.unlink(self.chunk_path)
        make(self.chunk_path)

    def make(self, index: str = "b.caibx") -> None:
        """Make the file's index anew into the same store, and see whether that is complete."""
        self.run_command(
            "make", "-m", "1:4:16", "-s", self.path("store"), self.path(index), self.file
        )
        self.run_command("extract", "-s", self.path("store"), self.path(index), self.path("out"))
        self.assertEqual(self.read("out"), self.data)

    def test_empty_file(self) -> None:
        """An empty file, as power failures leave, isn't taken for a chunk that is there."""
        self.put_in_place(lambda path: open(path, "wb").close())
        self.assertFalse(self.files().has(self.chunk_id))
        self.assertIsNone(self.files().stored_size(self.chunk_id))
        self.make()

    def test_empty_file_and_chop(self) -> None:
        """Neither does a chop take an empty file for a chunk."""
        self.put_in_place(lambda path: open(path, "wb").close())
        self.run_command("chop", "-s", self.path("store"), self.path("a.caibx"), self.file)
        self.assertEqual(self.files().get(self.chunk_id).chunk_id, self.chunk_id)

    def test_pipe_and_device(self) -> None:
        """Nor is a pipe or a link to a device taken for a chunk, or waited for."""
        self.put_in_place(os.mkfifo)
        self.make("b.caibx")
        self.put_in_place(lambda path: os.symlink("/dev/zero", path))
        self.make("c.caibx")

    def test_directory(self) -> None:
        """A directory in the place of a chunk is an error when the chunk is to be there."""
        self.put_in_place(os.mkdir)
        outcome = desync(
            "make", "-m", "1:4:16", "-s", self.path("store"), self.path("b.caibx"), self.file
        )
        self.assert_error(outcome, self.path("store"), self.chunk_id.hex(), "Is a directory")
        self.assertFalse(os.path.exists(self.path("b.caibx")))
        self.assertEqual(self.leftovers(), [])

    def test_links_that_lead_nowhere(self) -> None:
        """Links beside the chunks that lead to nothing or to themselves hinder nobody."""
        for name in "ffff", "nothing":
            os.symlink("ffff", os.path.join(self.path("store"), name))
        outcome = desync("verify", "-s", self.path("store"))
        self.assertEqual((outcome.code, outcome.out), (0, b""))
        self.assertIn(", 0 invalid\n", outcome.err)
        outcome = desync("prune", "-y", "-s", self.path("store"), self.path("a.caibx"))
        self.assertEqual(outcome.code, 0)


class RightsTests(CommandCase):
    """Directories in a store that aren't everybody's."""

    def setUp(self) -> None:
        super().setUp()
        self.sample_store(sample(60_000))
        os.chmod(self.path("store"), 0o777)

    def test_lost_and_found(self) -> None:
        """A directory for root alone, in which chunks can't be, is passed over."""
        os.mkdir(os.path.join(self.path("store"), "lost+found"), 0o700)
        outcome = as_nobody(lambda: desync("verify", "-s", self.path("store")))
        self.assertEqual((outcome.code, outcome.out), (0, b""))
        self.assertIn(", 0 invalid\n", outcome.err)
        arguments = "prune", "-y", "-s", self.path("store"), self.path("a.caibx")
        self.assertEqual(as_nobody(lambda: desync(*arguments)).code, 0)

    def test_a_directory_of_chunks(self) -> None:
        """One in which chunks can be isn't passed over, and the error names it."""
        directory = os.path.join(self.path("store"), "0123")
        os.mkdir(directory, 0o700)
        outcome = as_nobody(lambda: desync("verify", "-s", self.path("store")))
        self.assert_error(outcome, self.path("store"), f"{directory}: Permission denied")


class UmaskTests(CommandCase):
    """Modes when the umask isn't the one that the program was started with."""

    def test_small_jobs(self) -> None:
        """What is so little that this process does it alone has the same modes as ever."""
        self.sample_store(sample(60_000))
        expected = self.modes("store")
        before = os.umask(0o077)
        try:
            self.sample_store(sample(60_000), "b.caibx", "strict")
            self.run_command(
                "chop",
                "-s",
                self.store("chopped"),
                self.path("a.caibx"),
                self.path("a"),
            )
        finally:
            os.umask(before)
        os.chmod(self.path("strict"), 0o755)
        self.assertEqual(self.modes("strict"), expected)
        self.assertEqual(self.modes("chopped"), expected)

    def modes(self, store: str) -> set[int]:
        """Collect the modes of all there is in a store."""
        return {path.stat().st_mode for path in (self.folder / store).rglob("*")}


class RepairTests(CommandCase):
    """Removing chunks that are invalid while others write."""

    def test_a_chunk_that_was_put_right(self) -> None:
        """An invalid chunk that a writer replaces before it is removed stays, and isn't told of."""
        self.sample_store(sample(60_000))
        files = self.files()
        ids = list(self.index("a.caibx").ids.sorted_unique())
        good = {chunk_id: files.read(chunk_id)[0] for chunk_id in ids}
        for number, chunk_id in enumerate(ids):
            files.put(chunk_id, files.form.encode(b"something else") if number % 2 else b"nothing")
        read = LocalFiles.read_file

        def read_and_put_right(
            files: LocalFiles, path: str, chunk_id: bytes, limit: int | None = None
        ) -> bytes:
            data = read(files, path, chunk_id, limit)
            files.put(chunk_id, good[chunk_id])
            return data

        self.patch(LocalFiles, "read_file", read_and_put_right)
        outcome = desync("verify", "-r", "-s", self.path("store"))
        self.assertEqual((outcome.code, outcome.out), (0, b""))
        self.assertEqual(self.files().get(ids[0]).chunk_id, ids[0])


class CleanUpTests(CommandCase):
    """Writing a chunk fails."""

    def test_the_name_of_another_writer(self) -> None:
        """A writer that comes upon a file of the name that it would write removes nothing."""
        files = LocalFiles(self.store())
        chunk = Chunk.of(b"data", files.digest)
        renamed: list[str] = []

        def keep(source: str, target: str) -> None:
            renamed.append(source)
            raise KeyboardInterrupt

        patch = self.patch(os, "rename", keep)
        self.assertRaises(KeyboardInterrupt, files.put_chunk, chunk)
        patch.restore()
        theirs = renamed[0][:-6] + "000002"
        open(theirs, "wb").close()
        self.assertRaises(StoreError, files.put_chunk, chunk)
        self.assertTrue(os.path.exists(theirs))

    def test_a_signal_while_it_is_removed(self) -> None:
        """A signal that comes while an unfinished chunk is removed doesn't keep it."""
        files = LocalFiles(self.store())
        unlink = os.unlink

        def fail(*paths: str) -> None:
            raise OSError(28, "No space left on device")

        def interrupted(path: str) -> None:
            self.patch(os, "unlink", unlink)
            raise KeyboardInterrupt

        self.patch(os, "rename", fail)
        self.patch(os, "unlink", interrupted)
        self.assertRaises(KeyboardInterrupt, files.put_chunk, Chunk.of(b"data", files.digest))
        self.assertEqual(self.leftovers(), [])
