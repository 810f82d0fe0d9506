# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Replacing a whole file at once."""

from __future__ import annotations

import os
import resource
import stat
import threading

from twisted.trial.unittest import SynchronousTestCase

from desync import umask
from desync.errors import FileError
from desync.replace import replacing


class ReplaceTests(SynchronousTestCase):
    """Either the old content is there or all of the new, and nothing else is left."""

    def setUp(self) -> None:
        self.directory: str = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.target = os.path.join(self.directory, "target")

    def write(self, data: bytes, path: str | None = None) -> None:
        with open(path or self.target, "wb") as file:
            file.write(data)

    def read(self, path: str | None = None) -> bytes:
        with open(path or self.target, "rb") as file:
            return file.read()

    def mode(self) -> int:
        return stat.S_IMODE(os.stat(self.target).st_mode)

    def test_new(self) -> None:
        """A new file appears once it is complete, with the mode that any new file gets."""
        for sync in "none", "end", "each":
            with replacing(self.target, sync=sync) as out:
                out.write(b"some ")
                self.assertFalse(os.path.exists(self.target))
                out.write(memoryview(bytearray(b"data")))
            self.assertEqual((self.read(), self.mode()), (b"some data", 0o666 & ~umask.START))
            self.assertEqual(os.listdir(self.directory), ["target"])
            os.unlink(self.target)

    def test_replaces(self) -> None:
        """An old file is there until the new one is complete, and hands on its mode."""
        self.write(b"old")
        os.chmod(self.target, 0o640)
        with replacing(self.target) as out:
            out.write(b"new")
            self.assertEqual(self.read(), b"old")
        self.assertEqual((self.read(), self.mode()), (b"new", 0o640))

    def test_mode(self) -> None:
        """A mode that is asked for is what the file gets, whatever there was and the umask."""
        self.write(b"old")
        before = os.umask(0o777)
        try:
            with replacing(self.target, 0o604) as out:
                out.write(b"new")
        finally:
            os.umask(before)
        self.assertEqual(self.mode(), 0o604)

    def test_failing_body(self) -> None:
        """If the body fails, or is interrupted, all is as before."""
        self.write(b"old")
        for error in ValueError, KeyboardInterrupt:
            with self.assertRaises(error), replacing(self.target) as out:
                out.write(b"new")
                raise error
            self.assertEqual(self.read(), b"old")
            self.assertEqual(os.listdir(self.directory), ["target"])

    def test_failing_steps(self) -> None:
        """If a step of the replacement is interrupted, the old file is there, or all of the new."""

        def interrupt(*args: object) -> None:
            raise KeyboardInterrupt

        for function in "rename", "fsync", "write", "chmod":
            self.write(b"old")
            patched = self.patch(os, function, interrupt)
            with self.assertRaises(KeyboardInterrupt), replacing(self.target) as out:
                out.write(b"new")
            patched.restore()
            self.assertEqual(self.read(), b"old")
            self.assertEqual(os.listdir(self.directory), ["target"], function)

    def test_disk_full(self) -> None:
        """If there is no room, the error names the target, and all is as before."""
        self.write(b"old")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with self.assertRaises(FileError) as caught, replacing(self.target) as out:
                out.write(bytes(2000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assertEqual(str(caught.exception), f"{self.target}: File too large")
        self.assertEqual(self.read(), b"old")
        self.assertEqual(os.listdir(self.directory), ["target"])

    def test_impossible(self) -> None:
        """A directory, a file in one that isn't there, and no name at all can't be written."""
        os.mkdir(self.target)
        for path, why in (
            (self.target, "Is a directory"),
            (self.target + "/", "Is a directory"),
            (os.path.join(self.directory, "absent", "file"), "No such file or directory"),
            ("", "No such file or directory"),
        ):
            with self.assertRaises(FileError) as caught, replacing(path):
                self.fail("not reached")
            self.assertEqual(str(caught.exception), f"{path}: {why}")

    def test_shown(self) -> None:
        """Errors can name the target as the user did."""
        with self.assertRaises(FileError) as caught, replacing(self.directory, shown="x\\ny"):
            self.fail("not reached")
        self.assertEqual(str(caught.exception), "x\\ny: Is a directory")

    def test_link(self) -> None:
        """What a symbolic link leads to is replaced, there or not, and the link stays."""
        elsewhere = os.path.join(self.directory, "elsewhere")
        os.symlink("elsewhere", self.target)
        for data in b"first", b"second":
            with replacing(self.target) as out:
                out.write(data)
            self.assertTrue(os.path.islink(self.target))
            self.assertEqual(self.read(elsewhere), data)

    def test_not_regular(self) -> None:
        """A pipe or device isn't replaced but written to."""
        os.mkfifo(self.target)
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append(self.read()))
        reader.start()
        with replacing(self.target) as out:
            self.assertFalse(out.is_regular)
            out.write(b"data")
        reader.join()
        self.assertEqual(received, [b"data"])
        self.assertTrue(stat.S_ISFIFO(os.stat(self.target).st_mode))
        with replacing("/dev/null") as out:
            out.write(b"data")
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))

    def test_long_name(self) -> None:
        """A name may be as long as the file system allows, and needn't be UTF-8."""
        for name in b"n" * 255, b"\xc3\xa9" * 127, b"\xff\xfe":
            path = os.fsdecode(os.path.join(os.fsencode(self.directory), name))
            with replacing(path) as out:
                out.write(b"data")
            self.assertEqual(self.read(path), b"data")
        self.assertEqual(len(os.listdir(self.directory)), 3)

    def test_stale(self) -> None:
        """What a killed writer of the same target left is removed, and nothing else."""
        stale = f".target.{'0123456789abcdef'}"
        others = [".target.0123", ".target.0123456789abcdeg", ".other.0123456789abcdef", "target.x"]
        for name in (stale, *others):
            self.write(b"half", os.path.join(self.directory, name))
        with replacing(self.target) as out:
            out.write(b"data")
        self.assertEqual(sorted(os.listdir(self.directory)), sorted([*others, "target"]))

    def test_two_writers(self) -> None:
        """Who still writes the same target is left alone; the last to finish wins."""
        with replacing(self.target) as first:
            first.write(b"first")
            with replacing(self.target) as second:
                second.write(b"second")
            self.assertEqual(self.read(), b"second")
        self.assertEqual(self.read(), b"first")
        self.assertEqual(os.listdir(self.directory), ["target"])

    def test_many_writers(self) -> None:
        """Many may write the same target at the same time."""
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for _ in range(50):
                    with replacing(self.target, sync="none") as out:
                        out.write(b"%d" % number * 1000)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(os.listdir(self.directory), ["target"])
        data = self.read()
        self.assertEqual(data, data[:1] * 1000)
