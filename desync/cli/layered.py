# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Commands whose stores aren't all plain local directories: with a cache, failover groups, or on
other machines. They run under a reactor, with threads for what blocks.

A command first asks :mod:`desync.stores.opening` for local stores, and comes here if there is more
to it::

    async def work(session: Layered) -> Extracted:
        return await extract(index, output, session.downloads(store, cache), ...)

    extracted = run_layered(invocation, work)
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from desync.errors import DesyncError
from desync.running import import_reactor, run_with_reactor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from twisted.internet.defer import Deferred

    from desync.assembly.fetch import ChunkDownloads
    from desync.assembly.push import SshUploads
    from desync.interfaces import IChunkSource, IChunkTarget
    from desync.operations.upload import ChunkUploads
    from desync.options import StoreOptions
    from desync.stores.threads import StoreThreads
    from desync.trees.uploading import StreamUploads
    from desync.workers.pool import Pool
    from desync.workers.reactor import ReactorPool

    from .invocation import Invocation

_T = TypeVar("_T")


class Layered:
    """
    What a command's work under a reactor is given. Stores that it opens are closed at its end.

    :param invocation: says how stores are used.
    :param reactor: runs by now.
    :param threads: for what blocks.
    """

    def __init__(self, invocation: Invocation, reactor: Any, threads: StoreThreads) -> None:
        self._invocation = invocation
        self._reactor = reactor
        self._threads = threads
        self._opened: list[IChunkSource] = []

    @property
    def reactor(self) -> Any:
        """What runs it."""
        return self._reactor

    def in_thread(self, function: Callable[..., _T], *args: Any) -> Deferred[_T]:
        """Call a function where it may block."""
        return self._threads.run(function, *args)

    def source(self, locations: Sequence[str], cache: str | None = None) -> IChunkSource:
        """Open stores to read from. See :func:`desync.stores.opening.open_source`."""
        from desync.stores.opening import open_source

        invocation = self._invocation
        source = open_source(
            locations,
            invocation.store_options,
            self._reactor,
            invocation.digest,
            cache=cache,
            cache_repair=invocation.store_flags.cache_repair,
        )
        self._opened.append(source)
        return source

    def target(
        self,
        location: str,
        options: Callable[[str], StoreOptions] | None = None,
        *,
        sync_each: bool = False,
    ) -> IChunkTarget:
        """Open a store to write to. See :func:`desync.stores.opening.open_target`."""
        from desync.stores.opening import open_target

        invocation = self._invocation
        options = options or invocation.store_options
        target = open_target(
            location, options, self._reactor, invocation.digest, sync_each=sync_each
        )
        self._opened.append(target)
        return target

    def downloads(self, locations: Sequence[str], cache: str | None = None) -> ChunkDownloads:
        """Open stores to rebuild a file from."""
        from desync.assembly.fetch import ChunkDownloads

        source = self.source(locations, cache)
        return ChunkDownloads(source, self._threads.run, self._invocation.concurrency)

    def uploads(
        self,
        location: str,
        options: Callable[[str], StoreOptions] | None = None,
        index: str | None = None,
    ) -> ChunkUploads | SshUploads:
        """
        Open a store to put the chunks of a file into.

        :param index: where the file's index is to go.
        """
        from desync.formats.stored import form_named
        from desync.operations.upload import ChunkUploads
        from desync.stores.location import parse_location

        if parse_location(location).scheme == "ssh":
            return self.ssh_uploads(location, options, index)
        target = self.target(location, options)
        said = (options or self._invocation.store_options)(location)
        extension = "" if said.uncompressed else ".cacnk"
        form = form_named(extension, said.compression_level)
        return ChunkUploads(target, self._invocation.concurrency, form)

    def ssh_uploads(
        self,
        location: str,
        options: Callable[[str], StoreOptions] | None = None,
        index: str | None = None,
    ) -> SshUploads:
        """
        Open a store over SSH to put chunks into. See :class:`desync.assembly.push.SshUploads`.
        """
        from desync.assembly.push import SshUploads
        from desync.stores.location import parse_location

        invocation = self._invocation
        return SshUploads(
            parse_location(location),
            (options or invocation.store_options)(location),
            invocation.digest,
            self._reactor,
            self._threads.run,
            invocation.note,
            index,
        )

    def stream_uploads(
        self, location: str, options: Callable[[str], StoreOptions] | None = None
    ) -> StreamUploads:
        """Open a store to put the chunks of a stream into."""
        from desync.trees.uploading import StreamUploads

        target = self.target(location, options)
        return StreamUploads(target, self._threads.run, self._invocation.concurrency)

    def pool(self, pool: Pool) -> ReactorPool:
        """Join the workers to the reactor."""
        from desync.workers.reactor import ReactorPool

        return ReactorPool(pool, self._reactor)

    async def sync(self, target: IChunkTarget) -> None:
        """Make what was written to a store last, if it is a local one."""
        from desync.interfaces import ILocalFiles

        local = ILocalFiles(target, None)
        for files in local.local_files() if local is not None else ():
            await self._threads.run(files.sync)

    async def close(self) -> None:
        """Close what was opened, also if closing something else fails."""
        from twisted.internet.defer import gatherResults

        closing = [store.close() for store in self._opened]
        closing.append(self._threads.stop())
        await gatherResults(closing, consumeErrors=True)


def run_layered(
    invocation: Invocation, work: Callable[[Layered], Coroutine[Deferred[Any], Any, _T]]
) -> _T:
    """
    Complete a command's work under a reactor, which can be done once in a process.

    :raises: what the work raised; Interrupted if a signal ended it.
    """

    async def operation(reactor: Any) -> _T:
        from desync.chunking import kernels
        from desync.stores.threads import StoreThreads

        with suppress(DesyncError):  # kernels that aren't there: whoever needs them says so
            kernels.keep_memory()
        session = Layered(invocation, reactor, StoreThreads(reactor))
        try:
            return await work(session)
        finally:
            await session.close()

    import_reactor()
    return run_with_reactor(operation)
