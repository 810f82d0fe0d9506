# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Doing a job with every program in turn, again and again, so that a machine's moods hit all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .commands import Party
from .jobs import Job, Task, WrongResult
from .measure import Measured, run
from .place import NotPrepared, Place
from .report import Figures, Row


def measure_job(
    job: Job,
    place: Place,
    parties: Sequence[Party],
    runs: int,
    *,
    memory: bool = True,
    avx512: bool = True,
    timeout: float = 600,
    say: Callable[[str], object] = lambda line: None,
) -> Row:
    """
    Measure a job.

    A program that fails, or whose result is wrong, isn't tried again; its figures say why.

    :param runs: how often each program does the job.
    :param memory: whether to sample the memory, in one more run.
    :param avx512: whether our kernels use AVX-512.
    :param timeout: seconds after which a run counts as failed.
    :param say: told of each run.
    """
    demanded = job.times_at_least
    if not avx512 and job.without_avx512 is not None:
        demanded = job.without_avx512
    row = Row(job.name, job.about, demanded, job.seconds_at_most)
    rounds = [False] * (runs * job.repeated) + [True] * (memory and job.sampled)
    for number, sampled in enumerate(rounds):
        for party in parties:
            figures = row.parties.get(party.name, Figures())
            if figures.failed or (number and party.name not in row.parties):
                continue
            try:
                task = job.prepare(place, party)
            except NotPrepared as error:
                figures.failed = str(error)
                row.parties[party.name] = figures
                continue
            if task is None:
                continue
            row.parties[party.name] = figures
            done = _run(task, place, party, sampled, timeout, figures, first=not number)
            if job.repeated == 1:
                say(f"{job.name}, {party.name}: {_in_words(done, figures)}")
    return row


def _run(
    task: Task,
    place: Place,
    party: Party,
    sampled: bool,
    timeout: float,
    figures: Figures,
    first: bool,
) -> Measured:
    place.settle()
    done = run(
        task.argv,
        environ=party.environ,
        directory=task.folder,
        sampled=sampled,
        timeout=timeout,
    )
    if done.wall >= timeout:
        figures.failed = f"killed after {timeout:g} s"
    elif done.code:
        figures.failed = f"exit code {done.code}: {done.said}"
    elif first:
        # Once is enough: reading a gibibyte takes longer than most jobs.
        try:
            task.check()
        except (WrongResult, OSError) as error:
            figures.failed = str(error)
    if sampled:
        figures.peak = done.peak
    else:
        wall = done.wall
        if task.wall is not None and not figures.failed:
            wall = task.wall()
        figures.wall.append(wall)
        figures.cpu.append(done.cpu)
    place.done(task.folder)
    return done


def _in_words(done: Measured, figures: Figures) -> str:
    if figures.failed:
        return figures.failed
    if done.peak is not None:
        return f"{done.peak / 2**20:.0f} MiB"
    return f"{done.wall:.3f} s, CPU {done.cpu:.3f} s"
