# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync mount-index --cor-file``: chunks that were read are kept, and what is known of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from unittest import SkipTest

from desync.mounting.copy_on_read import state_size

from .command_line import desync_process
from .mounts import Mounted
from .test_mount_index import SIZE, MountCase


class KeepingCase(MountCase):
    """Mounts that keep chunks in a file."""

    def setUp(self) -> None:
        super().setUp()
        self.kept = Path(self.path("kept"))
        self.state = Path(self.path("state"))
        self.chunks = list(self.index("a.caibx"))

    def keep(self, *more: str) -> Mounted:
        """Mount the sample, keep what is read, and save which that is."""
        return self.mount("--cor-file", str(self.kept), "--cor-state-save", str(self.state), *more)

    def positions(self, state: bytes) -> set[int]:
        """Which chunks a state names."""
        self.assertEqual(len(state), state_size(self.index("a.caibx")))
        return {number for number in range(8 * len(state)) if state[number // 8] >> number % 8 & 1}

    def hide_store(self) -> None:
        """Take all chunks out of the store."""
        os.rename(self.path("store"), self.path("hidden"))
        os.mkdir(self.path("store"))

    def is_null(self, position: int) -> bool:
        """Whether a chunk holds nothing but zeros and is as long as can be."""
        start, length, _ = self.chunks[position]
        return length == 16 << 10 and not any(self.data[start : start + length])


class KeepingTests(KeepingCase):
    """What is kept, saved, and taken up again."""

    def test_all(self) -> None:
        """When all was read the file is the blob, and the next mount needs no store."""
        with self.keep() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertEqual(mounted.end(), (0, b"", ""))
        self.assertEqual(self.kept.read_bytes(), self.data)
        self.assertEqual(self.kept.stat().st_mode & 0o777, 0o755 & ~_umask())
        named = self.positions(self.state.read_bytes())
        nulls = {position for position in range(len(self.chunks)) if self.is_null(position)}
        self.assertTrue(nulls)
        self.assertEqual(named, set(range(len(self.chunks))) - nulls)
        self.hide_store()
        with self.keep() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertEqual(mounted.end(), (0, b"", ""))

    def test_some(self) -> None:
        """Only what was read is kept; the state says so, also if somebody else unmounts it."""
        start, length, _ = self.chunks[30]
        with self.keep() as mounted:
            with open(mounted.file, "rb", buffering=0) as file:
                os.pread(file.fileno(), 1, start + length // 2)
            subprocess.run(["fusermount", "-u", self.mountpoint], check=True, timeout=60)
            self.assertEqual(mounted.wait(), (0, b"", ""))
        named = self.positions(self.state.read_bytes())
        self.assertIn(30, named)
        self.assertLess(len(named), len(self.chunks) // 2)
        kept = self.kept.read_bytes()
        self.assertEqual(len(kept), len(self.data))
        for position, (start, length, _) in enumerate(self.chunks):
            part = slice(start, start + length)
            self.assertEqual(kept[part], self.data[part] if position in named else bytes(length))

    def test_hangup(self) -> None:
        """SIGHUP saves the state, and the mount goes on; it is never half-written."""
        with self.keep() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
            mounted.process.send_signal(signal.SIGHUP)
            mounted.wait_until(self.state.exists)
            named = self.positions(self.state.read_bytes())
            self.assertTrue(named)
            # A kill after that loses nothing.
            mounted.process.kill()
            mounted.process.wait()
        self.assertEqual(self.leftovers(), [])
        self.hide_store()
        with self.keep() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)

    def test_killed_without_state(self) -> None:
        """Without a saved state the file begins anew, empty."""
        with self.keep() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
            mounted.process.kill()
            mounted.process.wait()
        self.assertFalse(self.state.exists())
        with self.keep() as mounted:
            self.assertFalse(any(self.kept.read_bytes()))
            self.assertEqual(mounted.file.read_bytes(), self.data)

    def test_stale_bytes(self) -> None:
        """What was in a file of the right size doesn't show, not even where there are zeros."""
        self.kept.write_bytes(b"x" * len(self.data))
        with self.keep() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
        self.assertEqual(self.kept.read_bytes(), self.data)

    def test_wrong_content(self) -> None:
        """What a state promises is checked before it is handed out, and fetched if it is wrong."""
        self.kept.write_bytes(os.urandom(len(self.data)))
        self.state.write_bytes(b"\xff" * state_size(self.index("a.caibx")))
        with self.keep() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)

    def test_state_of_another(self) -> None:
        """A state of another length is of no use, and isn't used."""
        self.kept.write_bytes(b"x" * len(self.data))
        self.state.write_bytes(b"\xff")
        with self.keep() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
            self.assertEqual(mounted.end().code, 0)
        self.assertEqual(self.kept.read_bytes(), self.data)

    def test_failed_fetch(self) -> None:
        """A chunk that couldn't be had isn't marked, and is fetched when it can be."""
        start, _, chunk_id = self.chunks[30]
        path = self.files().path_of(chunk_id)
        os.rename(path, path + ".away")
        with self.keep() as mounted, open(mounted.file, "rb", buffering=0) as file:
            self.assertRaises(OSError, os.pread, file.fileno(), 1, start)
            mounted.process.send_signal(signal.SIGHUP)
            mounted.wait_until(self.state.exists)
            self.assertNotIn(30, self.positions(self.state.read_bytes()))
            os.rename(path + ".away", path)
            self.assertEqual(os.pread(file.fileno(), 100, start), self.data[start : start + 100])

    def test_init(self) -> None:
        """The chunks that a given state names are loaded without being read."""
        init = bytearray(state_size(self.index("a.caibx")))
        wanted = [3, 30, 31, 200]
        for position in wanted:
            init[position // 8] |= 1 << position % 8
        path = self.write("init", bytes(init))
        with self.keep("--cor-state-init", path, "--cor-init-n", "3") as mounted:

            def loaded() -> bool:
                kept = self.kept.read_bytes()
                return all(
                    kept[start : start + length] == self.data[start : start + length]
                    for start, length, _ in map(self.chunks.__getitem__, wanted)
                )

            mounted.wait_until(loaded)
            self.assertEqual(mounted.end().code, 0)
        self.assertLessEqual(set(wanted), self.positions(self.state.read_bytes()))

    def test_init_of_what_is_gone(self) -> None:
        """Chunks that can't be loaded ahead are a line; they are fetched when they are read."""
        path = self.write("init", b"\xff" * state_size(self.index("a.caibx")))
        _, _, chunk_id = self.chunks[30]
        chunk = self.files().path_of(chunk_id)
        os.rename(chunk, chunk + ".away")
        with self.keep("--cor-state-init", path) as mounted:
            mounted.wait_until(lambda: mounted.lines)
            self.assertIn("chunks that could not be loaded ahead: 1;", mounted.said)
            os.rename(chunk + ".away", chunk)
            self.assertEqual(mounted.file.read_bytes(), self.data)


class KeepingTroubleTests(KeepingCase):
    """Files that can't be used."""

    def refused(self, *args: str) -> str:
        outcome = desync_process(
            "mount-index", "-s", self.path("store"), *args, self.path("a.caibx"), self.mountpoint
        )
        self.assert_error(outcome)
        return outcome.err

    def test_refused(self) -> None:
        """A file that can't be made, a device, a state that isn't one: each is named."""
        there = self.path("no/such/folder")
        self.assertIn(there, self.refused("--cor-file", there))
        self.assertIn("not a regular file", self.refused("--cor-file", "/dev/null"))
        kept = str(self.kept)
        for init, why in ((there, "No such file"), (self.file, "does not match the index")):
            said = self.refused("--cor-file", kept, "--cor-state-init", init)
            self.assertIn(init, said)
            self.assertIn(why, said)

    def test_two(self) -> None:
        """Two mounts can't keep in the same file."""
        with self.keep():
            said = self.refused_elsewhere()
        self.assertIn("in use by another mount", said)

    def refused_elsewhere(self) -> str:
        """Mount once more, somewhere else."""
        other = self.store("mnt2")
        outcome = desync_process(
            "mount-index",
            *("-s", self.path("store"), "--cor-file", str(self.kept)),
            *(self.path("a.caibx"), other),
        )
        self.assert_error(outcome)
        return outcome.err

    def test_state_that_cannot_be_saved(self) -> None:
        """If the state can't be saved the command fails, and says why; the mount is gone."""
        folder = Path(self.store("states"))
        self.state = folder / "state"
        with self.keep() as mounted:
            self.assertEqual(mounted.file.read_bytes()[:SIZE], self.data[:SIZE])
            folder.rmdir()
            self.assert_error(mounted.end(), "failed to save state", str(self.state))
        self.assert_unmounted()


class DiskFullTests(KeepingCase):
    """A file that can't take all that is read."""

    def test_full(self) -> None:
        """What doesn't fit is read all the same, with one line, and isn't marked."""
        mount, umount = shutil.which("mount"), shutil.which("umount")
        if os.geteuid() != 0 or mount is None or umount is None:
            raise SkipTest("only root can mount a small file system")
        full = self.store("full")
        subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "desync-test", full], check=True)
        self.addCleanup(subprocess.run, [umount, "-l", full], check=True)
        self.kept = Path(full) / "kept"
        with self.keep() as mounted:
            self.assertEqual(mounted.file.read_bytes(), self.data)
            [line] = mounted.lines
            self.assertIn(f"{self.kept}: it can't be written to: No space left", line)
            self.assertEqual(mounted.end().code, 0)
        named = self.positions(self.state.read_bytes())
        self.assertTrue(named)
        kept = self.kept.read_bytes()
        for position in named:
            start, length, _ = self.chunks[position]
            part = slice(start, start + length)
            self.assertEqual(kept[part], self.data[part])


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
