# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Trees that have everything, through archives of the real casync and tar streams of the real tars,
both ways. What comes out is compared by the real rsync, and by casync's own listing.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

from .command_case import CommandCase, remove_tree
from .fuzz_untar import fuzz
from .peers import peer
from .sample_tree import MTIME, SampleTree

BEST = "--with=best"


class PeerCase(CommandCase):
    """A test case with a tree that has everything, and room beside it on the same file system."""

    def setUp(self) -> None:
        super().setUp()
        # Not on a file system in memory, which hasn't all that is to be recorded.
        self.room = Path(tempfile.mkdtemp(prefix="desync-test-", dir="/var/tmp"))
        self.addCleanup(remove_tree, self.room)
        self.tree = SampleTree(self.room / "tree")
        self.root = str(self.tree.root)
        self.addCleanup(self.unlock)

    def unlock(self) -> None:
        """Let all trees be removed."""
        self.tree.unlock()
        with contextlib.suppress(OSError):
            subprocess.run(
                ["chattr", "-R", "-f", "-i", "-a", str(self.room)], capture_output=True, check=False
            )

    def call(self, *args: str, stdin: bytes = b"") -> bytes:
        """Run another program, which has to succeed and not to take long."""
        done = subprocess.run(
            args, input=stdin, capture_output=True, timeout=60, cwd=self.folder, check=False
        )
        self.assertEqual(done.returncode, 0, (args, done.stderr))
        return done.stdout

    def place(self, name: str) -> str:
        """Name something beside the tree."""
        return str(self.room / name)

    def assert_equal_trees(self, other: str, *without: str, window: str = "-1") -> None:
        """
        Make sure that rsync finds no difference: contents, types, modes, owners, times, links,
        devices, access control lists, xattrs.

        :param without: names that the other tree hasn't.
        :param window: how many seconds times may differ by; -1 for not a nanosecond.
        """
        left_out = [f"--exclude=/{name}" for name in without]
        found = self.call(
            *(peer("rsync"), "-aAXnc", "--delete", "--itemize-changes"),
            *(f"--modify-window={window}", *left_out, f"{self.root}/", f"{other}/"),
        )
        self.assertEqual(b"", found)

    def untar(self, *args: str) -> None:
        """Run untar, which has to restore everything."""
        self.run_command("untar", *args)


class CasyncTests(PeerCase):
    """casync extracts what we write, and we extract what it writes, with nothing lost."""

    def setUp(self) -> None:
        super().setUp()
        self.program = peer("casync")
        if not {"owners", "xattrs", "acl", "fcaps", "chattr", "devices"} <= self.tree.has:
            self.skipTest("trees can't have everything here")

    def listing(self, directory: str) -> bytes:
        """Give casync's listing of a directory: all that it keeps."""
        return self.call(self.program, "mtree", "--exclude-nodump=no", directory)

    def assert_same(self, other: str) -> None:
        """Make sure that neither rsync nor casync finds a difference, but for what nodump means."""
        gone = [path.name for path in self.tree.root.iterdir() if "nodump" in path.name]
        self.assert_equal_trees(other, *gone)
        self.assertEqual(
            self.call(self.program, "mtree", self.root), self.call(self.program, "mtree", other)
        )

    def test_archive(self) -> None:
        """An archive of casync is unpacked, and over itself without a change."""
        self.call(self.program, "make", self.place("x.catar"), self.root)
        for _ in range(2):
            self.untar(self.place("x.catar"), self.place("out"))
            self.assert_same(self.place("out"))

    def test_nodump(self) -> None:
        """Attributes that mean that a file isn't packed are restored where it is all the same."""
        args = ("make", "--exclude-nodump=no", self.place("x.catar"), self.root)
        self.call(self.program, *args)
        self.untar(self.place("x.catar"), self.place("out"))
        self.assert_equal_trees(self.place("out"))
        self.assertEqual(self.listing(self.root), self.listing(self.place("out")))

    def test_index(self) -> None:
        """An archive of casync in chunks is unpacked."""
        store = self.place("x.castr")
        self.call(self.program, "make", "--store", store, self.place("x.caidx"), self.root)
        self.untar("-i", "-s", store, self.place("x.caidx"), self.place("out"))
        self.assert_same(self.place("out"))

    def test_ours(self) -> None:
        """casync extracts our archive."""
        self.run_command("tar", BEST, self.place("x.catar"), self.root)
        self.call(self.program, "extract", self.place("x.catar"), self.place("out"))
        self.assert_same(self.place("out"))

    def test_ours_in_chunks(self) -> None:
        """casync extracts our archive in chunks."""
        store = self.store()
        self.run_command("tar", "-i", BEST, "-s", store, self.place("x.caidx"), self.root)
        self.call(
            *(self.program, "extract", "--store", store, "--seed-output=no"),
            *(self.place("x.caidx"), self.place("out")),
        )
        self.assert_same(self.place("out"))

    def test_default(self) -> None:
        """An archive as Go desync makes it keeps all but fifos, sockets and attributes."""
        self.run_command_with_notes("tar", self.place("x.catar"), self.root)
        self.untar(self.place("x.catar"), self.place("out"))
        self.assert_equal_trees(self.place("out"), "fifo", "socket")

    def run_command_with_notes(self, *args: str) -> None:
        """Run a command that has something to say, and succeeds."""
        from .command_line import desync

        self.assertEqual(0, desync(*args).code)


