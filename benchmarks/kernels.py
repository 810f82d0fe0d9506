# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
How fast the kernels are on one core: ``python -m benchmarks.kernels [--size MIB] [DIRECTORY]``.

Prints a table of GB of input for each second of this process's CPU time, the median of some runs,
for a tar of the directory (by default /usr/lib), random bytes and zeros. Data is handed over as the
workers do it, in segments of 8 MiB, after it has been touched once. Run it on an idle machine: a
neighbor on the same core costs up to a third.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import tarfile
import time
from array import array
from collections.abc import Callable, Iterator

from desync.chunking import kernels
from desync.chunking.sizes import ChunkSizes

SEGMENT = 8 << 20
ROUNDS = 7
PORTABLE_SIZE = 4 << 20
"""Plain Python is a hundred times as slow, so it gets less to do."""


class _Full(Exception):
    pass


class _Sink(io.RawIOBase):
    """Takes so many bytes, then stops the one who writes."""

    def __init__(self, size: int) -> None:
        self.data = bytearray()
        self._size = size

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self.data += data
        if len(self.data) >= self._size:
            raise _Full
        return len(data)


def tar_of(directory: str, size: int) -> bytes:
    """The first ``size`` bytes of a tar of a directory; fewer if it has no more."""
    sink = _Sink(size)
    try:
        with tarfile.open(fileobj=sink, mode="w|") as tar:  # type: ignore[call-overload]
            tar.add(directory)
    except _Full:
        pass
    return bytes(sink.data[:size])


def cut(kernel_set: kernels.KernelSet, data: bytes, sizes: ChunkSizes) -> array[int]:
    """The ends of all chunks, found segment by segment."""
    all_ends = array("I")
    start = 0
    room = array("I", bytes(4 * (SEGMENT // sizes.min + 2)))
    while start < len(data):
        base = start - start % SEGMENT
        end = min(base + SEGMENT + sizes.max, len(data))
        final = end == len(data)
        count = kernel_set.find_cuts(data, start, base + SEGMENT, end, final, sizes, room)
        all_ends += room[:count]
        start = all_ends[-1]
    return all_ends


def batches(ends: array[int]) -> Iterator[tuple[int, array[int]]]:
    """The chunks that begin in each segment: where the first does, and all their ends."""
    start = 0
    first = 0
    for number, end in enumerate(ends, 1):
        if end // SEGMENT > start // SEGMENT or number == len(ends):
            yield start, ends[first:number]
            start = end
            first = number


def speed(work: Callable[[], object], size: int, rounds: int = ROUNDS) -> float:
    """GB/s of CPU time: the median of some runs."""
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return size / statistics.median(times) / 1e9


def hash_one_by_one(data: bytes, ends: array[int]) -> None:
    view = memoryview(data)
    start = 0
    for end in ends:
        hashlib.new("sha512_256", view[start:end]).digest()
        start = end


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", default="/usr/lib")
    parser.add_argument("--size", type=int, default=256, help="MiB of each kind of data")
    arguments = parser.parse_args()
    size = arguments.size << 20
    inputs = {
        "tar": tar_of(arguments.directory, size),
        "random": os.urandom(size),
        # A zero page is one page for all; written to, it is memory like any other.
        "zeros": bytes(bytearray(size)),
    }
    sizes = ChunkSizes.DEFAULT
    print(kernels.describe())
    print(f"{'GB/s of one core':28}" + "".join(f"{name:>9}" for name in inputs))

    def row(title: str, measure: Callable[[bytes], float]) -> None:
        print(f"{title:28}" + "".join(f"{measure(data):9.2f}" for data in inputs.values()))

    every = {name: kernels.named(name) for name in kernels.available()}
    native = {name: each for name, each in every.items() if name != "portable"}
    best = every[kernels.available()[-1]]
    ends_of = {id(data): cut(best, data, sizes) for data in inputs.values()}
    for name, each in native.items():
        row(f"cuts, {name}", lambda data, k=each: speed(lambda: cut(k, data, sizes), len(data)))  # type: ignore[misc]
    row(
        "cuts, portable Python",
        lambda data: speed(
            lambda: cut(every["portable"], data[:PORTABLE_SIZE], sizes),
            len(data[:PORTABLE_SIZE]),
            1,
        ),
    )
    row(
        "sha512-256, OpenSSL",
        lambda data: speed(lambda: hash_one_by_one(data, ends_of[id(data)]), len(data)),
    )
    for name, each in native.items():
        row(
            f"sha512-256, {name}",
            lambda data, k=each: speed(  # type: ignore[misc]
                lambda: [
                    k.hash_ranges(data, start, ends, len(ends))
                    for start, ends in batches(ends_of[id(data)])
                ],
                len(data),
            ),
        )
    row("sha256, OpenSSL", lambda data: speed(lambda: hashlib.sha256(data).digest(), len(data)))
    row("zeros told from others", lambda data: speed(lambda: best.is_zero(data), len(data)))


if __name__ == "__main__":
    main()
