# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What tests of commands on local stores have in common: a folder, samples, and expectations."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import desync
from desync.cli import command as command_module
from desync.formats.index import Index
from desync.progress import Progress, Tracker
from desync.stores.local_files import LocalFiles

from .command_line import Outcome
from .command_line import desync as run

SIZES = "1:4:16"
"""Chunk sizes with which small files have many chunks."""

_NOBODY = 65534


def sample(size: int, seed: int = 0) -> bytes:
    """Make bytes that don't compress, half of them again and again the same."""
    generator = random.Random(seed)
    data = bytearray(generator.randbytes(size))
    piece = generator.randbytes(40_000)
    for start in range(60_000, size, 120_000):
        data[start : start + 40_000] = piece[: size - start]
    return bytes(data)


class CommandCase(SynchronousTestCase):
    """A test case that runs commands in a folder of its own."""

    def setUp(self) -> None:
        # Not below the working directory, which other users may not be able to reach.
        self.folder = Path(tempfile.mkdtemp(prefix="desync-test-"))
        self.folder.chmod(0o755)
        self.addCleanup(remove_tree, self.folder)

    def path(self, name: str) -> str:
        """Name something in the folder."""
        return str(self.folder / name)

    def write(self, name: str, data: bytes) -> str:
        """Write a file in the folder, and give its path."""
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def read(self, name: str) -> bytes:
        """Read a file in the folder."""
        return (self.folder / name).read_bytes()

    def store(self, name: str = "store") -> str:
        """Make an empty store in the folder, and give its path."""
        path = self.folder / name
        path.mkdir()
        return str(path)

    def files(self, name: str = "store", **more: Any) -> LocalFiles:
        """Open a store of the folder."""
        return LocalFiles(self.path(name), **more)

    def index(self, name: str) -> Index:
        """Read an index of the folder."""
        return Index.parse(self.read(name), name)

    def run_command(self, *args: str, **more: Any) -> Outcome:
        """Run a command that has to succeed."""
        outcome = run(*args, **more)
        self.assertEqual((outcome.code, outcome.err), (0, ""), outcome)
        return outcome

    def assert_error(self, outcome: Outcome, *parts: str, out: bytes = b"") -> None:
        """
        Make sure that a command failed, and said why in one line.

        :param parts: what that line has to name.
        :param out: what it may have written to stdout before.
        """
        self.assertEqual((outcome.code, outcome.out), (1, out), outcome)
        self.assertTrue(outcome.err.startswith("Error: "), outcome.err)
        self.assertEqual(outcome.err.count("\n"), 1, outcome.err)
        self.assertTrue(outcome.err.endswith("\n"))
        self.assertNotIn("internal error", outcome.err)
        for part in parts:
            self.assertIn(part, outcome.err)

    def sample_store(self, data: bytes, index: str = "a.caibx", store: str = "store") -> str:
        """
        Make a file, its index and its store.

        :returns: the path of the file, which is named as the index without its extension.
        """
        path = self.write(os.path.splitext(index)[0], data)
        if not os.path.isdir(self.path(store)):
            self.store(store)
        self.run_command("make", "-m", SIZES, "-s", self.path(store), self.path(index), path)
        return path

    def leftovers(self, name: str = ".") -> list[str]:
        """List what hidden files there are in a folder, however deep."""
        return [str(path) for path in (self.folder / name).rglob(".*")]

    def meddle(self, *, on_start: Any = None, on_change: Any = None) -> None:
        """
        Have something done in the middle of the commands that follow.

        :param on_start: called when a phase begins.
        :param on_change: called with the tracker whenever a phase has got further.
        """

        class Meddling(Tracker):
            def changed(self) -> None:
                if on_change is not None:
                    on_change(self)

        class Meddler(Progress):
            def start(self, title: str, total: int, unit: Any = "chunks") -> Tracker:
                if on_start is not None:
                    on_start()
                return Meddling(total)

        self.patch(command_module, "choose", lambda *args, **more: Meddler())


def remove_tree(path: Path) -> None:
    """Remove a folder with all there is in it, read-only parts included."""
    import shutil

    with contextlib.suppress(OSError):
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o755)
    shutil.rmtree(path, ignore_errors=True)


def as_nobody(function: Callable[[], Outcome]) -> Outcome:
    """
    Call a function in a process that permission bits mean something to, which they don't to root.

    What the function imports must have been imported before.
    """
    if os.geteuid() != 0:
        raise SkipTest("only root can become somebody who doesn't own the files")
    if not os.access(os.path.dirname(desync.__file__), os.R_OK):
        raise SkipTest("the package can't be read")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
            answer = pickle.dumps(function())
        except BaseException as error:
            answer = pickle.dumps(error)
        with contextlib.suppress(BaseException):
            os.write(writing, answer)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    with open(reading, "rb") as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    found = pickle.loads(answer)
    if isinstance(found, BaseException):
        raise found
    assert isinstance(found, Outcome)
    return found
