# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync mount``."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from desync.errors import DesyncError, FileError, UsageError

from .archives import begins_as_index
from .command import argument, command, flag, store_flags
from .flags import BOOLEAN, STRINGS
from .indexes import read_index
from .invocation import Invocation
from .mount_index import supply_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.formats.index import Index
    from desync.mounting.archive_tree import Stream
    from desync.mounting.mount import MountPoint
    from desync.mounting.supply import Supply
    from desync.stores.local_files import LocalFiles

    from .layered import Layered


@command(
    "mount",
    examples=[
        "desync mount archive.catar /mnt/tree",
        "desync mount -i -s /path/to/store archive.caidx /mnt/tree",
        "desync mount -i -s http://192.168.1.1/ -c /path/to/cache archive.caidx /mnt/tree",
    ],
)
@argument("archive")
@argument("mountpoint")
@flag("--store", "-s", kind=STRINGS, help="source store for -i; several are asked in turn")
@flag("--cache", "-c", help="store where chunks from the others are kept, and looked for first")
@flag("--store-file", help="JSON file that names stores and cache; read again on SIGHUP")
@flag("--index", "-i", kind=BOOLEAN, help="the archive is an index; its chunks are in the stores")
@store_flags
def mount(
    invocation: Invocation,
    archive: str,
    mountpoint: str,
    store: list[str],
    cache: str | None,
    store_file: str | None,
    index: bool,
) -> None:
    """
    Mount the tree in an archive, or in the index and the chunks of one, to be read.

    Only what is looked at is fetched. Modes, owners, times, links and extended attributes are the
    archive's; devices are shown, and can't be used. It is mounted until SIGINT or SIGTERM, or until
    somebody unmounts it.
    """
    index = index or begins_as_index(archive)
    if index and not store and store_file is None:
        raise UsageError("-i requires at least one store (-s <location>)")
    if not index and (store or cache or store_file is not None):
        raise UsageError("--store, --cache and --store-file need -i")
    if store_file is not None and (store or cache is not None):
        raise UsageError("--store and --cache can't be used together with --store-file")

    from desync.chunking import kernels
    from desync.mounting import libfuse
    from desync.mounting.mount import check_mountpoint

    from .layered import run_layered

    files: tuple[LocalFiles, ...] | None = None
    parsed: Index | None = None
    if index:
        from desync.stores.opening import local_source

        if store_file is None:
            files = local_source(store, invocation.store_options, invocation.digest, cache=cache)
        parsed = read_index(invocation, archive)
    libfuse.load()
    place = check_mountpoint(mountpoint)
    kernels.keep_memory()

    async def work(session: Layered) -> DesyncError | None:
        try:
            if parsed is None:
                await _mount_file(invocation, session, archive, place)
            else:
                opened = supply_of(session, invocation, files, store, cache, store_file)
                await _mount_index(invocation, session, archive, parsed, opened, place)
        except DesyncError as error:
            # A signal is how it ends normally: what then goes wrong is more than "interrupted".
            return error
        return None

    wrong = run_layered(invocation, work)
    if wrong is not None:
        raise wrong


async def _mount_file(
    invocation: Invocation, session: Layered, archive: str, place: MountPoint
) -> None:
    from desync.mounting.archive_tree import ArchiveFile

    try:
        descriptor = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FileError(archive, error.strerror or str(error)) from None
    try:
        await _mount(invocation, session, ArchiveFile(descriptor), archive, place, lambda: None)
    finally:
        os.close(descriptor)


async def _mount_index(
    invocation: Invocation,
    session: Layered,
    archive: str,
    index: Index,
    opened: tuple[Supply, Callable[[], object]],
    place: MountPoint,
) -> None:
    from desync.mounting.blob import Blob
    from desync.stores.reloading import on_hangup

    supply, read_again = opened
    blob = Blob(index, supply, _say(invocation, session))
    undo = on_hangup(session.reactor, read_again)
    try:
        await _mount(invocation, session, blob, archive, place, blob.stop)
    finally:
        undo()


async def _mount(
    invocation: Invocation,
    session: Layered,
    stream: Stream,
    archive: str,
    place: MountPoint,
    stop: Callable[[], object],
) -> None:
    from desync.mounting.archive_tree import ArchiveTree
    from desync.operations.mount_tree import mount_tree

    def open_tree() -> ArchiveTree:
        # The root is read here, from stores perhaps that need the reactor meanwhile.
        return ArchiveTree(stream, archive, _say(invocation, session))

    try:
        tree = await session.in_thread(open_tree)
    except OSError as error:
        raise FileError(archive, error.strerror or str(error)) from None
    except BaseException:
        stop()
        raise
    began = partial(invocation.debug, f"mounted on {place.path}")
    await mount_tree(tree, place, session.reactor, stop, began)


def _say(invocation: Invocation, session: Layered) -> Callable[[str], object]:
    def say(text: str) -> None:
        session.reactor.callFromThread(invocation.session.say, text)

    return say
