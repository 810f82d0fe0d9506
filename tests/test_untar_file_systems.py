# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What only some file systems have, unpacked: packed again, it gives the same archive. Unpacked over
itself, nothing changes.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

from desync.formats import flags as feature
from desync.trees import inode_flags

from .command_case import CommandCase, sample
from .loop_devices import MIB, file_system, for_test
from .test_tar_file_systems import set_attribute


class FileSystemTests(CommandCase):
    """A file system for each test."""

    def tree_on(self, kind: str, size: int) -> Path:
        """Make a file system with a folder on it."""
        path = Path(for_test(file_system(kind, size), self.addCleanup)) / "tree"
        path.mkdir()
        return path

    def assert_restored(self, tree: Path, *args: str, copy: str = "copy") -> Path:
        """Pack a tree, unpack it beside, twice, and make sure that it is the same."""
        args = args or ("--with=best",)
        target = tree.parent / copy
        self.run_command("tar", *args, self.path("x.catar"), str(tree))
        for _ in range(2):
            self.run_command("untar", self.path("x.catar"), str(target))
            self.run_command("tar", *args, self.path("y.catar"), str(target))
            self.assertEqual(self.read("x.catar"), self.read("y.catar"))
        return target

    def test_btrfs(self) -> None:
        """Subvolumes, read-only ones too, and what chattr says to btrfs."""
        tree = self.tree_on("btrfs", 160 * MIB)
        subvolume = ["btrfs", "subvolume"]
        subprocess.run([*subvolume, "create", str(tree / "v")], capture_output=True, check=True)
        (tree / "v" / "inside").write_bytes(b"x")
        snapshot = [*subvolume, "snapshot", "-r", str(tree / "v"), str(tree / "ro")]
        subprocess.run(snapshot, capture_output=True, check=True)
        for name, bit in (
            ("compressed", feature.WITH_FLAG_COMPR),
            ("in-place", feature.WITH_FLAG_NOCOW),
        ):
            (tree / name).touch()
            set_attribute(tree / name, bit)
            (tree / name).write_bytes(sample(100_000))
        target = self.assert_restored(tree)
        self.assertEqual(256, os.stat(target / "v").st_ino)
        (tree / "in-place").write_bytes(sample(100_000, 1))
        self.assert_restored(tree)
        self.assertRaises(OSError, (target / "ro" / "x").touch)

    def test_shared(self) -> None:
        """A file of which a part changed shares the rest with the old one, where that can be."""
        tree = self.tree_on("xfs", 320 * MIB)
        data = bytearray(os.urandom(16 * MIB))
        (tree / "f").write_bytes(data)
        target = self.assert_restored(tree)
        before = os.statvfs(tree)
        data[10 * MIB] ^= 1
        (tree / "f").write_bytes(data)
        os.sync()
        used = os.statvfs(tree)
        self.assert_restored(tree)
        os.sync()
        after = os.statvfs(tree)
        self.assertEqual(bytes(data), (target / "f").read_bytes())
        del before
        more = (used.f_bfree - after.f_bfree) * after.f_frsize
        self.assertLess(more, 8 * MIB)

    def test_projects(self) -> None:
        """The quota projects of files and directories."""
        tree = self.tree_on("xfs", 320 * MIB)
        (tree / "d").mkdir()
        (tree / "f").write_bytes(b"f")
        (tree / "none").write_bytes(b"n")
        for name, project in (("d", 77), ("f", 70_000)):
            descriptor = os.open(tree / name, os.O_RDONLY)
            inode_flags.set_project(descriptor, project)
            os.close(descriptor)
        self.assert_restored(tree)

    def test_fat(self) -> None:
        """The attributes that FAT keeps, its times of two seconds, and that it has no owners."""
        tree = self.tree_on("vfat", 16 * MIB)
        for name, bits in (
            ("hidden", feature.WITH_FLAG_HIDDEN),
            ("system", feature.WITH_FLAG_SYSTEM | feature.WITH_FLAG_ARCHIVE),
            ("none", 0),
        ):
            (tree / name).write_bytes(b"x")
            descriptor = os.open(tree / name, os.O_RDONLY)
            inode_flags.set_fat(descriptor, bits, inode_flags.FAT_BITS)
            os.close(descriptor)
        self.assert_restored(tree, "--with=fat")

    def test_labels(self) -> None:
        """SELinux labels of files and directories."""
        tree = self.tree_on("ext4", 16 * MIB)
        (tree / "f").write_bytes(b"f")
        label = b"system_u:object_r:usr_t:s0"
        try:
            for path in (tree, tree / "f"):
                os.setxattr(path, "security.selinux", label + b"\0")
        except OSError as error:
            raise SkipTest(f"labels can't be set here: {error.strerror}") from None
        self.assert_restored(tree)
        (tree / "l").symlink_to("f")
        os.setxattr(tree / "l", "security.selinux", label + b"\0", follow_symlinks=False)
        self.assert_restored(tree, copy="with-links")

    def test_full(self) -> None:
        """A file system that is full is named, and no part of a file is left."""
        from .command_line import desync

        tree = self.folder / "tree"
        tree.mkdir()
        (tree / "f").write_bytes(os.urandom(30 * MIB))
        self.run_command("tar", self.path("x.catar"), str(tree))
        target = self.tree_on("ext4", 16 * MIB)
        outcome = desync("untar", self.path("x.catar"), str(target))
        self.assert_error(outcome, f"{target}/f", "No space left")
        self.assertEqual([], os.listdir(target))
