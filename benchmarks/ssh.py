# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Stores over SSH, on the loopback interface: ours and Go desync's, side by side.

    GO_DESYNC=/path/to/desync python -m benchmarks.ssh [--runs 3] [--size 1G]

An image is extracted from a store at the other end of a real sshd, which is started for that with
throw-away keys: over the casync protocol, with casync at the other end, and over SFTP. The programs
take turns; medians and their ratios to Go desync's are printed. Then ``twistd desync-pull`` sends
the store to an OpenSSH client that throws it away: megabytes a second of the server's processor
time, and what 100 idle sessions cost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from desync.formats import protocol
from desync.formats.index import Index
from tests.pull_server import PullServer
from tests.ssh_server import SshServer

from .__main__ import parse_size
from .commands import GO, OURS, Party, others, ours
from .place import Place

#: How much of Go desync's time ours may take.
MOST = {"ssh -n 1": 0.7, "ssh -n 10": 0.9, "sftp -n 1": 2.0, "sftp -n 10": 2.0}

#: Bytes a second of processor time that the server has to send, and what a session may cost.
LEAST_RATE = 250e6
MOST_MEMORY = 1 << 20

_SESSIONS = 100


def extract(party: Party, store: str, n: int, index: str, out: Path, ssh: str) -> float:
    """Extract once, and give the seconds that took."""
    command = [*party.program, "extract", "-n", str(n), "-s", store, index, str(out)]
    environ = {**os.environ, **party.environ, "CASYNC_SSH_PATH": ssh}
    environ["CASYNC_REMOTE_PATH"] = "casync"
    begin = time.monotonic()
    subprocess.run(
        command, check=True, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    took = time.monotonic() - begin
    out.unlink()
    return took


def compare(
    programs: Sequence[Party], store: str, index: str, runs: int, folder: Path
) -> dict[str, dict[str, list[float]]]:
    """Let programs extract in turn."""
    found: dict[str, dict[str, list[float]]] = {}
    server = SshServer(folder)
    try:
        for scheme in ("ssh", "sftp"):
            for n in (1, 10):
                figures: dict[str, list[float]] = {each.name: [] for each in programs}
                for _ in range(runs):
                    for each in programs:
                        took = extract(
                            each,
                            f"{scheme}://server{store}",
                            n,
                            index,
                            folder / "out",
                            server.program,
                        )
                        figures[each.name].append(took)
                found[f"{scheme} -n {n}"] = figures
    finally:
        server.stop()
    return found


def _processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def serve(store: str, index: str, folder: Path) -> tuple[float, float, float]:
    """
    Have our server send a store.

    :returns: bytes a second, bytes a second of processor time, bytes that an idle session costs.
    """
    server = PullServer(folder, {"os": {"stores": [store]}}, {"alice": {"read": ["os"]}})
    ids = Index.parse(Path(index).read_bytes(), index).ids.sorted_unique()
    said = protocol.Hello(0x40).encode()
    for begin in range(0, len(ids), 2000):
        said += protocol.Request(ids[begin : begin + 2000], high_priority=False).encode()
    try:
        pid = server.process.pid
        before, begin_at = _processor_time(pid), time.monotonic()
        client = subprocess.Popen(
            [server.program, "server", "casync pull - - - os"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(said)
        client.stdin.flush()
        left, received = len(ids), 0
        reader = protocol.MessageReader()
        while left:
            data = os.read(client.stdout.fileno(), 1 << 20)
            if not data:
                raise SystemExit(f"the server ended the session: {server.said}")
            received += len(data)
            left -= sum(isinstance(each, protocol.ChunkData) for each in reader.feed(data))
        took = time.monotonic() - begin_at
        used = _processor_time(pid) - before
        client.kill()
        client.communicate()
        empty = _resident(pid)
        clients = [
            subprocess.Popen(
                [server.program, "server", "casync pull - - - os"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for _ in range(_SESSIONS)
        ]
        try:
            for each in clients:
                assert each.stdout is not None
                os.read(each.stdout.fileno(), 24)
            memory = (_resident(pid) - empty) / _SESSIONS
        finally:
            for each in clients:
                each.kill()
                each.communicate()
    finally:
        server.stop()
    return received / took, received / used, memory


def main(args: Sequence[str]) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser("python -m benchmarks.ssh", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each program (3)")
    parser.add_argument("--size", type=parse_size, default=256 << 20, help="of the image (256M)")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where the data is made")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory() as nowhere:
        maker = ours(nowhere, 2, "auto")
        place = Place(options.dir, options.size, maker)
        try:
            store, index = place.store(place.image())
            programs = [each for each in [maker, *others(nowhere, 2)] if each.name in (OURS, GO)]
            for name in ("sshd", "pull"):
                Path(nowhere, name).mkdir(mode=0o700)
            figures = compare(programs, store, index, options.runs, Path(nowhere, "sshd"))
            served = serve(store, index, Path(nowhere, "pull"))
        finally:
            place.close()
    return _report(figures, served)


def _report(figures: dict[str, dict[str, list[float]]], served: tuple[float, float, float]) -> int:
    missed = 0
    for name, each in figures.items():
        medians = {party: statistics.median(took) for party, took in each.items()}
        line = ", ".join(f"{party} {took:.2f} s" for party, took in medians.items())
        if GO in medians:
            ratio = medians[OURS] / medians[GO]
            missed += ratio > MOST[name]
            line += f": {ratio:.2f} of Go's time, at most {MOST[name]}"
        print(f"{name}: {line}")
    rate, cpu_rate, memory = served
    missed += cpu_rate < LEAST_RATE
    missed += memory > MOST_MEMORY
    print(
        f"desync-pull: {rate / 1e6:.0f} MB/s, {cpu_rate / 1e6:.0f} MB a second of processor time;"
        f" an idle session {memory / 1024:.0f} KiB"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
