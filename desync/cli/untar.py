# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync untar``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from desync.errors import FileError, UsageError
from desync.running import run

from .archives import begins_as_index
from .command import argument, command, flag, store_flags
from .flags import BOOLEAN, INTEGER, STRINGS, choice
from .indexes import STANDARD, read_index
from .invocation import Invocation
from .packing import chosen_features, feature_flags
from .storing import check_not_same

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.operations.untar import TakesEvents
    from desync.trees.restoring import Shortfall

DISK, GNU_TAR, PAX = "disk", "gnu-tar", "pax"


@command(
    "untar",
    examples=[
        "desync untar archive.catar /some/dir",
        "desync untar -i -s /some/local/store archive.caidx /some/dir",
        "desync untar -i -s /some/local/store --output-format=gnu-tar archive.caidx archive.tar",
    ],
)
@argument("archive")
@argument("target")
@flag("--store", "-s", kind=STRINGS, help="source store for -i; several are asked in turn")
@flag("--cache", "-c", help="store where chunks from the others are kept, and looked for first")
@flag("--index", "-i", kind=BOOLEAN, help="the archive is an index; its chunks are in the stores")
@flag(
    "--output-format",
    kind=choice(DISK, GNU_TAR, PAX),
    default=DISK,
    help="what is written: a directory, a tar file, or one with times to the nanosecond",
)
@flag(
    "--no-same-owner",
    kind=BOOLEAN,
    help="leave out owners, xattrs, access control lists, capabilities and labels",
)
@flag(
    "--no-same-permissions",
    kind=BOOLEAN,
    help="take the umask off the archive's permissions, and leave out set-id bits",
)
@flag(
    "--same-owner", kind=BOOLEAN, help="set owners, and fail where that can't be, also if not root"
)
@flag("--uid-shift", kind=INTEGER, default=0, help="what is added to each uid and gid")
@flag(
    "--uid-range",
    kind=INTEGER,
    default=0,
    minimum=0,
    help="take each uid and gid modulo this before it is shifted",
)
@feature_flags(
    "what is restored, by casync's names, such as unix, permissions or xattrs (default all)",
    "what isn't restored",
)
@flag("--delete", kind=BOOLEAN, help="remove what the target has and the archive doesn't")
@flag(
    "--seed-output",
    kind=BOOLEAN,
    default=True,
    help="look in the target first for chunks that would have to be fetched from elsewhere",
)
@store_flags
def untar(
    invocation: Invocation,
    archive: str,
    target: str,
    store: list[str],
    cache: str | None,
    index: bool,
    output_format: str,
    no_same_owner: bool,
    no_same_permissions: bool,
    same_owner: bool,
    uid_shift: int,
    uid_range: int,
    features: list[str],
    left_features: list[str],
    delete: bool,
    seed_output: bool,
) -> int | None:
    """
    Unpack a directory tree from an archive, or from the index and the chunks of one.

    What the archive has replaces what the target directory has under the same name; other files
    there stay, unless --delete is given. Files whose content is the archive's already are left
    alone. "-" reads the archive or the index from stdin, or writes the tar file to stdout. Symbolic
    links, devices, fifos and sockets that --with and --without leave out are not made.

    Who isn't root gets all files, and a line that says so if they belonged to others. Whatever else
    can't be restored is named, and makes the exit code 1.
    """
    index = index or begins_as_index(archive)
    if index and not store:
        raise UsageError("-i requires at least one store (-s <location>)")
    if not index and (store or cache):
        raise UsageError("--store and --cache need -i")
    if no_same_owner and same_owner:
        raise UsageError("--same-owner and --no-same-owner exclude each other")
    if target == STANDARD and output_format == DISK:
        raise UsageError("a directory can't be written to standard output; see --output-format")
    check_not_same(archive, target)

    from desync.trees.restoring import Restoring, Shortfall
    from desync.trees.writer import TreeWriter

    shortfall = Shortfall(invocation.note)

    def unpack(output: TakesEvents) -> None:
        if index:
            seed = target if seed_output and output_format == DISK else None
            _unpack_index(invocation, archive, store, cache, output, seed)
        else:
            _unpack_archive(invocation, archive, output)

    if output_format != DISK:
        for name, given in (
            ("--delete", delete),
            ("--same-owner", same_owner),
            ("--uid-shift", uid_shift),
            ("--uid-range", uid_range),
            ("--with", features),
            ("--without", left_features),
        ):
            if given:
                raise UsageError(f"{name} works only with --output-format disk")
        _unpack_to_tar(invocation, target, output_format == PAX, shortfall, unpack)
        return None
    restoring = Restoring(
        owner=not no_same_owner,
        permissions=not no_same_permissions,
        chown=same_owner or os.geteuid() == 0,
        uid_shift=uid_shift,
        uid_range=uid_range,
        delete=delete,
        features=chosen_features(features, left_features),
    )
    if delete:
        _check_delete(target)
    with TreeWriter(target, restoring, shortfall) as output:
        unpack(output)
    summary = shortfall.summary()
    if summary is not None:
        invocation.note(summary)
    return 1 if shortfall.failed else None


def _unpack_to_tar(
    invocation: Invocation,
    target: str,
    pax: bool,
    shortfall: Shortfall,
    unpack: Callable[[TakesEvents], None],
) -> None:
    from desync.trees.tar_writing import TarWriter

    if target == STANDARD:
        output = TarWriter(invocation.out.write, shortfall, pax=pax)
        unpack(output)
        output.finish()
        return
    from desync.replace import replacing

    with replacing(target) as out:
        output = TarWriter(out.write, shortfall, pax=pax)
        unpack(output)
        output.finish()


def _check_delete(target: str) -> None:
    from desync.trees.confined import is_mount_root

    try:
        refused = is_mount_root(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise FileError(target, error.strerror or str(error)) from None
    if refused:
        raise UsageError(f"{target}: --delete is refused where a file system is mounted")


def _unpack_archive(invocation: Invocation, archive: str, output: TakesEvents) -> None:
    from desync.operations.untar import untar_archive

    if archive == STANDARD:
        read = invocation.stdin.readinto  # type: ignore[attr-defined]
        untar_archive(read, "standard input", 0, output, invocation.progress)
        return
    try:
        descriptor = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FileError(archive, error.strerror or str(error)) from None
    with open(descriptor, "rb", buffering=0) as file:
        size = os.fstat(descriptor).st_size
        untar_archive(file.readinto, archive, size, output, invocation.progress)


def _unpack_index(
    invocation: Invocation,
    location: str,
    store: list[str],
    cache: str | None,
    output: TakesEvents,
    seed: str | None,
) -> None:
    from desync.operations.untar import untar_index
    from desync.stores.opening import local_source
    from desync.workers.pool import pool_size

    files = local_source(store, invocation.store_options, invocation.digest, cache=cache)
    parsed = read_index(invocation, location)
    progress = invocation.progress
    if files is not None:
        threads = pool_size(invocation.concurrency)
        run(untar_index(parsed, location, files, output, progress, threads))
        return
    from .layered import Layered, run_layered

    async def work(session: Layered) -> None:
        from desync.assembly.fetch import ChunkDownloads

        source = session.source(store, cache)
        if seed is not None:
            from desync.operations.tree_seed import seed_of_tree

            found = await seed_of_tree(seed, parsed, session.in_thread)
            if found is not None:
                from desync.stores.route import Route

                source = Route([found, source])
        downloads = ChunkDownloads(source, session.in_thread, invocation.concurrency)
        await untar_index(parsed, location, downloads, output, progress)

    run_layered(invocation, work)
