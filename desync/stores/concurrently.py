# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Running coroutines side by side, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


async def concurrently(
    coroutines: Iterable[Coroutine[Deferred[Any], Any, object]], most: int
) -> None:
    """
    Run coroutines, in their order, no more than `most` of them at a time.

    The first that fails, or a cancellation, cancels those that run; no other begins. When this
    returns or raises, none is running any longer.

    :param coroutines: taken one by one, as there is room.
    :raises: what the first one failed with.
    """
    waiting = iter(coroutines)
    running: set[Deferred[object]] = set()
    failures: list[Failure] = []
    wake: Deferred[None] | None = None

    def ended(result: object, deferred: Deferred[object]) -> None:
        running.discard(deferred)
        if isinstance(result, Failure):
            failures.append(result)
        if wake is not None and not wake.called:
            wake.callback(None)

    def stop() -> None:
        for deferred in list(running):
            deferred.cancel()

    exhausted = False
    stopped = False
    while True:
        while not exhausted and not failures and len(running) < most:
            coroutine = next(waiting, None)
            if coroutine is None:
                exhausted = True
                break
            deferred = Deferred.fromCoroutine(coroutine)
            running.add(deferred)
            deferred.addBoth(ended, deferred)
        if failures and not stopped:
            stopped = True
            stop()
        if not running:
            break
        wake = Deferred()
        try:
            await wake
        except BaseException:
            # Cancelled: those that run are, too, and are waited for.
            failures.insert(0, Failure())
            stopped = True
            stop()
    if failures:
        failures[0].raiseException()
