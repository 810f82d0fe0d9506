# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Writing over SSH: a server of the casync protocol takes chunks only together with an index that
names them, so one is pushed, whatever it is good for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import implementer

from desync.errors import StoreError
from desync.formats.ids import ChunkIds
from desync.formats.index import Index
from desync.formats.protocol import Abort, IndexData, IndexEnd
from desync.formats.protocol_session import Service, Session
from desync.interfaces import IBatch, IIndexTarget

from .casync_client import ClientSession
from .casync_target import IndexPush
from .index_files import check_index_name
from .location import index_location, parse_location
from .ssh import open_ssh
from .ssh_command import SshTarget, spawn
from .threads import StoreThreads

if TYPE_CHECKING:
    from desync.chunking.digests import Digest
    from desync.formats.protocol import Message
    from desync.options import StoreOptions

    from .casync_target import ChunkSupply
    from .location import Location
    from .opening import Reactor

#: Of how many chunks a server that asked for none is asked, before it is believed to have them.
_SAMPLES: Final = 16

#: The largest index that is read, in bytes.
_INDEX_LIMIT: Final = 1 << 30


class Pushed(NamedTuple):
    """
    What a push did.

    :ivar chunks: how many chunks were new to the store.
    :ivar stored_bytes: their size as they were sent.
    :ivar left: location of the index that is at the server now.
    """

    chunks: int
    stored_bytes: int
    left: str


def place_beside(store: str) -> str:
    """
    Find a name for an index that is pushed for its chunks' sake: beside the store, if there is a
    beside. It is another one each time, because it must not take the place of anything.
    """
    directory = store.rstrip("/").rpartition("/")[0]
    name = f"desync-push-{os.urandom(8).hex()}.caibx"
    return f"{directory or store.rstrip('/')}/{name}"


def path_at(store: Location, index: str) -> str | None:
    """
    Give the path of an index on the machine that a store is on.

    :param index: its location as the user wrote it.
    :returns: None if it is somewhere else.
    """
    if parse_location(index).scheme != "ssh":
        return None
    where, name = index_location(index)
    directory = SshTarget(where, os.environ)
    if not directory.is_same_host(SshTarget(store, os.environ)):
        return None
    return _path_in(directory, name)


def _path_in(directory: SshTarget, name: str) -> str:
    return f"{directory.path.rstrip('/')}/{check_index_name(name)}"


async def push(
    location: Location,
    options: StoreOptions,
    digest: Digest,
    reactor: Any,
    index: Index,
    supply: ChunkSupply,
    path: str | None = None,
) -> Pushed:
    """
    Store the chunks of an index that a server doesn't have, and the index.

    :param location: of the store, ``ssh://``.
    :param supply: has the chunks.
    :param path: where the index goes on that machine; beside the store, if None.
    :raises StoreError: if the server didn't take all, or only says that it did.
    """
    target = SshTarget(location, os.environ)
    threads = StoreThreads(reactor)
    path = path or place_beside(target.path)
    level = options.compression_level
    try:
        session = IndexPush(index, supply, threads, target.shown, reactor, level)
        command = target.casync("push", path, target.path)
        await _push(reactor, command, session, target.shown, options)
        if not session.sent and len(index):
            await _check_there(location, options, digest, reactor, index)
    finally:
        await threads.stop()
    return Pushed(session.sent, session.sent_bytes, f"ssh://{target.destination}{path}")


async def _push(
    reactor: Any, command: list[str], session: IndexPush, shown: str, options: StoreOptions
) -> None:
    process = spawn(reactor, command, session, shown)
    session.watch(reactor, options.patience)
    try:
        await session.done
    finally:
        await process.wait()
    # casync puts the index into its place only after it has said goodbye.
    if process.status is not None:
        raise StoreError(shown, f"{process.name} {process.status}")


async def _check_there(
    location: Location, options: StoreOptions, digest: Digest, reactor: Any, index: Index
) -> None:
    """Don't believe a server that asked for nothing: one that understood nothing would, too."""
    store = open_ssh(location, options._replace(n=1), digest, reactor)
    try:
        step = max(1, len(index) // _SAMPLES)
        ids = ChunkIds.from_iterable(
            {index.id(position) for position in range(0, len(index), step)}
        )
        missing = await IBatch(store).missing(ids)
    finally:
        await store.close()
    if missing:
        raise StoreError(
            location.shown, "the server said goodbye, but doesn't have what it should have stored"
        )


class _IndexPull(ClientSession):
    """Fetches an index."""

    def __init__(self, where: str) -> None:
        super().__init__(Session(Service.PULL_INDEX), where)
        self.done: Deferred[bytearray] = Deferred(lambda _: self.finish())
        self._data = bytearray()

    def is_owed(self) -> bool:
        return True

    def hear(self, message: Message) -> None:
        if isinstance(message, IndexData):
            self._data += message.data
            if len(self._data) > _INDEX_LIMIT:
                self.finish(StoreError(self._where, "the index is too large"))
        elif isinstance(message, IndexEnd):
            self.done.callback(self._data)
            self.leave()
        elif isinstance(message, Abort):
            self.given_up(message, for_index=True)

    def ended(self) -> None:
        super().ended()
        if not self.done.called:
            self.done.errback(self.why())


@implementer(IIndexTarget)
class SshIndexStore:
    """
    A directory of indexes at the other end of casync-protocol sessions.

    :param location: ``ssh://``.
    :param digest: the algorithm that ids must be made with; either, if None.
    """

    def __init__(
        self, location: Location, options: StoreOptions, digest: Digest | None, reactor: Any
    ) -> None:
        self._options = options
        self._target = SshTarget(location, os.environ)
        self.location = location.shown
        self._digest = digest
        self._reactor = reactor
        self._threads = StoreThreads(reactor, size=1)

    def __repr__(self) -> str:
        return f"<SshIndexStore {self.location}>"

    def _path(self, name: str) -> str:
        return _path_in(self._target, name)

    def _shown(self, name: str) -> str:
        return f"{self.location.rstrip('/')}/{name}"

    def get_index(self, name: str) -> Deferred[Index]:
        """See :meth:`desync.interfaces.IIndexSource.get_index`."""

        async def get() -> Index:
            path, shown = self._path(name), self._shown(name)
            session = _IndexPull(shown)
            command = self._target.casync("pull", path, "-")
            process = spawn(self._reactor, command, session, shown)
            session.watch(self._reactor, self._options.patience)
            try:
                data = await session.done
            finally:
                await process.wait()
            return await self._threads.run(Index.parse, data, shown, self._digest)

        return Deferred.fromCoroutine(get())

    def put_index(self, name: str, index: Index) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexTarget.put_index`."""

        async def put() -> None:
            path, shown = self._path(name), self._shown(name)
            session = IndexPush(index, None, self._threads, shown, self._reactor)
            command = self._target.casync("push", path, "-")
            await _push(self._reactor, command, session, shown, self._options)

        return Deferred.fromCoroutine(put())

    def close(self) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexSource.close`."""
        return self._threads.stop()


def open_ssh_indexes(
    location: Location, options: StoreOptions, digest: Digest, reactor: Reactor
) -> SshIndexStore:
    """
    Open a store of indexes. Nothing is connected before it is used.

    :raises UsageError: if the location can't be used.
    """
    return SshIndexStore(location, options, digest, reactor)
