# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Running an operation to its end: without a reactor while everything is local, else under one.

Operations are coroutines. One that touches local files and stores only never waits for a Deferred,
so a single step completes it, and the quarter of a second that importing and starting a reactor
takes isn't spent.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from desync.errors import Interrupted

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

T = TypeVar("T")


def run(operation: Coroutine[Any, Any, T]) -> T:
    """
    Complete an operation all of whose stores and files are local.

    :return: what the operation returns.
    :raise RuntimeError: if it waited for something, which only :func:`run_with_reactor` can bring.
    """
    try:
        operation.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    operation.close()
    raise RuntimeError(f"{operation!r} waited for a Deferred, but no reactor runs")


def import_reactor() -> None:
    """
    Import the reactor, but nothing of what TLS takes: that is as much as all the rest, and a
    command would wait for it that doesn't need it.

    A connection can be secured all the same (:mod:`desync.stores.web_trust`). Servers, which listen
    with TLS, need a reactor that was imported the usual way.
    """
    if "OpenSSL" in sys.modules or "twisted.internet.tcp" in sys.modules:
        return
    # Modules stay; that there is nothing to be collected among them would be found out many times.
    gc.disable()
    sys.modules["OpenSSL"] = None  # type: ignore[assignment]  # makes importing it fail
    try:
        import twisted.internet.endpoints
        import twisted.internet.reactor  # noqa: F401
    finally:
        del sys.modules["OpenSSL"]
        gc.freeze()
        gc.enable()


def run_with_reactor(
    operation: Callable[[Any], Coroutine[Deferred[Any], Any, T]], reactor: Any = None
) -> T:
    """
    Complete an operation that may wait for Deferreds, under a reactor that is started for it.

    SIGINT and SIGTERM cancel it; it's then given all the time it needs to clean up. A second signal
    changes nothing, a third ends the process at once.

    :param operation: called with the reactor, once that runs.
    :param reactor: one that isn't running; None for the default one. It is left such that another
        operation can be completed under it.
    :return: what the operation returns.
    :raise Interrupted: if a signal ended it. An operation that was complete all the same, returns.
    """
    from threading import Thread

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IReactorThreads
    from twisted.python.failure import Failure

    if reactor is None:
        from twisted.internet import reactor
    if IReactorThreads.providedBy(reactor):
        # Nobody stops them after crash(): the end of the process would wait for them for ever.
        threads: Any = reactor.getThreadPool()
        threads.threadFactory = partial(Thread, daemon=True)
    outcome: list[Any] = []
    working: list[Deferred[Any]] = []
    signals: list[int] = []

    def stop(result: Any) -> None:
        outcome.append(result)
        if reactor.running:
            # Not stop(), after which it could never run again: the next operation uses what this
            # one has set up. Nothing is left undone: a process ends without the reactor's help.
            reactor.crash()

    def begin() -> None:
        # The reactor's own handlers, set by now, would stop it under the operation's feet.
        for number in previous:
            signal.signal(number, interrupt)
        deferred = Deferred.fromCoroutine(operation(reactor))
        working.append(deferred)
        deferred.addBoth(stop)
        if signals:
            deferred.cancel()

    def cancel() -> None:
        for deferred in working:
            deferred.cancel()

    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) == 1:
            # Not from here: a signal handler runs between any two instructions of anything.
            reactor.callFromThread(cancel)
        elif len(signals) > 2:
            os._exit(1)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # While it starts, too: it takes an interrupt that is raised then for a handler's failure.
        for number in previous:
            signal.signal(number, interrupt)
        reactor.callWhenRunning(begin)
        reactor.run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if not outcome:
        raise Interrupted
    result = outcome[0]
    if isinstance(result, Failure):
        if signals:
            raise Interrupted from result.value
        result.raiseException()
    value: T = result
    return value
