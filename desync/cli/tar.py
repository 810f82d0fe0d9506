# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync tar``."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from desync.errors import UsageError
from desync.running import run

from .command import argument, command, flag, store_flags
from .flags import BOOLEAN, UNSIGNED, choice
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
    from collections.abc import Callable, Iterable

    from desync.chunking.sizes import ChunkSizes
    from desync.operations.tar import Packed, Packing
    from desync.options import StoreOptions
    from desync.trees.content import Piece

DISK, TAR = "disk", "tar"


@command(
    "tar",
    examples=[
        "desync tar archive.catar /path/to/dir",
        "desync tar -i -s /path/to/store archive.caidx /path/to/dir",
        "desync tar --with best archive.catar /path/to/dir",
        "tar -C /path/to/dir -c . | desync tar --input-format tar archive.catar -",
    ],
)
@argument("archive")
@argument("source")
@flag("--store", "-s", help="target store, with -i")
@flag("--index", "-i", kind=BOOLEAN, help="write an index, and store the archive's chunks")
@flag(
    "--input-format",
    kind=choice(DISK, TAR),
    default=DISK,
    help="what the source is: a directory, or a tar file (- for stdin)",
)
@flag(
    "--tar-add-root",
    kind=BOOLEAN,
    help="add a root directory to a tar stream that has no entry for it",
)
@flag(
    "--spool-limit",
    kind=UNSIGNED,
    default=256,
    help="MiB of files from a pipe that are kept in a temporary file for hard links to them",
)
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
    input_format: str,
    tar_add_root: bool,
    spool_limit: int,
    **flags: Any,
) -> None:
    """
    Pack a directory tree into an archive, or with -i into an index and a store.

    An archive is what Go desync would write, unless --with or --without say what is recorded: then
    it is what casync would write. "-" writes it to stdout. If something can't be read, or changes
    meanwhile, there is no archive.

    With --input-format tar the tree is that of a tar file, whose order is kept. Archives know no
    hard links: they become files of their own.
    """
    if tar_add_root and input_format != TAR:
        raise UsageError("--tar-add-root works only with --input-format tar")
    packing = packing_of(invocation, flags)
    if index and not store:
        raise UsageError("-i requires a store (-s <location>)")
    with contextlib.ExitStack() as closing:
        pieces = _pieces_of(
            invocation, closing, source, packing, input_format, tar_add_root, spool_limit
        )
        if index:
            from desync.chunking.sizes import ChunkSizes
            from desync.stores.location import parse_location
            from desync.stores.opening import check_scheme

            assert store is not None
            check_index_target(archive)
            if input_format == DISK:
                _check_outside(store, source)
            options = writing_options(invocation, compression_level)
            sizes = ChunkSizes.parse_kib(chunk_size)
            check_scheme(store)
            if parse_location(store).scheme == "ssh":
                _check_rereadable(source, input_format)
                packed, is_written = _push(
                    invocation,
                    lambda: pieces(None),
                    source,
                    packing.flags,
                    sizes,
                    store,
                    options,
                    archive,
                )
            else:
                packed = _store(
                    invocation, pieces(None), packing.flags, sizes, store, options, sync
                )
                is_written = False
            if not is_written:
                write_index(invocation, archive, packed.caidx, sync=sync)
            invocation.debug(
                f"{len(packed.caidx)} chunks of {packed.caidx.size} bytes, {packed.stored} new to"
                f" the store, which take {packed.stored_bytes} bytes there"
            )
            return
        from desync.trees.content import copy_pieces

        if archive == STANDARD:
            copy_pieces(pieces(None), invocation.out.write)
            return
        from desync.replace import replacing

        with replacing(archive, sync=sync) as out:
            found = os.fstat(out.fileno())
            copy_pieces(pieces((found.st_dev, found.st_ino)), out.write)


def _pieces_of(
    invocation: Invocation,
    closing: contextlib.ExitStack,
    source: str,
    packing: Packing,
    input_format: str,
    add_root: bool,
    spool_limit: int,
) -> Callable[[tuple[int, int] | None], Iterable[Piece]]:
    """
    Give what makes the archive, for whoever says which file that is written to.

    :param closing: closes what is opened.
    """

    times = 0

    def skipped(path: bytes, why: str) -> None:
        if times == 1:  # once is enough
            invocation.note(f"skipping '{os.fsdecode(path)}' : {why}")

    def pieces(output: tuple[int, int] | None) -> Iterable[Piece]:
        nonlocal times
        times += 1
        if input_format == TAR:
            from desync.operations.tar_input import pack_tar

            from .tar_streams import tar_members

            members = closing.enter_context(tar_members(invocation, source))
            limit = spool_limit << 20
            return pack_tar(members, packing, skipped, add_root=add_root, spool_limit=limit)
        from desync.operations.tar import pack

        return pack(os.fsencode(source), packing, skipped, output)

    return pieces


def _check_outside(store: str, tree: str) -> None:
    """
    Make sure that a store isn't in the tree that is packed into it, where it would change under the
    reader's eyes.

    :raises UsageError: if it is.
    """
    from desync.stores.location import parse_location

    if not parse_location(store).is_local:
        return
    root = os.path.realpath(tree)
    if os.path.commonpath((root, os.path.realpath(store))) == root:
        raise UsageError(f"{store}: the store is in the directory that is to be packed")


def _store(
    invocation: Invocation,
    pieces: Iterable[Piece],
    flags: int,
    sizes: ChunkSizes,
    store: str,
    options: Callable[[str], StoreOptions],
    sync: str,
) -> Packed:
    """Cut an archive into chunks and put those into a store of any kind but over ssh."""
    from desync.operations.tar import store_archive
    from desync.stores.opening import local_target
    from desync.workers.pool import Pool, pool_size

    digest, progress = invocation.digest, invocation.progress
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


def _check_rereadable(source: str, input_format: str) -> None:
    """
    Make sure that an archive can be made twice, as it takes to push it over ssh.

    :raises UsageError: if it can't.
    """
    if input_format == TAR and not os.path.isfile(source):
        raise UsageError(
            f"{source}: a tar stream has to be a file to go to a store over ssh: it is read twice"
        )


def _push(
    invocation: Invocation,
    pieces: Callable[[], Iterable[Piece]],
    source: str,
    flags: int,
    sizes: ChunkSizes,
    store: str,
    options: Callable[[str], StoreOptions],
    archive: str,
) -> tuple[Packed, bool]:
    """
    Cut an archive into chunks and push those to a store over ssh.

    :returns: what it was packed into, and whether its index is where it is to go.
    """
    from desync.operations.tar_push import push_archive

    from .layered import Layered, run_layered

    async def work(session: Layered) -> tuple[Packed, bool]:
        uploads = session.ssh_uploads(store, options, archive)
        packed = await push_archive(
            pieces,
            source,
            flags,
            sizes,
            invocation.digest,
            session.in_thread,
            invocation.progress,
            uploads,
        )
        return packed, uploads.installs

    return run_layered(invocation, work)
