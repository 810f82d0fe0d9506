# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Files to be written in places that don't make it easy."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from desync.formats.chunk import Chunk
from desync.replace import replacing

from .command_case import CommandCase, as_nobody, sample
from .command_line import Outcome, desync, desync_process


class TargetTests(CommandCase):
    """What an extract writes, and where it can't."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(100_000)
        self.sample_store(self.data)
        self.place = self.folder / "place"
        self.place.mkdir()
        self.place.chmod(0o777)

    def extract_to(self, name: str) -> Callable[[], Outcome]:
        """Give a function that extracts to a file in the place."""
        arguments = "extract", "-s", self.path("store"), self.path("a.caibx")
        return lambda: desync(*arguments, str(self.place / name))

    def test_read_only_target(self) -> None:
        """A file that nobody may write to is replaced, by whoever may write to its directory."""
        (self.place / "out").write_bytes(b"old")
        (self.place / "out").chmod(0o444)
        outcome = as_nobody(self.extract_to("out"))
        self.assertEqual((outcome.code, outcome.err), (0, ""))
        self.assertEqual((self.place / "out").read_bytes(), self.data)
        self.assertEqual(stat.S_IMODE((self.place / "out").stat().st_mode), 0o444)

    def test_directory_that_cannot_be_read(self) -> None:
        """A directory that may be written to but not read takes the file without an error."""
        os.chmod(self.place, 0o333)
        outcome = as_nobody(self.extract_to("out"))
        self.assertEqual((outcome.code, outcome.err), (0, ""))
        self.assertEqual((self.place / "out").read_bytes(), self.data)

    def test_pipe(self) -> None:
        """A pipe is refused, and not waited for until somebody reads it."""
        os.mkfifo(self.place / "out")
        outcome = desync_process(
            "extract", "-s", self.path("store"), self.path("a.caibx"), str(self.place / "out")
        )
        self.assert_error(outcome, str(self.place / "out"), "it isn't a regular file")

    def test_devices(self) -> None:
        """A device is refused, and nothing is written to it."""
        for device in "/dev/full", "/dev/null":
            outcome = desync("extract", "-s", self.path("store"), self.path("a.caibx"), device)
            self.assert_error(outcome, device, "it isn't a regular file")


class ReplacementTests(CommandCase):
    """What happens to a file on its way to its place."""

    def test_nobody_else_reads_it_before(self) -> None:
        """While it is written it is readable for its owner only, whatever the old file was."""
        target = self.write("target", b"old")
        os.chmod(target, 0o644)
        with replacing(target) as out:
            self.assertEqual(stat.S_IMODE(os.fstat(out.fileno()).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(target).st_mode), 0o644)

    def test_privileges_are_not_handed_on(self) -> None:
        """What replaces a set-user-ID program, perhaps as another user's, doesn't become one."""
        target = self.write("target", b"old")
        os.chmod(target, 0o6755)
        with replacing(target) as out:
            out.write(b"new")
        self.assertEqual(stat.S_IMODE(os.stat(target).st_mode), 0o755)

    def test_file_systems_without_modes(self) -> None:
        """Where no file can be given a mode the content is what counts."""

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        self.patch(os, "chmod", refuse)
        with replacing(self.path("target"), 0o640) as out:
            out.write(b"new")
        self.assertEqual(self.read("target"), b"new")
        files = self.files()
        os.mkdir(files.path)
        chunk = Chunk.of(b"data", files.digest)
        files.put_chunk(chunk)
        self.assertEqual(files.get(chunk.chunk_id).plain, b"data")

    def test_a_signal_while_it_is_removed(self) -> None:
        """A signal that comes while the unfinished file is removed doesn't keep it."""
        unlink = os.unlink

        def interrupted(path: str) -> None:
            self.patch(os, "unlink", unlink)
            raise KeyboardInterrupt

        self.patch(os, "unlink", interrupted)
        with self.assertRaises(KeyboardInterrupt), replacing(self.path("target")):
            raise ValueError
        self.assertEqual(os.listdir(self.folder), [])
