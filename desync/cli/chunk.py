# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync chunk``."""

from __future__ import annotations

from desync.running import run

from .command import argument, command, concurrency_flag, flag
from .flags import UNSIGNED
from .invocation import Invocation
from .storing import (
    CUTTING,
    LEAST_TO_CUT,
    chunk_size_flag,
    progress_beside_output,
    size_of,
    start_pool,
)


@command(
    "chunk",
    examples=[
        "desync chunk file.bin",
        "desync chunk -m 32:128:512 -S 1048576 file.bin",
    ],
)
@argument("file")
@chunk_size_flag
@flag("--start", "-S", kind=UNSIGNED, default=0, help="where to begin, in bytes")
@concurrency_flag
def chunk(invocation: Invocation, file: str, chunk_size: str, start: int) -> None:
    """
    Print where a file would be cut into chunks: start, length and id of each, tabs between them.

    Nothing is stored.
    """
    from desync.chunking.sizes import ChunkSizes
    from desync.workers.pool import Pool, pool_size

    sizes = ChunkSizes.parse_kib(chunk_size)
    with Pool(pool_size(invocation.concurrency)) as pool:
        start_pool(pool, size_of(file) - start, CUTTING, least=LEAST_TO_CUT)
        from desync.operations.chunk import chunk

        def write(lines: str) -> None:
            invocation.out.write(lines.encode("ascii"))

        progress = progress_beside_output(invocation)
        run(chunk(file, sizes, invocation.digest, pool, progress, write, start))
