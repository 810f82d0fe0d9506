# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A process pool driven by a reactor, for programs that do other things meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor, IWriteDescriptor
from zope.interface import implementer

from .pool import Pool, WaitingJob, can_spawn, run_here
from .program import load

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
            await _run_here(job)
            return
        crew = self._pool.crew
        crew.check_idle()
        try:
            crew.begin(job, is_patient=isinstance(job, WaitingJob))
        except BaseException:
            self._pool.close()
            raise
        if not crew.busy:
            crew.finish()
            return
        under_way = _UnderWay(crew, self._reactor)
        if isinstance(job, WaitingJob):
            job.more = under_way.more
        try:
            under_way.start()
            await under_way.done
        except BaseException:
            self._pool.close()
            raise
        finally:
            if isinstance(job, WaitingJob):
                job.more = lambda: None
            under_way.stop()
        crew.finish()

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


async def _run_here(job: Job) -> None:
    """Do a job in this process, unit by unit."""
    if not isinstance(job, WaitingJob):
        run_here(job)
        return
    waiting: Deferred[None] = Deferred()

    def more() -> None:
        if not waiting.called:
            waiting.callback(None)

    job.more = more
    half = load(job.worker_half, job.settings())
    try:
        while True:
            waiting = Deferred()
            unit = job.next_unit()
            if unit is not None:
                job.result(bytes(half.run(unit, job.note)))
            elif job.exhausted:
                return
            else:
                await waiting
    finally:
        half.close()


class _UnderWay:
    """
    A job and those who watch the workers at it.

    :ivar done: fires when the job is done.
    """

    def __init__(self, crew: Crew, reactor: IReactorFDSet) -> None:
        self.done: Deferred[None] = Deferred()
        self._crew = crew
        self._watches = [_Watch(worker, self, reactor) for worker in crew.workers]
        self._is_receiving = False

    def start(self) -> None:
        """Begin to watch."""
        for watch in self._watches:
            watch.start()

    def stop(self) -> None:
        """Watch no longer."""
        for watch in self._watches:
            watch.stop()

    def receive(self, worker: Worker) -> None:
        """Take what a worker has said, and go on."""
        self._is_receiving = True
        try:
            self._crew.receive(worker)
        finally:
            self._is_receiving = False
        self._go_on()

    def more(self) -> None:
        """Hand out what units there are. What has just been received brings that anyway."""
        if not self._is_receiving and not self.done.called:
            self._crew.more()
            self._go_on()

    def _go_on(self) -> None:
        for watch in self._watches:
            watch.check_outgoing()
        if not self._crew.busy and not self.done.called:
            self.done.callback(None)


@implementer(IReadDescriptor)
class _Watch:
    """Reads what one worker says, and sees to what is still to be said to it."""

    def __init__(self, worker: Worker, under_way: _UnderWay, reactor: IReactorFDSet) -> None:
        self._worker = worker
        self._under_way = under_way
        self._reactor = reactor
        self._rest = _Rest(worker, self.stop_writing)
        self._writing = False

    def start(self) -> None:
        """Begin to watch."""
        # A reactor must forget a descriptor before it is closed: its number may be another's next.
        self._worker.before_closing = self.stop
        self._reactor.addReader(self)
        self.check_outgoing()

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

    def check_outgoing(self) -> None:
        """See to it that what the worker's pipe didn't take follows."""
        if self._worker.alive and self._worker.outgoing and not self._writing:
            self._reactor.addWriter(self._rest)
            self._writing = True

    def fileno(self) -> int:
        return self._worker.answers if self._worker.alive else -1

    def doRead(self) -> None:  # noqa: N802
        self._under_way.receive(self._worker)

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
