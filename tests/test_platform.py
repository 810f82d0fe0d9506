# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The commands work without what only Linux, or not every system, has: it is hidden from them.

This isn't a test on another system, which can differ in more than what it lacks.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.command_line import ROOT, Outcome, process_environ

MODULES = ("ctypes", "fcntl", "fuse", "grp", "pwd", "resource")

SYSTEM_CALLS = (
    "copy_file_range",
    "eventfd",
    "getrandom",
    "memfd_create",
    "pidfd_open",
    "posix_fadvise",
    "posix_fallocate",
    "posix_spawn",
    "posix_spawnp",
    "preadv",
    "pwritev",
    "sched_getaffinity",
    "sendfile",
    "splice",
)

CONSTANTS = (
    "O_DIRECT",
    "O_NOATIME",
    "O_PATH",
    "O_TMPFILE",
    "POSIX_SPAWN_CLOSE",
    "POSIX_SPAWN_DUP2",
    "POSIX_SPAWN_OPEN",
    "RWF_DSYNC",
    "RWF_HIPRI",
    "RWF_NOWAIT",
    "RWF_SYNC",
    "SEEK_DATA",
    "SEEK_HOLE",
)

_HIDE = f"""
import builtins, os, select, signal, sys

for name in {MODULES!r}:
    if name in sys.modules:
        raise SystemExit(name + " is already imported, and can't be hidden")
    sys.modules[name] = None
for name in {SYSTEM_CALLS + CONSTANTS!r}:
    if hasattr(os, name):
        delattr(os, name)
for name in ("poll", "epoll"):
    if hasattr(select, name):
        delattr(select, name)
for name in ("pthread_sigmask", "sigwait", "sigtimedwait"):
    if hasattr(signal, name):
        delattr(signal, name)

def hiding(really):
    def opened(path, *args, **named):
        if isinstance(path, (str, bytes)) and os.fsencode(path).startswith((b"/proc", b"/sys")):
            raise FileNotFoundError(2, "No such file or directory", path)
        return really(path, *args, **named)
    return opened

builtins.open, os.open = hiding(builtins.open), hiding(os.open)
"""

_COMMAND = f"""{_HIDE}
from desync.cli.main import main

leave = os._exit
def check_and_leave(code):
    # What was hidden wasn't found by another way.
    if any(sys.modules[name] is not None for name in {MODULES!r}):
        leave(99)
    leave(code)
os._exit = check_and_leave
main(sys.argv[1:])
"""


class HiddenTests(SynchronousTestCase):
    """Each test has a file with a few chunks, zeros and repetitions in it."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.path("store"))
        source = random.Random(17)
        repeated = source.randbytes(400_000)
        # More than a segment of the pool's, so that workers would be started.
        self.content = repeated + bytes(9 << 20) + repeated + source.randbytes(1_000_001)
        with open(self.path("file"), "wb") as file:
            file.write(self.content)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def read(self, name: str) -> bytes:
        with open(self.path(name), "rb") as file:
            return file.read()

    def process(self, code: str, *args: str, **environ: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-c", code, *args],
            env=process_environ(PYTHONPATH=str(ROOT), **environ),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode())

    def hidden(self, *args: str, **environ: str) -> Outcome:
        """Run a command from which everything is hidden, and which has to succeed."""
        outcome = self.process(_COMMAND, "--quiet", *args, **environ)
        self.assertEqual((outcome.code, outcome.err), (0, ""), outcome)
        return outcome

    def plain(self, *args: str) -> Outcome:
        """Run the same command with everything that there is."""
        outcome = self.process("from desync.cli.main import main; main()", *args)
        self.assertEqual(outcome.code, 0, outcome)
        return outcome

    def test_hiding(self) -> None:
        """What is hidden can't be had: otherwise the other tests would show nothing."""
        for attempt in ("import fcntl", "os.posix_spawn", "select.poll", "os.preadv"):
            self.assertEqual(self.process(f"{_HIDE}\n{attempt}").code, 1, attempt)
        for path in ("/proc/self/status", "/proc/self/comm"):
            outcome = self.process(f"{_HIDE}\nopen({path!r})")
            self.assertIn("FileNotFoundError", outcome.err)
        self.assertEqual(self.process(_HIDE).code, 0)

    def test_make(self) -> None:
        """make gives the index and the chunks that it gives with everything there is."""
        os.mkdir(self.path("other"))
        self.hidden("make", "-s", "store", "file.caibx", "file")
        self.plain("make", "-s", "other", "other.caibx", "file")
        self.assertEqual(self.read("file.caibx"), self.read("other.caibx"))
        stores = [
            sorted(name for _, _, names in os.walk(self.path(store)) for name in names)
            for store in ("store", "other")
        ]
        self.assertEqual(*stores)
        self.assertGreater(len(stores[0]), 10)

    def test_extract(self) -> None:
        """extract rebuilds the file, also in place of an old one, and leaves nothing behind."""
        self.plain("make", "-s", "store", "file.caibx", "file")
        before = sorted(os.listdir(self.folder))
        for _ in range(2):
            self.hidden("extract", "-s", "store", "file.caibx", "rebuilt")
            self.assertTrue(self.read("rebuilt") == self.content)
        self.assertEqual(sorted(os.listdir(self.folder)), sorted([*before, "rebuilt"]))

    def test_verify(self) -> None:
        """verify passes a good store, and finds a bad chunk and removes it."""
        self.plain("make", "-s", "store", "file.caibx", "file")
        self.assertEqual(self.hidden("verify", "-s", "store").out, b"")
        folder, _, names = next(each for each in os.walk(self.path("store")) if each[2])
        bad = os.path.join(folder, names[0])
        with open(bad, "wb") as file:
            file.write(b"not a chunk")
        outcome = self.process(_COMMAND, "verify", "-s", "store")
        self.assertEqual(outcome.code, 1, outcome)
        self.assertIn(names[0].partition(".")[0], outcome.text)
        self.hidden("verify", "-r", "-s", "store")
        self.assertFalse(os.path.exists(bad))

    def test_list_chunks(self) -> None:
        """list-chunks prints the same ids."""
        self.plain("make", "file.caibx", "file")
        listed = self.hidden("list-chunks", "file.caibx").out
        self.assertEqual(listed, self.plain("list-chunks", "file.caibx").out)
        self.assertGreater(listed.count(b"\n"), 40)

    def test_other_local_commands(self) -> None:
        """chop, cat, verify-index and prune work too."""
        self.plain("make", "file.caibx", "file")
        self.hidden("chop", "-s", "store", "file.caibx", "file")
        self.hidden("verify-index", "file.caibx", "file")
        self.hidden("cat", "-s", "store", "file.caibx", "streamed")
        self.assertTrue(self.read("streamed") == self.content)
        self.hidden("prune", "-y", "-s", "store", "file.caibx")
        self.hidden("cat", "-s", "store", "file.caibx", "streamed")

    def test_without_extension(self) -> None:
        """All of it works with the portable kernels too, as without a C compiler."""
        self.hidden("make", "-s", "store", "file.caibx", "file", DESYNC_KERNELS="portable")
        self.plain("make", "other.caibx", "file")
        self.assertEqual(self.read("file.caibx"), self.read("other.caibx"))
        self.hidden("extract", "-s", "store", "file.caibx", "rebuilt", DESYNC_KERNELS="portable")
        self.assertTrue(self.read("rebuilt") == self.content)
