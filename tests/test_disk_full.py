# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Commands that run out of space: a clear line, nothing half-written, no bad chunk."""

from __future__ import annotations

import os
import shutil
import subprocess

from twisted.trial.unittest import SkipTest

from .command_case import SIZES, CommandCase, sample
from .command_line import Outcome, command, desync, process_environ

SMALL = 1 << 20
"""Bytes of the file system that things don't fit into."""


class DiskFullTests(CommandCase):
    """A file, and a small file system to put things on."""

    def setUp(self) -> None:
        super().setUp()
        mount, umount = shutil.which("mount"), shutil.which("umount")
        if os.geteuid() != 0 or mount is None or umount is None:
            raise SkipTest("only root can mount a small file system")
        os.mkdir(self.path("full"))
        options = ("-t", "tmpfs", "-o", f"size={SMALL}", "desync-test", self.path("full"))
        done = subprocess.run([mount, *options], capture_output=True, check=False)
        if done.returncode:
            raise SkipTest(f"no file system can be mounted: {done.stderr.decode().strip()}")
        self.addCleanup(subprocess.run, [umount, "-l", self.path("full")], check=True)

    def assert_full(self, outcome: Outcome, *parts: str) -> None:
        """Make sure that a command said what didn't fit where, and left nothing behind."""
        self.assert_error(outcome, "No space left on device", *parts)
        self.assertEqual(self.leftovers("full"), [])

    def test_make(self) -> None:
        """A store that is full gets no index, and what is in it is good."""
        os.mkdir(self.path("full/store"))
        self.write("i", b"old")
        for size in (3 << 20, 12 << 20):  # by this process, and by workers
            path = self.write("a", sample(size))
            arguments = ("-s", self.path("full/store"), self.path("i"), path)
            self.assert_full(desync("make", *arguments), self.path("full/store"), "chunk ")
            self.assertEqual(self.read("i"), b"old")
            self.run_command("verify", "--quiet", "-s", self.path("full/store"))

    def test_index(self) -> None:
        """An index that doesn't fit leaves the old one."""
        path = self.write("a", sample(200_000))
        self.run_command("make", "-m", SIZES, self.path("full/i"), path)
        before = self.read("full/i")
        self.write("full/filler", bytes(SMALL - 16384))
        os.truncate(path, 6 << 20)
        outcome = desync("make", "-m", "1:1:1", self.path("full/i"), path)
        self.assert_full(outcome, self.path("full/i"))
        self.assertEqual(self.read("full/i"), before)

    def test_extract(self) -> None:
        """An output that doesn't fit leaves the old one."""
        self.write("full/out", b"old")
        for size in (1_100_000, 12 << 20):
            path = self.write("a", sample(size))
            if not os.path.isdir(self.path("store")):
                self.store()
            self.run_command("make", "-s", self.path("store"), self.path("a.caibx"), path)
            arguments = ("-s", self.path("store"), self.path("a.caibx"), self.path("full/out"))
            self.assert_full(desync("extract", *arguments), self.path("full/out"))
            self.assertEqual(self.read("full/out"), b"old")

    def test_chop(self) -> None:
        """A store that is full is an error of chop too."""
        path = self.write("a", sample(3 << 20))
        self.run_command("make", self.path("a.caibx"), path)
        os.mkdir(self.path("full/store"))
        arguments = ("-s", self.path("full/store"), self.path("a.caibx"), path)
        self.assert_full(desync("chop", *arguments), self.path("full/store"))
        self.run_command("verify", "--quiet", "-s", self.path("full/store"))

    def test_cat(self) -> None:
        """A part that doesn't fit leaves the old file."""
        self.sample_store(sample(3 << 20))
        self.write("full/out", b"old")
        arguments = ("-s", self.path("store"), self.path("a.caibx"), self.path("full/out"))
        self.assert_full(desync("cat", *arguments), self.path("full/out"))
        self.assertEqual(self.read("full/out"), b"old")


class FullOutputTests(CommandCase):
    """Commands whose stdout goes to a device that is full."""

    def test_stdout(self) -> None:
        """What can't be written to stdout is an error."""
        if not os.path.exists("/dev/full"):
            raise SkipTest("there is no /dev/full")
        self.sample_store(sample(300_000))
        store = ("-s", self.path("store"))
        for args in (
            ("cat", *store, self.path("a.caibx")),
            ("make", "-", self.path("a")),
            ("list-chunks", self.path("a.caibx")),
            ("info", self.path("a.caibx")),
            ("inspect-chunks", self.path("a.caibx")),
            ("chunk", self.path("a")),
            ("extract", "--print-stats", *store, self.path("a.caibx"), self.path("out")),
        ):
            with open("/dev/full", "wb") as full:
                done = subprocess.run(
                    command(*args),
                    stdout=full,
                    stderr=subprocess.PIPE,
                    env=process_environ(),
                    timeout=60,
                    check=False,
                )
            outcome = Outcome(done.returncode, b"", done.stderr.decode())
            self.assert_error(outcome, "standard output: No space left on device")
