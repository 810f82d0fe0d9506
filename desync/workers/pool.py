# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The parent's side of the process pool.

A :class:`Pool` keeps its workers from job to job. :meth:`Pool.run` is driven by a blocking loop
over the pipes;
:mod:`desync.workers.reactor` drives the same :class:`Crew` by a reactor.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from desync import umask
from desync.errors import WorkerDied
from desync.workers.messages import (
    FAILED,
    JOB,
    NOTE,
    READY,
    RESULT,
    UNIT,
    FrameReader,
    OutOfStep,
    frame,
)
from desync.workers.program import STARTING, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_READ_SIZE: Final = 1 << 18


class Job(Protocol):
    """
    The parent's half of a job.

    :ivar worker_half: the worker's half, ``module:class``.
    :ivar leases: how many units a worker holds at once. Two (one under way, one waiting) keep it
        from waiting for the parent; one is for units that come in a chain, where the next free
        worker must get the next.
    :ivar small: whether there is so little to do that it isn't worth starting processes; it then
        runs in this one.
    """

    worker_half: str
    leases: int

    @property
    def small(self) -> bool: ...

    def settings(self) -> dict[str, Any]:
        """
        Give what the worker's half is made from: plain values only (numbers, text, bytes, None,
        lists, tuples, dicts).
        """

    def next_unit(self) -> bytes | None:
        """Give the next unit, or None if there is none to give now."""

    @property
    def exhausted(self) -> bool:
        """Whether there will never be another unit."""

    def note(self, payload: bytes) -> None:
        """Take what a worker says while a unit is under way."""

    def result(self, payload: bytes) -> None:
        """Take a unit's result. Results come in any order."""


class WaitingJob:
    """
    What a job extends whose parent's half waits for more than its results: it may have no unit to
    give although none is under way. It needs a pool that is joined to a reactor, unless there turns
    out to be nothing to wait for.
    """

    def __init__(self) -> None:
        #: Set by what does the job; called by whoever gives it another unit, or its end.
        self.more: Callable[[], object] = lambda: None


class Runner(Protocol):
    """What does jobs: a :class:`Pool`, or one joined to a reactor."""

    async def run(self, job: Job) -> None:
        """Do a job. See :meth:`Pool.run`."""


class Worker:
    """One process and the pipes to it."""

    def __init__(self, program: Iterable[str]) -> None:
        opened: list[int] = []
        try:
            opened += os.pipe()
            opened += os.pipe()
            requests, self.requests, self.answers, answers = opened
            os.set_blocking(self.requests, False)
            os.set_blocking(self.answers, False)
            # The child starts with signals blocked: one that arrives before it ignores them would
            # end it, ^C even with a traceback.
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, *program],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, requests, 0),
                    (os.POSIX_SPAWN_DUP2, answers, 1),
                ],
                setsigmask=STARTING,
            )
        except BaseException as error:
            for descriptor in opened:
                os.close(descriptor)
            if isinstance(error, OSError):
                raise WorkerDied(f"a worker process can't be started: {error.strerror}") from None
            raise
        os.close(requests)
        os.close(answers)
        self.reader = FrameReader()
        self.outgoing = bytearray()
        self.leases = 0
        self.ready = False
        self.alive = True
        #: Called just before the pipes are closed, for whoever watches them.
        self.before_closing: Callable[[], object] = lambda: None

    def send(self, kind: int, payload: bytes) -> None:
        """Say something, as soon as the pipe takes it."""
        self.outgoing += frame(kind, payload)
        self.flush()

    def flush(self) -> None:
        """Write what the pipe takes now; nothing if the worker is gone."""
        while self.outgoing and self.alive:
            try:
                written = os.write(self.requests, self.outgoing)
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.outgoing.clear()  # it is dead: reading will tell
                return
            del self.outgoing[:written]

    def receive(self) -> list[tuple[int, bytes]] | None:
        """Read what has come. None: the worker has closed its end."""
        try:
            data = os.read(self.answers, _READ_SIZE)
        except BlockingIOError:
            return []
        return self.reader.feed(data) if data else None

    def bury(self) -> str:
        """Close the pipes, make sure that the process is gone, and say how it ended."""
        self.before_closing()
        self.alive = False
        os.close(self.requests)
        os.close(self.answers)
        return _wait_for(self.pid)

    def ask_to_stop(self) -> None:
        """
        Tell the process to end: at once if it is idle, after its clean-up if it is at work.
        :meth:`bury` waits for that.
        """
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            # One that somebody has stopped would never get to it.
            os.kill(self.pid, signal.SIGCONT)


