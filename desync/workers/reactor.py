# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A process pool driven by a reactor, for programs that do other things meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from zope.interface import implementer

from .pool import Pool, can_spawn, run_here

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from .pool import Crew, Job, Worker


class ReactorPool:
    """
    Joins a pool to a reactor.

    :param pool: whose workers do the jobs; they may be running already, started before the reactor
        was imported.
    :param reactor: an ``IReactorFDSet``.
    """

    def __init__(self, pool: Pool, reactor: Any) -> None:
        self._pool = pool
        self._reactor = IReactorFDSet(reactor)

    async def run(self, job: Job) -> None:
        """
        Do a job. Cancelling ends the workers; a later job starts new ones.

        :raises: the first error that a unit ended with, or WorkerDied.
        """
        if not can_spawn():
            run_here(job)
            return
        crew = self._pool.crew
        crew.check_idle()
        try:
            crew.begin(job)
        except BaseException:
            self._pool.close()
            raise
        if not crew.busy:
            crew.finish()
            return
        done: Deferred[None] = Deferred()
        watches = [_Watch(worker, crew, self._reactor, done) for worker in crew.workers]
        try:
            for watch in watches:
                watch.start()
            await done
        except BaseException:
            self._pool.close()
            raise
        finally:
            for watch in watches:
                watch.stop()
        crew.finish()

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


@implementer(IReadDescriptor)
class _Watch:
    """Reads what one worker says, and sees to what is still to be said to it."""

    def __init__(
        self, worker: Worker, crew: Crew, reactor: IReactorFDSet, done: Deferred[None]
    ) -> None:
        self._worker = worker
        self._crew = crew
        self._reactor = reactor
        self._done = done
        self._rest = _Rest(worker, self.stop_writing)
        self._writing = False

    def start(self) -> None:
        """Begin to watch."""
        # A reactor must forget a descriptor before it is closed: its number may be another's next.
        self._worker.before_closing = self.stop
        self._reactor.addReader(self)
        self._check_outgoing()

    def stop(self) -> None:
        """Watch no longer."""
        if not self._worker.alive:
            return
        self._worker.before_closing = lambda: None
        self._reactor.removeReader(self)
        self.stop_writing()

    def stop_writing(self) -> None:
        """Forget what was still to be said: all is said, or nobody is there to hear it."""
        if self._writing:
            self._reactor.removeWriter(self._rest)
            self._writing = False

    def _check_outgoing(self) -> None:
        if self._worker.outgoing and not self._writing:
            self._reactor.addWriter(self._rest)
            self._writing = True

    def fileno(self) -> int:
        return self._worker.answers if self._worker.alive else -1

    def doRead(self) -> None:  # noqa: N802
        self._crew.receive(self._worker)
        if self._worker.alive:
            self._check_outgoing()
        if not self._crew.busy and not self._done.called:
            self._done.callback(None)

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        # The reactor gives up on the descriptor: reading it tells why.
        if self._worker.alive:
            self.doRead()

    def logPrefix(self) -> str:  # noqa: N802
        return "desync worker"


@implementer(IWriteDescriptor)
class _Rest:
    """Writes what a worker's pipe didn't take at once."""

    def __init__(self, worker: Worker, stop: Callable[[], None]) -> None:
        self._worker = worker
        self._stop = stop

    def fileno(self) -> int:
        return self._worker.requests if self._worker.alive else -1

    def doWrite(self) -> None:  # noqa: N802
        self._worker.flush()
        if not self._worker.outgoing:
            self._stop()

    def connectionLost(self, reason: Failure) -> None:  # noqa: N802
        self._stop()

    def logPrefix(self) -> str:  # noqa: N802
        return "desync worker"
