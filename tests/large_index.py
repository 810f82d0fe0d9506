# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Makes and uses an index too large for the process that runs the tests, and says what it took.

As a program, it is run by :mod:`tests.test_index_large`; by hand it also tells the time::

    python -m tests.large_index write FILE CHUNKS
    python -m tests.large_index use FILE
    python -m tests.large_index operation FILE plan|info|prune|list

The result is a JSON object on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

from desync.assembly.plan import Plan
from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.formats.index import Index, IndexBuilder
from desync.operations.info import info
from desync.operations.prune import needed_by, prune
from desync.progress import Progress
from desync.running import run
from desync.stores.local_files import LocalFiles

BLOCK = 65536
CHUNK = 65536
REPEATED = 4
"""Every block of chunks whose number divides by this has the same ids as the first one."""


def write(path: str, chunks: int) -> dict[str, object]:
    """Write the index of a stream of so many chunks, all of the same length."""
    builder = IndexBuilder(ChunkSizes.DEFAULT, SHA512_256)
    ends = range(CHUNK, CHUNK * (BLOCK + 1), CHUNK)
    first = os.urandom(32 * BLOCK)
    for number in range(chunks // BLOCK):
        ids = os.urandom(32 * BLOCK) if number % REPEATED else first
        builder.append_segment(ends, ids, builder.size)
    index = builder.finish(chunks * CHUNK)
    with open(path, "wb") as file:
        for piece in index.pieces():
            file.write(piece)
    return {"size": os.path.getsize(path), "peak": peak_memory()}


def use(path: str) -> dict[str, object]:
    """
    Do with an index what commands do.

    :returns: what was found, and after each step the most memory that the process has had so far,
        in bytes, and the seconds since the step before.
    """
    found: dict[str, object] = {}
    steps: dict[str, object] = {}
    before = time.perf_counter()

    def done(step: str) -> None:
        nonlocal before
        now = time.perf_counter()
        steps[step] = {"peak": peak_memory(), "seconds": round(now - before, 2)}
        before = now

    done("start")
    with open(path, "rb") as file:
        data = file.read()
    done("read")
    index = Index.parse(data, path, SHA512_256)
    del data
    found["chunks"] = len(index)
    found["size"] = index.size
    found["middle"] = index.position_of(index.size // 2)
    done("open")
    found["walked"] = sum(1 for _ in index.ids)
    done("walk")
    with open(os.devnull, "wb") as nowhere:
        found["written"] = sum(nowhere.write(piece) for piece in index.pieces())
    done("write")
    unique = index.ids.sorted_unique()
    found["unique"] = len(unique)
    found["contains first"] = index.id(0) in unique
    done("sort")
    # Two sets that have a third of their ids in common, such as a prune or a cache would compare.
    half, third = unique[::2], unique[::3]
    found["common"] = half.count_common(third)
    done("count common")
    found["difference"] = len(half.difference(third))
    done("difference")
    found["union"] = len(half.union(third))
    done("union")
    return {"found": found, "steps": steps}


def operation(path: str, name: str) -> dict[str, object]:
    """
    Carry out an operation on an index alone.

    :param name: ``plan`` (that of an extract), ``info``, ``prune`` (a dry run on an empty store),
        or ``list``.
    """
    before = time.perf_counter()
    with open(path, "rb") as file:
        index = Index.parse(file.read(), path, SHA512_256)
    found: dict[str, object] = {}
    if name == "plan":
        plan = Plan(index, SHA512_256.null_id(index.sizes.max))
        found.update(plan.totals._asdict())
        found["runs"] = sum(1 for _ in plan.runs(64, 4 << 20))
        found["copies"] = sum(1 for _ in plan.copies())
    elif name == "info":
        found.update(run(info(index))._asdict())
    elif name == "prune":
        keep = needed_by([index])
        del index
        with tempfile.TemporaryDirectory() as store:
            pruned = run(prune(keep, LocalFiles(store), Progress(), 0, dry_run=True))
        found.update(pruned._asdict(), keep=len(keep))
    else:
        with open(os.devnull, "w") as nowhere:
            found["written"] = sum(nowhere.write(chunk_id.hex() + "\n") for chunk_id in index.ids)
    seconds = round(time.perf_counter() - before, 2)
    return {"found": found, "peak": peak_memory(), "seconds": seconds}


def peak_memory() -> int:
    """
    Say how much memory this process has had at most, in bytes.

    ``ru_maxrss`` would include what the parent had when it started this process.
    """
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    os.nice(10)
    if sys.argv[1] == "write":
        print(json.dumps(write(sys.argv[2], int(sys.argv[3]))))
    elif sys.argv[1] == "use":
        print(json.dumps(use(sys.argv[2])))
    else:
        print(json.dumps(operation(sys.argv[2], sys.argv[3])))