class Crew:
    """
    The workers of a pool and the job they are at. Knows nothing of waiting: a driver tells it which
    descriptors are ready.

    :param size: how many processes.
    :param modules: what they import as soon as they have started.
    """

    def __init__(self, size: int, modules: Iterable[str] = ()) -> None:
        program = _program(modules)
        self.workers: list[Worker] = []
        self.job: Job | None = None
        self.error: BaseException | None = None
        self._is_patient = False
        try:
            while len(self.workers) < size:
                self.workers.append(Worker(program))
        except BaseException:
            self.close()
            raise

    def is_complete(self, size: int) -> bool:
        """Tell whether none of so many workers has ended, be it while it had nothing to do."""
        if self.job is not None:
            return True
        poll = select.poll()
        for worker in self.workers:
            # Asked for nothing, it tells of the other end's closing alone.
            poll.register(worker.answers, 0)
        return len(self.workers) == size and not poll.poll(0)

    def check_idle(self) -> None:
        """
        Make sure that there is no job under way.

        :raises RuntimeError: if there is one.
        """
        if self.job is not None:
            raise RuntimeError("the pool is at work")

    def begin(self, job: Job, *, is_patient: bool = False) -> None:
        """
        Set all workers to a job, of which there must be none yet.

        :param is_patient: whether to let a job wait that has no unit to give and none under way:
            somebody will call :meth:`more`.
        """
        self.check_idle()
        self.job = job
        self._is_patient = is_patient
        self.error = None
        settings = marshal.dumps((job.worker_half, marshal.dumps(job.settings())))
        for worker in self.workers:
            worker.send(JOB, settings)
        self.lease()

    @property
    def busy(self) -> bool:
        """Whether the job is still under way; call :meth:`finish` when it is no longer."""
        assert self.job is not None
        if any(worker.leases for worker in self.workers):
            return True
        return self.error is None and not self.job.exhausted

    def finish(self) -> None:
        """
        End the job.

        :raises: the first error that any unit ended with.
        """
        self.job = None
        if self.error is not None:
            raise self.error

    def lease(self) -> None:
        """Hand out units as far as there are units and room."""
        assert self.job is not None
        if self.error is not None:
            return
        for depth in range(1, self.job.leases + 1):
            for worker in self.workers:
                if worker.leases >= depth:
                    continue
                unit = self.job.next_unit()
                if unit is None:
                    if not self._is_patient and not self.job.exhausted:
                        self._check_leases()
                    return
                worker.leases += 1
                worker.send(UNIT, unit)

    def receive(self, worker: Worker) -> None:
        """Take what a worker has sent. Errors are kept for :meth:`finish`."""
        try:
            frames = worker.receive()
        except Exception as error:
            # What it sent is lost, so nobody can tell any more what it is at.
            self._dismiss(worker, error)
            return
        if frames is None:
            self._take_death(worker)
            return
        for kind, payload in frames:
            # Whatever becomes of one frame, the others count: results that were lost would be
            # waited for for ever.
            try:
                self._take(worker, kind, payload)
            except OutOfStep as error:
                self._dismiss(worker, error)
                return
            except Exception as error:
                self._fail(error)
        self.more()

    def more(self) -> None:
        """Hand out what units there are. Errors are kept for :meth:`finish`."""
        try:
            self.lease()
        except Exception as error:
            self._fail(error)

    def _check_leases(self) -> None:
        if not any(worker.leases for worker in self.workers):
            self.error = RuntimeError("a job is waiting for nothing")

    def _take_death(self, worker: Worker) -> None:
        how = worker.bury()
        self.workers.remove(worker)
        if worker.leases or not worker.ready or not self.workers:
            what = (
                "ended in the middle of its work" if worker.ready else "ended before it had started"
            )
            self._fail(WorkerDied(f"a worker process {what}: {how}"))
        worker.leases = 0

    def _dismiss(self, worker: Worker, error: Exception) -> None:
        worker.leases = 0
        worker.ask_to_stop()
        worker.bury()
        self.workers.remove(worker)
        if isinstance(error, OutOfStep):
            error = WorkerDied(f"a worker process sent {error}")
        self._fail(error)

    def _take(self, worker: Worker, kind: int, payload: bytes) -> None:
        assert self.job is not None
        if kind == READY:
            worker.ready = True
        elif kind == NOTE:
            if self.error is None:
                self.job.note(payload)
        elif kind == RESULT:
            worker.leases -= 1
            if self.error is None:
                self.job.result(payload)
        elif kind == FAILED:
            import pickle

            worker.leases -= 1
            self._fail(pickle.loads(payload))
        else:
            raise OutOfStep(f"a frame of unknown kind {kind}")

    def _fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.bury()
        self.workers.clear()


