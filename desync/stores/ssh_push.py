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

from desync.errors import IndexMissing, StoreError
from desync.formats.ids import ChunkIds
from desync.formats.index import Index
from desync.formats.protocol import ENOENT, Abort, Goodbye, IndexData, IndexEnd
from desync.formats.protocol_session import Service, Session
from desync.interfaces import IBatch, IIndexTarget

from .casync_target import IndexPush
from .casync_wire import SessionProtocol
from .index_files import check_index_name
from .ssh import open_ssh
from .ssh_command import SshTarget, spawn
from .threads import StoreThreads

if TYPE_CHECKING:
    from desync.chunking.digests import Digest
    from desync.formats.protocol import Message
    from desync.options import StoreOptions

    from .casync_target import Fetch
    from .location import Location
    from .opening import Reactor

#: What the index is called that is pushed for its chunks' sake. The same each time: nobody can
#: remove it over the protocol, and one is enough.
LEFT_BEHIND: Final = "desync-push.caibx"

#: Of how many chunks a server that asked for none is asked, before it is believed to have them.
_SAMPLES: Final = 16

#: The largest index that is read, in bytes.
_INDEX_LIMIT: Final = 1 << 30


class Pushed(NamedTuple):
    """
    What a push did.

    :ivar chunks: how many chunks were new to the store.
    :ivar stored_bytes: their size as they were sent.
    :ivar left: location of the index that was left at the server.
    """

    chunks: int
    stored_bytes: int
    left: str


def place_beside(store: str) -> str:
    """Say where the index goes that is pushed into a store: beside it, if there is a beside."""
    directory = store.rstrip("/").rpartition("/")[0]
    return f"{directory or store.rstrip('/')}/{LEFT_BEHIND}"


async def push(
    location: Location,
    options: StoreOptions,
    digest: Digest,
    reactor: Any,
    index: Index,
    fetch: Fetch,
) -> Pushed:
    """
    Store the chunks of an index that a server doesn't have.

    :param location: of the store, ``ssh://``.
    :param fetch: gives the chunks, checked against their ids.
    :raises StoreError: if the server didn't take all, or only says that it did.
    """
    target = SshTarget(location, os.environ)
    threads = StoreThreads(reactor)
    path = place_beside(target.path)
    try:
        session = IndexPush(index, fetch, threads, target.shown, reactor)
        process = spawn(reactor, target.casync("push", path, target.path), session, target.shown)
        await session.done
        await process.wait()
        if not session.sent and len(index):
            await _check_there(location, options, digest, reactor, index)
    finally:
        await threads.stop()
    left = f"ssh://{target.destination}{path}"
    return Pushed(session.sent, session.sent_bytes, left)


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


class _IndexPull(SessionProtocol):
    """Fetches an index."""

    def __init__(self, where: str) -> None:
        super().__init__(Session(Service.PULL_INDEX))
        self.done: Deferred[bytearray] = Deferred(lambda _: self.finish())
        self._where = where
        self._data = bytearray()

    def hear(self, message: Message) -> None:
        if isinstance(message, IndexData):
            self._data += message.data
            if len(self._data) > _INDEX_LIMIT:
                self.finish(StoreError(self._where, "the index is too large"))
        elif isinstance(message, IndexEnd):
            self.done.callback(self._data)
            self.say(Goodbye())
            self.finish()
        elif isinstance(message, Abort):
            text = message.text or f"error {message.code}"
            if message.code == ENOENT:
                self.finish(IndexMissing(self._where, "no such index"))
            else:
                self.finish(StoreError(self._where, f"the server gave up: {text}"))

    def ended(self) -> None:
        if not self.done.called:
            why = self.ended_by
            if not isinstance(why, StoreError):
                text = str(why or "the session was closed")
                detail = f" ({self.lost_by})" if self.lost_by else ""
                why = StoreError(self._where, f"{text}{detail}")
            self.done.errback(why)


@implementer(IIndexTarget)
class SshIndexStore:
    """
    A directory of indexes at the other end of casync-protocol sessions.

    :param location: ``ssh://``.
    :param digest: the algorithm that ids must be made with; either, if None.
    """

    def __init__(self, location: Location, digest: Digest | None, reactor: Any) -> None:
        self._target = SshTarget(location, os.environ)
        self.location = location.shown
        self._digest = digest
        self._reactor = reactor
        self._threads = StoreThreads(reactor, size=1)

    def __repr__(self) -> str:
        return f"<SshIndexStore {self.location}>"

    def _path(self, name: str) -> str:
        return f"{self._target.path.rstrip('/')}/{check_index_name(name)}"

    def _shown(self, name: str) -> str:
        return f"{self.location.rstrip('/')}/{name}"

    def get_index(self, name: str) -> Deferred[Index]:
        """See :meth:`desync.interfaces.IIndexSource.get_index`."""

        async def get() -> Index:
            path, shown = self._path(name), self._shown(name)
            session = _IndexPull(shown)
            command = self._target.casync("pull", path, "-")
            process = spawn(self._reactor, command, session, shown)
            data = await session.done
            await process.wait()
            return await self._threads.run(Index.parse, data, shown, self._digest)

        return Deferred.fromCoroutine(get())

    def put_index(self, name: str, index: Index) -> Deferred[None]:
        """See :meth:`desync.interfaces.IIndexTarget.put_index`."""

        async def put() -> None:
            path, shown = self._path(name), self._shown(name)
            session = IndexPush(index, None, self._threads, shown, self._reactor)
            command = self._target.casync("push", path, "-")
            process = spawn(self._reactor, command, session, shown)
            await session.done
            await process.wait()
            if process.status is not None:
                raise StoreError(shown, f"{process.name} {process.status}")

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
    return SshIndexStore(location, digest, reactor)
