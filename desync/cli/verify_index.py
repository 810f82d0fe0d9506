# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync verify-index``."""

from __future__ import annotations

from desync.running import run

from .command import argument, command, store_flags
from .indexes import read_index
from .invocation import Invocation
from .storing import start_pool


@command(
    "verify-index",
    examples=[
        "desync verify-index file.caibx largefile.bin",
        "desync verify-index - /dev/sda1 < sda1.caibx",
    ],
)
@argument("index")
@argument("file")
@store_flags
def verify_index(invocation: Invocation, index: str, file: str) -> None:
    """
    Check that a file or block device is what an index says.

    Says nothing if it is. "-" reads the index from stdin.
    """
    from desync.workers.pool import Pool, pool_size

    parsed = read_index(invocation, index)
    with Pool(pool_size(invocation.concurrency)) as pool:
        start_pool(pool, parsed.size, "desync.jobs.compare")
        from desync.operations.verify_index import verify_index

        run(verify_index(parsed, file, pool, invocation.progress))