class Pool:
    """
    Worker processes for the jobs of one command or one application.

    Processes start with :meth:`start` or the first job that needs them. As a context manager it
    ends them at the end of the block.

    :param size: how many; see :func:`pool_size`.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError("a pool needs at least one worker")
        self.size = size
        self._crew: Crew | None = None
        self._modules: tuple[str, ...] = ()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def crew(self) -> Crew:
        """The workers; started if they aren't running, replaced if one has died."""
        if self._crew is not None and not self._crew.is_complete(self.size):
            self.close()
        if self._crew is None:
            self._crew = Crew(self.size, self._modules)
        return self._crew

    def start(self, *modules: str) -> None:
        """
        Start the processes if they aren't running, so that they get ready while the caller does
        other things.

        :param modules: what they will need, to be imported meanwhile.
        """
        self._modules = modules
        if can_spawn():
            self.crew  # noqa: B018

    async def run(self, job: Job) -> None:
        """
        Do a job, waiting in a loop of our own: the coroutine never suspends.

        :raises: the first error that a unit ended with, or WorkerDied.
        """
        if not can_spawn() or (job.small and self._crew is None):
            run_here(job)
            return
        crew = self.crew
        crew.check_idle()
        try:
            crew.begin(job)
            self._wait(crew)
        except BaseException:
            # A job that was interrupted is still under way in the workers: only their end ends it.
            self.close()
            raise
        crew.finish()

    def _wait(self, crew: Crew) -> None:
        poll = select.poll()
        by_answers = {worker.answers: worker for worker in crew.workers}
        by_requests = {worker.requests: worker for worker in crew.workers}
        for worker in crew.workers:
            poll.register(worker.answers, select.POLLIN)
        writing: set[int] = set()
        while crew.busy:
            for worker in crew.workers:
                if bool(worker.outgoing) != (worker.requests in writing):
                    if worker.outgoing:
                        poll.register(worker.requests, select.POLLOUT)
                        writing.add(worker.requests)
                    else:
                        poll.unregister(worker.requests)
                        writing.discard(worker.requests)
            for descriptor, _ in poll.poll():
                worker_or_none = by_answers.get(descriptor)
                if worker_or_none is None:
                    by_requests[descriptor].flush()
                    continue
                crew.receive(worker_or_none)
                if not worker_or_none.alive:
                    poll.unregister(descriptor)
                    if worker_or_none.requests in writing:
                        poll.unregister(worker_or_none.requests)
                        writing.discard(worker_or_none.requests)

    def close(self) -> None:
        """End the processes; a later job starts new ones."""
        if self._crew is not None:
            self._crew.close()
            self._crew = None


def run_here(job: Job) -> None:
    """Do a job in this process, unit by unit."""
    half = load(job.worker_half, job.settings())
    try:
        while True:
            unit = job.next_unit()
            if unit is None:
                if not job.exhausted:
                    raise RuntimeError("a job is waiting for nothing")
                return
            job.result(bytes(half.run(unit, job.note)))
    finally:
        half.close()


def pool_size(concurrency: int) -> int:
    """
    Say how many workers serve a concurrency that a user asked for: no more than there are
    processors, as they never wait.

    :param concurrency: at least 1.
    """
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    processors = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(concurrency, processors))


def can_spawn() -> bool:
    """
    Tell whether this platform can start workers; where it can't, jobs run in the calling process.
    """
    return hasattr(os, "posix_spawn") and hasattr(select, "poll")


def _program(modules: Iterable[str]) -> list[str]:
    # Without site (-S) and without the environment's say (-I) a worker starts 10 ms sooner; it gets
    # the parent's own path.
    path = [
        os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
        *filter(None, sys.path),
    ]
    # The umask is the one that the program was started with, whatever a daemon has set since.
    code = (
        f"import os, sys; os.umask({umask.START}); sys.path[:] = {path!a}; "
        f"from desync.workers.program import main; main({tuple(modules)!a})"
    )
    return ["-I", "-S", "-c", code]


def _wait_for(pid: int) -> str:
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return "gone"
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit status {code}"
