# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Commands that lack threads or descriptors, and files that are named in strange ways."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from collections.abc import Callable

from desync.assembly import reading
from desync.assembly.local_chunks import verify
from desync.assembly.reading import read_local

from .command_case import CommandCase, sample
from .command_line import Outcome, command, desync_process, process_environ

LARGE = 9 << 20
"""Bytes that are worth starting workers for."""


def run_after(prepare: Callable[[], object], *arguments: str) -> Outcome:
    """Run a command as a process in which something else is done first."""

    def prepare_child() -> None:
        prepare()

    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        preexec_fn=prepare_child,
        env=process_environ(),
        timeout=60,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


class EnvironmentTests(CommandCase):
    """What the process is given to work with."""

    def test_kernels_that_are_not_there(self) -> None:
        """Kernels that don't exist are one error, whichever process comes upon it first."""
        self.sample_store(sample(LARGE))
        store = self.path("store")
        for arguments in (
            ("make", "-s", store, self.path("b.caibx"), self.path("a")),
            ("extract", "-s", store, self.path("a.caibx"), self.path("b")),
            ("cat", "-s", store, self.path("a.caibx"), self.path("b")),
            ("verify", "-s", store),
            ("verify-index", self.path("a.caibx"), self.path("a")),
        ):
            outcome = desync_process(*arguments, environ={"DESYNC_KERNELS": "none"})
            self.assert_error(outcome, "DESYNC_KERNELS=none: no such kernels")
        self.assertEqual(self.leftovers(), [])
        self.assertFalse(os.path.exists(self.path("b")))
        self.assertFalse(os.path.exists(self.path("b.caibx")))

    def test_no_threads(self) -> None:
        """Where no thread can be started cat reads all the same."""
        data = sample(5 << 20)
        self.sample_store(data)

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        self.patch(threading.Thread, "start", refuse)
        outcome = self.run_command("cat", "-s", self.path("store"), self.path("a.caibx"))
        self.assertEqual(outcome.out, data)

    def test_few_descriptors(self) -> None:
        """
        Sixteen open files are enough, and if there are too few for a worker that is what is said.
        """
        data = sample(LARGE)
        self.write("a", data)
        self.store()
        arguments = "make", "-s", self.path("store"), self.path("a.caibx"), self.path("a")
        self.assert_error(
            self.limited(7, *arguments), "a worker process can't be started: Too many open files"
        )
        self.assertEqual(self.limited(16, *arguments), Outcome(0, b"", ""))
        outcome = self.limited(
            16, "extract", "-s", self.path("store"), self.path("a.caibx"), self.path("b")
        )
        self.assertEqual(outcome, Outcome(0, b"", ""))
        self.assertEqual(self.read("b"), data)

    def test_no_working_directory(self) -> None:
        """A working directory that was removed matters to what is named relative to it alone."""
        data = sample(LARGE)
        path = self.sample_store(data)
        store, index = self.path("store"), self.path("a.caibx")

        def run(*arguments: str) -> Outcome:
            gone = self.folder / "gone"
            gone.mkdir()

            def enter() -> None:
                os.chdir(gone)
                gone.rmdir()

            return run_after(enter, *arguments)

        self.assertEqual(run("extract", "-s", store, index, self.path("b")), Outcome(0, b"", ""))
        self.assertEqual(self.read("b"), data)
        self.assertEqual(run("make", "-s", store, self.path("b.caibx"), path), Outcome(0, b"", ""))
        for arguments in (
            ("extract", "-s", store, index, "relative"),
            ("extract", "-s", "relative", index, self.path("c")),
            ("make", "-s", store, "relative", path),
            ("make", "-s", store, index, "relative"),
        ):
            self.assert_error(run(*arguments), "relative: No such file or directory")

    def limited(self, descriptors: int, *arguments: str) -> Outcome:
        """Run a command that may have so many files open."""
        limits = (descriptors, descriptors)
        return run_after(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits), *arguments)


class MemoryTests(CommandCase):
    """How much is read ahead."""

    def test_large_chunks(self) -> None:
        """Of chunks that are large themselves only two are read ahead of what is taken."""
        self.sample_store(sample(200_000))
        self.patch(reading, "_BYTES", 1)
        self.patch(reading, "_AHEAD", 1)
        begun: list[int] = []

        def count(*arguments: object) -> None:
            begun.append(1)
            verify(*arguments)  # type: ignore[arg-type]

        self.patch(reading, "verify", count)
        index = self.index("a.caibx")
        taken = 0
        for batch in read_local(index, [self.files()], 0, len(index), 8):
            self.assertLessEqual(len(begun) - taken, 3)
            taken += len(batch)
        self.assertEqual(taken, len(index))


class NameTests(CommandCase):
    """Files whose names mean something else in another process."""

    def test_standard_input(self) -> None:
        """A file on standard input, or any other descriptor, can be chunked by its name."""
        data = sample(LARGE)
        path = self.write("a", data)
        self.run_command("make", self.path("expected"), path)
        for name in "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0":
            with open(path, "rb") as file:
                done = subprocess.run(
                    command("make", self.path("a.caibx"), name),
                    stdin=file,
                    capture_output=True,
                    env=process_environ(),
                    timeout=60,
                    check=False,
                )
            self.assertEqual((done.returncode, done.stderr), (0, b""), name)
            self.assertEqual(self.read("a.caibx"), self.read("expected"))
