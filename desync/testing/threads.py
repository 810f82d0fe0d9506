# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Stand-ins for the threads of stores, so that tests need none."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import Deferred, execute, succeed

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_T = TypeVar("_T")


class InlineThreads:
    """
    Calls every function at once, where it was asked to.

    :param size: how many threads to pretend to be.
    """

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.stopped = False

    def run(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """See :class:`desync.stores.threads.Threads`."""
        return execute(function, *args)

    def stop(self) -> Deferred[None]:
        """See :class:`desync.stores.threads.Threads`."""
        self.stopped = True
        return succeed(None)


class ManualThreads:
    """
    Calls functions when the test says so.

    :ivar waiting: how many haven't been called yet.
    """

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.stopped = False
        self._tasks: list[Callable[[], None]] = []

    @property
    def waiting(self) -> int:
        return len(self._tasks)

    def run(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """See :class:`desync.stores.threads.Threads`."""
        result: Deferred[_T] = Deferred()

        def call() -> None:
            outcome = execute(function, *args)
            if result.called:
                outcome.addErrback(lambda _: None)
            else:
                outcome.chainDeferred(result)

        self._tasks.append(call)
        return result

    def advance(self, count: int = 1) -> None:
        """Call the functions that were asked for first."""
        for _ in range(count):
            self._tasks.pop(0)()

    def stop(self) -> Deferred[None]:
        """See :class:`desync.stores.threads.Threads`."""
        self.stopped = True
        return succeed(None)