class TarTests(PeerCase):
    """Tar streams that we write are read by both tars, and the other way round."""

    def setUp(self) -> None:
        super().setUp()
        if not {"owners", "xattrs", "acl", "fcaps", "devices"} <= self.tree.has:
            self.skipTest("trees can't have everything here")
        self.tree.path("socket").unlink()
        os.utime(self.root, ns=(MTIME, MTIME))
        self.run_command("tar", BEST, "--exclude-nodump=no", self.path("x.catar"), self.root)
        self.gnu_tar = peer("gnu-tar")
        self.bsdtar = peer("bsdtar")

    def test_out(self) -> None:
        """GNU tar and bsdtar unpack what we write, in both formats, with nothing lost."""
        gnu = (self.gnu_tar, "--acls", "--xattrs", "--xattrs-include=*", "--same-owner", "-xpf")
        bsd = (self.bsdtar, "--acls", "--xattrs", "-xpf")
        for output, window in (("gnu-tar", "1"), ("pax", "-1")):
            stream = self.place(f"{output}.tar")
            self.run_command("untar", f"--output-format={output}", self.path("x.catar"), stream)
            for number, program in enumerate((gnu, bsd)):
                with self.subTest(output=output, program=program[0]):
                    target = self.place(f"{output}-{number}")
                    Path(target).mkdir()
                    self.call(*program, stream, "-C", target)
                    # bsdtar leaves the time of what it unpacks into.
                    os.utime(target, ns=(MTIME, MTIME))
                    self.assert_equal_trees(target, window=window)

    def test_in(self) -> None:
        """What GNU tar and bsdtar write is unpacked with nothing lost, hard links as files."""
        gnu = (self.gnu_tar, "--acls", "--xattrs", "--xattrs-include=*", "--format=posix")
        bsd = (self.bsdtar, "--acls", "--xattrs", "--format=pax")
        for number, program in enumerate((gnu, bsd)):
            with self.subTest(program=program[0]):
                stream = self.call(*program, "-C", self.root, "-cf", "-", ".")
                args = ("tar", "--input-format=tar", BEST, self.place("x.catar"), "-")
                self.run_command(*args, stdin=stream)
                target = self.place(f"in-{number}")
                self.untar(self.place("x.catar"), target)
                self.assert_equal_trees(target)

    def test_old_formats(self) -> None:
        """Other formats of GNU tar and bsdtar are read, as far as they go."""
        few = ("small", "small-again", "sticky", "of-200", "link", "long-link", "n" * 230)
        for program in (
            (self.gnu_tar, "--format=gnu"),
            (self.gnu_tar, "--format=oldgnu"),
            (self.gnu_tar, "--format=gnu", "--sparse"),
            (self.gnu_tar, "--format=posix", "--sparse"),
            (self.bsdtar, "--format=gnutar"),
        ):
            with self.subTest(program=program):
                stream = self.call(*program, "-C", self.root, "-cf", "-", *few)
                args = ("tar", "--input-format=tar", "--tar-add-root", BEST)
                self.run_command(*args, self.place("x.catar"), "-", stdin=stream)
                target = self.place("out")
                self.untar("--delete", self.place("x.catar"), target)
                self.assertEqual(sorted(few), sorted(path.name for path in Path(target).iterdir()))
                self.assertEqual(200, len(list(Path(target, "of-200").iterdir())))
                self.assertEqual(b"hello\n", Path(target, "small-again").read_bytes())

    def test_sparse(self) -> None:
        """Sparse files come out with their holes filled by zeros."""
        holes = self.tree.path("small")
        holes.unlink()
        with open(holes, "wb") as file:
            for at in range(0, 40 << 20, 4 << 20):
                file.seek(at)
                file.write(b"%d" % at)
            file.truncate(41 << 20)
        for format in ("gnu", "posix"):
            for version in ("0.0", "0.1", "1.0"):
                stream = self.call(
                    *(self.gnu_tar, f"--format={format}", "--sparse"),
                    *(f"--sparse-version={version}", "-C", self.root, "-cf", "-", "small"),
                )
                self.assertLess(len(stream), 1 << 20)
                args = ("tar", "--input-format=tar", "--tar-add-root", self.place("x.catar"), "-")
                self.run_command(*args, stdin=stream)
                self.untar(self.place("x.catar"), self.place("out"))
                self.assertEqual(holes.read_bytes(), Path(self.place("out"), "small").read_bytes())


class FuzzTests(PeerCase):
    """Archives with any bytes changed: nothing outside of the target changes."""

    def test_fuzz(self) -> None:
        """Whatever an archive says, the extractor ends in order, and stays inside."""
        fuzz(self.room, self.archive(), seconds=4.0, seed=11)

    def archive(self) -> bytes:
        """Give a small archive that has a bit of everything, links that lead outside too."""
        self.tree.unlock()
        for path in list(self.tree.root.iterdir()):
            if path.name.startswith(("of-", "large", "long", "n" * 9, "d" * 9, "level", "chattr")):
                self.call("rm", "-rf", str(path))
        (self.tree.root / "outside").symlink_to(self.room / "outside")
        (self.tree.root / "xoutside").mkdir()
        (self.tree.root / "xoutside" / "precious").write_bytes(b"evil")
        self.run_command("tar", BEST, self.path("x.catar"), self.root)
        return self.read("x.catar")
