# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync cache``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import UsageError

from .command import argument, command, flag, store_flags
from .flags import STRINGS
from .indexes import read_index
from .invocation import Invocation
from .layered import Layered, run_layered
from .storing import (
    compression_level_flag,
    ignore_flags,
    ignored_ids,
    sync_flag,
    writing_options,
)

if TYPE_CHECKING:
    from desync.operations.cache import Cached


@command(
    "cache",
    examples=[
        "desync cache -s http://192.168.1.1/ -c /path/to/cache file.caibx",
        "desync cache -s /path/to/store -c /other/store --ignore older.caibx a.caibx b.caibx",
    ],
)
@argument("indexes", nargs=-1, required=True, metavar="<index>")
@flag("--store", "-s", kind=STRINGS, help="source store; several are asked in turn")
@flag("--cache", "-c", help="target store that the chunks are copied to")
@ignore_flags
@sync_flag
@compression_level_flag
@store_flags
def cache(
    invocation: Invocation,
    indexes: tuple[str, ...],
    store: list[str],
    cache: str | None,
    ignore: list[str],
    ignore_chunks: list[str],
    sync: str,
    compression_level: int | None,
) -> None:
    """
    Copy the chunks of some indexes from stores to another store, which may be a cache.

    What is there already isn't fetched. "-" reads an index from stdin.
    """
    from desync.operations.prune import needed_by
    from desync.stores.location import parse_location
    from desync.stores.opening import check_scheme, local_source, local_target

    if not store:
        raise UsageError("no source store provided")
    if not cache:
        raise UsageError("no target cache store provided")
    options = writing_options(invocation, compression_level)
    # What is wrong with local ones is found before anything is read or imported.
    local_source(store, invocation.store_options, invocation.digest)
    check_scheme(cache)
    local_target(cache, options, invocation.digest)
    named = [read_index(invocation, index) for index in indexes]
    ids = needed_by(named)
    ignored = ignored_ids(invocation, ignore, ignore_chunks)
    if ignored is not None:
        ids = ids.difference(ignored)

    async def work(session: Layered) -> Cached:
        from desync.operations.cache import Cached
        from desync.operations.cache import cache as copy

        source = session.source(store)
        if parse_location(cache).scheme == "ssh":
            pushed = await session.ssh_uploads(cache, options).copy(
                source, named, ids, invocation.progress
            )
            return Cached(len(ids), pushed.chunks)
        target = session.target(cache, options, sync_each=sync == "each")
        done = await copy(ids, source, target, invocation.progress, invocation.concurrency)
        if sync != "none":
            await session.sync(target)
        return done

    done = run_layered(invocation, work)
    invocation.debug(f"{done.wanted} chunks, {done.copied} new to the target")
