# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A casync-protocol server on standard input and output: what ``desync pull`` and ``push`` run, behind
a real sshd. Whoever runs it may do what its user may, so paths are taken as they come.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from twisted.internet.stdio import StandardIO

from desync.chunking.digests import SHA512_256
from desync.errors import DesyncError, UsageError
from desync.formats.protocol import EIO, ENOENT, Abort
from desync.stores.index_local import LocalIndexStore
from desync.stores.location import parse_location
from desync.stores.opening import open_index_store, open_source, open_target
from desync.stores.threads import StoreThreads

from .casync_offer import Offer
from .casync_pull import PullSession
from .casync_push import PushSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.chunking.digests import Digest
    from desync.interfaces import IIndexSource
    from desync.options import StoreOptions

    from .casync_offer import Asked


class _Opening:
    """Opens what a command names, and closes it."""

    def __init__(
        self,
        reactor: Any,
        threads: StoreThreads,
        options: Callable[[str], StoreOptions],
        digest: Digest,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._options = options
        self._digest = digest
        self.opened: list[Any] = []

    def offer(self, asked: Asked) -> Offer:
        """Open it all."""
        if asked.verb == "pull":
            return self._pull(asked)
        return self._push(asked)

    def _pull(self, asked: Asked) -> Offer:
        offer = Offer(archive=asked.archive_path)
        if asked.stores:

            def options(location: str) -> StoreOptions:
                # The client verifies, and every chunk would have to be decompressed for it.
                return self._options(location)._replace(skip_verify=True)

            source = open_source(asked.stores, options, self._reactor, self._digest)
            self.opened.append(source)
            offer = offer._replace(source=source)
        if asked.index_path:
            indexes, name = self._indexes(asked.index_path, writing=False)
            offer = offer._replace(indexes=indexes, index_name=name)
        return offer

    def _push(self, asked: Asked) -> Offer:
        offer = Offer(archive_target=asked.archive_path)
        for location in asked.stores:
            if parse_location(location).is_local:
                # casync makes it too: nobody has made default.castr before the first push.
                with contextlib.suppress(OSError):
                    os.mkdir(location)
            target = open_target(location, self._options, self._reactor, self._digest)
            self.opened.append(target)
            offer = offer._replace(target=target)
        if asked.index_path:
            indexes, name = self._indexes(asked.index_path, writing=True)
            offer = offer._replace(index_target=indexes, index_name=name)
        return offer

    def _indexes(self, path: str, *, writing: bool) -> tuple[Any, str]:
        store: IIndexSource
        if parse_location(path).is_local:
            directory, name = os.path.split(path)
            store = LocalIndexStore(
                directory or ".", self._reactor, self._threads, location=directory or "."
            )
        else:
            options = self._options(path)
            store, name = open_index_store(
                path, options, self._reactor, self._digest, writing=writing
            )
        self.opened.append(store)
        return store, name


async def serve_stdio(
    reactor: Any,
    asked: Asked,
    options: Callable[[str], StoreOptions],
    digest: Digest = SHA512_256,
) -> None:
    """
    Serve one session on standard input and output.

    :param options: how a store is used, by its location.
    :raises DesyncError: if something can't be opened, or the session ends before all is said. The
        client has been told by then, without details.
    """
    threads = StoreThreads(reactor)
    opening = _Opening(reactor, threads, options, digest)
    try:
        try:
            offer = opening.offer(asked)
        except DesyncError as error:
            missing = not isinstance(error, UsageError)
            _say_abort(Abort.saying(ENOENT if missing else EIO, "not available"))
            raise
        kind = PullSession if asked.verb == "pull" else PushSession
        session = kind(offer, threads, lambda session: None)
        StandardIO(session, reactor=reactor)
        await session.closed
        await session.settled()
        for line in session.troubles:
            raise DesyncError(line)
        if session.ended_by is not None:
            raise session.ended_by
    finally:
        for each in opening.opened:
            await each.close()
        await threads.stop()


def _say_abort(abort: Abort) -> None:
    # Before HELLO, which is allowed: else the client only knows that its pipe broke.
    with contextlib.suppress(OSError):
        os.write(1, abort.encode())
