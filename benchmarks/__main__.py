# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The program: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence

from . import data, machine, report
from .commands import OURS, Party, others, ours
from .jobs import JOBS, Job
from .measure import adopt_orphans
from .place import Place
from .rounds import measure_job
from .serving_report import Serving
from .tables import NOTHING

KERNELS = ("auto", "avx512", "avx2", "scalar", "portable")

_ABOUT = """\
Measure the installed desync, and in turn casync where it is installed and Go desync where GO_DESYNC
names its binary. Prints medians and ratios; says what was measured, met or not."""


def parse_size(text: str) -> int:
    """
    Read a size: a number of bytes, or of K, M, G (powers of 1024).

    :raises ValueError: if it isn't one.
    """
    found = re.fullmatch(r"(\d+)([KMG]?)(?:i?B)?", text, re.IGNORECASE)
    if found is None or not int(found[1]):
        raise ValueError(f"{text}: not a size")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2].upper()]


def _arguments(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=_ABOUT)
    add = parser.add_argument
    add("--list", action="store_true", help="list the jobs")
    add("--job", action="append", metavar="NAME", help="only this job; can be repeated; or: all")
    add("--size", type=parse_size, default=data.GIB, help="size of the image (1G)")
    add("--runs", type=int, default=3, help="runs of each job by each program (3)")
    add("--dir", help="where to make the data (/dev/shm, else the temporary folder)")
    add("--workers", type=int, default=2, help="what -n says to ours and to Go desync (2)")
    add("--kernels", choices=KERNELS, default="auto", help="which of our kernels to use")
    add("--alone", action="store_true", help="without the other programs")
    add("--no-memory", action="store_true", help="don't sample the memory in one more run")
    add("--timeout", type=float, default=600, help="seconds after which a run has failed (600)")
    add("--json", metavar="FILE", help="save the figures")
    add("--rst", metavar="FILE", help="write a page of the documentation")
    add(
        "--from",
        dest="saved",
        nargs="+",
        metavar="FILE",
        help="measure nothing: show what --json saved, here or of benchmarks.serving",
    )
    parsed = parser.parse_args(args)
    if parsed.runs < 1 or parsed.workers < 1:
        parser.error("--runs and --workers have to be at least 1")
    names = parsed.job or [name for name, job in JOBS.items() if not job.optional]
    if "all" in names:
        names = list(JOBS)
    unknown = [name for name in names if name not in JOBS]
    if unknown:
        parser.error(f"no such job: {', '.join(unknown)}; --list shows them")
    parsed.jobs = [job for name, job in JOBS.items() if name in names]
    return parsed


def room_needed(jobs: Sequence[Job], size: int, runs: int, programs: int, in_memory: bool) -> int:
    """Estimate the disk space that some jobs need, in bytes."""
    needed = max(job.room for job in jobs) + 1
    for job in jobs:
        if in_memory:
            needed = max(needed, job.room + job.room_left + 1)
        else:
            needed += job.room_left * programs * (runs + 1)
    return round(needed * size)


def measure(options: argparse.Namespace) -> report.Report:
    """Do what the command line says."""
    directory = options.dir or ("/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir())
    with tempfile.TemporaryDirectory() as nowhere:
        maker = ours(nowhere, options.workers, options.kernels)
        place = Place(directory, options.size, maker)
        try:
            programs: list[Party] = [maker]
            if not options.alone:
                programs += others(nowhere, options.workers)
            count = len(programs)
            needed = room_needed(options.jobs, options.size, options.runs, count, place.is_memory)
            free = shutil.disk_usage(place.root).free
            if free < needed:
                raise SystemExit(
                    f"{directory} has {free >> 20} MiB, and {needed >> 20} are needed;"
                    " --dir names another place"
                )
            result = _describe(options, place, programs)
            for job in options.jobs:
                row = measure_job(
                    job,
                    place,
                    programs,
                    options.runs,
                    memory=not options.no_memory,
                    avx512="avx512" in result.kernels,
                    timeout=options.timeout,
                    say=lambda line: print(line, file=sys.stderr, flush=True),
                )
                result.rows.append(row)
            return result
        finally:
            place.close()


def _describe(
    options: argparse.Namespace, place: Place, programs: Sequence[Party]
) -> report.Report:
    said = {party.name: party.output("--version").split("\n") for party in programs}
    lines = said.pop(OURS)
    kernels = next((line for line in lines if line.startswith("kernels: ")), "kernels: unknown")
    python = next((line for line in lines if line.startswith("Python ")), "unknown")
    for party in programs:
        party.output(*party.help()[len(party.program) :])  # so that its files have been read once
    program = programs[0].program
    return report.Report(
        machine=machine.describe(),
        size=options.size,
        runs=options.runs,
        workers=options.workers,
        kernels=kernels.removeprefix("kernels: "),
        python=python.removeprefix("Python ").partition(",")[0],
        file_system=place.file_system,
        program="desync" if len(program) == 1 else "python -m desync",
        versions={name: lines[0] for name, lines in said.items() if lines[0]},
    )


def main(args: Sequence[str]) -> int:
    options = _arguments(args)
    if options.list:
        for job in JOBS.values():
            row = report.Row(job.name, job.about, job.times_at_least, job.seconds_at_most)
            demand = "" if row.at_least == NOTHING else f"; at least {row.at_least}"
            print(f"{job.name:14}{job.about}{demand}{'; optional' if job.optional else ''}")
        return 0
    if options.saved:
        reports: list[report.Report | Serving] = []
        for path in options.saved:
            with open(path, encoding="utf-8") as saved:
                reports.append(report.from_json(saved.read()))
    else:
        if not adopt_orphans():
            print("what a command leaves running is not counted here", file=sys.stderr)
        reports = [measure(options)]
    for each in reports:
        print(report.as_text(each))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as output:
            output.write(reports[0].to_json())
    if options.rst:
        with open(options.rst, "w", encoding="utf-8") as output:
            output.write(report.as_page(reports))
    return int(any(each.failures() for each in reports))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
