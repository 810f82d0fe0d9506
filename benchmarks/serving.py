# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Requests a second of chunk servers: ours with one process and with two, Go desync's, side by side.

    GO_DESYNC=/path/to/desync python -m benchmarks.serving [--seconds 5] [--runs 3] [--size 256M]

The store is local and in the page cache; its chunks are those of the image that ``python -m
benchmarks`` makes. wrk asks for them in turn, with one thread and 16 connections, on the same
processors as the server. Ours runs as its users have it: with all limits, deadlines and counters.
The programs take turns; medians and their ratios to Go desync's are printed. Exit code 1 if one is
below what is asked for.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .__main__ import parse_size
from .commands import GO, OURS, Party, others, ours
from .place import Place

#: What is asked for: times Go desync's requests a second.
LEAST = {"ours, 1 process": 0.7, "ours, 2 processes": 1.1}

_SCRIPT = """\
local paths = {}
for line in io.lines("IDS") do
  paths[#paths + 1] = "/" .. line:sub(1, 4) .. "/" .. line .. ".cacnk"
end
local at = 0
request = function()
  at = at % #paths + 1
  return wrk.format("GET", paths[at])
end
"""


class Contestant(NamedTuple):
    """
    A server.

    :param name: what the report calls it.
    :param command: starts it, without where to listen.
    """

    name: str
    command: list[str]


def contestants(programs: Sequence[Party], store: str) -> list[Contestant]:
    """List the servers that take part."""
    found = []
    for party in programs:
        command = [*party.program, "chunk-server", "-s", store]
        if party.name == GO:
            found.append(Contestant(GO, command))
        elif party.name == OURS:
            found.append(Contestant("ours, 1 process", command))
            found.append(Contestant("ours, 2 processes", [*command, "--workers", "2"]))
            logged = [*command, "--workers", "2", "--log", f"{store}.log"]
            found.append(Contestant("ours, 2 processes, log", logged))
    return found


def requests_a_second(command: Sequence[str], script: Path, seconds: int) -> float:
    """
    Start a server, ask it for chunks for a while, and end it.

    :raises SystemExit: if it doesn't serve, or answers with errors.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [*command, "-l", f"127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, server)
        done = subprocess.run(
            ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"],
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
    finally:
        server.terminate()
        server.wait(60)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if found is None or "Non-2xx" in done.stdout:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}")
    return float(found[1])


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if server.poll() is not None:
            raise SystemExit(f"a server ended: {server.args!r}")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"a server didn't begin: {server.args!r}")


def main(args: Sequence[str]) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser("python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each run (5)")
    parser.add_argument("--runs", type=int, default=3, help="of each server (3)")
    parser.add_argument("--size", type=parse_size, default=256 << 20, help="of the image (256M)")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where the store is made")
    options = parser.parse_args(args)
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed")
    with tempfile.TemporaryDirectory() as nowhere:
        maker = ours(nowhere, 2, "auto")
        place = Place(options.dir, options.size, maker)
        try:
            store, index = place.store(place.image())
            ids = Path(nowhere, "ids")
            ids.write_text(maker.output("list-chunks", index))
            script = Path(nowhere, "ask.lua")
            script.write_text(_SCRIPT.replace("IDS", str(ids)))
            servers = contestants([maker, *others(nowhere, 2)], store)
            figures: dict[str, list[float]] = {each.name: [] for each in servers}
            for _ in range(options.runs):
                for each in servers:
                    figure = requests_a_second(each.command, script, options.seconds)
                    figures[each.name].append(figure)
                    print(f"{each.name}: {figure:.0f}", file=sys.stderr, flush=True)
        finally:
            place.close()
    return _report(figures)


def _report(figures: dict[str, list[float]]) -> int:
    medians = {name: statistics.median(values) for name, values in figures.items()}
    failed = 0
    for name, value in medians.items():
        line = f"{name:24}{value:10.0f} requests/s"
        if GO in medians and name != GO:
            ratio = value / medians[GO]
            line += f"{ratio:8.2f} times Go"
            least = LEAST.get(name)
            if least is not None:
                failed += ratio < least
                line += f", at least {least}: {'met' if ratio >= least else 'NOT MET'}"
        print(line)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
