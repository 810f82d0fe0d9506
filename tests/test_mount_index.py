# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync mount-index``: real mounts of local stores, read by real programs."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import signal
import subprocess
import threading
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from desync.cli.mount_index import name_of
from desync.mounting.mount import READ_AHEAD_KIB, device_of

from .command_case import SIZES, CommandCase, sample
from .command_line import desync_process
from .mounts import Mounted, need_fuse

SIZE = 3 << 20


class MountCase(CommandCase):
    """A test case with a store, an index and a folder to mount on."""

    def setUp(self) -> None:
        need_fuse()
        super().setUp()
        self.data = sample(SIZE) + bytes(100_000) + sample(123_457, 1)
        self.file = self.sample_store(self.data)
        self.mountpoint = self.store("mnt")

    def mount(self, *more: str, index: str = "a.caibx") -> Mounted:
        """Mount the sample."""
        return Mounted(
            "-s", self.path("store"), *more, self.path(index), mountpoint=self.mountpoint
        )

    def assert_unmounted(self) -> None:
        """Make sure that nothing is mounted."""
        self.assertIsNone(device_of(os.path.realpath(self.mountpoint)))
        self.assertEqual(os.listdir(self.mountpoint), [])


class ReadingTests(MountCase):
    """What is in the mount, and how it is read."""

    def test_whole(self) -> None:
        """cmp and dd find the blob in the file, which ls describes."""
        with self.mount() as mounted:
            self.assertEqual(os.listdir(self.mountpoint), ["a"])
            found = mounted.file.stat()
            self.assertEqual((found.st_mode, found.st_size), (0o100444, len(self.data)))
            self.assertEqual((found.st_uid, found.st_gid), (0, 0))
            self.assertGreater(found.st_mtime, 0)
            subprocess.run(["cmp", mounted.file, self.file], check=True, timeout=60)
            read = subprocess.run(
                ["dd", f"if={mounted.file}", "bs=1M", "status=none"],
                check=True,
                stdout=subprocess.PIPE,
                timeout=60,
            )
            self.assertEqual(read.stdout, self.data)
            self.assertEqual(mounted.end(), (0, b"", ""))
        self.assert_unmounted()

    def test_parts(self) -> None:
        """Any part can be read, at any place, and nothing beyond the end."""
        chooser = random.Random(1)
        with self.mount() as mounted, open(mounted.file, "rb", buffering=0) as file:
            for _ in range(200):
                offset = chooser.randrange(len(self.data))
                size = chooser.choice((1, 100, 4096, 70_000, 300_000))
                self.assertEqual(
                    os.pread(file.fileno(), size, offset), self.data[offset : offset + size]
                )
            self.assertEqual(os.pread(file.fileno(), 10, len(self.data)), b"")

    def test_many_readers(self) -> None:
        """Many threads read at once, each in its own order."""
        wrong: list[int] = []

        def read(path: Path, seed: int) -> None:
            chooser = random.Random(seed)
            with open(path, "rb", buffering=0) as file:
                for _ in range(100):
                    offset = chooser.randrange(len(self.data))
                    if os.pread(file.fileno(), 5000, offset) != self.data[offset : offset + 5000]:
                        wrong.append(offset)

        with self.mount() as mounted:
            readers = [
                threading.Thread(target=read, args=(mounted.file, seed)) for seed in range(16)
            ]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            self.assertEqual(wrong, [])
            self.assertEqual(mounted.end(), (0, b"", ""))

    def test_read_only(self) -> None:
        """Nothing can be written, made, renamed or removed."""
        with self.mount() as mounted:
            for attempt in (
                lambda: os.open(mounted.file, os.O_RDWR),
                lambda: os.open(os.path.join(self.mountpoint, "b"), os.O_WRONLY | os.O_CREAT),
                lambda: os.unlink(mounted.file),
                lambda: os.rename(mounted.file, os.path.join(self.mountpoint, "b")),
                lambda: os.mkdir(os.path.join(self.mountpoint, "b")),
            ):
                error = self.assertRaises(OSError, attempt)
                self.assertIn(error.errno, (errno.EROFS, errno.EACCES, errno.ENOSYS))
            missing = os.path.join(self.mountpoint, "b")
            self.assertRaises(FileNotFoundError, os.stat, missing)

    def test_empty(self) -> None:
        """An index without chunks is a file without content."""
        self.write("e", b"")
        self.run_command("make", "-s", self.path("store"), self.path("e.caibx"), self.path("e"))
        with Mounted(
            "-s", self.path("store"), self.path("e.caibx"), mountpoint=self.mountpoint, name="e"
        ) as mounted:
            self.assertEqual(mounted.file.read_bytes(), b"")

    def test_names(self) -> None:
        """Mount points and indexes may have names with spaces, backslashes, bytes of any kind."""
        self.mountpoint = self.store("m \\ \t\udcff")
        os.rename(self.path("a.caibx"), self.path("x \udcfe.y.caibx"))
        with Mounted(
            "-s",
            self.path("store"),
            self.path("x \udcfe.y.caibx"),
            mountpoint=self.mountpoint,
            name="x \udcfe.y",
        ) as mounted:
            self.assertEqual(os.listdir(self.mountpoint), ["x \udcfe.y"])
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertEqual(mounted.end(), (0, b"", ""))
        self.assert_unmounted()

    def test_zeros_need_no_store(self) -> None:
        """The null chunk is served without asking a store."""
        self.write("z", bytes(1 << 20))
        index = self.path("z.caibx")
        self.run_command("make", "-m", SIZES, index, self.path("z"))
        self.store("nothing")
        with Mounted(
            "-s", self.path("nothing"), index, mountpoint=self.mountpoint, name="z"
        ) as mounted:
            self.assertEqual(
                hashlib.sha256(mounted.file.read_bytes()).digest(),
                hashlib.sha256(bytes(1 << 20)).digest(),
            )


