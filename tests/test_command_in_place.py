# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync extract`` in place, and going on with what an interrupted one has left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
from typing import Any

from .command_case import CommandCase, as_nobody, sample
from .command_line import Outcome, desync, desync_process
from .loop_devices import file_system, for_test, loop_device

SIZE = 300_000


class InPlaceCase(CommandCase):
    """A file with repeats and zeros, its index and its store."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(SIZE) + bytes(60_000) + sample(50_000, 1)
        self.sample_store(self.data)
        self.arguments = ("-s", self.path("store"), self.path("a.caibx"), self.path("out"))

    def extract(self, *args: str, run: Any = desync) -> dict[str, Any]:
        """Extract the file, see whether it is right, and give the figures."""
        outcome = run("extract", "--print-stats", *args, *self.arguments)
        self.assertEqual((outcome.code, outcome.err), (0, ""), outcome)
        self.assertEqual(self.read("out"), self.data)
        stats = json.loads(outcome.out)
        self.assertIsInstance(stats, dict)
        return dict(stats)


class InPlaceTests(InPlaceCase):
    """What is kept, and what becomes of everything else."""

    def test_new(self) -> None:
        """Where there is nothing, a file is made."""
        stats = self.extract("-k")
        self.assertEqual(stats["chunks-in-place"], 0)
        self.assertLess(os.stat(self.path("out")).st_blocks * 512, len(self.data) - 40_000)

    def test_complete(self) -> None:
        """Of a file that is right already nothing is fetched, and nothing is written."""
        path = self.write("out", self.data)
        os.utime(path, (1000, 1000))
        stats = self.extract("-k")
        self.assertEqual(stats["chunks-in-place"], stats["chunks-total"])
        self.assertEqual(os.stat(path).st_mtime, 1000)

    def test_same_file(self) -> None:
        """The file stays the same one, with its links and its mode."""
        path = self.write("real", self.data[:100_000])
        os.symlink("real", self.path("out"))
        os.chmod(path, 0o604)
        before = os.stat(path).st_ino
        self.extract("--in-place")
        self.assertEqual(os.stat(path).st_ino, before)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o604)

    def test_changed(self) -> None:
        """What is wrong is replaced: changed, missing, too much, zeros where there are none."""
        data = self.data
        for there in (
            data[:50_000] + b"x" * 10_000 + data[60_000:],
            data[:100_000],
            data + b"more" * 10_000,
            bytes(len(data)),
            b"\xff" * len(data),
            b"x",
            data[1:],
        ):
            self.write("out", there)
            stats = self.extract("-k")
            there = there.ljust(len(data), b"\0")
            kept = sum(
                there[start : start + length] == data[start : start + length]
                for start, length, _ in self.index("a.caibx")
            )
            self.assertEqual(stats["chunks-in-place"], kept)

    def test_empty(self) -> None:
        """An empty file is made of anything."""
        self.data = b""
        self.sample_store(b"")
        for there in b"", b"x" * 10:
            self.write("out", there)
            self.assertEqual(set(self.extract("-k").values()), {0})

    def test_repeats_of_what_is_there(self) -> None:
        """What the file has in one place is copied to the others, and not fetched."""
        piece = sample(40_000, 7)
        self.data = piece + sample(50_000, 8) + piece
        self.sample_store(self.data)
        self.write("out", b"-" * 90_000 + piece)
        stats = self.extract("-k")
        self.assertGreater(stats["bytes-copied-from-seeds"], 20_000)

    def test_seeds(self) -> None:
        """Seeds are used for what isn't there."""
        self.write("out", self.data[:150_000])
        stats = self.extract("-k", "--seed", self.path("a.caibx"))
        self.assertEqual(stats["chunks-from-store"], 0)
        self.assertGreater(stats["chunks-in-place"], 20)

    def test_cache(self) -> None:
        """With stores that need a reactor it is the same."""
        self.write("out", self.data[:150_000] + b"x" * 200_000)
        stats = self.extract("-k", "-c", self.store("cache"), run=desync_process)
        self.assertGreater(stats["chunks-in-place"], 20)
        cached = len(list(self.files("cache").all_files()))
        self.assertEqual(stats["chunks-from-store"], cached)

    def test_an_error_keeps_what_is_there(self) -> None:
        """After an error the next run goes on from where it got to."""
        self.write("out", b"")
        victim = sorted(self.files().all_files())[5]
        content = open(victim.path, "rb").read()  # noqa: SIM115
        os.unlink(victim.path)
        outcome = desync("extract", "-k", *self.arguments)
        self.assert_error(outcome, victim.chunk_id.hex(), "missing")
        with open(victim.path, "wb") as file:
            file.write(content)
        self.extract("-k")

    def test_dry_run(self) -> None:
        """A dry run looks at what is there, and changes nothing."""
        there = self.write("out", self.data[:150_000] + b"x" * 10)
        os.chmod(there, 0o444)
        outcome = self.run_command("extract", "-k", "--dry-run", *self.arguments)
        self.assertEqual(self.read("out"), self.data[:150_000] + b"x" * 10)
        self.assertRegex(outcome.text, r"^0\t1\d{5}\tin place\n")

    def test_two_at_once(self) -> None:
        """Of two that write the same file the second is refused, and changes nothing."""
        path = self.write("out", b"old")
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            outcome = desync("extract", "-k", *self.arguments)
        self.assert_error(outcome, path, "somebody else is writing it")
        self.assertEqual(self.read("out"), b"old")

    def test_outputs(self) -> None:
        """What isn't a file that can be written is refused by name."""
        os.symlink("nowhere", self.path("dangling"))
        for name, why in (
            ("store", "Is a directory"),
            ("nothing/out", "No such file or directory"),
            ("dangling", "No such file or directory"),
        ):
            outcome = desync("extract", "-k", *self.arguments[:3], self.path(name))
            self.assert_error(outcome, self.path(name), why)
        outcome = desync("extract", "-k", *self.arguments[:3], "/dev/null")
        self.assert_error(outcome, "/dev/null", "neither a regular file nor a block device")
        os.mkfifo(self.path("pipe"))
        outcome = desync_process("extract", "-k", *self.arguments[:3], self.path("pipe"))
        self.assert_error(outcome, "neither a regular file nor a block device")
        self.write("out", b"old")
        os.chmod(self.path("out"), 0o444)
        outcome = as_nobody(lambda: desync("extract", "-k", *self.arguments))
        self.assert_error(outcome, self.path("out"), "Permission denied")
        self.assertEqual(self.read("out"), b"old")


