# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync tar``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from desync.errors import UsageError
from desync.running import run

from .command import argument, command, flag, store_flags
from .flags import BOOLEAN
from .indexes import STANDARD, write_index
from .invocation import Invocation
from .packing import packing_flags, packing_of
from .storing import (
    check_index_target,
    chunk_size_flag,
    compression_level_flag,
    sync_flag,
    writing_options,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from desync.operations.tar import Packed
    from desync.trees.content import Piece


@command(
    "tar",
    examples=[
        "desync tar archive.catar /path/to/dir",
        "desync tar -i -s /path/to/store archive.caidx /path/to/dir",
        "desync tar --with best archive.catar /path/to/dir",
    ],
)
@argument("archive")
@argument("source")
@flag("--store", "-s", help="target store, with -i")
@flag("--index", "-i", kind=BOOLEAN, help="write an index, and store the archive's chunks")
@packing_flags
@chunk_size_flag
@sync_flag
@compression_level_flag
@store_flags
def tar(
    invocation: Invocation,
    archive: str,
    source: str,
    store: str | None,
    index: bool,
    chunk_size: str,
    sync: str,
    compression_level: int | None,
    **flags: Any,
) -> None:
    """
    Pack a directory tree into an archive, or with -i into an index and a store.

    An archive is what Go desync would write, unless --with or --without say what is recorded: then
    it is what casync would write. "-" writes it to stdout. If something can't be read, or changes
    meanwhile, there is no archive.
    """
    packing = packing_of(invocation, flags)
    if index and not store:
        raise UsageError("-i requires a store (-s <location>)")
    from desync.operations.tar import pack

    def skipped(path: bytes, why: str) -> None:
        invocation.note(f"skipping '{os.fsdecode(path)}' : {why}")

    root = os.fsencode(source)
    if index:
        assert store is not None
        check_index_target(archive)
        pieces = pack(root, packing, skipped)
        packed = _store(
            invocation, pieces, packing.flags, store, chunk_size, sync, compression_level
        )
        write_index(invocation, archive, packed.caidx, sync=sync)
        invocation.debug(
            f"{len(packed.caidx)} chunks of {packed.caidx.size} bytes, {packed.stored} new to the"
            f" store, which take {packed.stored_bytes} bytes there"
        )
        return
    from desync.trees.content import copy_pieces

    if archive == STANDARD:
        copy_pieces(pack(root, packing, skipped), invocation.out.write)
        return
    from desync.replace import replacing

    with replacing(archive, sync=sync) as out:
        found = os.fstat(out.fileno())
        copy_pieces(pack(root, packing, skipped, (found.st_dev, found.st_ino)), out.write)


def _store(
    invocation: Invocation,
    pieces: Iterable[Piece],
    flags: int,
    store: str,
    chunk_size: str,
    sync: str,
    compression_level: int | None,
) -> Packed:
    """Cut an archive into chunks and put those into a store of any kind."""
    from desync.chunking.sizes import ChunkSizes
    from desync.operations.tar import store_archive
    from desync.stores.opening import check_scheme, local_target
    from desync.workers.pool import Pool, pool_size

    sizes = ChunkSizes.parse_kib(chunk_size)
    options = writing_options(invocation, compression_level)
    digest, progress = invocation.digest, invocation.progress
    check_scheme(store)
    files = local_target(store, options, digest, sync_each=sync == "each")
    with Pool(pool_size(invocation.concurrency)) as pool:
        if files is not None:
            packed = run(store_archive(pieces, flags, sizes, digest, pool, progress, files))
            if sync != "none":
                files.sync()
            return packed
        from .layered import Layered, run_layered

        async def work(session: Layered) -> Packed:
            target = session.stream_uploads(store, options)
            return await store_archive(pieces, flags, sizes, digest, pool, progress, target)

        return run_layered(invocation, work)
