# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Clients of a chunk server that ask for much and take nothing, and the memory that it needs."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: Requests that each client makes at once.
PIPELINED = 5

#: Seconds that the server is given once all have asked.
SETTLING = 3.0


def allow_sockets(count: int) -> None:
    """
    Let this process have so many more.

    :raises SystemExit: if the system doesn't.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 200
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(f"{wanted} open files are needed, and {hard} allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def peak_with(port: int, pid: int, paths: Sequence[str], count: int) -> int:
    """
    Have clients ask for chunks without taking any, and see how much memory the server takes.

    :param port: where it listens, on this machine.
    :param pid: its process. Those that it has started count too.
    :param paths: of chunks, which the clients ask for in turn.
    :param count: how many clients.
    :returns: the sum of the processes' largest resident sets so far, in bytes.
    """
    clients = []
    try:
        for number in range(count):
            asked = (paths[(number + each) % len(paths)] for each in range(PIPELINED))
            client = socket.socket()
            clients.append(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(60)
            client.connect(("127.0.0.1", port))
            client.sendall(
                b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % p.encode() for p in asked)
            )
        time.sleep(SETTLING)
        return sum(_largest(each) for each in _family(pid))
    finally:
        for client in clients:
            client.close()


def _family(pid: int) -> list[int]:
    family = [pid]
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            family += _family(int(child))
    return family


def _largest(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10
