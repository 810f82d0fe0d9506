# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What was measured of chunk servers: a section of the page that :mod:`.report` makes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from .commands import GO
from .tables import NOTHING, lines

#: What a saved report of this kind says that it is.
KIND = "serving"

#: Bytes that one process of ours may take with all slow clients.
MEMORY_AT_MOST = 200 << 20


@dataclass
class Served:
    """
    One server.

    :param server: what it is called.
    :param rates: requests a second, run by run.
    :param peak: the most memory of its processes with the slow clients, in bytes.
    :param times_at_least: times Go desync's requests a second that it has to reach, if it has to.
    :param memory_at_most: bytes that it may take with slow clients, if there is a limit.
    """

    server: str
    rates: list[float] = field(default_factory=list)
    peak: int | None = None
    times_at_least: float | None = None
    memory_at_most: int | None = None

    @property
    def rate(self) -> float:
        """The median."""
        return median(self.rates)


@dataclass
class Serving:
    """
    One measurement.

    :param machine: what it ran on; see :func:`benchmarks.machine.describe`.
    :param size: bytes of the image whose chunks were asked for.
    :param runs: how often each server was measured.
    :param seconds: how long each time.
    :param clients: how many slow clients there were.
    :param versions: of the programs.
    """

    machine: dict[str, str]
    size: int
    runs: int
    seconds: int
    clients: int
    versions: dict[str, str] = field(default_factory=dict)
    rows: list[Served] = field(default_factory=list)

    def to_json(self) -> str:
        """Give everything as JSON, for :func:`from_values`."""
        return json.dumps({"kind": KIND, **asdict(self)}, indent=2) + "\n"

    def times_go(self, row: Served) -> float | None:
        """Say how many times Go desync's requests a second a server answers."""
        theirs = [each.rate for each in self.rows if each.server == GO]
        return row.rate / theirs[0] if theirs and row.server != GO else None

    def failures(self) -> list[str]:
        """List what isn't as it has to be, a line each."""
        found = []
        for row in self.rows:
            times = self.times_go(row)
            if times is not None and row.times_at_least is not None and times < row.times_at_least:
                found.append(f"{row.server}: {times:.2f} times Go, not {row.times_at_least}")
            most = row.memory_at_most
            if row.peak is not None and most is not None and row.peak > most:
                mebibytes = f"{row.peak >> 20} MiB with slow clients"
                found.append(f"{row.server}: {mebibytes}, not {most >> 20}")
        return found

    def table(self) -> list[list[str]]:
        """Give the table; the first row has the heads."""
        table = [["server", "requests/s", f"x {GO}", "at least", "MiB", "at most", "met"]]
        bad = {failure.partition(":")[0] for failure in self.failures()}
        for row in self.rows:
            times = self.times_go(row)
            demands = row.times_at_least, row.memory_at_most
            decided = times is not None or row.memory_at_most is not None
            met = NOTHING
            if demands != (None, None) and decided:
                met = "no" if row.server in bad else "yes"
            table.append(
                [
                    row.server,
                    f"{row.rate:,.0f}",
                    NOTHING if times is None else f"{times:.2f}",
                    NOTHING if row.times_at_least is None else f"{row.times_at_least:g} x",
                    NOTHING if row.peak is None else f"{row.peak >> 20}",
                    NOTHING if row.memory_at_most is None else f"{row.memory_at_most >> 20}",
                    met,
                ]
            )
        return table

    def note(self) -> str:
        """Say what has to be known to read the table."""
        return (
            f"Requests a second: medians of {self.runs} runs of {self.seconds} s, the servers in"
            " turn; wrk, with one thread and 16 connections on the same processors, asks for the"
            f" chunks of an image of {self.size >> 20} MiB, which are in the page cache. Ours runs"
            " with all its limits, deadlines and counters. MiB: the most resident memory of all"
            f" processes of a server, the sum, while {self.clients:,} clients ask for five chunks"
            " of 256 KiB each and take nothing."
        )

    def facts(self) -> dict[str, str]:
        """Give what it ran on, and which versions, by name."""
        return {**self.machine, **self.versions}

    def as_text(self) -> str:
        """Give all for a terminal."""
        facts = [f"{name}: {value}" for name, value in self.facts().items()]
        bad = [f"not met: {failure}" for failure in self.failures()]
        return "\n".join([*facts, "", *lines(self.table()), "", self.note(), *bad]) + "\n"

    def section(self) -> str:
        """Give all as a section of the page."""
        title = "Serving chunks over HTTP"
        facts = "".join(f":{name}: {value}\n" for name, value in self.facts().items())
        table = "\n".join(lines(self.table(), "="))
        command = "With ``python -m benchmarks.serving``."
        return f"{title}\n{'-' * len(title)}\n\n{facts}\n{table}\n\n{self.note()} {command}\n\n"


def from_values(values: dict[str, Any]) -> Serving:
    """
    Make a report of what was saved, without its kind.

    :raises TypeError, KeyError: if it isn't one.
    """
    rows = [Served(**row) for row in values.pop("rows")]
    return Serving(**values, rows=rows)
