# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What was measured, as a table for a terminal, as a page of the documentation, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from . import serving_report
from .commands import GO, OURS
from .serving_report import Serving
from .tables import NOTHING, lines

_MIB = 1 << 20
_GIB = 1 << 30

MEMORY_AT_MOST = 200 * _MIB


@dataclass
class Figures:
    """
    What one program took for one job, run by run.

    :param wall: seconds.
    :param cpu: seconds of processor time of all its processes.
    :param peak: the most memory of all its processes together, in bytes; None if not sampled.
    :param failed: why there are no more figures; empty if it worked.
    """

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int | None = None
    failed: str = ""


@dataclass
class Row:
    """
    One job.

    :param times_at_least: how many times as fast as Go desync ours has to be, if it has to.
    :param seconds_at_most: how long ours may take, if there is a limit.
    :param parties: the figures by the program's name. A program that can't do the job isn't there.
    """

    job: str
    about: str
    times_at_least: float | None = None
    seconds_at_most: float | None = None
    parties: dict[str, Figures] = field(default_factory=dict)

    def wall(self, party: str) -> float | None:
        """Give the median of the wall times in seconds; None if there isn't any."""
        figures = self.parties.get(party)
        return median(figures.wall) if figures and figures.wall and not figures.failed else None

    def cpu(self, party: str) -> float | None:
        """Give the median of the processor times in seconds; None if there isn't any."""
        figures = self.parties.get(party)
        return median(figures.cpu) if figures and figures.cpu and not figures.failed else None

    def peak(self, party: str) -> int | None:
        """Give the peak of the memory in bytes; None if it wasn't sampled."""
        figures = self.parties.get(party)
        return figures.peak if figures else None

    def times_as_fast(self, other: str) -> float | None:
        """Say how many times as fast as another program ours was."""
        ours, theirs = self.wall(OURS), self.wall(other)
        return theirs / ours if ours and theirs else None

    @property
    def at_least(self) -> str:
        """What ours has to reach, in words."""
        demands = []
        if self.times_at_least is not None:
            demands.append(f"{self.times_at_least:g} x")
        if self.seconds_at_most is not None:
            demands.append(f"in {self.seconds_at_most:g}")
        return ", ".join(demands) or NOTHING

    @property
    def met(self) -> bool | None:
        """Whether ours has reached it; None if nothing is demanded, or it wasn't measured."""
        answers = []
        if self.times_at_least is not None:
            times = self.times_as_fast(GO)
            if times is None:
                return None
            answers.append(times >= self.times_at_least)
        if self.seconds_at_most is not None:
            wall = self.wall(OURS)
            if wall is None:
                return None
            answers.append(wall <= self.seconds_at_most)
        return all(answers) if answers else None


@dataclass
class Report:
    """
    One measurement.

    :param machine: what it ran on; see :func:`benchmarks.machine.describe`.
    :param size: bytes of the image.
    :param runs: how often each program did each job.
    :param workers: what ``-n`` said.
    :param kernels: which of our kernels ran, in the words of ``desync --version``.
    :param python: the Python that ours ran on.
    :param file_system: where the files were.
    :param memory: how memory was measured, ``PSS`` or ``RSS``.
    """

    machine: dict[str, str]
    size: int
    runs: int
    workers: int
    kernels: str
    python: str
    file_system: str
    program: str
    memory: str = "PSS"
    versions: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def parties(self) -> list[str]:
        """The programs that took part, ours first."""
        names: dict[str, None] = {}
        for row in self.rows:
            names.update(dict.fromkeys(row.parties))
        return sorted(names, key=lambda name: (name != OURS, name != GO))

    def to_json(self) -> str:
        """Give everything as JSON, for :func:`from_json`."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def failures(self) -> list[str]:
        """List what didn't work, a line each."""
        return [
            f"{row.job}, {name}: {figures.failed}"
            for row in self.rows
            for name, figures in row.parties.items()
            if figures.failed
        ]

    def peak(self) -> tuple[int, str] | None:
        """Give the most memory that ours took for any job, in bytes, and the job."""
        peaks = [(peak, row.job) for row in self.rows if (peak := row.peak(OURS)) is not None]
        return max(peaks) if peaks else None


def from_json(text: str) -> Report | Serving:
    """
    Read a report that was saved, of jobs or of servers.

    :raises ValueError, TypeError, KeyError: if it isn't one.
    """
    values: dict[str, Any] = json.loads(text)
    if values.pop("kind", None) == serving_report.KIND:
        return serving_report.from_values(values)
    rows = []
    for row in values.pop("rows"):
        figures = {name: Figures(**each) for name, each in row.pop("parties").items()}
        rows.append(Row(**row, parties=figures))
    return Report(**values, rows=rows)


def seconds(value: float | None) -> str:
    """Write a duration in seconds, with the digits that mean something."""
    if value is None:
        return NOTHING
    return f"{value:.3f}" if value < 1 else f"{value:.2f}"


