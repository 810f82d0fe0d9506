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
import shlex
import signal
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
from .measure import run
from .place import Place

#: How much of Go desync's time ours may take.
MOST = {"ssh -n 1": 0.7, "ssh -n 10": 0.9, "sftp -n 1": 2.0, "sftp -n 10": 2.0}

#: Bytes a second of processor time that the server has to send, and what a session may cost.
LEAST_RATE = 250e6
MOST_MEMORY = 1 << 20

_SESSIONS = 100


def extract(
    party: Party, store: str, n: int, index: str, out: Path, ssh: str, limit: float
) -> float | None:
    """
    Extract once.

    :param limit: after how many seconds a program that hasn't ended is killed, with all it started.
    :returns: the seconds that took; None if it was killed.
    """
    command = [*party.program, "extract", "-n", str(n), "-s", store, index, str(out)]
    environ = {**os.environ, **party.environ, "CASYNC_SSH_PATH": ssh}
    # casync keeps working files, which belong where the data is.
    environ["CASYNC_REMOTE_PATH"] = f"env TMPDIR={shlex.quote(str(out.parent))} casync"
    ran = run(command, environ=environ, directory=str(out.parent), timeout=limit)
    if ran.code == -signal.SIGKILL:
        return None
    if ran.code:
        raise SystemExit(f"{party.name} failed: {ran.said}")
    out.unlink()
    return ran.wall


def compare(
    programs: Sequence[Party],
    store: str,
    index: str,
    options: argparse.Namespace,
    out: Path,
    keys: Path,
) -> dict[str, dict[str, list[float]]]:
    """
    Let programs extract in turn.

    :param out: where the image goes.
    :param keys: a folder for the server's.
    :returns: for each way, the seconds that each program's runs took that ended.
    """
    found: dict[str, dict[str, list[float]]] = {}
    server = SshServer(keys)
    try:
        for scheme in ("ssh", "sftp"):
            for n in (1, 10):
                figures: dict[str, list[float]] = {each.name: [] for each in programs}
                for _ in range(options.runs):
                    for each in programs:
                        url = f"{scheme}://server{store}"
                        took = extract(each, url, n, index, out, server.program, options.limit)
                        if took is not None:
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
    try:
        # Before anything was sent, for what a transfer needed is there for the sessions after it.
        memory = _idle(server)
        return *_send(server, Index.parse(Path(index).read_bytes(), index)), memory
    finally:
        server.stop()


def _client(server: PullServer) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [server.program, "server", "casync pull - - - os"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _idle(server: PullServer) -> float:
    """Say how many bytes each session takes that only says hello."""
    clients: list[subprocess.Popen[bytes]] = []

    def begin(count: int) -> int:
        fresh = [_client(server) for _ in range(count)]
        clients.extend(fresh)
        for each in fresh:
            assert each.stdout is not None
            os.read(each.stdout.fileno(), 24)
        return _resident(server.process.pid)

    try:
        # The first ones also need code that the others share.
        few = _SESSIONS // 10
        before = begin(few)
        return (begin(_SESSIONS - few) - before) / (_SESSIONS - few)
    finally:
        for each in clients:
            each.kill()
            each.communicate()


def _send(server: PullServer, index: Index) -> tuple[float, float]:
    """Have all chunks of an index sent, and say at which rates: see :func:`serve`."""
    ids = index.ids.sorted_unique()
    said = protocol.Hello(0x40).encode()
    for begin in range(0, len(ids), 2000):
        said += protocol.Request(ids[begin : begin + 2000], high_priority=False).encode()
    pid = server.process.pid
    before, begin_at = _processor_time(pid), time.monotonic()
    client = _client(server)
    try:
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
    finally:
        client.kill()
        client.communicate()
    return received / took, received / used


def main(args: Sequence[str]) -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser("python -m benchmarks.ssh", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each program (3)")
    parser.add_argument("--size", type=parse_size, default=256 << 20, help="of the image (256M)")
    parser.add_argument("--dir", default=tempfile.gettempdir(), help="where the data is made")
    parser.add_argument(
        "--limit", type=float, default=120, help="seconds after which a run is given up (120)"
    )
    parser.add_argument("--only-serve", action="store_true", help="measure desync-pull alone")
    options = parser.parse_args(args)
    figures: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as nowhere:
        maker = ours(nowhere, 2, "auto")
        place = Place(options.dir, options.size, maker)
        try:
            store, index = place.store(place.image())
            programs = [each for each in [maker, *others(nowhere, 2)] if each.name in (OURS, GO)]
            served = []
            for number in range(options.runs):
                folder = Path(nowhere, f"pull{number}")
                folder.mkdir(mode=0o700)
                served.append(serve(store, index, folder))
            if not options.only_serve:
                keys = Path(nowhere, "sshd")
                keys.mkdir(mode=0o700)
                out = Path(place.root, "out")
                figures = compare(programs, store, index, options, out, keys)
        finally:
            place.close()
    return _report(figures, served, options.runs)


def _report(
    figures: dict[str, dict[str, list[float]]],
    served: Sequence[tuple[float, float, float]],
    runs: int,
) -> int:
    missed = 0
    for name, each in figures.items():
        medians = {party: statistics.median(took) for party, took in each.items() if took}
        line = ", ".join(f"{party} {took:.2f} s" for party, took in medians.items())
        for party, took in each.items():
            if len(took) < runs:
                line += f", {party} didn't end {runs - len(took)} of {runs} times"
                missed += party == OURS
        if GO in medians and OURS in medians:
            ratio = medians[OURS] / medians[GO]
            missed += ratio > MOST[name]
            line += f": {ratio:.2f} of Go's time, at most {MOST[name]}"
        print(f"{name}: {line}")
    rate, cpu_rate, memory = (statistics.median(each) for each in zip(*served, strict=True))
    missed += cpu_rate < LEAST_RATE
    missed += memory > MOST_MEMORY
    print(
        f"desync-pull: {rate / 1e6:.0f} MB/s, {cpu_rate / 1e6:.0f} MB a second of processor time;"
        f" an idle session {memory / 1024:.0f} KiB"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
