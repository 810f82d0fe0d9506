# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Commands that are ended at random moments: nothing is lost, nothing is half-written, and the next
run completes the work.

The moments come from a seed that is chosen anew in each run and is part of every failure's message;
``DESYNC_TEST_SEED`` repeats it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time

from .command_case import CommandCase, sample
from .command_line import Outcome, command, process_environ

ROUNDS = 6
SIZE = 10 << 20
SIZES = "16:32:128"


class InterruptCase(CommandCase):
    """A file of some MiB, and commands that are interrupted and killed, and then let be."""

    def setUp(self) -> None:
        super().setUp()
        self.seed = int(os.environ.get("DESYNC_TEST_SEED") or time.time_ns() % 1_000_000)
        self.random = random.Random(self.seed)
        self.data = sample(SIZE)
        self.file = self.write("a", self.data)
        self.run_command("make", "-m", SIZES, self.path("good.caibx"), self.file)
        self.good = self.read("good.caibx")
        self.took = 0.0

    def interrupted(self, number: int, whole_group: bool, *args: str) -> Outcome:
        """Run a command that is sent a signal at some moment of what it takes otherwise."""
        began = time.monotonic()
        with subprocess.Popen(
            command(*args),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=process_environ(),
            start_new_session=True,
        ) as process:
            if self.took:
                try:
                    process.wait(self.random.random() * self.took)
                except subprocess.TimeoutExpired:
                    send = os.killpg if whole_group else os.kill
                    send(process.pid, number)
            out, err = process.communicate(timeout=60)
        if not self.took:
            self.took = time.monotonic() - began
        return Outcome(process.returncode, out, err.decode())

    def check_outcome(self, outcome: Outcome, number: int, what: str) -> None:
        """Make sure that the command either completed or said in one line that it didn't."""
        if outcome.code == 0:
            # An interrupt within a callback of Python's own is lost, which Python says.
            if "Exception ignored in" not in outcome.err:
                self.assertEqual(outcome.err, "", what)
        elif "Traceback" in outcome.err:
            # Python hadn't got as far as our program, or the program as far as signals.
            self.assertIn("KeyboardInterrupt", outcome.err, f"{what}: {outcome.err}")
            self.assertNotIn("run_program", outcome.err, f"{what}: {outcome.err}")
        elif outcome.code == 1:
            self.assertTrue(outcome.err.startswith("Error: "), f"{what}: {outcome.err}")
            self.assertEqual(outcome.err.count("\n"), 1, f"{what}: {outcome.err}")
        else:
            # It was killed, or hadn't yet said what to do about signals.
            self.assertEqual(outcome.code, -number, what)


