# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Threads for what would block the reactor: files, and the hashing and coding of data that is here.

Not the reactor's own pool, because name resolution waits in that one: a busy disk must not keep a
connection from being made.
"""

from __future__ import annotations

import os
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from twisted.internet.interfaces import IReactorFromThreads

_T = TypeVar("_T")


class Threads(Protocol):
    """What runs blocking functions: :class:`StoreThreads`, or a stand-in for tests."""

    @property
    def size(self) -> int:
        """How many functions run at once."""

    def run(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """
        Call a function where it may block.

        :returns: its result or failure, in the reactor thread. Cancelling ends the wait; a function
            that hasn't begun by then is not called, and one that has goes on to its end.
        """

    def stop(self) -> Deferred[None]:
        """
        End the threads once they have done what they were given, canceled or not.

        :returns: fires when they have. Stopping twice is fine.
        """


class StoreThreads:
    """
    A fixed number of threads, started when first needed.

    They don't keep the process from ending.

    :param reactor: gets the results.
    :param size: how many; a few more than processors by default, for some wait for the disk.
    """

    def __init__(self, reactor: IReactorFromThreads, size: int | None = None) -> None:
        self._reactor = reactor
        self._size = size or min(8, (os.cpu_count() or 1) + 2)
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._started = 0
        self._busy = 0
        self._stopped = False
        self._waiting: list[Deferred[None]] = []

    @property
    def size(self) -> int:
        """How many threads there are when all are needed."""
        return self._size

    def run(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """See :class:`Threads`."""
        if self._stopped:
            raise RuntimeError("the threads have been stopped")
        result: Deferred[_T] = Deferred()

        def call() -> None:
            outcome: _T | Failure
            if result.called:
                outcome = Failure(RuntimeError("canceled before it began"))
            else:
                try:
                    outcome = function(*args)
                except BaseException:
                    outcome = Failure()
            self._reactor.callFromThread(self._finish, result, outcome)

        self._busy += 1
        self._tasks.put(call)
        if self._started < min(self._busy, self._size):
            self._start_thread()
        return result

    def _start_thread(self) -> None:
        name = f"desync-store-{self._started + 1}"
        try:
            Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:
            # The system has none left. If there is no other, slow is better than never.
            if not self._started:
                self._tasks.get_nowait()()  # type: ignore[misc]
        else:
            self._started += 1

    def _work(self) -> None:
        while True:
            call = self._tasks.get()
            if call is None:
                return
            call()
            # What it holds on to, a chunk perhaps, needn't wait for the next one.
            del call

    def _finish(self, result: Deferred[_T], outcome: _T | Failure) -> None:
        self._busy -= 1
        if not result.called:
            result.callback(outcome)
        self._tell_idle()

    def _tell_idle(self) -> None:
        if not self._busy:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                if not one.called:
                    one.callback(None)

    def stop(self) -> Deferred[None]:
        """See :class:`Threads`."""
        if not self._stopped:
            self._stopped = True
            for _ in range(self._started):
                self._tasks.put(None)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self._tell_idle()
        return done
