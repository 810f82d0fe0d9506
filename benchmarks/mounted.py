# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Something to be measured that is done with a mount: mount, read, unmount. A program of its own, so
that all of it is one command to whoever measures::

    python benchmarks/mounted.py whole TOOK MOUNTPOINT/FILE desync mount-index ...
    python benchmarks/mounted.py random TOOK MOUNTPOINT/FILE desync mount-index ...

``whole`` has dd read the file; ``random`` reads 4 KiB in many places, the same each time. How many
seconds that took is written to the file TOOK.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence

READS = 5000
PAGE = 4096
PATIENCE = 30.0
"""Seconds that the program has to mount, and to unmount."""


def wait_for(path: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a file is there."""
    until = time.monotonic() + PATIENCE
    while not os.path.exists(path):
        if process.poll() is not None:
            raise SystemExit(f"it ended with {process.returncode}, and nothing is mounted")
        if time.monotonic() > until:
            raise SystemExit("it hasn't mounted anything")
        time.sleep(0.002)


def read_whole(path: str) -> None:
    """Read a file as a user would."""
    size = os.stat(path).st_size
    done = subprocess.run(
        ["dd", f"if={path}", "of=/dev/null", "bs=1M"], stderr=subprocess.PIPE, check=True
    )
    if f"{size} bytes" not in done.stderr.decode():
        raise SystemExit(f"dd has read something else than {size} bytes")


def read_at_random(path: str) -> None:
    """Read pages of a file, and say how long half of the reads took at the most."""
    chooser = random.Random(1)
    pages = os.stat(path).st_size // PAGE
    took = []
    with open(path, "rb", buffering=0) as file:
        for _ in range(READS):
            offset = chooser.randrange(pages) * PAGE
            begin = time.perf_counter()
            if len(os.pread(file.fileno(), PAGE, offset)) != PAGE:
                raise SystemExit(f"a short read at {offset}")
            took.append(time.perf_counter() - begin)
    took.sort()
    median, late = took[len(took) // 2], took[len(took) * 99 // 100]
    print(f"median {median * 1e6:.0f} us, 99 of 100 within {late * 1e6:.0f} us", file=sys.stderr)


def main(args: Sequence[str]) -> int:
    how, took, path, *command = args
    read = {"whole": read_whole, "random": read_at_random}[how]
    process = subprocess.Popen(command)
    try:
        wait_for(path, process)
        begin = time.perf_counter()
        read(path)
        with open(took, "w", encoding="ascii") as file:
            file.write(str(time.perf_counter() - begin))
    finally:
        process.terminate()
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if os.path.ismount(os.path.dirname(path)):
            subprocess.run(["umount", "-l", os.path.dirname(path)], check=False)
            code = code or 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
