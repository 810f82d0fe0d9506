# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync mount-index``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from desync.errors import DesyncError, UsageError

from .command import argument, command, flag, waiting_store_flags
from .flags import INTEGER, STRINGS
from .indexes import STANDARD, is_local_index, read_index
from .invocation import Invocation
from .storing import check_not_same

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.interfaces import IChunkSource
    from desync.mounting.supply import Supply
    from desync.stores.local_files import LocalFiles
    from desync.stores.reloading import StoreFile

    from .layered import Layered


@command(
    "mount-index",
    examples=[
        "desync mount-index -s /path/to/store file.caibx /mnt/blob",
        "desync mount-index -s http://192.168.1.1/ -c /path/to/cache file.caibx /mnt/blob",
        "desync mount-index --store-file stores.json file.caibx /mnt/blob",
        "desync mount-index -s http://192.168.1.1/ --cor-file /var/tmp/blob.cor"
        " --cor-state-save /var/tmp/blob.state file.caibx /mnt/blob",
    ],
)
@argument("index")
@argument("mountpoint")
@flag("--store", "-s", kind=STRINGS, help="source store; several are asked in turn")
@flag("--cache", "-c", help="store where chunks from the others are kept, and looked for first")
@flag("--store-file", help="JSON file that names stores and cache; read again on SIGHUP")
@flag("--cor-file", help="file where chunks that were read are kept, each in its place")
@flag("--cor-state-save", help="where to save which chunks that file has, at the end and on SIGHUP")
@flag("--cor-state-init", help="saved state whose chunks are read into a new file at once")
@flag("--cor-init-n", kind=INTEGER, default=10, minimum=1, help="how many of them at a time")
@waiting_store_flags
def mount_index(
    invocation: Invocation,
    index: str,
    mountpoint: str,
    store: list[str],
    cache: str | None,
    store_file: str | None,
    cor_file: str | None,
    cor_state_save: str | None,
    cor_state_init: str | None,
    cor_init_n: int,
) -> None:
    """
    Mount the blob of an index as a file that can be read.

    The file has the name of the index without its extension. "-" reads the index from stdin. It is
    mounted until SIGINT or SIGTERM, or until somebody unmounts it. Use extract to have all of a
    blob, which is faster.

    Only root can have the kernel read far ahead, which makes reading in order faster.
    """
    if store_file is not None:
        if store:
            raise UsageError("--store and --store-file can't be used together")
        if cache is not None:
            raise UsageError("--cache and --store-file can't be used together")
    if cor_file is None and (cor_state_save is not None or cor_state_init is not None):
        raise UsageError("--cor-state-save and --cor-state-init need --cor-file")
    if cor_file is not None:
        check_not_same(index, cor_file)
        if cor_state_save is not None and _are_same(cor_file, cor_state_save):
            raise UsageError("--cor-file and --cor-state-save name the same file")

    from desync.stores.opening import local_source

    files: tuple[LocalFiles, ...] | None = None
    if store_file is None:
        files = local_source(store, invocation.store_options, invocation.digest, cache=cache)
    parsed = read_index(invocation, index)

    from desync.chunking import kernels
    from desync.mounting import libfuse
    from desync.mounting.mount import check_mountpoint
    from desync.operations.mount_index import Keeping, MountedIndex

    libfuse.load()
    place = check_mountpoint(mountpoint)
    keeping = None
    if cor_file is not None:
        keeping = Keeping(cor_file, cor_state_save, cor_state_init, cor_init_n)
    kernels.keep_memory()

    from .layered import run_layered

    async def work(session: Layered) -> DesyncError | None:
        reactor = session.reactor

        def say(text: str) -> None:
            reactor.callFromThread(invocation.session.say, text)

        supply, read_again = supply_of(session, invocation, files, store, cache, store_file)
        mounted = MountedIndex(parsed, name_of(index), place, supply, reactor, say, keeping=keeping)

        def hang_up() -> None:
            read_again()
            saving = session.in_thread(mounted.save_state)
            saving.addErrback(lambda why: invocation.session.say(f"Error: {why.value}"))

        from desync.stores.reloading import on_hangup

        undo = on_hangup(reactor, hang_up)
        try:
            await mounted.run(lambda: invocation.debug(f"mounted on {mountpoint}"))
        except DesyncError as error:
            # A signal is how it ends normally: what then goes wrong is more than "interrupted".
            return error
        finally:
            undo()
        return None

    wrong = run_layered(invocation, work)
    if wrong is not None:
        raise wrong


def supply_of(
    session: Layered,
    invocation: Invocation,
    files: tuple[LocalFiles, ...] | None,
    locations: list[str],
    cache: str | None,
    store_file: str | None,
) -> tuple[Supply, Callable[[], object]]:
    """Open what chunks come from, and give what reads its store file again, if it has one."""
    from desync.mounting.remote_supply import RemoteSupply
    from desync.mounting.supply import LocalSupply
    from desync.workers.pool import pool_size

    if files is not None:
        threads = pool_size(invocation.concurrency)
        return LocalSupply(files, invocation.digest, threads), lambda: None
    if store_file is None:
        source = session.source(locations, cache)
        return RemoteSupply(source, session.reactor, session.in_thread), lambda: None

    from desync.stores.reloading import Reloading, StoreFileReader, read_store_file
    from desync.stores.single_flight import SingleFlight

    def stack(content: StoreFile) -> IChunkSource:
        # Also makes it a store that can only be read, whichever it is: any may take its place.
        return SingleFlight(session.source(content.stores, content.cache))

    def report(line: str) -> None:
        if line.startswith("reloaded"):
            invocation.note(line)
        else:
            invocation.session.say(line)

    reloading = Reloading(stack(read_store_file(store_file)))
    reader = StoreFileReader(store_file, stack, reloading, report)
    return RemoteSupply(reloading, session.reactor, session.in_thread), reader.read_again


def _are_same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def name_of(index: str) -> str:
    """Name the file that is mounted: as the index, without its extension."""
    if index == STANDARD:
        return STANDARD
    base = os.path.basename(index if is_local_index(index) else urlsplit(index).path)
    return os.path.splitext(base)[0] or base
