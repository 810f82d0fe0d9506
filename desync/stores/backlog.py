# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Work that goes on while more of it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any


class Backlog:
    """
    Coroutines under way, about as many as there is room for.

    Unlike :func:`desync.stores.concurrently.concurrently`, which takes work as there is room, this
    is for whoever is given work and can only ask for no more: a sink.

    :param room: how many may be under way before no more is asked for.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._running: set[Deferred[None]] = set()
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._failure: Failure | None = None

    def add(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> Deferred[None] | None:
        """
        Begin some work.

        :returns: None if there is room for more, else what fires when there is.
        :raises: what some earlier work failed with.
        """
        if self._failure is not None:
            coroutine.close()
            self._failure.raiseException()
        running = Deferred.fromCoroutine(coroutine)
        self._running.add(running)
        running.addBoth(self._ended, running)
        return self._wait_for(self._room - 1)

    def _wait_for(self, left: int) -> Deferred[None] | None:
        """Wait until no more than so many are under way, or one has failed."""
        waiting: Deferred[None] = Deferred()
        if self._failure is not None:
            waiting.errback(self._failure)
            return waiting
        if len(self._running) <= left:
            return None
        self._waiting.append((left, waiting))
        return waiting

    def _ended(self, outcome: Failure | None, running: Deferred[None]) -> None:
        self._running.discard(running)
        if isinstance(outcome, Failure) and self._failure is None:
            self._failure = outcome
        waiting, self._waiting = self._waiting, []
        for left, deferred in waiting:
            if deferred.called:
                continue
            if self._failure is not None:
                deferred.errback(self._failure)
            elif len(self._running) <= left:
                deferred.callback(None)
            else:
                self._waiting.append((left, deferred))

    async def finish(self) -> None:
        """
        Wait until all work is done.

        :raises: what the first to fail failed with.
        """
        waiting = self._wait_for(0)
        if waiting is not None:
            await waiting

    def cancel(self) -> None:
        """Cancel whatever is still under way."""
        for running in list(self._running):
            running.cancel()
