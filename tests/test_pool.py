# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The process pool, with real processes and a job of its own.

:class:`EchoWorker` is the worker's half of that job; what a unit says decides what happens to it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, cast
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.errors import ChunkMissing, WorkerDied
from desync.workers import pool as pool_module
from desync.workers import reactor as joined
from desync.workers.messages import MAX_PAYLOAD, NOTE, RESULT, FrameReader, OutOfStep, frame
from desync.workers.pool import Crew, Pool, WaitingJob, Worker, pool_size, run_here
from desync.workers.reactor import ReactorPool

MISSING = bytes(range(32))

reactor: Any = default_reactor


class EchoWorker:
    """Answers each unit with its bytes reversed, or does what the unit says."""

    def __init__(self, settings: dict[str, Any]) -> None:
        if settings["refuse"]:
            raise ChunkMissing(MISSING, "a store")

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes:
        if unit == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if unit == b"exit":
            os._exit(0)
        if unit == b"fail":
            raise ChunkMissing(MISSING, "a store")
        if unit == b"oserror":
            raise FileNotFoundError(2, "No such file or directory", "/nowhere")
        if unit == b"memory":
            bytearray(1 << 62)
        if unit == b"odd":
            raise OddError(lambda: None)
        if unit == b"garbage":
            os.write(4, b"\xff" * 64)
            time.sleep(5)
        if unit == b"sleep":
            time.sleep(30)
        if unit.startswith(b"imported "):
            return str(unit[9:].decode() in sys.modules).encode()
        if unit == b"pid":
            return b"%d" % os.getpid()
        note(unit)
        return unit[::-1]

    def close(self) -> None:
        pass


class OddError(Exception):
    """An error that can't be packed."""


class EchoJob:
    """Hands out given units and collects what comes back."""

    worker_half = "tests.test_pool:EchoWorker"
    leases = 2

    def __init__(self, units: list[bytes], *, refuse: bool = False, small: bool = False) -> None:
        self._units = units[::-1]
        self._refuse = refuse
        self.small = small
        self.notes: list[bytes] = []
        self.results: list[bytes] = []

    def settings(self) -> dict[str, Any]:
        return {"refuse": self._refuse}

    @property
    def exhausted(self) -> bool:
        return not self._units

    def next_unit(self) -> bytes | None:
        return self._units.pop() if self._units else None

    def note(self, payload: bytes) -> None:
        self.notes.append(payload)

    def result(self, payload: bytes) -> None:
        self.results.append(payload)


class StubWorker:
    """A worker that answers with given frames, all at once."""

    ready = True
    alive = True

    def __init__(self, frames: list[tuple[int, bytes]]) -> None:
        self.frames = frames
        self.leases = 0

    def send(self, kind: int, payload: bytes) -> None:
        pass

    def receive(self) -> list[tuple[int, bytes]]:
        frames, self.frames = self.frames, []
        return frames


def ends_at_once(modules: object) -> list[str]:
    """Give a worker's program that does nothing."""
    return ["-c", "raise SystemExit(7)"]


def finish(pool: Pool, job: EchoJob) -> None:
    """Do a job to its end, which must come without waiting for anything."""
    coroutine = pool.run(job)
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it suspended")