class DeviceTests(InPlaceCase):
    """Block devices, made of files."""

    def extract_to(self, size: int, *args: str) -> tuple[str, Outcome]:
        """Extract to a device full of other things, of so many bytes."""
        device = for_test(loop_device(size), self.addCleanup)
        with open(device, "wb") as file:
            file.write(b"\xee" * size)
        arguments = ("-s", self.path("store"), *args, self.path("a.caibx"), device)
        return device, desync("extract", "-k", "--print-stats", *arguments)

    def test_larger(self) -> None:
        """Of a device that is larger than the content the rest is left alone."""
        device, outcome = self.extract_to(1 << 20)
        self.assertEqual((outcome.code, outcome.err), (0, ""))
        with open(device, "rb") as file:
            self.assertEqual(file.read(), self.data + b"\xee" * ((1 << 20) - len(self.data)))
        # It is a seed as well, and what is there already is kept.
        self.write("out", b"")
        # Only its last chunk ends elsewhere.
        self.assertLess(self.extract("--seed", device)["chunks-from-store"], 2)
        arguments = ("extract", "-k", "--print-stats", *self.arguments[:3], device)
        stats = json.loads(self.run_command(*arguments).out)
        self.assertEqual(stats["chunks-in-place"], stats["chunks-total"])

    def test_exactly_as_large(self) -> None:
        """A device may be exactly as large as the content; zeros are written to it, too."""
        self.data = self.data[: 400 << 10]
        self.sample_store(self.data)
        device, outcome = self.extract_to(400 << 10)
        self.assertEqual((outcome.code, outcome.err), (0, ""))
        with open(device, "rb") as file:
            self.assertEqual(file.read(), self.data)

    def test_too_small(self) -> None:
        """To a device that is too small nothing is written."""
        device, outcome = self.extract_to(300 << 10)
        self.assert_error(
            outcome,
            f"{device}: it has {300 << 10} bytes, and the index is of {len(self.data)} bytes",
        )
        with open(device, "rb") as file:
            self.assertEqual(file.read(), b"\xee" * (300 << 10))

    def test_not_in_place(self) -> None:
        """A device isn't replaced by a file: what is needed is said."""
        device = for_test(loop_device(1 << 20), self.addCleanup)
        outcome = desync("extract", *self.arguments[:3], device)
        self.assert_error(outcome, device, "it isn't a regular file")


