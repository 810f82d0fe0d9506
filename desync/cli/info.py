# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync info``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import FileError, UsageError
from desync.running import run

from .command import argument, command, flag, store_flags
from .flags import STRINGS, Kind
from .indexes import read_index
from .invocation import Invocation

if TYPE_CHECKING:
    from desync.formats.chunk_sizes import KnownSizes
    from desync.operations.info import Info


def _parse_format(text: str) -> str:
    if text not in ("json", "plain"):
        raise UsageError(f'unsupported output format "{text}"')
    return text


@command(
    "info",
    examples=[
        "desync info file.caibx",
        "desync info -f plain -s /path/to/store --seed older.caibx file.caibx",
        "desync info -c /path/to/cache --chunks-info chunks.json file.caibx",
    ],
)
@argument("index")
@flag("--store", "-s", kind=STRINGS, help="store to look for the chunks in, or several")
@flag("--seed", kind=STRINGS, help="index of a file that is there already")
@flag("--cache", "-c", help="store with chunks that needn't be fetched")
@flag(
    "--format",
    "-f",
    kind=Kind("json|plain", _parse_format, choices=("json", "plain")),
    default="json",
    help="how the figures are printed",
)
@flag("--chunks-info", help="what inspect-chunks wrote: tells how large compressed chunks are")
@store_flags
def info(
    invocation: Invocation,
    index: str,
    store: list[str],
    seed: list[str],
    cache: str | None,
    format: str,
    chunks_info: str | None,
) -> None:
    """
    Show how many chunks an index has, and how many of them are where already.

    All figures but the first and the blob's size count a chunk that occurs several times once. "-"
    reads the index from stdin.
    """
    from desync.operations.info import info
    from desync.stores.opening import local_source, local_target

    files = local_source(store, invocation.store_options, invocation.digest) if store else ()
    cached = None
    if cache:
        cached = local_target(cache, invocation.store_options, invocation.digest, writing=False)
    parsed = read_index(invocation, index)
    sizes = _read_sizes(chunks_info) if chunks_info else None
    seeds = (read_index(invocation, each) for each in seed)
    rest = (sizes, chunks_info or "", invocation.note)
    if files is not None and (cached is not None or not cache):
        found = run(info(parsed, seeds, files, cached, *rest))
    else:
        from .layered import Layered, run_layered

        async def work(session: Layered) -> Info:
            from desync.interfaces import IBatch

            source = IBatch(session.source(store)) if store else ()
            near = IBatch(session.target(cache)) if cache else None
            return await info(parsed, seeds, source, near, *rest)

        found = run_layered(invocation, work)
    if format == "plain":
        invocation.out.write(found.to_plain().encode("ascii"))
    else:
        from desync import gojson

        invocation.print(gojson.dumps(found.to_json()))


def _read_sizes(path: str) -> KnownSizes:
    from desync.formats.chunk_sizes import read_sizes

    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return read_sizes(file, path)
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
