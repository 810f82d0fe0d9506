# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync mount``: trees in archives, mounted and looked at by real programs."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import tempfile
from pathlib import Path

from desync.errors import InvalidArchive
from desync.mounting.archive_tree import ArchiveFile, ArchiveTree

from . import command_line
from .archives import archive, device, directory, fifo, file, symlink
from .command_case import CommandCase, remove_tree
from .mounts import Mounted, need_fuse
from .peers import peer
from .sample_tree import SampleTree


class TreeTests(CommandCase):
    """The file system, without a mount."""

    def tree(self, data: bytes) -> ArchiveTree:
        """Open an archive."""
        path = self.write("x.catar", data)
        descriptor = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        self.said: list[str] = []
        return ArchiveTree(ArchiveFile(descriptor), path, self.said.append)

    def test_nodes(self) -> None:
        """Each node is found by its path, before and after its directory was listed."""
        tree = self.tree(
            archive(
                [
                    *directory(b"d", file(b"f", b"12345", 0o640, uid=5, gid=6), mode=0o750),
                    *device(b"dev", stat.S_IFBLK, 8, 1),
                    *symlink(b"l", b"d/\xff"),
                    *fifo(b"p"),
                ]
            )
        )
        for _ in range(2):
            found = tree.getattr("/d/f")
            self.assertEqual(0o100640, found["st_mode"])
            self.assertEqual((5, 6, 5), (found["st_size"], found["st_gid"], found["st_uid"]))
            self.assertEqual(os.makedev(8, 1), tree.getattr("/dev")["st_rdev"])
            self.assertEqual("d/\udcff", tree.readlink("/l"))
            self.assertTrue(stat.S_ISFIFO(tree.getattr("/p")["st_mode"]))
            self.assertEqual(["d", "dev", "l", "p"], list(tree.readdir("/")))
            self.assertEqual(["f"], list(tree.readdir("/d")))
        for path, code in (("/x", errno.ENOENT), ("/d/f/g", errno.ENOTDIR), ("/d/x", errno.ENOENT)):
            self.assertEqual(code, self.assertRaises(OSError, tree.getattr, path).errno)
        self.assertRaises(OSError, tree.readdir, "/l")
        self.assertRaises(OSError, tree.readlink, "/d")

    def test_reading(self) -> None:
        """Any part of a file is read, and nothing beyond it."""
        tree = self.tree(archive([*file(b"a", b"0123456789"), *file(b"b", b"after")]))
        handle = tree.open("/a")
        for offset, size, expected in ((0, 4, b"0123"), (8, 99, b"89"), (10, 5, b""), (99, 5, b"")):
            buffer = bytearray(size)
            count = tree.read_into(handle, memoryview(buffer), offset)
            self.assertEqual(expected, buffer[:count])
        self.assertRaises(OSError, tree.open, "/")

    def test_bad_archives(self) -> None:
        """What has no tables is refused; of what is broken deeper, only that can't be read."""
        good = archive(directory(b"d", file(b"f", b"12345")))
        for bad in (b"", good[:-1], good[: len(good) // 2], b"x" * 500, good + b"more"):
            self.assertRaises(InvalidArchive, self.tree, bad)
        generator = random.Random(3)
        for _ in range(500):
            data = bytearray(good)
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            try:
                tree = self.tree(bytes(data))
                for path in ("/", "/d"):
                    tree.readdir(path)
                tree.getattr("/d/f")
                tree.read_into(tree.open("/d/f"), memoryview(bytearray(100)), 0)
            except (OSError, InvalidArchive):
                continue


class MountTests(CommandCase):
    """Real mounts."""

    def setUp(self) -> None:
        need_fuse()
        super().setUp()
        self.mountpoint = self.store("mnt")

    def mount(self, *arguments: str, name: str) -> Mounted:
        """Mount an archive."""
        return Mounted(*arguments, mountpoint=self.mountpoint, name=name, program="mount")

    def test_index(self) -> None:
        """Of an archive in chunks, only what is read is fetched."""
        store, cache = self.store(), self.store("cache")
        tree = self.folder / "tree"
        (tree / "sub").mkdir(parents=True)
        generator = random.Random(5)
        content = [generator.randbytes(3_000_000) for _ in range(8)]
        for number, data in enumerate(content):
            (tree / "sub" / f"f{number}").write_bytes(data)
        index = self.path("x.caidx")
        self.run_command("tar", "-i", "-s", store, index, str(tree))
        with self.mount("-i", "-s", store, "-c", cache, index, name="sub") as mounted:
            self.assertEqual(8, len(os.listdir(mounted.file)))
            with open(mounted.file / "f6", "rb", buffering=0) as file:
                found = os.pread(file.fileno(), 100, 2_000_000)
                self.assertEqual(content[6][2_000_000:2_000_100], found)
            self.assertEqual(content[7], (mounted.file / "f7").read_bytes())
            self.assertEqual((0, b"", ""), mounted.end())
        fetched = sum(len(files) for _, _, files in os.walk(cache))
        whole = sum(len(files) for _, _, files in os.walk(store))
        self.assertLess(0, fetched)
        self.assertLess(fetched, whole // 2)

    def test_everything(self) -> None:
        """rsync finds no difference between a tree and its mounted archive."""
        elsewhere = Path(tempfile.mkdtemp(prefix="desync-test-", dir="/var/tmp"))
        self.addCleanup(remove_tree, elsewhere)
        tree = SampleTree(elsewhere / "tree")
        self.addCleanup(tree.unlock)
        args = ("--with=best", "--exclude-nodump=no")
        self.run_command("tar", *args, self.path("x.catar"), str(tree.root))
        with self.mount(self.path("x.catar"), name="small") as mounted:
            done = subprocess.run(
                [
                    *(peer("rsync"), "-aXnc", "--delete", "--itemize-changes"),
                    *("--modify-window=-1", f"{tree.root}/", f"{self.mountpoint}/"),
                ],
                capture_output=True,
                timeout=60,
                check=False,
            )
            self.assertEqual((0, b"", b""), (done.returncode, done.stdout, done.stderr))
            self.assertRaises(OSError, open, mounted.file, "wb")
            self.assertEqual((0, b"", ""), mounted.end())

    def test_refused(self) -> None:
        """What is no archive is refused in one line, and nothing is mounted."""
        path = self.write("x.catar", b"x" * 1000)
        outcome = command_line.desync_process("mount", path, self.mountpoint)
        self.assert_error(outcome, path)
        missing = self.path("missing")
        outcome = command_line.desync_process("mount", missing, self.mountpoint)
        self.assert_error(outcome, missing, "No such file")

    def test_flags(self) -> None:
        """Flags that don't fit are refused."""
        for args in (["-i", "x"], ["-s", "x", "y"]):
            outcome = command_line.desync("mount", *args, self.mountpoint)
            self.assert_error(outcome, "-i")
