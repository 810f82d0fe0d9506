# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync cat``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.running import run

from .command import argument, command, flag, store_flags
from .flags import INTEGER, STRINGS
from .indexes import read_index
from .invocation import Invocation
from .storing import check_not_same, progress_beside_output, sync_flag

if TYPE_CHECKING:
    from collections.abc import Callable


@command(
    "cat",
    examples=[
        "desync cat -s /path/to/store file.caibx | sha256sum",
        "desync cat -s /path/to/store -o 1048576 -l 512 file.caibx part.bin",
    ],
)
@argument("index")
@argument("output", required=False)
@flag("--store", "-s", kind=STRINGS, help="source store; several are asked in turn")
@flag("--cache", "-c", help="store where chunks from the others are kept, and looked for first")
@flag("--offset", "-o", kind=INTEGER, default=0, help="where in the blob to begin, in bytes")
@flag("--length", "-l", kind=INTEGER, default=0, help="how many bytes; 0 is all that follow")
@sync_flag
@store_flags
def cat(
    invocation: Invocation,
    index: str,
    output: str | None,
    store: list[str],
    cache: str | None,
    offset: int,
    length: int,
    sync: str,
) -> None:
    """
    Stream a blob, or a part of it, to stdout or into a file.

    A file is replaced once the new one is complete. "-" reads the index from stdin.
    """
    from desync.stores.opening import local_source

    if output is not None:
        check_not_same(index, output)
    files = local_source(store, invocation.store_options, invocation.digest, cache=cache)
    parsed = read_index(invocation, index)
    from desync.operations.cat import cat
    from desync.workers.pool import pool_size

    progress = invocation.progress if output else progress_beside_output(invocation)

    def stream(write: Callable[[memoryview], object]) -> None:
        if files is not None:
            threads = pool_size(invocation.concurrency)
            run(cat(parsed, files, write, progress, offset, length, threads))
            return
        from .layered import Layered, run_layered

        async def work(session: Layered) -> None:
            source = session.downloads(store, cache)
            await cat(parsed, source, write, progress, offset, length)

        run_layered(invocation, work)

    if output is None:
        stream(invocation.out.write)
        return
    from desync.replace import replacing

    with replacing(output, sync=sync) as out:
        stream(out.write)