class InterruptTests(InterruptCase):
    """make and extract."""

    def test_make(self) -> None:
        """
        However a make ends, the index is the old or the complete new one, and every chunk is good.
        """
        arguments = ("make", "-m", SIZES, "-s", self.path("store"), self.path("i"), self.file)
        self.store()
        self.assertEqual(self.interrupted(0, False, *arguments).code, 0)
        for turn in range(ROUNDS):
            shutil.rmtree(self.path("store"))
            self.write("i", b"old")
            self.store()
            number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[turn % 3]
            whole_group = number == signal.SIGKILL or bool(turn % 2)
            what = f"seed {self.seed}, turn {turn}, {number.name}"
            outcome = self.interrupted(number, whole_group, *arguments)
            self.check_outcome(outcome, number, what)
            self.assertIn(self.read("i"), (b"old", self.good), what)
            if outcome.code == 0:
                self.assertEqual(self.read("i"), self.good, what)
            self.run_command("verify", "--quiet", "-s", self.path("store"))
            if number != signal.SIGKILL:
                self.assertEqual(self.leftovers(), [], what)
            self.run_command(*arguments)
            self.assertEqual(self.read("i"), self.good, what)
            beside = [path.name for path in self.folder.glob(".*")]
            self.assertEqual(beside, [], what)
            self.run_command("prune", "--quiet", "-y", "--min-age=0", *arguments[3:6])
            self.assertEqual(self.leftovers(), [], what)
            self.run_command("cat", *arguments[3:6], self.path("out"))
            self.assertEqual(self.read("out"), self.data, what)

    def test_extract(self) -> None:
        """However an extract ends, the output is the old or the complete new one."""
        arguments = ("extract", "-s", self.store(), self.path("good.caibx"), self.path("out"))
        self.run_command("chop", *arguments[1:4], self.file)
        self.assertEqual(self.interrupted(0, False, *arguments).code, 0)
        for turn in range(ROUNDS):
            self.write("out", b"old")
            number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[turn % 3]
            whole_group = number == signal.SIGKILL or bool(turn % 2)
            what = f"seed {self.seed}, turn {turn}, {number.name}"
            outcome = self.interrupted(number, whole_group, *arguments)
            self.check_outcome(outcome, number, what)
            self.assertIn(self.read("out"), (b"old", self.data), what)
            if number == signal.SIGKILL:
                self.run_command(*arguments)
                self.assertEqual(self.read("out"), self.data, what)
            elif outcome.code == 0:
                self.assertEqual(self.read("out"), self.data, what)
            self.assertEqual(self.leftovers(), [], what)
        self.run_command(*arguments)
        self.assertEqual(self.read("out"), self.data)

    def test_untar(self) -> None:
        """However an untar ends, each file is the old or the complete new one, and complete."""
        tree, out = self.folder / "tree", self.folder / "out"
        tree.mkdir()
        old, new = ({f"f{n}": sample(300_000, n + k) for n in range(12)} for k in (0, 100))
        for name, data in new.items():
            (tree / name).write_bytes(data)
        store = self.store()
        self.run_command("tar", "-i", "-s", store, self.path("x.caidx"), str(tree))
        arguments = ("untar", "-i", "-s", store, self.path("x.caidx"), str(out))
        self.assertEqual(self.interrupted(0, False, *arguments).code, 0)
        for turn in range(ROUNDS):
            shutil.rmtree(out)
            out.mkdir()
            for name in list(old)[::2]:
                (out / name).write_bytes(old[name])
            number = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)[turn % 3]
            what = f"seed {self.seed}, turn {turn}, {number.name}"
            outcome = self.interrupted(number, bool(turn % 2), *arguments)
            self.check_outcome(outcome, number, what)
            if number != signal.SIGKILL:
                self.assertEqual(self.leftovers("out"), [], what)
                for path in out.iterdir():
                    self.assertIn(path.read_bytes(), (old[path.name], new[path.name]), what)
            self.run_command(*arguments)
            self.assertEqual(self.leftovers("out"), [], what)
            found = {path.name: path.read_bytes() for path in out.iterdir()}
            self.assertEqual(found, new, what)


class ConcurrencyTests(CommandCase):
    """Commands that work on one store at the same time."""

    def test_two_makes_and_a_prune(self) -> None:
        """
        Two makes that store the same chunks and a prune that finds them old and unneeded leave a
        store that has everything that the indexes name.
        """
        common = sample(5 << 20)
        names = ("b", "c")
        for number, name in enumerate(names, 1):
            self.write(name, common + sample(1 << 20, number))
        store = self.store()
        # What is there already is old, and nothing names it any more.
        self.run_command("make", "-m", SIZES, "-s", store, self.path("a.caibx"), self.path("b"))
        self.run_command("make", self.path("a.caibx"), self.write("a", b"something else"))
        for file in self.files().all_files():
            os.utime(file.path, (1000, 1000))
        commands = [
            ["make", "-m", SIZES, "-s", store, self.path(f"{name}.caibx"), self.path(name)]
            for name in names
        ]
        for _ in range(3):
            commands.append(["prune", "--quiet", "-y", "-s", store, self.path("a.caibx")])
        running = [
            subprocess.Popen(command(*args), stderr=subprocess.PIPE, env=process_environ())
            for args in commands
        ]
        for process in running:
            _, err = process.communicate(timeout=60)
            self.assertEqual((process.returncode, err), (0, b""), process.args)
        for name in names:
            arguments = ("-s", store, self.path(f"{name}.caibx"), self.path("out"))
            self.run_command("extract", *arguments)
            self.assertEqual(self.read("out"), self.read(name))
        self.run_command("verify", "--quiet", "-s", store)
        self.assertEqual(self.leftovers(), [])
