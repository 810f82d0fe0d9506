# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Reading chunks from local stores in an index's order, decoded and verified ahead of need by threads.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from desync.assembly.local_chunks import read_from, verify
from desync.assembly.runs import runs_of
from desync.stores.local_files import LocalFiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from desync.formats.index import Index

#: The most chunks, and bytes of them, that one thread reads and verifies together.
_CHUNKS: Final = 32
_BYTES: Final = 2 << 20

#: Where single chunks are larger than that: bytes beyond which no third batch is begun.
_AHEAD: Final = 32 << 20


def read_local(
    index: Index, stores: Sequence[LocalFiles], first: int, stop: int, threads: int
) -> Iterator[list[bytes]]:
    """
    Read a run of chunks.

    :param stores: asked in turn for each chunk.
    :param first: the position of the first chunk.
    :param stop: the position after the last.
    :param threads: how many read ahead; twice as many batches of 2 MiB, or two chunks that are
        larger, are in memory at the most.
    :returns: the chunks' plain bytes, some at a time, in order.
    :raises ChunkMissing, ChunkInvalid, StoreError: as the stores do.
    """
    own = threading.local()

    def read(begin: int, end: int) -> list[bytes]:
        if not hasattr(own, "stores"):
            own.stores = [LocalFiles.from_settings(store.settings()) for store in stores]
        buffers = []
        unverified = []
        ids = []
        for position, (_, length, chunk_id) in enumerate(index.chunks(begin, end)):
            plain, store = read_from(own.stores, chunk_id, length)
            buffers.append(plain)
            ids.append(chunk_id)
            if not store.skip_verify:
                unverified.append((position, store))
        verify(index.digest, buffers, b"".join(ids), unverified)
        return buffers

    ahead: deque[Future[list[bytes]]] = deque()
    sizes: deque[int] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="desync-read")

    def submit(begin: int, end: int) -> Future[list[bytes]]:
        try:
            return pool.submit(read, begin, end)
        except RuntimeError:
            # No thread can be started, for lack of memory or by a limit: this one does it.
            done: Future[list[bytes]] = Future()
            done.set_result(read(begin, end))
            return done

    def take() -> list[bytes]:
        sizes.popleft()
        return ahead.popleft().result()

    try:
        for begin, end in runs_of(
            index, first=first, stop=stop, most_chunks=_CHUNKS, most_bytes=_BYTES
        ):
            size = index.end(end - 1) - index.start(begin)
            while len(ahead) > 1 and sum(sizes) + size > _AHEAD:
                yield take()
            ahead.append(submit(begin, end))
            sizes.append(size)
            if len(ahead) > 2 * threads:
                yield take()
        while ahead:
            yield take()
    finally:
        pool.shutdown(cancel_futures=True)