class EndTests(MountCase):
    """How a mount ends."""

    def test_signals(self) -> None:
        """SIGINT and SIGTERM unmount, and are no error."""
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.mount() as mounted:
                self.assertEqual(mounted.file.read_bytes(), self.data)
                self.assertEqual(mounted.end(number), (0, b"", ""))
            self.assert_unmounted()

    def test_open_file(self) -> None:
        """It ends although a process has the file open, whose reads then fail."""
        with self.mount() as mounted:
            descriptor = os.open(mounted.file, os.O_RDONLY)
            try:
                self.assertEqual(os.read(descriptor, 10), self.data[:10])
                self.assertEqual(mounted.end(), (0, b"", ""))
                self.assert_unmounted()
                self.assertRaises(OSError, os.pread, descriptor, 10, len(self.data) - 10)
            finally:
                # Closing it tells nobody any more, and says so.
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    def test_unmounted_by_others(self) -> None:
        """When somebody unmounts it the command ends."""
        with self.mount() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
            subprocess.run(["fusermount", "-u", self.mountpoint], check=True, timeout=60)
            self.assertEqual(mounted.wait(), (0, b"", ""))
        self.assert_unmounted()

    def test_killed(self) -> None:
        """What a killed mount leaves is explained; once that is unmounted, a new mount works."""
        with self.mount() as mounted:
            mounted.process.kill()
            mounted.process.wait()
            self.assertRaises(OSError, os.listdir, self.mountpoint)
            outcome = desync_process(
                "mount-index", "-s", self.path("store"), self.path("a.caibx"), self.mountpoint
            )
            self.assert_error(outcome, self.mountpoint, f"fusermount -uz {self.mountpoint}")
            subprocess.run(["fusermount", "-uz", self.mountpoint], check=True, timeout=60)
        with self.mount() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
        self.assert_unmounted()


class TroubleTests(MountCase):
    """Chunks that can't be had."""

    def test_missing_chunk(self) -> None:
        """A missing chunk is an I/O error and a line; it is found when it has come back."""
        position = len(self.index("a.caibx")) // 2
        start, _, chunk_id = list(self.index("a.caibx"))[position]
        path = self.files().path_of(chunk_id)
        os.rename(path, path + ".away")
        with self.mount() as mounted:
            with open(mounted.file, "rb", buffering=0) as file:
                error = self.assertRaises(OSError, os.pread, file.fileno(), 10, start)
                self.assertEqual(error.errno, errno.EIO)
                mounted.wait_until(lambda: mounted.lines)
                [line] = mounted.lines
                self.assertIn(f"chunk {chunk_id.hex()} missing from store", line)
                os.rename(path + ".away", path)
                self.assertEqual(os.pread(file.fileno(), 10, start), self.data[start : start + 10])
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertEqual(mounted.end().code, 0)

    def test_wrong_bytes(self) -> None:
        """A chunk that isn't what it should be is never handed out, what is beside it is."""
        chunks = list(self.index("a.caibx"))
        start, length, chunk_id = chunks[20]
        self.files().put_plain(chunk_id, b"x" * length)
        other, _, other_id = chunks[40]
        Path(self.files().path_of(other_id)).write_bytes(b"no chunk")
        short, length, short_id = chunks[60]
        self.files().put_plain(short_id, self.data[short : short + length - 1])
        with self.mount() as mounted, open(mounted.file, "rb", buffering=0) as file:
            for bad in (start, other, short):
                error = self.assertRaises(OSError, os.pread, file.fileno(), 10, bad)
                self.assertEqual(error.errno, errno.EIO)
            # The kernel reads whole pages.
            pages = start // 4096 * 4096
            self.assertEqual(os.pread(file.fileno(), pages, 0), self.data[:pages])
            mounted.wait_until(lambda: len(mounted.lines) == 3)
            for line, bad_id in zip(mounted.lines, (chunk_id, other_id, short_id), strict=True):
                self.assertIn(f"chunk {bad_id.hex()} is invalid", line)

    def test_store_that_goes_away(self) -> None:
        """While the store is gone, reading fails; when it has returned, it goes on."""
        with self.mount() as mounted, open(mounted.file, "rb", buffering=0) as file:
            self.assertEqual(os.pread(file.fileno(), 10, 0), self.data[:10])
            os.rename(self.path("store"), self.path("elsewhere"))
            error = self.assertRaises(OSError, os.pread, file.fileno(), 10, SIZE)
            self.assertEqual(error.errno, errno.EIO)
            os.rename(self.path("elsewhere"), self.path("store"))
            self.assertEqual(mounted.file.read_bytes(), self.data)


