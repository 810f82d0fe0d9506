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
from .streams import printable

if TYPE_CHECKING:
    from desync.assembly.plan import Plan
    from desync.formats.index import Index
    from desync.operations.extract import Extracted
    from desync.operations.seeds import Seed


@command(
    "extract",
    examples=[
        "desync extract -s /path/to/store file.caibx largefile.bin",
        "desync extract -s http://192.168.1.1/ -c /path/to/cache file.caibx largefile.bin",
        "desync extract -s /path/to/store --seed v1.img.caibx v2.img.caibx v2.img",
        "desync extract -s http://192.168.1.1/ -k image.caibx /dev/sdc",
        "desync extract -s /first/store -s /second/store - largefile.bin < file.caibx",
    ],
)
@argument("index")
@argument("output")
@flag("--store", "-s", kind=STRINGS, help="source store; several are asked in turn")
@flag("--cache", "-c", help="store where chunks from the others are kept, and looked for first")
@flag(
    "--seed",
    kind=STRINGS,
    help="file that may have chunks in common: its index FILE.caibx, INDEX:DATA, or the file alone",
)
@flag("--seed-dir", kind=STRINGS, help="directory with indexes, and beside them such files")
@flag(
    "--seed-output", kind=BOOLEAN, default=True, help="take what the old output file has, as well"
)
@flag(
    "--skip-invalid-seeds",
    kind=BOOLEAN,
    help="do without seeds that aren't what their indexes say (the default)",
)
@flag("--regenerate-invalid-seeds", kind=BOOLEAN, help="find out what such seeds have instead")
@flag("--strict-seeds", kind=BOOLEAN, help="fail if there is such a seed")
@flag("--in-place", "-k", kind=BOOLEAN, help="change the output file itself, keeping what it has")
@flag(
    "--resume", kind=BOOLEAN, help="go on from where an interrupted extract with this flag got to"
)
@flag("--dry-run", kind=BOOLEAN, help="only print what would come from where")
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
    seed_output: bool,
    skip_invalid_seeds: bool,
    regenerate_invalid_seeds: bool,
    strict_seeds: bool,
    in_place: bool,
    resume: bool,
    dry_run: bool,
    print_stats: bool,
    sync: str,
) -> None:
    """
    Build a blob from its index and its chunks.

    The output file is replaced once the new one is complete and every chunk was checked; with -k it
    is changed itself, and can be a block device. What comes from a seed is checked too, and fetched
    from a store if it is wrong. "-" reads the index from stdin.
    """
    if skip_invalid_seeds and regenerate_invalid_seeds:
        raise UsageError(
            "is not possible to use at the same time --skip-invalid-seeds and"
            " --regenerate-invalid-seeds"
        )
    if strict_seeds and (skip_invalid_seeds or regenerate_invalid_seeds):
        raise UsageError("--strict-seeds is the opposite of the other flags for invalid seeds")
    check_not_same(index, output)

    from desync.stores.opening import local_source
    from desync.workers.pool import Pool, pool_size

    files = local_source(store, invocation.store_options, invocation.digest, cache=cache)
    parsed = read_index(invocation, index)
    with Pool(pool_size(invocation.concurrency)) as pool:
        if files is not None and not _looks_uniform(parsed):
            start_pool(pool, parsed.size, "desync.jobs.rebuild_worker", CODEC)
        from desync.operations import extract as operation

        progress = invocation.progress
        seeds = _seeds(invocation, index, seed, seed_dir)
        manner = operation.Manner(
            in_place=in_place,
            resume=resume,
            seed_output=seed_output,
            invalid_seeds=(
                operation.REGENERATE
                if regenerate_invalid_seeds
                else operation.REFUSE
                if strict_seeds
                else operation.SKIP
            ),
        )
        how = (seeds, manner, invocation.note)
        if dry_run:
            rehearsal = operation.rehearse(parsed, output, pool, progress, *how, files is None)
            plan, names = run(rehearsal)
            show_plan(invocation, plan, names)
            return
        if files is not None:
            extracted = run(operation.extract(parsed, output, files, pool, progress, sync, *how))
        else:
            from .layered import Layered, run_layered

            async def work(session: Layered) -> Extracted:
                source = session.downloads(store, cache)
                workers = session.pool(pool)
                return await operation.extract(
                    parsed, output, source, workers, progress, sync, *how
                )

            extracted = run_layered(invocation, work)
    if print_stats:
        from desync import gojson

        invocation.print(gojson.dumps(extracted.to_json()))


def _looks_uniform(index: Index) -> bool:
    """Tell whether all chunks seem to be the same, so that there is next to nothing to be done."""
    places = {0, len(index) // 3, len(index) // 2, max(0, len(index) - 2)}
    return not len(index) or len({index.id(position) for position in places}) == 1


def _seeds(
    invocation: Invocation, index: str, seeds: list[str], directories: list[str]
) -> list[Seed]:
    if not seeds and not directories:
        return []
    from .seeding import read_seeds

    return read_seeds(invocation, index, seeds, directories)


def show_plan(invocation: Invocation, plan: Plan, seeds: list[str]) -> None:
    """
    Print a plan: a line for each range of the output (where it begins, how long it is, what it
    comes from, and where it is there), and then what all that adds up to.
    """
    names = {"fetch": "store", "null": "zeros", "kept": "in place", "copy": "output"}
    for part in plan.parts():
        origin = printable(seeds[part.seed]) if part.kind == "seed" else names[part.kind]
        line = f"{part.start}\t{part.length}\t{origin}"
        if part.kind in ("seed", "copy"):
            line += f"\t{part.source}"
        invocation.print(line)
    totals = plan.totals
    for what, chunks, size in (
        ("to fetch", totals.fetched_chunks, totals.fetched_bytes),
        ("from seeds", totals.seeded_chunks, totals.seeded_bytes),
        ("kept in place", totals.kept_chunks, totals.kept_bytes),
        ("repeated", totals.copied_chunks, totals.copied_bytes),
        ("zeros", totals.null_chunks, totals.null_bytes),
    ):
        invocation.print(f"{what}: {size} bytes in {chunks} chunks")
