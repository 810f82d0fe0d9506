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
import os
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator

from benchmarks import data
from desync.chunking import kernels
from desync.chunking.sizes import ChunkSizes

SEGMENT = 8 << 20
ROUNDS = 7
SIZES = ChunkSizes.DEFAULT
PORTABLE_SIZE = 4 << 20
"""Plain Python is a hundred times as slow, so it gets less to do."""


def content_of(directory: str, size: int) -> bytes:
    """A tar of a directory, cut or filled up to a size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "image")
        data.image(path, size, directory)
        with open(path, "rb") as file:
            return file.read()


def cut(kernel_set: kernels.KernelSet, content: bytes, sizes: ChunkSizes) -> array[int]:
    """The ends of all chunks, found segment by segment."""
    all_ends = array("I")
    start = 0
    room = array("I", bytes(4 * (SEGMENT // sizes.min + 2)))
    while start < len(content):
        base = start - start % SEGMENT
        end = min(base + SEGMENT + sizes.max, len(content))
        final = end == len(content)
        count = kernel_set.find_cuts(content, start, base + SEGMENT, end, final, sizes, room)
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


def hash_one_by_one(content: bytes, ends: array[int]) -> None:
    """SHA-512/256 of each chunk by hashlib."""
    view = memoryview(content)
    start = 0
    for end in ends:
        hashlib.new("sha512_256", view[start:end]).digest()
        start = end


def hash_batches(kernel_set: kernels.KernelSet, content: bytes, ends: array[int]) -> None:
    """SHA-512/256 of each chunk, a segment's chunks at a time."""
    for start, some in batches(ends):
        kernel_set.hash_ranges(content, start, some, len(some))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", default="/usr/lib")
    parser.add_argument("--size", type=int, default=256, help="MiB of each kind of data")
    arguments = parser.parse_args()
    size = arguments.size << 20
    native = {name: kernels.named(name) for name in kernels.available() if name != "portable"}
    portable = kernels.named("portable")
    best = kernels.named("auto")
    inputs = {
        "tar": content_of(arguments.directory, size),
        "random": os.urandom(size),
        # A zero page is one page for all; written to, it is memory like any other.
        "zeros": bytes(bytearray(size)),
    }
    ends = {name: cut(best, content, SIZES) for name, content in inputs.items()}

    def row(title: str, work: Callable[[bytes, array[int]], object], size: int = size) -> None:
        rounds = ROUNDS if size == len(inputs["tar"]) else 1
        speeds = [
            speed(lambda c=content[:size], e=ends[name]: work(c, e), size, rounds)  # type: ignore[misc]
            for name, content in inputs.items()
        ]
        print(f"{title:28}" + "".join(f"{each:9.3f}" for each in speeds), flush=True)

    print(kernels.describe())
    print(f"{'GB/s of one core':28}" + "".join(f"{name:>9}" for name in inputs))
    for name, each in native.items():
        row(f"cuts, {name}", lambda content, _, k=each: cut(k, content, SIZES))  # type: ignore[misc]
    row("cuts, portable", lambda content, _: cut(portable, content, SIZES), PORTABLE_SIZE)
    row("sha512-256, OpenSSL", hash_one_by_one)
    for name, each in native.items():
        row(f"sha512-256, {name}", lambda c, e, k=each: hash_batches(k, c, e))  # type: ignore[misc]
    row("sha256, OpenSSL", lambda content, _: hashlib.sha256(content).digest())


if __name__ == "__main__":
    main()
