# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The real casync: what we make of a tree with everything in it is what it makes, byte for byte."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest

from desync.formats.posix_acl import ACCESS_XATTR, PosixAcl
from desync.formats.posix_acl import encode as posix_acl_value

from .command_case import CommandCase, remove_tree
from .peers import peer
from .sample_tree import SampleTree

FEATURES = (
    "--with=best",
    "--with=all",
    "--with=unix",
    "--with=fat",
    "--with=chattr",
    "--with=fat-attrs",
    "--with=privileged",
    "--with=fuse",
    "--without=best",
    "--without=unix",
    "--without=fat",
    "--without=chattr",
    "--without=privileged",
    "--without=fuse",
    "--without=all",
    "--without=fuse --without=acl",
    "--with=all --digest=sha256",
    "--without=all --exclude-nodump=no",
    "--with=best --exclude-nodump=no",
    "--with=acl",
    "--with=acl --with=16bit-uids",
    "--with=acl --with=user-names",
    "--with=16bit-uids --with=2sec-time --with=read-only",
    "--with=user-names",
    "--with=symlinks",
    "--with=xattrs --with=usec-time",
    "--with=quota-projid --with=subvolume-ro",
)

NARROW = frozenset({"--with=unix", "--without=best"})
"""Features whose archives can't record large ids."""


PATTERNS = (
    *("*.o", "foo\n!a/foo", "/foo", "a/b/", "b/c", "a/*/c", "/a/b/*\n!/a/b/foo", "*", ".*"),
    *("!foo\n*", "sp ace", "  foo  ", "foo\r", "[a-c]", "a/", "foo/", "//foo", "a//b///", "#foo"),
    *("\\#foo", "f\\oo", "! foo", "**/foo", "a/**", "[!a]", "[[:alpha:]]", "[[:digit:]A]", "[]"),
    *("a/b/c/\n!z", "fo?\n!a/b/foo", "!/a\na", "\t foo", "foo #x", "!a/\n/a", "[.]hid", "?hid"),
)


class CasyncTreeTests(CommandCase):
    """A tree that has everything, packed by both."""

    def setUp(self) -> None:
        super().setUp()
        self.casync_program = peer("casync")
        # Not on a file system in memory, which hasn't all that is to be recorded.
        elsewhere = Path(tempfile.mkdtemp(prefix="desync-test-", dir="/var/tmp"))
        self.addCleanup(remove_tree, elsewhere)
        self.tree = SampleTree(elsewhere / "tree")
        self.addCleanup(self.tree.unlock)

    def casync(self, *args: str) -> bytes:
        """Run casync, which has to succeed and not to take long."""
        done = subprocess.run(
            [self.casync_program, *args],
            capture_output=True,
            timeout=60,
            cwd=self.folder,
            check=False,
        )
        self.assertEqual(done.returncode, 0, (args, done.stderr))
        return done.stdout

    def assert_same(self, *args: str, root: Path | None = None) -> None:
        """Make sure that both make the same archive, of the tree unless another is given."""
        path = str(root or self.tree.root)
        self.casync("make", *args, self.path("theirs.catar"), path)
        self.run_command("tar", *args, self.path("ours.catar"), path)
        self.assertEqual(self.read("ours.catar"), self.read("theirs.catar"), args)

    def test_all_features(self) -> None:
        """Archives of many sets of features are equal."""
        for features in FEATURES:
            if features not in NARROW and "16bit" not in features:
                self.assert_same(*features.split())
        # Numbers beyond 16 bits can't be recorded in those; they may not be in the tree.
        if "owners" in self.tree.has:
            self.tree.path("big").unlink()
        if "acl" in self.tree.has:
            for name in ("acl-file", "acl-directory"):
                self.casync_can_take(name)
        for features in FEATURES:
            if features in NARROW or "16bit" in features:
                self.assert_same(*features.split())

    def casync_can_take(self, name: str) -> None:
        """Take the access control lists off a node whose ids are beyond 16 bits."""
        subprocess.run(["rm", "-rf", str(self.tree.path(name))], check=True)

    def test_excludes(self) -> None:
        """What .caexclude files name is left out by both."""
        root = self.tree.root
        (root / ".caexclude").write_bytes(b"of-1*\n!of-17\nlevel0/level1/level3\n/empty\nsticky/\n")
        (root / "level0" / ".caexclude").write_bytes(b"# deeper\n  bottom  \n[ab]*\n")
        self.assert_same("--with=best")

    def test_patterns(self) -> None:
        """Patterns of all kinds mean the same to both."""
        root = self.tree.root.parent / "patterns"
        for name in ("a/b/c/z", "a/b/y.o", "a/x.o", "a/foo", "a/b/foo", "d/keep.o", ".hid", "foo"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        for name in ("sp ace", "t", "1", "A"):
            (root / name).touch()
        for pattern in PATTERNS:
            (root / ".caexclude").write_text(pattern + "\n")
            self.assert_same("--with=best", root=root)

    def test_shift(self) -> None:
        """Owners, and whom access control lists name, are shifted and taken modulo by both."""
        if not {"owners", "acl"} <= self.tree.has:
            raise SkipTest("files can't be given away here, or have no access control lists")
        root = self.tree.root.parent / "container"
        root.mkdir()
        for name, owner in (("a", 200_001), ("b", 300_000), ("c", 200_000)):
            (root / name).write_bytes(b"")
            os.chown(root / name, owner, owner + 5)
        os.chown(root, 200_000, 200_000)
        acl = PosixAcl(7, 5, 0, 7, ((200_001, 6), (200_004, 4)), ((200_002, 5),))
        os.setxattr(root / "a", ACCESS_XATTR, posix_acl_value(acl))
        for options in (
            ("--uid-shift=200000",),
            ("--uid-shift=yes",),
            ("--uid-shift=no",),
            ("--uid-range=1000",),
            ("--uid-shift=100000", "--uid-range=4294967295"),
        ):
            for features in ("--with=best", "--with=32bit-uids", "--with=user-names"):
                self.assert_same(features, *options, root=root)

    def test_index(self) -> None:
        """The index of the tree, and the chunks in the store, are the same too."""
        store = self.store()
        for digest in ("sha512-256", "sha256"):
            options = ("--with=best", f"--digest={digest}")
            self.casync(
                *("make", *options, "--store", self.path("theirs.castr")),
                *(self.path("theirs.caidx"), str(self.tree.root)),
            )
            self.run_command(
                "tar", "-i", *options, "-s", store, self.path("ours.caidx"), str(self.tree.root)
            )
            self.assertEqual(self.read("ours.caidx"), self.read("theirs.caidx"))

    def test_listings(self) -> None:
        """mtree, list and digest print what casync prints, of directories, archives and indexes."""
        root = str(self.tree.root)
        store = self.store()
        archive, index = self.path("o.catar"), self.path("o.caidx")
        for features in (["--with=best"], ["--with=unix", "--without=16bit-uids"], ["--with=fat"]):
            self.run_command("tar", *features, archive, root)
            self.run_command("tar", "-i", *features, "-s", store, index, root)
            for command, extra in (
                ("mtree", ["--format=casync"]),
                ("list", []),
                ("digest", []),
            ):
                expected = self.casync(command, archive)
                self.assertEqual(self.casync(command, *features, root), expected)
                for source in ([archive], ["-s", store, index], [*features, root]):
                    found = self.run_command(command, *extra, *source).out
                    self.assertEqual(found, expected, (command, source))