class PoolTests(SynchronousTestCase):
    """A pool that is waited for."""

    def setUp(self) -> None:
        self.pool = Pool(2)
        self.addCleanup(self.pool.close)

    def test_every_unit_gets_its_result(self) -> None:
        """All units are done, all notes arrive, and the pool serves one job after another."""
        for round_ in range(3):
            units = [b"%d-%d" % (round_, number) for number in range(200)]
            job = EchoJob(list(units))
            finish(self.pool, job)
            self.assertEqual(sorted(job.results), sorted(unit[::-1] for unit in units))
            self.assertEqual(sorted(job.notes), sorted(units))

    def test_large_units_and_results(self) -> None:
        """Units and results larger than a pipe holds go both ways at once without a deadlock."""
        units = [os.urandom(3 << 20) for _ in range(8)]
        job = EchoJob(list(units))
        finish(self.pool, job)
        self.assertEqual(sorted(job.results), sorted(unit[::-1] for unit in units))

    def test_no_units(self) -> None:
        """A job without units is done at once."""
        job = EchoJob([])
        finish(self.pool, job)
        self.assertEqual(job.results, [])

    def test_an_error_in_a_unit_is_raised(self) -> None:
        """What a unit raises is raised in the parent, as the same error; the pool lives on."""
        error = self.assertRaises(
            ChunkMissing, finish, self.pool, EchoJob([b"a", b"fail", b"b", b"c"])
        )
        self.assertEqual((error.chunk_id, error.store), (MISSING, "a store"))
        os_error = self.assertRaises(FileNotFoundError, finish, self.pool, EchoJob([b"oserror"]))
        self.assertEqual(os_error.filename, "/nowhere")
        job = EchoJob([b"abc"])
        finish(self.pool, job)
        self.assertEqual(job.results, [b"cba"])

    def test_an_error_that_cannot_travel(self) -> None:
        """An error that can't be packed arrives as its text."""
        error = self.assertRaises(RuntimeError, finish, self.pool, EchoJob([b"odd"]))
        self.assertIn("OddError", str(error))

    def test_an_error_while_preparing_is_raised(self) -> None:
        """A worker's half that can't be made fails the job, not the pool."""
        self.assertRaises(ChunkMissing, finish, self.pool, EchoJob([b"a"] * 9, refuse=True))
        finish(self.pool, EchoJob([b"a"]))

    def test_a_killed_worker_is_an_error(self) -> None:
        """
        A worker that is killed in the middle of a unit fails the job; the next job has workers
        again.
        """
        error = self.assertRaises(
            WorkerDied, finish, self.pool, EchoJob([b"a", b"kill"] + [b"b"] * 50)
        )
        self.assertIn("killed by SIGKILL", str(error))
        job = EchoJob([b"abc"])
        finish(self.pool, job)
        self.assertEqual(job.results, [b"cba"])

    def test_a_worker_that_just_ends_is_an_error(self) -> None:
        """The end of a worker's answers is no success, even with exit status 0."""
        error = self.assertRaises(WorkerDied, finish, self.pool, EchoJob([b"exit"]))
        self.assertIn("exit status 0", str(error))

    def test_all_workers_killed(self) -> None:
        """When no worker is left the job fails, instead of waiting for ever."""
        self.assertRaises(WorkerDied, finish, self.pool, EchoJob([b"kill"] * 10))

    def test_a_worker_that_cannot_start(self) -> None:
        """A worker that ends before it is ready is an error, never a job with nothing in it."""
        with mock.patch.object(pool_module, "_program", ends_at_once):
            error = self.assertRaises(WorkerDied, finish, self.pool, EchoJob([b"a"] * 5))
        self.assertIn("exit status 7", str(error))

    def test_an_interpreter_that_is_not_there(self) -> None:
        """An interpreter that can't be run is one clear error."""
        with mock.patch.object(sys, "executable", "/nowhere/python"):
            error = self.assertRaises(WorkerDied, finish, self.pool, EchoJob([b"a"]))
        self.assertIn("can't be started", str(error))

    def test_deaths_with_much_left_to_say(self) -> None:
        """A worker that dies while large units wait for its pipe is told of as any other."""
        large = bytes(1 << 20)
        with mock.patch.object(pool_module, "_program", ends_at_once):
            error = self.assertRaises(WorkerDied, finish, self.pool, EchoJob([large] * 4))
        self.assertIn("exit status 7", str(error))
        error = self.assertRaises(WorkerDied, finish, self.pool, EchoJob([b"kill"] + [large] * 4))
        self.assertIn("killed by SIGKILL", str(error))

    def test_no_descriptors(self) -> None:
        """
        Where no more files can be opened that is one clear error, and what was opened and started
        before is gone.
        """
        _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        started: list[int] = []
        spawn, wait = os.posix_spawn, os.waitpid

        def spawned(*args: Any, **more: Any) -> int:
            started.append(spawn(*args, **more))
            return started[-1]

        def waited(pid: int, options: int) -> tuple[int, int]:
            ended = wait(pid, options)
            if ended[0] in started:
                started.remove(ended[0])
            return ended

        # Children of other tests that nobody waited for are none of our business.
        self.patch(os, "posix_spawn", spawned)
        self.patch(os, "waitpid", waited)
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(6):
            error = self.assertRaises(WorkerDied, finish, self.pool, EchoJob([b"a"]))
            self.assertEqual(str(error), "a worker process can't be started: Too many open files")
            self.assertEqual(started, [], "a worker that was started is ended again")
            os.close(taken.pop())
        # Six are what the second of two workers takes to start: nothing was left open before.
        finish(self.pool, EchoJob([b"a"]))
        for descriptor in taken:
            os.close(descriptor)

    def test_modules(self) -> None:
        """Workers import what they are started with; what isn't there is left to the job."""
        self.pool.start("colorsys", "desync.nothing")
        job = EchoJob([b"imported colorsys", b"imported wave"])
        finish(self.pool, job)
        self.assertEqual(sorted(job.results), [b"False", b"True"])

    def test_an_error_of_who_takes_results(self) -> None:
        """When taking one result fails, those that came with it count as come, and nobody waits."""

        class Refusing(EchoJob):
            def result(self, payload: bytes) -> None:
                raise ChunkMissing(MISSING, "a store")

        crew = Crew(0)
        worker = StubWorker([(NOTE, b"a"), (RESULT, b"a"), (NOTE, b"b"), (RESULT, b"b")])
        crew.workers.append(cast("Worker", worker))
        crew.begin(Refusing([b"a", b"b"]))
        self.assertTrue(crew.busy)
        crew.receive(cast("Worker", worker))
        self.assertFalse(crew.busy)
        self.assertRaises(ChunkMissing, crew.finish)

    def test_answers_that_cannot_be_read(self) -> None:
        """When what a worker sent is lost for lack of memory, it is ended and not waited for."""
        with mock.patch.object(FrameReader, "feed", mock.Mock(side_effect=MemoryError)):
            self.assertRaises(MemoryError, finish, self.pool, EchoJob([b"a"] * 9))
        finish(self.pool, EchoJob([b"a"]))

    def test_a_job_that_cannot_begin(self) -> None:
        """A job that fails before its first unit leaves the pool to the next one."""

        class Unwilling(EchoJob):
            def settings(self) -> dict[str, Any]:
                raise ChunkMissing(MISSING, "a store")

        self.assertRaises(ChunkMissing, finish, self.pool, Unwilling([b"a"]))
        job = EchoJob([b"abc"])
        finish(self.pool, job)
        self.assertEqual(job.results, [b"cba"])

    def test_a_stopped_worker_ends(self) -> None:
        """Closing ends a worker that somebody has stopped."""
        finish(self.pool, EchoJob([b"a"]))
        for worker in self.pool.crew.workers:
            os.kill(worker.pid, signal.SIGSTOP)
        self.pool.close()

    def test_a_worker_killed_between_jobs(self) -> None:
        """A worker that ended while it had nothing to do is replaced, and fails nothing."""
        finish(self.pool, EchoJob([b"a"]))
        worker = self.pool.crew.workers[0]
        os.kill(worker.pid, signal.SIGKILL)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        job = EchoJob([b"abc"] * 9)
        finish(self.pool, job)
        self.assertEqual(job.results, [b"cba"] * 9)

    def test_out_of_memory(self) -> None:
        """A worker that runs out of memory says just that."""
        self.assertRaises(MemoryError, finish, self.pool, EchoJob([b"memory"]))

    def test_units_run_in_other_processes(self) -> None:
        """Workers are other processes, and several of them."""
        job = EchoJob([b"pid"] * 100)
        finish(self.pool, job)
        pids = {int(pid) for pid in job.results}
        self.assertNotIn(os.getpid(), pids)
        self.assertLessEqual(len(pids), 2)

    def test_a_small_job_runs_here(self) -> None:
        """A job that isn't worth a process runs in this one, as long as no worker is up."""
        job = EchoJob([b"pid"], small=True)
        finish(self.pool, job)
        self.assertEqual(job.results, [b"%d" % os.getpid()])
        self.pool.start()
        job = EchoJob([b"pid"], small=True)
        finish(self.pool, job)
        self.assertNotEqual(job.results, [b"%d" % os.getpid()])

    def test_where_nothing_can_be_spawned(self) -> None:
        """On a platform without posix_spawn jobs run in the calling process."""
        job = EchoJob([b"pid", b"abc"])
        with mock.patch.object(pool_module, "can_spawn", lambda: False):
            finish(self.pool, job)
        self.assertEqual(job.results, [b"%d" % os.getpid(), b"cba"])

    def test_interrupts_do_not_reach_workers(self) -> None:
        """SIGINT and SIGHUP to a worker change nothing."""
        finish(self.pool, EchoJob([b"a"]))
        for worker in self.pool.crew.workers:
            os.kill(worker.pid, signal.SIGINT)
            os.kill(worker.pid, signal.SIGHUP)
        job = EchoJob([b"abc"])
        finish(self.pool, job)
        self.assertEqual(job.results, [b"cba"])

    def test_closing_ends_the_processes(self) -> None:
        """After close no worker is left."""
        self.pool.start()
        pids = [worker.pid for worker in self.pool.crew.workers]
        self.pool.close()
        for pid in pids:
            with self.assertRaises(ProcessLookupError):
                os.kill(pid, 0)

    def test_an_interrupted_job_ends_its_workers(self) -> None:
        """An exception while waiting, as a signal's, ends the workers with the job."""
        self.pool.start()
        pids = [worker.pid for worker in self.pool.crew.workers]

        def interrupt(number: int, stack: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        self.assertRaises(KeyboardInterrupt, finish, self.pool, EchoJob([b"sleep"] * 2))
        for pid in pids:
            with self.assertRaises(ProcessLookupError):
                os.kill(pid, 0)

    def test_a_pool_needs_workers(self) -> None:
        """A pool of none is refused; a size follows processors and what was asked for."""
        self.assertRaises(ValueError, Pool, 0)
        self.assertEqual(pool_size(1), 1)
        self.assertLessEqual(pool_size(1000), os.cpu_count() or 1)

    def test_a_job_that_waits_for_nothing(self) -> None:
        """A job that isn't done but has no unit is a mistake that is reported, not waited for."""

        class Stuck(EchoJob):
            exhausted = False

        self.assertRaises(RuntimeError, finish, self.pool, Stuck([b"a"]))
        self.assertRaises(RuntimeError, run_here, Stuck([b"a"]))


class ReactorPoolTests(TestCase):
    """A pool that a reactor drives."""

    def setUp(self) -> None:
        self.pool = ReactorPool(Pool(2), reactor)
        self.addCleanup(self.pool.close)

    def run_job(self, job: EchoJob) -> Deferred[None]:
        """Begin a job."""
        return Deferred.fromCoroutine(self.pool.run(job))

    async def test_units_and_large_results(self) -> None:
        """All units are done, small and large ones, in one job after another."""
        for size in (3, 1 << 20):
            units = [os.urandom(size) for _ in range(20)]
            job = EchoJob(list(units))
            await self.run_job(job)
            self.assertEqual(sorted(job.results), sorted(unit[::-1] for unit in units))

    async def test_errors_and_deaths(self) -> None:
        """An error and a dead worker fail their job, and the next job runs."""
        await self.assertFailure(self.run_job(EchoJob([b"a", b"fail"])), ChunkMissing)
        await self.assertFailure(self.run_job(EchoJob([b"kill"] * 5)), WorkerDied)
        job = EchoJob([b"abc"])
        await self.run_job(job)
        self.assertEqual(job.results, [b"cba"])

    async def test_a_job_that_cannot_begin(self) -> None:
        """A job that fails before its first unit leaves the pool to the next one."""

        class Unwilling(EchoJob):
            def settings(self) -> dict[str, Any]:
                raise ChunkMissing(MISSING, "a store")

        await self.assertFailure(self.run_job(Unwilling([b"a"])), ChunkMissing)
        job = EchoJob([b"abc"])
        await self.run_job(job)
        self.assertEqual(job.results, [b"cba"])

    async def test_one_job_at_a_time(self) -> None:
        """A job that comes too early is refused, and the one under way isn't disturbed."""
        job = EchoJob([b"%d" % number for number in range(50)])
        running = self.run_job(job)
        await self.assertFailure(self.run_job(EchoJob([b"a"])), RuntimeError)
        await running
        self.assertEqual(len(job.results), 50)

    async def test_cancelling(self) -> None:
        """Cancelling a job ends the workers at it; the next job gets new ones."""
        running = self.run_job(EchoJob([b"sleep"] * 2))
        running.cancel()
        await self.assertFailure(running, CancelledError)
        job = EchoJob([b"abc"])
        await self.run_job(job)
        self.assertEqual(job.results, [b"cba"])


class WaitingEchoJob(EchoJob, WaitingJob):
    """A job that gets its units one by one, from outside."""

    def __init__(self) -> None:
        WaitingJob.__init__(self)
        EchoJob.__init__(self, [])
        self.is_complete = False

    def give(self, *units: bytes) -> None:
        """Have it hand out more units."""
        self._units[:0] = units[::-1]
        self.more()

    @property
    def exhausted(self) -> bool:
        return self.is_complete and super().exhausted


class WaitingTests(TestCase):
    """A job that waits for more than its results."""

    timeout = 60

    def setUp(self) -> None:
        self.pool = ReactorPool(Pool(2), reactor)
        self.addCleanup(self.pool.close)

    async def give_units(self) -> None:
        """Give a job its units when it has none, and at last its end."""
        job = WaitingEchoJob()
        running = Deferred.fromCoroutine(self.pool.run(job))
        for number in range(3):
            while len(job.results) < number:
                await deferLater(reactor, 0.01)
            await deferLater(reactor, 0.01)
            self.assertFalse(running.called)
            job.give(b"unit %d" % number)
        while len(job.results) < 3:
            await deferLater(reactor, 0.01)
        self.assertFalse(running.called)
        job.is_complete = True
        job.more()
        await running
        self.assertEqual(sorted(job.results), [b"0 tinu", b"1 tinu", b"2 tinu"])
        job.more()  # nobody listens any longer

    async def test_units_from_outside(self) -> None:
        """It gets them when they are there, and is over when it says so."""
        await self.give_units()
        await self.give_units()

    async def test_where_nothing_can_be_spawned(self) -> None:
        """So it does in this process."""
        self.patch(joined, "can_spawn", lambda: False)
        await self.give_units()

    async def test_death(self) -> None:
        """A worker that dies while the job waits for units isn't waited for."""
        job = WaitingEchoJob()
        running = Deferred.fromCoroutine(self.pool.run(job))
        job.give(b"kill", b"kill")
        await self.assertFailure(running, WorkerDied)


class FrameTests(SynchronousTestCase):
    """The frames that parent and worker exchange."""

    @given(
        st.lists(st.tuples(st.sampled_from([NOTE, RESULT]), st.binary(max_size=50)), max_size=10),
        st.lists(st.integers(1, 20)),
    )
    @settings(deadline=None)
    def test_any_split_gives_the_same_frames(
        self, frames: list[tuple[int, bytes]], steps: list[int]
    ) -> None:
        """However the bytes are cut into pieces, the frames are those that were sent."""
        data = b"".join(frame(kind, payload) for kind, payload in frames)
        reader = FrameReader()
        found: list[tuple[int, bytes]] = []
        position = 0
        for step in [*steps, len(data)]:
            found += reader.feed(data[position : position + step])
            position += step
        self.assertEqual(found, frames)
        self.assertFalse(reader.pending)

    def test_a_length_beyond_reason_is_refused(self) -> None:
        """
        A frame that claims to be larger than any is an error, before anything is allocated for it.
        """
        self.assertRaises(
            OutOfStep, FrameReader().feed, (MAX_PAYLOAD + 1).to_bytes(4, "little") + b"\x12"
        )
