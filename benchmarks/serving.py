# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Chunk servers: ours with one process and with two, Go desync's, side by side. How many requests a
second they answer, and how much memory a thousand clients cost that ask and take nothing.

    GO_DESYNC=/path/to/desync python -m benchmarks.serving --json serving.json
    python -m benchmarks --from jobs.json serving.json --rst docs/performance.rst

The store is local and in the page cache; its chunks are those of the image that ``python -m
benchmarks`` makes. wrk asks for them in turn, with one thread and 16 connections, on the same
processors as the server. Ours runs as its users have it: with all limits, deadlines and counters.
The programs take turns; medians and their ratios to Go desync's are printed. Exit code 1 if one is
not what is asked for.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from . import machine
from .__main__ import parse_size
from .commands import GO, OURS, Party, others, ours
from .place import Place
from .serving_report import MEMORY_AT_MOST, Served, Serving
from .slow_clients import allow_sockets, peak_with

ONE, TWO, LOGGED = "ours, 1 process", "ours, 2 processes", "ours, 2 processes, log"

#: What is asked for: times Go desync's requests a second.
LEAST = {ONE: 0.7, TWO: 1.1}

#: Bytes of each of the chunks that the slow clients ask for, and how many different ones there are.
_LARGE = 256 << 10
_LARGE_COUNT = 32

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
            found.append(Contestant(ONE, command))
            found.append(Contestant(TWO, [*command, "--workers", "2"]))
            logged = [*command, "--workers", "2", "--log", f"{store}.log"]
            found.append(Contestant(LOGGED, logged))
    return found


def requests_a_second(command: Sequence[str], script: Path, seconds: int) -> float:
    """
    Start a server, ask it for chunks for a while, and end it.

    :raises SystemExit: if it doesn't serve, or answers with errors.
    """
    with _running(command) as (port, _):
        # Processes that it starts may come later than the first answer.
        _ask(port, script, 1)
        said = _ask(port, script, seconds)
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if found is None or "Non-2xx" in said:
        raise SystemExit(f"{' '.join(command)}: {said}")
    return float(found[1])


def _ask(port: int, script: Path, seconds: int) -> str:
    done = subprocess.run(
        ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout


@contextmanager
def _running(command: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Run a server; give its port and its process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [*command, "-l", f"127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, server)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait(60)


def memory_of(
    programs: Sequence[Party], maker: Party, folder: Path, clients: int
) -> dict[str, int]:
    """Measure what slow clients cost each server, in bytes."""
    file, store = folder / "large", folder / "large-store"
    file.write_bytes(os.urandom(_LARGE * _LARGE_COUNT))
    store.mkdir()
    size = _LARGE >> 10
    index = str(folder / "large.caibx")
    maker.output("make", "-m", f"{size}:{size}:{size}", "-s", str(store), index, str(file))
    ids = maker.output("list-chunks", index).split()
    paths = [f"/{each[:4]}/{each}.cacnk" for each in ids]
    found = {}
    for each in contestants(programs, str(store)):
        if each.name == LOGGED:
            continue
        with _running(each.command) as (port, pid):
            found[each.name] = peak_with(port, pid, paths, clients)
        print(f"{each.name}: {found[each.name] >> 20} MiB", file=sys.stderr, flush=True)
    return found


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if server.poll() is not None:
            raise SystemExit(f"a server ended: {server.args!r}")
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as probe:
                # It may listen before it answers.
                probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if probe.recv(1):
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"a server didn't begin: {server.args!r}")


def main(args: Sequence[str]) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser("python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="of each run (5)")
    parser.add_argument("--runs", type=int, default=3, help="of each server (3)")
    parser.add_argument("--size", type=parse_size, default=256 << 20, help="of the image (256M)")
    parser.add_argument("--clients", type=int, default=1000, help="that are slow (1000)")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where the store is made")
    parser.add_argument("--json", metavar="FILE", help="save the figures for python -m benchmarks")
    options = parser.parse_args(args)
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed")
    allow_sockets(options.clients)
    with tempfile.TemporaryDirectory() as nowhere:
        maker = ours(nowhere, 2, "auto")
        place = Place(options.dir, options.size, maker)
        try:
            result = measure(options, place, maker, Path(nowhere))
        finally:
            place.close()
    print(result.as_text())
    if options.json:
        Path(options.json).write_text(result.to_json(), encoding="utf-8")
    return int(bool(result.failures()))


def measure(options: argparse.Namespace, place: Place, maker: Party, folder: Path) -> Serving:
    """Do what the command line says."""
    programs = [maker, *others(str(folder), 2)]
    store, index = place.store(place.image())
    ids, script = folder / "ids", folder / "ask.lua"
    ids.write_text(maker.output("list-chunks", index))
    script.write_text(_SCRIPT.replace("IDS", str(ids)))
    servers = contestants(programs, store)
    rows = {each.name: Served(each.name, times_at_least=LEAST.get(each.name)) for each in servers}
    for _ in range(options.runs):
        for each in servers:
            rate = requests_a_second(each.command, script, options.seconds)
            rows[each.name].rates.append(rate)
            print(f"{each.name}: {rate:.0f}", file=sys.stderr, flush=True)
    for name, peak in memory_of(programs, maker, folder, options.clients).items():
        rows[name].peak = peak
    rows[ONE].memory_at_most = MEMORY_AT_MOST
    versions = {each.name: each.output("--version").split("\n")[0] for each in programs}
    return Serving(
        machine=machine.describe(),
        size=options.size,
        runs=options.runs,
        seconds=options.seconds,
        clients=options.clients,
        versions={name: said for name, said in versions.items() if said and name != OURS},
        rows=list(rows.values()),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
