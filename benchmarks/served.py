# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Run a command while a server runs, and write down the seconds that the command took::

    served.py FILE PORT SERVER... -- COMMAND...

The server is told to end afterwards. The exit code is the command's.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time

PATIENCE = 30.0
"""Seconds in which the server has to listen."""


def main(took: str, port: str, *commands: str) -> int:
    """Do it."""
    middle = commands.index("--")
    server = subprocess.Popen(commands[:middle], stderr=subprocess.DEVNULL)
    try:
        _wait(server, int(port))
        begin = time.perf_counter()
        code = subprocess.run(commands[middle + 1 :], check=False).returncode
        seconds = time.perf_counter() - begin
    finally:
        server.terminate()
        server.wait()
    with open(took, "w", encoding="ascii") as file:
        file.write(str(seconds))
    return code


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                raise SystemExit("the server does not listen") from None
            time.sleep(0.02)
        else:
            return


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
