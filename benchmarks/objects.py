# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
How fast stores in S3 are: ``python -m benchmarks.objects [--size MIB]``.

Starts Ceph's radosgw on this machine, its objects in memory, and prints three comparisons, each of
medians of runs in turn, with ``-n 32``:

* GETs of chunks of 64 KiB, a second: our store, and treq with the same signer and the same bound;
* ``extract`` and ``make``: ours, and Go desync where GO_DESYNC names its binary;
* ``make`` into S3, and the slower of its halves alone: compressing (``make`` into a local store)
  and uploading (``cache`` of chunks that are compressed already).

Service and client share the processors; only ratios mean something.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from benchmarks import data
from desync.chunking.digests import SHA512_256
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.stored import chunk_name
from desync.options import StoreOptions
from desync.running import run_with_reactor
from desync.stores.concurrently import concurrently
from desync.stores.location import parse_location
from desync.stores.s3 import open_s3
from desync.stores.s3_signing import Keys, Signer
from tests.object_peers import Service, radosgw, stop_services

CONCURRENCY = 32
COUNT = 2000
ROUNDS = 3


def time_of(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


class Nothing:
    """Takes chunks and forgets them."""

    def __init__(self) -> None:
        self.count = 0

    def chunks(self, batch: Sequence[Chunk]) -> None:
        self.count += len(batch)

    def absent(self, ids: ChunkIds) -> None:
        raise RuntimeError("a chunk is missing")

    def failed(self, ids: ChunkIds, why: Any) -> None:
        why.raiseException()


def make_chunks() -> list[Chunk]:
    """Chunks of 64 KiB."""
    noise = random.Random(1)
    return [Chunk.of(noise.randbytes(1 << 16), SHA512_256) for _ in range(COUNT)]


async def get_with_store(reactor: Any, service: Service, bucket: str, ids: ChunkIds) -> float:
    """Seconds for all chunks, checked, by our store."""
    location = parse_location(f"s3+http://{service.netloc}/{bucket}")
    options = StoreOptions(n=CONCURRENCY, uncompressed=True, s3=service.credentials)
    store = open_s3(location, options, SHA512_256, reactor)
    sink: Any = Nothing()
    begin = time.monotonic()
    await store.get_many(ids, sink)
    taken = time.monotonic() - begin
    await store.close()
    if sink.count != len(ids):
        raise RuntimeError(f"{sink.count} chunks of {len(ids)}")
    return taken


async def get_with_treq(reactor: Any, service: Service, bucket: str, ids: ChunkIds) -> float:
    """Seconds for all chunks, unchecked, by treq."""
    from treq.client import HTTPClient
    from twisted.web.client import Agent, HTTPConnectionPool
    from twisted.web.http_headers import Headers

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = CONCURRENCY
    client = HTTPClient(Agent(reactor, pool=pool))
    signer = Signer(Keys(service.access_key, service.secret_key), "us-east-1")

    async def get(chunk_id: bytes) -> None:
        url = f"http://{service.netloc}/{bucket}/{chunk_name(chunk_id, '')}"
        headers = signer.sign("GET", url, {"Host": service.netloc})
        response = await client.get(url, headers=Headers({k: [v] for k, v in headers.items()}))
        body = await response.content()
        if response.code != 200 or len(body) != 1 << 16:
            raise RuntimeError(f"status {response.code}, {len(body)} bytes")

    begin = time.monotonic()
    await concurrently(map(get, ids), CONCURRENCY)
    taken = time.monotonic() - begin
    await pool.closeCachedConnections()
    return taken


async def fill(reactor: Any, service: Service, bucket: str, chunks: Sequence[Chunk]) -> None:
    """Put chunks into a bucket."""
    location = parse_location(f"s3+http://{service.netloc}/{bucket}")
    options = StoreOptions(n=CONCURRENCY, uncompressed=True, s3=service.credentials)
    store = open_s3(location, options, SHA512_256, reactor)

    async def put(chunk: Chunk) -> None:
        await store.put(chunk)

    await concurrently(map(put, chunks), CONCURRENCY)
    await store.close()


def compare_gets(service: Service) -> None:
    """Requests a second, ours and treq's."""
    bucket = service.new_bucket()
    chunks = make_chunks()
    ids = ChunkIds.from_iterable(chunk.chunk_id for chunk in chunks)
    ways: dict[str, Callable[..., Coroutine[Any, Any, float]]] = {
        "store": get_with_store,
        "treq": get_with_treq,
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}

    async def measure(reactor: Any) -> None:
        await fill(reactor, service, bucket, chunks)
        for _ in range(ROUNDS):
            for name, way in ways.items():
                taken[name].append(await way(reactor, service, bucket, ids))

    run_with_reactor(measure)
    rates = {name: COUNT / statistics.median(times) for name, times in taken.items()}
    print(f"GETs of 64 KiB a second: {rates['store']:.0f}, treq {rates['treq']:.0f}", end="")
    print(f", ratio {rates['store'] / rates['treq']:.2f} (at least 0.9)", flush=True)


class Commands:
    """Ours and, if it is there, Go desync."""

    def __init__(self, service: Service, folder: str, size: int) -> None:
        self.service = service
        self.folder = folder
        self.file = os.path.join(folder, "image")
        data.image(self.file, size)
        self.programs = {"desync": [sys.executable, "-m", "desync"]}
        go = os.environ.get("GO_DESYNC")
        if go:
            self.programs["Go desync"] = [go]

    def run(self, program: str, *args: str) -> float:
        """Seconds that a command takes."""
        environ = {**os.environ, **self.service.environ, "HOME": self.folder}
        command = [*self.programs[program], *args, "-n", str(CONCURRENCY)]
        return time_of(lambda: subprocess.run(command, env=environ, check=True))

    def bucket(self) -> str:
        """The location of a new bucket, whose first object has been written."""
        bucket = self.service.new_bucket()
        self.service.put(bucket, "first", b"1")
        return f"s3+http://{self.service.netloc}/{bucket}"

    def compare(self) -> None:
        """Print what extract and make take, and the halves of make."""
        index, local = os.path.join(self.folder, "index"), os.path.join(self.folder, "store")
        output = os.path.join(self.folder, "output")
        os.mkdir(local)
        self.run("desync", "make", "--sync=none", "-s", local, index, self.file)
        full = self.bucket()
        self.run("desync", "cache", "-s", local, "-c", full, index)
        taken: dict[str, list[float]] = {}

        def note(what: str, seconds: float) -> None:
            taken.setdefault(what, []).append(seconds)

        for _ in range(ROUNDS):
            for program in self.programs:
                arguments = ("extract", "-s", full, index, output)
                note(f"{program} extract", self.run(program, *arguments))
                os.unlink(output)
                made = ("make", "-s", self.bucket(), index + ".made", self.file)
                note(f"{program} make", self.run(program, *made))
            with tempfile.TemporaryDirectory(dir=self.folder) as fresh:
                compress = ("make", "--sync=none", "-s", fresh, index + ".made", self.file)
                note("compress", self.run("desync", *compress))
            upload = ("cache", "-s", local, "-c", self.bucket(), index)
            note("upload", self.run("desync", *upload))
        medians = {what: statistics.median(times) for what, times in taken.items()}
        for job in "extract", "make":
            line = f"{job}: {medians[f'desync {job}']:.2f} s"
            if "Go desync" in self.programs:
                theirs = medians[f"Go desync {job}"]
                ratio = theirs / medians[f"desync {job}"]
                line += f", Go desync {theirs:.2f} s, {ratio:.2f} times as fast (at least 1)"
            print(line)
        slower = max(medians["compress"], medians["upload"])
        print(
            f"make: compressing alone {medians['compress']:.2f} s, uploading alone"
            f" {medians['upload']:.2f} s; together {medians['desync make'] / slower:.2f} times the"
            " slower (at most 1.2)"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="MiB of the image")
    arguments = parser.parse_args()
    service = radosgw()
    compare_gets(service)
    directory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        Commands(service, folder, arguments.size << 20).compare()
    # The reactor's threads would keep the process, and with it the service.
    sys.stdout.flush()
    stop_services()
    os._exit(0)


if __name__ == "__main__":
    main()
