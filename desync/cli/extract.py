# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync extract``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import UsageError
from desync.running import run

from .command import argument, command, flag, store_flags
from .flags import BOOLEAN, STRINGS
from .indexes import read_index
from .invocation import Invocation
from .storing import CODEC, check_not_same, start_pool, sync_flag

if TYPE_CHECKING:
    from desync.operations.extract import Extracted


@command(
    "extract",
    examples=[
        "desync extract -s /path/to/store file.caibx largefile.bin",
        "desync extract -s http://192.168.1.1/ -c /path/to/cache file.caibx largefile.bin",
        "desync extract -s /first/store -s /second/store - largefile.bin < file.caibx",
    ],
)
@argument("index")
@argument("output")
@flag("--store", "-s", kind=STRINGS, help="source store; several are asked in turn")
@flag("--cache", "-c", help="store where chunks from the others are kept, and looked for first")
@flag("--seed", kind=STRINGS, help="index of a file that may have chunks in common")
@flag("--seed-dir", kind=STRINGS, help="directory with indexes of such files")
@flag("--skip-invalid-seeds", kind=BOOLEAN, help="do without seeds that aren't what they should be")
@flag("--regenerate-invalid-seeds", kind=BOOLEAN, help="make the index of such a seed anew")
@flag("--in-place", "-k", kind=BOOLEAN, help="change the output file itself, reusing what it has")
@flag("--resume", kind=BOOLEAN, help="keep what an interrupted extract has made, and go on from it")
@flag("--print-stats", kind=BOOLEAN, help="print where the chunks came from, as JSON, to stdout")
@sync_flag
@store_flags
def extract(
    invocation: Invocation,
    index: str,
    output: str,
    store: list[str],
    cache: str | None,
    seed: list[str],
    seed_dir: list[str],
    skip_invalid_seeds: bool,
    regenerate_invalid_seeds: bool,
    in_place: bool,
    resume: bool,
    print_stats: bool,
    sync: str,
) -> None:
    """
    Build a blob from its index and its chunks.

    The output file is replaced once the new one is complete and every chunk was checked. "-" reads
    the index from stdin.
    """
    if skip_invalid_seeds and regenerate_invalid_seeds:
        raise UsageError(
            "is not possible to use at the same time --skip-invalid-seeds and"
            " --regenerate-invalid-seeds"
        )
    for name, given in (
        ("--seed", seed),
        ("--seed-dir", seed_dir),
        ("--skip-invalid-seeds", skip_invalid_seeds),
        ("--regenerate-invalid-seeds", regenerate_invalid_seeds),
        ("--in-place", in_place),
        ("--resume", resume),
    ):
        if given:
            raise UsageError(f"{name} is not supported by this version yet")
    check_not_same(index, output)

    from desync.stores.opening import local_source
    from desync.workers.pool import Pool, pool_size

    files = local_source(store, invocation.store_options, invocation.digest, cache=cache)
    parsed = read_index(invocation, index)
    with Pool(pool_size(invocation.concurrency)) as pool:
        if files is not None:
            start_pool(pool, parsed.size, "desync.jobs.rebuild", CODEC)
        from desync.operations.extract import extract

        progress = invocation.progress
        if files is not None:
            extracted = run(extract(parsed, output, files, pool, progress, sync))
        else:
            from .layered import Layered, run_layered

            async def work(session: Layered) -> Extracted:
                source = session.downloads(store, cache)
                return await extract(parsed, output, source, pool, progress, sync)

            extracted = run_layered(invocation, work)
    if print_stats:
        from desync import gojson

        invocation.print(gojson.dumps(extracted.to_json()))
