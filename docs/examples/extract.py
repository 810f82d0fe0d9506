# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Rebuild a file from its index:

    python extract.py INDEX TARGET STORE...
    python extract.py --cache=CACHE INDEX TARGET STORE...

Without a cache everything is local and no reactor runs. With one, chunks that the cache lacks come
from the stores and are kept in it; the stores could be of any kind then.
"""

from __future__ import annotations

import sys
from typing import Any

import desync
from desync import Config, Pool, Progress, pool_size
from desync.errors import DesyncError
from desync.operations.extract import Extracted


def extract_locally(index: str, target: str, stores: list[str]) -> Extracted:
    """Rebuild a file from local stores, which are asked in turn."""
    found = desync.local_source(stores, Config().options_for)
    assert found is not None  # as there is neither a cache nor a failover group
    # Worker processes read, decode, verify and write. As many as there are processors will do.
    with Pool(pool_size(10)) as pool:
        operation = desync.extract(desync.read_index(index), target, found, pool, Progress())
        return desync.run(operation)


async def extract_through(
    reactor: Any, cache: str, index: str, target: str, stores: list[str]
) -> Extracted:
    """Rebuild a file through a cache. Nothing here blocks the reactor for long."""
    from twisted.internet.threads import deferToThread

    # The layers: a cache over the stores, which are asked in turn.
    source = desync.open_source(stores, Config().options_for, reactor, cache=cache)
    pool = desync.ReactorPool(Pool(pool_size(10)), reactor)
    try:
        downloads = desync.ChunkDownloads(source, deferToThread, concurrency=10)
        parsed = await deferToThread(desync.read_index, index)
        return await desync.extract(parsed, target, downloads, pool, Progress())
    finally:
        pool.close()
        await source.close()


def report(done: Extracted) -> None:
    print(f"{done.bytes_total} bytes, {done.chunks_total} chunks: {done.chunks_from_store} fetched")


def main(arguments: list[str]) -> None:
    if not arguments[0].startswith("--cache="):
        index, target, *stores = arguments
        report(extract_locally(index, target, stores))
        return

    from twisted.internet.defer import Deferred
    from twisted.internet.task import react

    cache = arguments[0].removeprefix("--cache=")
    index, target, *stores = arguments[1:]

    async def work(reactor: Any) -> None:
        try:
            report(await extract_through(reactor, cache, index, target, stores))
        except DesyncError as error:
            sys.exit(f"Error: {error}")

    react(lambda reactor: Deferred.fromCoroutine(work(reactor)))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DesyncError as error:
        # Each is one line that names the chunk, the store or the file, and the cause.
        sys.exit(f"Error: {error}")
