# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The exports of ``twistd desync-pull`` with their stores open, and what of them a command is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred

from desync.interfaces import ILocalFiles
from desync.masking import mask_location
from desync.stores.index_local import LocalIndexStore
from desync.stores.location import parse_location
from desync.stores.opening import open_index_store, open_source, open_target
from desync.stores.route import Route
from desync.stores.single_flight import SingleFlight

from .casync_offer import Offer
from .metering import Metered
from .pull_exports import (
    ARCHIVE_SUFFIX,
    NotNamed,
    ReadOnly,
    confined,
    read_users_file,
    resolve,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.chunking.digests import Digest
    from desync.interfaces import IChunkSource, IChunkTarget, IIndexSource
    from desync.options import StoreOptions
    from desync.stores.threads import StoreThreads

    from .casync_offer import Asked
    from .counters import Counters
    from .pull_exports import Export, Users


class Opener(NamedTuple):
    """
    Opens what an export names.

    :param reactor: where the stores live.
    :param threads: for files.
    :param options: how a store is used, by its location.
    :param digest: the algorithm of chunk ids.
    :param counters: where answers of stores on other machines are counted.
    """

    reactor: Any
    threads: StoreThreads
    options: Callable[[str], StoreOptions]
    digest: Digest
    counters: Counters

    def source(self, export: Export) -> IChunkSource:
        """Open what chunks are read from."""

        def reading(location: str) -> StoreOptions:
            # Clients verify, and every chunk would have to be decompressed for it here.
            return self.options(location)._replace(skip_verify=True)

        source = open_source(
            export.stores, reading, self.reactor, self.digest, cache=export.cache or None
        )
        if ILocalFiles.providedBy(source):
            return source
        # What is on another machine is fetched once for all who want it.
        return SingleFlight(Metered(source, self.counters, self.reactor.seconds))

    def target(self, export: Export) -> IChunkTarget:
        """Open the store that is written to."""
        return open_target(export.stores[0], self.options, self.reactor, self.digest)

    def indexes(self, export: Export) -> IIndexSource:
        """Open the store of indexes."""
        if parse_location(export.indexes).is_local:
            return LocalIndexStore(export.indexes, self.reactor, self.threads, location=export.name)
        base = export.indexes.rstrip("/")
        store, _ = open_index_store(
            f"{base}/any.caibx", self.options(base), self.reactor, self.digest
        )
        return store


class OpenExport:
    """
    An export with its stores open.

    :param writable: whether somebody may push to it.
    :ivar directory: of its indexes and archives; empty if they are elsewhere.
    """

    def __init__(self, export: Export, opener: Opener, *, writable: bool) -> None:
        self.directory = ""
        self.source: IChunkSource | None = None
        self.target: IChunkTarget | None = None
        self.indexes: Any = None
        try:
            if export.stores:
                self.source = opener.source(export)
                if writable:
                    self.target = opener.target(export)
            if export.indexes:
                self.indexes = opener.indexes(export)
                if parse_location(export.indexes).is_local:
                    self.directory = export.indexes
        except BaseException:
            self.close().addErrback(lambda _: None)
            raise

    def close(self) -> Deferred[None]:
        """Close its stores."""

        async def close() -> None:
            for each in (self.source, self.target, self.indexes):
                if each is not None:
                    await each.close()

        return Deferred.fromCoroutine(close())


class Exports:
    """
    What a users file says, with everything open that it names.

    :param path: of the users file.
    :ivar sessions: how many sessions use it: whoever begins and ends them counts.
    :raises DesyncError: if it can't be read, or something can't be opened.
    """

    def __init__(self, path: str, opener: Opener) -> None:
        self.users: Users = read_users_file(path)
        self.open: dict[str, OpenExport] = {}
        self.sessions = 0
        writable = {name for user in self.users.users.values() for name in user.write}
        try:
            for name, export in self.users.exports.items():
                self.open[name] = OpenExport(export, opener, writable=name in writable)
        except BaseException:
            self.close().addErrback(lambda _: None)
            raise

    def about(self) -> dict[str, str]:
        """Say what there is: name -> text, secrets masked."""
        found = {}
        for name, export in self.users.exports.items():
            places = [*export.stores, *filter(None, [export.indexes])]
            found[f"export {name}"] = ", ".join(map(mask_location, places))
        found["users"] = str(len(self.users.users))
        return found

    def offer(self, user: str, asked: Asked) -> Offer:
        """
        Give what a command asks for, if its user may have it.

        :raises NotNamed: if there is no such thing.
        :raises PermissionError: if it isn't for this user, which he is not told apart from that.
        :raises ReadOnly: if he may only read it, and wants to write.
        """
        allowed = self.users.users.get(user)
        if allowed is None:
            raise PermissionError("unknown user")
        pushing = asked.verb == "push"
        offer = Offer()
        for kind, path in (
            *(("file", path) for path in (asked.archive_path, asked.index_path) if path),
            *(("store", path) for path in asked.stores),
        ):
            named = resolve(path)
            if named.export not in allowed.read:
                raise PermissionError(f"export {named.export} is not for {user}")
            if pushing and named.export not in allowed.write:
                raise ReadOnly(f"export {named.export} is read-only for {user}")
            if bool(named.file) != (kind == "file"):
                raise NotNamed("no such thing")
            export = self.open[named.export]
            if kind == "store":
                offer = self._with_store(offer, export, pushing)
            elif path == asked.archive_path:
                offer = self._with_archive(offer, export, named.file, pushing)
            else:
                offer = self._with_index(offer, export, named.file, pushing)
        return offer

    def _with_store(self, offer: Offer, export: OpenExport, pushing: bool) -> Offer:
        if export.source is None:
            raise NotNamed("no such store")
        if pushing:
            return offer._replace(target=export.target)
        if offer.source is None:
            return offer._replace(source=export.source)
        if offer.source is export.source:
            return offer
        return offer._replace(source=Route([offer.source, export.source]))

    def _with_archive(self, offer: Offer, export: OpenExport, name: str, pushing: bool) -> Offer:
        if not export.directory or not name.endswith(ARCHIVE_SUFFIX):
            raise NotNamed("no such archive")
        path = _confined(export.directory, name)
        return offer._replace(archive_target=path) if pushing else offer._replace(archive=path)

    def _with_index(self, offer: Offer, export: OpenExport, name: str, pushing: bool) -> Offer:
        if export.indexes is None or name.endswith(ARCHIVE_SUFFIX):
            raise NotNamed("no such index")
        if export.directory:
            _confined(export.directory, name)
        if pushing:
            return offer._replace(index_target=export.indexes, index_name=name)
        return offer._replace(indexes=export.indexes, index_name=name)

    def close(self) -> Deferred[None]:
        """Close all stores."""

        async def close() -> None:
            for each in self.open.values():
                await each.close()

        return Deferred.fromCoroutine(close())


def _confined(directory: str, name: str) -> str:
    try:
        return confined(directory, name)
    except FileNotFoundError:
        raise NotNamed("no such file") from None
