# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What only some file systems have, packed by us and by the real casync: subvolumes, quota projects,
compression, attributes of FAT, labels, mount points.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

from desync.formats import flags as feature
from desync.formats.catar import Directory, EndDirectory, File, Payload
from desync.formats.listing import Node
from desync.trees import inode_flags

from .command_case import CommandCase
from .loop_devices import MIB, file_system, for_test
from .peers import peer
from .test_command_tar import events_of, names_of


class FileSystemTests(CommandCase):
    """A file system for each test, and the same archive of it by both."""

    def setUp(self) -> None:
        super().setUp()
        self.casync = peer("casync")

    def tree_on(self, kind: str, size: int) -> Path:
        """Make a file system with a folder on it."""
        path = Path(for_test(file_system(kind, size), self.addCleanup)) / "tree"
        path.mkdir()
        return path

    def packed(self, tree: Path, *args: str) -> dict[bytes, Node]:
        """Pack a tree by both, which has to give the same, and give the nodes by their names."""
        theirs = self.path("theirs.catar")
        done = subprocess.run(
            [self.casync, "make", *args, theirs, str(tree)],
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.run_command("tar", *args, self.path("ours.catar"), str(tree))
        data = self.read("ours.catar")
        self.assertEqual(data, self.read("theirs.catar"))
        return {event.name: event for event in nodes_of(data)}

    def test_btrfs(self) -> None:
        """Subvolumes, read-only ones too, and what chattr says to btrfs."""
        tree = self.tree_on("btrfs", 160 * MIB)
        subvolume = ["btrfs", "subvolume"]
        subprocess.run([*subvolume, "create", str(tree / "v")], capture_output=True, check=True)
        (tree / "v" / "inside").write_bytes(b"x")
        snapshot = [*subvolume, "snapshot", "-r", str(tree / "v"), str(tree / "ro")]
        subprocess.run(snapshot, capture_output=True, check=True)
        (tree / "plain").mkdir()
        for name, bit in (
            ("compressed", feature.WITH_FLAG_COMPR),
            ("in-place", feature.WITH_FLAG_NOCOW),
        ):
            (tree / name).touch()
            set_attribute(tree / name, bit)
        found = self.packed(tree, "--with=best")
        attributes = {name: flags_of(event) for name, event in found.items()}
        self.assertEqual(attributes[b"v"], feature.WITH_SUBVOLUME)
        self.assertEqual(attributes[b"ro"], feature.WITH_SUBVOLUME | feature.WITH_SUBVOLUME_RO)
        self.assertEqual(attributes[b"plain"], 0)
        self.assertEqual(attributes[b"compressed"], feature.WITH_FLAG_COMPR)
        self.assertEqual(attributes[b"in-place"], feature.WITH_FLAG_NOCOW)
        self.packed(tree, "--with=subvolume")
        self.packed(tree, "--without=subvolume")

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
        found = self.packed(tree, "--with=best")
        projects = {
            name: event.metadata.quota_projid
            for name, event in found.items()
            if isinstance(event, File | Directory)
        }
        self.assertEqual(projects, {b"": 0, b"d": 77, b"f": 70_000, b"none": 0})

    def test_fat(self) -> None:
        """The attributes that FAT keeps, and its times of two seconds."""
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
            (tree / name).chmod(0o444 if name == "none" else 0o755)
        for features in ("--with=fat", "--with=best", "--with=fat-attrs"):
            found = self.packed(tree, features)
            self.assertEqual(flags_of(found[b"hidden"]), feature.WITH_FLAG_HIDDEN)
            self.assertEqual(
                flags_of(found[b"system"]), feature.WITH_FLAG_SYSTEM | feature.WITH_FLAG_ARCHIVE
            )

    def test_labels(self) -> None:
        """SELinux labels of files, directories and links."""
        tree = self.tree_on("ext4", 16 * MIB)
        (tree / "f").write_bytes(b"f")
        (tree / "l").symlink_to("f")
        label = b"system_u:object_r:usr_t:s0"
        try:
            for path in (tree, tree / "f", tree / "l"):
                os.setxattr(path, "security.selinux", label + b"\0", follow_symlinks=False)
        except OSError as error:
            raise SkipTest(f"labels can't be set here: {error.strerror}") from None
        found = self.packed(tree, "--with=best")
        for event in found.values():
            self.assertEqual(event.metadata.selinux, label)

    def test_mount_points(self) -> None:
        """What is mounted in a tree is left out on request, by casync's flag and by Go's."""
        tree = self.tree_on("ext4", 16 * MIB)
        (tree / "a").write_bytes(b"a")
        (tree / "z").write_bytes(b"z")
        (tree / "m").mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "none", str(tree / "m")], capture_output=True, check=False
        )
        if mounted.returncode:
            raise SkipTest("nothing can be mounted here")
        self.addCleanup(subprocess.run, ["umount", str(tree / "m")], check=True)
        (tree / "m" / "inside").write_bytes(b"i")
        everything = self.packed(tree, "--with=best", "--exclude-submounts=no")
        self.assertEqual(sorted(everything), [b"", b"a", b"inside", b"m", b"z"])
        some = self.packed(tree, "--with=best", "--exclude-submounts=yes")
        self.assertEqual(sorted(some), [b"", b"a", b"z"])
        self.run_command("tar", "-x", self.path("x.catar"), str(tree))
        self.assertEqual(names_of(self.read("x.catar")), ["a", "z"])

    def test_proc(self) -> None:
        """Of /proc only the directory is packed, as casync does it."""
        tree = self.tree_on("ext4", 16 * MIB)
        (tree / "p").mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "proc", "proc", str(tree / "p")], capture_output=True, check=False
        )
        if mounted.returncode:
            raise SkipTest("/proc can't be mounted here")
        self.addCleanup(subprocess.run, ["umount", str(tree / "p")], check=True)
        self.assertEqual(sorted(self.packed(tree, "--with=unix")), [b"", b"p"])


def nodes_of(data: bytes) -> list[Node]:
    """The nodes in an archive."""
    events = events_of(data)
    return [event for event in events if not isinstance(event, EndDirectory | Payload)]


def set_attribute(path: Path, bit: int) -> None:
    """Set one of chattr's attributes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        inode_flags.set_chattr(descriptor, bit, inode_flags.CHATTR_BITS)
    finally:
        os.close(descriptor)


def flags_of(event: Node) -> int:
    """A node's attributes."""
    assert isinstance(event, File | Directory)
    return event.metadata.flags
