# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync chop``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import UsageError
from desync.running import run

from .command import argument, command, flag, store_flags
from .indexes import read_index
from .invocation import Invocation
from .storing import (
    CODEC,
    UPLOADING,
    compression_level_flag,
    ignore_flags,
    ignored_ids,
    start_pool,
    sync_flag,
    writing_options,
)

if TYPE_CHECKING:
    from desync.operations.chop import Chopped


@command(
    "chop",
    examples=[
        "desync chop -s /path/to/store file.caibx largefile.bin",
        "desync chop -s /path/to/store --ignore older.caibx file.caibx largefile.bin",
    ],
)
@argument("index")
@argument("file")
@flag("--store", "-s", help="target store")
@ignore_flags
@sync_flag
@compression_level_flag
@store_flags
def chop(
    invocation: Invocation,
    index: str,
    file: str,
    store: str | None,
    ignore: list[str],
    ignore_chunks: list[str],
    sync: str,
    compression_level: int | None,
) -> None:
    """
    Store the chunks of a file that the store doesn't have, according to an index.

    Neither the file nor the index is changed. Every chunk is checked against its id first. "-"
    reads the index from stdin.
    """
    from desync.stores.opening import check_scheme, local_target
    from desync.workers.pool import Pool, pool_size

    if not store:
        raise UsageError("no target store provided")
    check_scheme(store)
    options = writing_options(invocation, compression_level)
    files = local_target(store, options, invocation.digest, sync_each=sync == "each")
    parsed = read_index(invocation, index)
    ignored = ignored_ids(invocation, ignore, ignore_chunks)
    with Pool(pool_size(invocation.concurrency)) as pool:
        module = UPLOADING if files is None else "desync.jobs.compare"
        start_pool(pool, parsed.size, module, CODEC)
        from desync.operations.chop import chop

        progress = invocation.progress
        if files is not None:
            done = run(chop(parsed, file, files, pool, progress, ignored))
        else:
            from .layered import Layered, run_layered

            async def work(session: Layered) -> Chopped:
                target = session.uploads(store, options)
                return await chop(parsed, file, target, session.pool(pool), progress, ignored)

            done = run_layered(invocation, work)
    if files is not None and sync != "none":
        files.sync()
    invocation.debug(
        f"{done.chunks} chunks, {done.stored} new to the store, which take"
        f" {done.stored_bytes} bytes there"
    )
