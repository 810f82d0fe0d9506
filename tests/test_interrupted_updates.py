# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Updates that are ended at random moments, while blocks are shared, copied, moved or fetched: the old
file or the complete new one, unless it is changed in place; and then the next run completes it.

``DESYNC_TEST_SEED`` repeats what a failure's message names.
"""

from __future__ import annotations

import os
import signal

from .command_case import sample
from .loop_devices import MIB, file_system, for_test
from .test_interrupts import SIZE, SIZES, InterruptCase

ROUNDS = 4


class UpdateTests(InterruptCase):
    """A file of some MiB, and the version before it."""

    def setUp(self) -> None:
        super().setUp()
        data = self.data
        self.old = data[: 3 * MIB] + sample(MIB, 9) + data[3 * MIB : SIZE - MIB] + bytes(10_000)
        self.write("old", self.old)
        self.run_command("make", "-m", SIZES, self.path("old.caibx"), self.path("old"))
        self.run_command("chop", "-s", self.store(), self.path("good.caibx"), self.file)

    def update(self, out: str, *flags: str, keeps: bool = True) -> None:
        """
        End a command again and again, and complete it.

        :param keeps: whether an interrupted one leaves the old file.
        """
        arguments = ("extract", "-s", self.path("store"), *flags, self.path("good.caibx"), out)
        self.replace(out)
        self.assertEqual(self.interrupted(0, False, *arguments).code, 0)
        for turn in range(ROUNDS):
            self.replace(out)
            number = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)[turn % 4]
            what = f"seed {self.seed}, turn {turn}, {number.name}, {flags}"
            # Kill the parent alone, or all there is.
            outcome = self.interrupted(number, bool(self.random.randrange(2)), *arguments)
            self.check_outcome(outcome, number, what)
            with open(out, "rb") as file:
                content = file.read()
            if outcome.code == 0:
                self.assertEqual(content, self.data, what)
            elif keeps:
                self.assertIn(content, (self.old, self.data), what)
            self.run_command(*arguments) if "-c" not in flags else self.complete(*arguments)
            with open(out, "rb") as file:
                self.assertEqual(file.read(), self.data, what)
            self.assertEqual(self.hidden(os.path.dirname(out)), [], what)

    def complete(self, *arguments: str) -> None:
        """Run a command that needs a process of its own to its end."""
        took, self.took = self.took, 0.0
        self.assertEqual(self.interrupted(0, False, *arguments)[::2], (0, ""))
        self.took = took

    def replace(self, out: str) -> None:
        """Put the old version there."""
        with open(out, "wb") as file:
            file.write(self.old)

    def hidden(self, folder: str) -> list[str]:
        """List what hidden files there are in a folder."""
        return [name for name in os.listdir(folder) if name.startswith(".")]

    def test_seed(self) -> None:
        """With a seed that is copied from."""
        self.update(self.path("out"), "--seed", self.path("old.caibx"))

    def test_shared(self) -> None:
        """With a seed whose blocks are shared, on XFS."""
        place = for_test(file_system("xfs", 400 * MIB), self.addCleanup)
        seed = os.path.join(place, "old")
        self.replace(seed)
        self.update(os.path.join(place, "out"), "--seed", f"{self.path('old.caibx')}:{seed}")

    def test_in_place(self) -> None:
        """In place; the next run completes it."""
        self.update(self.path("out"), "-k", keeps=False)

    def test_resume(self) -> None:
        """With what the run before has made."""
        self.update(self.path("out"), "--resume", "--seed-output=false")

    def test_moving(self) -> None:
        """In place through a cache, which moves what is elsewhere."""
        self.update(self.path("out"), "-k", "-c", self.store("cache"), keeps=False)

    def test_cache(self) -> None:
        """With a seed and a cache."""
        seed = self.path("old.caibx")
        self.update(self.path("out"), "-c", self.store("cache"), "--seed", seed)