def mebibytes(value: int | None) -> str:
    """Write an amount of memory in MiB."""
    return NOTHING if value is None else f"{value / _MIB:.0f}"


def size_text(value: int) -> str:
    """Write a size in the largest unit that it is a multiple of."""
    for unit, name in ((_GIB, "GiB"), (_MIB, "MiB"), (1024, "KiB")):
        if value and value % unit == 0:
            return f"{value // unit} {name}"
    return f"{value} bytes"


def times_table(report: Report) -> list[list[str]]:
    """Give the table of wall times and ratios; the first row has the heads."""
    names = report.parties
    others = [name for name in names if name != OURS]
    rows = [["job", *names, *(f"x {name}" for name in others), "at least", "met"]]
    for row in report.rows:
        cells = [row.job]
        for name in names:
            figures = row.parties.get(name)
            cells.append("failed" if figures and figures.failed else seconds(row.wall(name)))
        for name in others:
            times = row.times_as_fast(name)
            cells.append(NOTHING if times is None else f"{times:.2f}")
        cells.append(row.at_least)
        cells.append({True: "yes", False: "no", None: NOTHING}[row.met])
        rows.append(cells)
    return rows


def costs_table(report: Report) -> list[list[str]]:
    """Give the table of processor time and memory; the first row has the heads."""
    names = report.parties
    rows = [["job", *(f"CPU {name}" for name in names), *(f"MiB {name}" for name in names)]]
    for row in report.rows:
        cells = [row.job, *(seconds(row.cpu(name)) for name in names)]
        rows.append(cells + [mebibytes(row.peak(name)) for name in names])
    return rows


def notes(report: Report) -> list[str]:
    """Say what has to be known to read the table, a paragraph each."""
    said = [
        f"Medians of {report.runs} runs, the programs in turn, of {size_text(report.size)} of real"
        " content (a tar of /usr/lib, filled up with edited copies where that is less); wall and"
        " CPU in seconds (CPU: user and system, of all processes of a command), start-up"
        f" included; {report.workers} workers (casync: one thread); no program syncs; files on"
        f" {report.file_system}; all read the same store and index, which ours made;"
        ' "x Go" is how many times as fast as Go desync ours is, and'
        ' "at least" what it has to reach.',
    ]
    if any(row.peak(name) is not None for row in report.rows for name in report.parties):
        kind = {"PSS": "proportional", "RSS": "resident"}[report.memory]
        said.append(
            f"MiB: the most memory of all processes of a command together, the sum of their {kind}"
            f" set sizes ({report.memory}), sampled in a run of its own."
        )
    peak = report.peak()
    if peak is not None:
        verdict = "met" if peak[0] <= MEMORY_AT_MOST else "not met"
        said.append(
            f"Ours took {mebibytes(peak[0])} MiB at most ({peak[1]}); at most"
            f" {mebibytes(MEMORY_AT_MOST)} MiB: {verdict}."
        )
    if report.workers != 2 or report.size != _GIB:
        said.append("What has to be reached is said of 1 GiB and 2 workers.")
    return said


def as_text(report: Report | Serving) -> str:
    """Give the report for a terminal."""
    if isinstance(report, Serving):
        return report.as_text()
    said = [f"{name}: {value}" for name, value in _facts(report).items()]
    for each in (times_table(report), costs_table(report)):
        said += ["", *lines(each)]
    said.append("")
    said += notes(report)
    said += [f"failed: {failure}" for failure in report.failures()]
    return "\n".join(said) + "\n"


def _facts(report: Report) -> dict[str, str]:
    return {
        **report.machine,
        "Python": report.python,
        "kernels": report.kernels,
        "started as": report.program,
        **report.versions,
    }


_PAGE = """\
.. Written by "python -m benchmarks --rst"; changes are lost.

Performance
===========

Our whole process, start-up included, next to Go desync and casync where they were there. On another
machine::

    GO_DESYNC=/path/to/go/desync python -m benchmarks

"""


def as_page(reports: Sequence[Report | Serving]) -> str:
    """Give a page of the documentation with one or more measurements."""
    parts = [_PAGE]
    for report in reports:
        if isinstance(report, Serving):
            parts.append(report.section())
            continue
        title = f"{size_text(report.size)}, {report.workers} workers, {report.kernels}"
        parts.append(f"{title}\n{'-' * len(title)}\n\n")
        parts.append("".join(f":{n}: {value}\n" for n, value in _facts(report).items()) + "\n")

        for each in (times_table(report), costs_table(report)):
            parts.append("\n".join(lines(each, "=")) + "\n\n")
        parts += [f"{note}\n\n" for note in notes(report)]
        parts.append("The jobs:\n\n")
        parts += [f"* {row.job}: {row.about}\n" for row in report.rows]
        failures = report.failures()
        if failures:
            parts.append("\nWhat failed:\n\n")
            parts += [f"* {failure}\n" for failure in failures]
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"
