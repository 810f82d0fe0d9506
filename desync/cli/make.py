# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync make``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.running import run

from .command import argument, command, flag, store_flags
from .flags import BOOLEAN
from .indexes import write_index
from .invocation import Invocation
from .storing import (
    CODEC,
    CUTTING,
    LEAST_TO_CUT,
    UPLOADING,
    check_index_target,
    check_not_same,
    chunk_size_flag,
    compression_level_flag,
    size_of,
    start_pool,
    sync_flag,
    writing_options,
)

if TYPE_CHECKING:
    from desync.operations.make import Made


@command(
    "make",
    examples=[
        "desync make -s /path/to/store file.caibx largefile.bin",
        "desync make file.caibx largefile.bin",
        "desync make -m 32:128:512 - largefile.bin > file.caibx",
    ],
)
@argument("index")
@argument("file")
@flag("--store", "-s", help="target store; without one only the index is made")
@chunk_size_flag
@flag("--print-stats", kind=BOOLEAN, help="print how many chunks there are, as JSON, to stderr")
@sync_flag
@compression_level_flag
@store_flags
def make(
    invocation: Invocation,
    index: str,
    file: str,
    store: str | None,
    chunk_size: str,
    print_stats: bool,
    sync: str,
    compression_level: int | None,
) -> None:
    """
    Cut a file into chunks, store those that the store doesn't have, and write the index.

    The index is written last: whoever finds it finds its chunks in the store. "-" writes the index
    to stdout.
    """
    from desync.chunking.sizes import ChunkSizes
    from desync.workers.pool import Pool, pool_size

    sizes = ChunkSizes.parse_kib(chunk_size)
    check_not_same(index, file)
    check_index_target(index)
    options = writing_options(invocation, compression_level)
    files = None
    if store:
        from desync.stores.opening import check_scheme, local_target

        check_scheme(store)
        files = local_target(store, options, invocation.digest, sync_each=sync == "each")
    with Pool(pool_size(invocation.concurrency)) as pool:
        modules: tuple[str, ...] = (CUTTING, CODEC) if store else (CUTTING,)
        if store and files is None:
            modules += (UPLOADING,)
        start_pool(pool, size_of(file), *modules, least=LEAST_TO_CUT)
        from desync.operations.make import make

        digest, progress = invocation.digest, invocation.progress
        is_written = False
        if files is not None or not store:
            made = run(make(file, sizes, digest, pool, progress, files))
        else:
            from .layered import Layered, run_layered

            async def work(session: Layered) -> tuple[Made, bool]:
                target = session.uploads(store, options, index)
                made = await make(file, sizes, digest, session.pool(pool), progress, target)
                return made, target.installs

            made, is_written = run_layered(invocation, work)
    if files is not None and sync != "none":
        files.sync()
    if not is_written:
        write_index(invocation, index, made.index, sync=sync)
    _report(invocation, made, print_stats)


def _report(invocation: Invocation, made: Made, print_stats: bool) -> None:
    invocation.debug(
        f"{made.produced} chunks of {made.index.size} bytes, {made.stored} new to the store,"
        f" which take {made.stored_bytes} bytes there"
    )
    if print_stats:
        from desync import gojson

        # Go desync's words. It counts what its parallel chunkers find and throw away again as
        # produced; nothing is thrown away here.
        stats = {"ChunksAccepted": len(made.index), "ChunksProduced": made.produced}
        invocation.session.say_as_is(gojson.dumps(stats))