class ReadOnlyTests(InPlaceCase):
    """File systems that can't be written, or not enough."""

    def test_read_only(self) -> None:
        """On a read-only file system there is one line, in place and otherwise."""
        place = for_test(file_system("ext4", 16 << 20), self.addCleanup)
        out = os.path.join(place, "out")
        with open(out, "wb") as file:
            file.write(b"old")
        self.assertEqual(os.system(f"mount -o remount,ro {place}"), 0)
        for flags in (), ("-k",), ("--resume",):
            outcome = desync("extract", *flags, *self.arguments[:3], out)
            self.assert_error(outcome, out, "Read-only file system")
            with open(out, "rb") as file:
                self.assertEqual(file.read(), b"old")

    def test_full(self) -> None:
        """
        On a full disk the old file stays; in place and with --resume the next run completes it.
        """
        place = for_test(file_system("ext4", 16 << 20), self.addCleanup)
        out, ballast = os.path.join(place, "out"), os.path.join(place, "ballast")
        for flags in (), ("-k",), ("--resume",), ("--seed", self.path("a.caibx")):
            with open(out, "wb") as file:
                file.write(b"old")
            with open(ballast, "wb") as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            os.truncate(ballast, os.path.getsize(ballast) - 100_000)
            outcome = desync("extract", *flags, *self.arguments[:3], out)
            self.assert_error(outcome, out, "No space left on device")
            if flags != ("-k",):
                with open(out, "rb") as file:
                    self.assertEqual(file.read(), b"old")
            os.unlink(ballast)
            self.run_command("extract", *flags, *self.arguments[:3], out)
            with open(out, "rb") as file:
                self.assertEqual(file.read(), self.data)
            self.assertEqual(sorted(os.listdir(place)), ["lost+found", "out"])


class ResumeTests(InPlaceCase):
    """An interrupted extract, and the next."""

    def interrupt(self, *flags: str) -> None:
        """Have an extract fail on its way."""
        victim = max(
            (start, chunk_id) for start, _, chunk_id in self.index("a.caibx") if start < SIZE
        )
        path = self.files().path_of(victim[1])
        os.rename(path, self.path("victim"))
        outcome = desync("extract", *flags, *self.arguments)
        self.assert_error(outcome, victim[1].hex())
        os.rename(self.path("victim"), path)

    def test_goes_on(self) -> None:
        """What was there already is kept, and the old output is there until all is."""
        self.write("out", b"old")
        self.interrupt("--resume")
        self.assertEqual(self.read("out"), b"old")
        (left,) = self.leftovers()
        self.assertEqual(stat.S_IMODE(os.stat(left).st_mode), 0o600)
        stats = self.extract("--resume", "--seed-output=false")
        self.assertGreater(stats["chunks-in-place"], 20)
        self.assertEqual(self.leftovers(), [])

    def test_without_it(self) -> None:
        """An extract without the flag leaves nothing, and removes what is left."""
        self.interrupt()
        self.assertEqual(self.leftovers(), [])
        self.interrupt("--resume")
        self.assertEqual(self.extract()["chunks-in-place"], 0)
        self.assertEqual(self.leftovers(), [])

    def test_of_something_else(self) -> None:
        """What was left of another content, or spoiled, is of no harm."""
        self.interrupt("--resume")
        (left,) = self.leftovers()
        with open(left, "r+b") as file:
            file.write(b"\xff" * 500_000)
        self.extract("--resume")
        self.assertEqual(self.leftovers(), [])

    def test_of_somebody_else(self) -> None:
        """A file that others may write to isn't gone on with."""
        planted = self.write(f".out.{'0' * 16}", self.data)
        os.chmod(planted, 0o666)
        self.assertEqual(self.extract("--resume")["chunks-in-place"], 0)

    def test_being_written(self) -> None:
        """What another run is writing is left alone."""
        busy = self.write(f".out.{'0' * 16}", self.data)
        os.chmod(busy, 0o600)
        with open(busy, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            self.assertEqual(self.extract("--resume")["chunks-in-place"], 0)
        self.assertEqual(self.leftovers(), [busy])