class PlaceTests(MountCase):
    """The folder that something is mounted on."""

    def test_content(self) -> None:
        """A folder's content is hidden while something is mounted on it, and there afterwards."""
        if os.geteuid() != 0:
            raise SkipTest("only root may do this")
        Path(self.mountpoint, "own").write_bytes(b"own")
        with self.mount() as mounted:
            self.assertEqual(os.listdir(self.mountpoint), ["a"])
            self.assertEqual(mounted.end(), (0, b"", ""))
        self.assertEqual(os.listdir(self.mountpoint), ["own"])

    def test_link(self) -> None:
        """A link to a folder will do, and what is mounted by somebody else meanwhile stays."""
        os.symlink(self.mountpoint, self.path("link"))
        mounted = Mounted(
            "-s", self.path("store"), self.path("a.caibx"), mountpoint=self.path("link")
        )
        with mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertEqual(mounted.end(), (0, b"", ""))
        self.assert_unmounted()

    def test_read_ahead(self) -> None:
        """As root the kernel is told to read ahead further than it does by itself."""
        with self.mount() as mounted:
            device = device_of(os.path.realpath(self.mountpoint))
            setting = f"/sys/class/bdi/{device}/read_ahead_kb"
            if not os.access(setting, os.W_OK):
                raise SkipTest(f"{setting} can't be written")
            # Done just after the mount can be seen.
            raised = f"{READ_AHEAD_KIB}\n"
            mounted.wait_until(lambda: Path(setting).read_text() == raised)


class RefusalTests(MountCase):
    """What is refused, in a line."""

    def refused(self, *args: str) -> str:
        outcome = desync_process("mount-index", *args)
        self.assert_error(outcome)
        return outcome.err

    def test_places(self) -> None:
        """The place to mount on has to be a folder."""
        store, index = self.path("store"), self.path("a.caibx")
        self.assertIn("No such file", self.refused("-s", store, index, self.path("no")))
        self.assertIn("a folder is needed", self.refused("-s", store, index, self.file))

    def test_flags(self) -> None:
        """Flags that make no sense together are refused."""
        index = self.path("a.caibx")
        for flags, why in (
            ([], "no store provided"),
            (["-s", "x", "--store-file", "y"], "--store and --store-file can't be used together"),
            (["-c", "x", "--store-file", "y"], "--cache and --store-file can't be used together"),
            (["-s", "x", "--cor-state-save", "y"], "need --cor-file"),
            (["-s", "x", "--cor-file", index], "input and output filenames match"),
            (["-s", "x", "--cor-file", "y", "--cor-state-save", "./y"], "name the same file"),
        ):
            self.assertIn(why, self.refused(*flags, index, self.mountpoint))

    def test_no_libfuse(self) -> None:
        """Without libfuse a line says what is missing."""
        outcome = desync_process(
            "mount-index",
            *("-s", self.path("store"), self.path("a.caibx"), self.mountpoint),
            environ={"FUSE_LIBRARY_PATH": self.path("nothing")},
        )
        self.assert_error(outcome, "libfuse 2 is not installed")

    def test_no_index(self) -> None:
        """An index that isn't one is named."""
        self.assertIn(self.file, self.refused("-s", self.path("store"), self.file, self.mountpoint))


class NameTests(SynchronousTestCase):
    """What the file is called."""

    def test_names(self) -> None:
        """It is called as the index, less the last extension, wherever that is."""
        for index, name in (
            ("-", "-"),
            ("/a/b.c.caibx", "b.c"),
            ("image", "image"),
            (".caibx", ".caibx"),
            ("http://host/x/image.raw.caibx", "image.raw"),
            ("s3+http://host/bucket/image.caibx?lookup=path", "image"),
        ):
            self.assertEqual(name_of(index), name)
