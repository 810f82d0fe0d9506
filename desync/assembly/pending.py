# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Work in threads that uses a descriptor, which nobody may close before the work is done.

Cancelling the Deferred of a call in a thread ends the wait, not the call. A descriptor that was
closed meanwhile may be another file's by the time that the thread uses it.
"""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Pending:
    """Calls that are under way."""

    def __init__(self) -> None:
        self._count = 0
        self._waiting: list[Deferred[None]] = []

    def watch(self, call: Deferred[T]) -> Deferred[T]:
        """
        Take a call over.

        :returns: fires as the call does; cancelling it leaves the call alone.
        """
        told: Deferred[T] = Deferred()
        self._count += 1

        def done(result: T | Failure) -> None:
            self._count -= 1
            if not told.called:
                told.callback(result)
            elif isinstance(result, Failure):
                pass  # nobody waits for it any longer
            if not self._count:
                waiting, self._waiting = self._waiting, []
                for one in waiting:
                    if not one.called:
                        one.callback(None)

        call.addBoth(done)
        return told

    async def settled(self) -> None:
        """
        Wait until no call is under way, whatever happens meanwhile; a cancellation is passed on
        afterwards.
        """
        cancelled: CancelledError | None = None
        while self._count:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            try:
                await waiting
            except CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
