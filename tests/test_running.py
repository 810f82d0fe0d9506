# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for desync.running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from desync.errors import DesyncError, Interrupted, StoreError
from desync.running import run, run_with_reactor

from .command_line import process_environ


class RunTests(SynchronousTestCase):
    """Operations on local files."""

    def test_result(self) -> None:
        """What the operation returns is returned."""

        async def inner() -> int:
            return 3

        async def operation() -> int:
            return await inner() + 4

        self.assertEqual(run(operation()), 7)

    def test_error(self) -> None:
        """What the operation raises is raised."""

        async def operation() -> None:
            raise DesyncError("no")

        self.assertRaises(DesyncError, run, operation())

    def test_fired_deferreds(self) -> None:
        """A Deferred that has its result already is nothing to wait for."""

        async def operation() -> int:
            return await succeed(3)

        self.assertEqual(run(operation()), 3)

    def test_waiting(self) -> None:
        """An operation that waits is an error, and gets to clean up."""
        cleaned = []

        async def operation() -> None:
            try:
                await Deferred()
            finally:
                cleaned.append(True)

        error = self.assertRaises(RuntimeError, run, operation())
        self.assertIn("operation", str(error))
        self.assertEqual(cleaned, [True])


class Reactor:
    """A reactor that goes through a list of things to do, and then stops."""

    def __init__(self, *things: Callable[[], object]) -> None:
        self.things = list(things)
        self.running = False

    def callWhenRunning(self, call: Callable[[], object]) -> None:  # noqa: N802
        self.things.insert(0, call)

    def callFromThread(self, call: Callable[[], object]) -> None:  # noqa: N802
        self.things.insert(0, call)

    def run(self) -> None:
        self.running = True
        while self.running and self.things:
            self.things.pop(0)()
        self.running = False

    def crash(self) -> None:
        self.running = False


def _send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


class RunWithReactorTests(SynchronousTestCase):
    """Operations that wait."""

    def setUp(self) -> None:
        self.handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def tearDown(self) -> None:
        now = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        self.assertEqual(now, self.handlers)

    def test_result(self) -> None:
        """What the operation returns, at once or later, is returned, and the reactor stopped."""
        waiting: Deferred[int] = Deferred()

        async def later(reactor: Any) -> int:
            return await waiting + 1

        async def at_once(reactor: Any) -> Any:
            return reactor

        reactor = Reactor(lambda: waiting.callback(3), lambda: self.fail("not stopped"))
        self.assertEqual(run_with_reactor(later, reactor), 4)
        self.assertFalse(reactor.running)
        reactor = Reactor()
        self.assertIs(run_with_reactor(at_once, reactor), reactor)

    def test_error(self) -> None:
        """What the operation raises is raised."""

        async def operation(reactor: Any) -> None:
            raise StoreError("store", "down")

        self.assertRaises(StoreError, run_with_reactor, operation, Reactor())

    def test_interrupted(self) -> None:
        """SIGINT and SIGTERM cancel the operation, which cleans up, however long that takes."""
        for number in (signal.SIGINT, signal.SIGTERM):
            work: Deferred[None] = Deferred()
            cleaning: Deferred[None] = Deferred()
            events: list[str] = []

            async def operation(
                reactor: Any,
                work: Deferred[None] = work,
                cleaning: Deferred[None] = cleaning,
                events: list[str] = events,
            ) -> None:
                try:
                    await work
                except CancelledError:
                    events.append("cancelled")
                    await cleaning
                    events.append("clean")
                    raise

            # The second one changes nothing.
            fire = partial(cleaning.callback, None)
            reactor = Reactor(_send(number), _send(number), fire)
            self.assertRaises(Interrupted, run_with_reactor, operation, reactor)
            self.assertEqual(events, ["cancelled", "clean"])

    def test_complete_all_the_same(self) -> None:
        """An operation that was complete when the signal came is not said to be interrupted."""
        work: Deferred[int] = Deferred()

        async def operation(reactor: Any) -> int:
            try:
                return await work
            except CancelledError:
                return 5

        reactor = Reactor(_send(signal.SIGTERM))
        self.assertEqual(run_with_reactor(operation, reactor), 5)

    def test_other_errors_after_a_signal(self) -> None:
        """Whatever an interrupted operation fails with, it was interrupted."""

        async def operation(reactor: Any) -> None:
            try:
                await Deferred()
            except CancelledError:
                raise StoreError("store", "connection lost") from None

        reactor = Reactor(_send(signal.SIGTERM))
        error = self.assertRaises(Interrupted, run_with_reactor, operation, reactor)
        self.assertIsInstance(error.__cause__, StoreError)

    def test_stopped_by_others(self) -> None:
        """A reactor that stops before the operation has begun has interrupted it."""

        async def operation(reactor: Any) -> None:
            await Deferred()

        reactor = Reactor()
        reactor.things = [reactor.crash]
        self.patch(reactor, "callWhenRunning", reactor.things.append)
        self.assertRaises(Interrupted, run_with_reactor, operation, reactor)

    def test_again(self) -> None:
        """
        Under the real reactor one operation can follow another, with threads and processes, and a
        program that did so ends.
        """
        script = """
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutput
from desync.running import run_with_reactor

async def operation(reactor):
    return await deferToThread(str, 1), await getProcessOutput("/bin/echo", [b"2"])

for _ in range(3):
    print(run_with_reactor(operation))
"""
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            env=process_environ(),
            timeout=60,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), (b"('1', b'2\\n')\n" * 3, b""))

    def test_real_reactor(self) -> None:
        """With the real reactor, a signal that comes while nothing happens wakes it up."""
        script = """
import os, signal
from twisted.internet.defer import Deferred
from desync.running import run_with_reactor
from desync.errors import Interrupted

async def operation(reactor):
    reactor.callLater(0, os.kill, os.getpid(), signal.SIGTERM)
    try:
        await Deferred()
    finally:
        print("clean")

try:
    run_with_reactor(operation)
except Interrupted as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            env=process_environ(),
            timeout=60,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), (b"clean\ninterrupted\n", b""))
