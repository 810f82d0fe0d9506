# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
From locations to stores.

Commands whose stores are all local directories work on their files directly and import no Twisted:
they ask :func:`local_source` and :func:`local_target` first. Everything else is opened by
:func:`open_source` and :func:`open_target`, for use under a reactor.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from desync.chunking.digests import SHA512_256
from desync.errors import UsageError

from .local_files import LocalFiles
from .location import index_location, parse_group, parse_location

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from twisted.internet.interfaces import IReactorFromThreads, IReactorTime

    from desync.chunking.digests import Digest
    from desync.interfaces import IChunkSource, IChunkTarget, IIndexSource
    from desync.options import StoreOptions

    from .location import Location

    #: Tells what is configured for a store, by its location as the user wrote it.
    OptionsOf: TypeAlias = Callable[[str], StoreOptions]

    class Reactor(IReactorFromThreads, IReactorTime):
        """What stores need of a reactor."""

    #: Opens a store on another machine, without layers over it.
    Opener: TypeAlias = Callable[[Location, StoreOptions, Digest, Reactor], IChunkSource]
    IndexOpener: TypeAlias = Callable[[Location, StoreOptions, Digest, Reactor], IIndexSource]

#: Where the opener of each scheme is, as ``module:function``: it is imported when it is needed.
REMOTE_OPENERS: dict[str, str] = {
    "http": "desync.stores.http:open_http",
    "https": "desync.stores.http:open_http",
    "gs": "desync.stores.gcs:open_gcs",
    "s3+http": "desync.stores.s3:open_s3",
    "s3+https": "desync.stores.s3:open_s3",
    "sftp": "desync.stores.sftp:open_sftp",
    "ssh": "desync.stores.ssh:open_ssh",
}

#: The same for stores of indexes.
REMOTE_INDEX_OPENERS: dict[str, str] = {
    "http": "desync.stores.http:open_http_indexes",
    "https": "desync.stores.http:open_http_indexes",
    "gs": "desync.stores.gcs:open_gcs_indexes",
    "s3+http": "desync.stores.s3:open_s3_indexes",
    "s3+https": "desync.stores.s3:open_s3_indexes",
    "sftp": "desync.stores.sftp:open_sftp_indexes",
    "ssh": "desync.stores.ssh_push:open_ssh_indexes",
}

# How often a request is made for an error-retry of 1 and more; schemes that aren't here don't
# retry. Go desync counts attempts over HTTP, and retries elsewhere.
_EXTRA_ATTEMPTS: Final = {
    "gs": 1,
    "http": 0,
    "https": 0,
    "s3+http": 1,
    "s3+https": 1,
    "oci+http": 1,
    "oci+https": 1,
}


def local_source(
    locations: Sequence[str],
    options: OptionsOf,
    digest: Digest = SHA512_256,
    *,
    cache: str | None = None,
) -> tuple[LocalFiles, ...] | None:
    """
    Open stores to read from, to be asked in turn, if each is a plain local directory.

    :param locations: what the user wrote, in the order of asking.
    :param cache: where chunks are to be cached, if they are.
    :returns: the directories; None if that isn't all there is to it (another kind of store, a
        failover group, a cache), so that :func:`open_source` is needed.
    :raises UsageError: if a location can't be understood, or there is none.
    :raises StoreError: if a directory can't be used.
    """
    if not locations:
        raise UsageError("no store provided")
    groups = [parse_group(location) for location in locations]
    if cache or any(len(group) > 1 or not group[0].is_local for group in groups):
        return None
    return tuple(_local_files(group[0], options, digest) for group in groups)


def local_target(
    location: str,
    options: OptionsOf,
    digest: Digest = SHA512_256,
    *,
    writing: bool = True,
    sync_each: bool = False,
) -> LocalFiles | None:
    """
    Open a store to write to, if it is a local directory.

    :param location: what the user wrote; a ``|`` in it is part of a path.
    :param writing: whether anything will really be written to it, or removed from it.
    :param sync_each: make each chunk last as it is written.
    :returns: the directory; None if it is another kind of store, for :func:`open_target`.
    :raises UsageError: if the location can't be understood.
    :raises StoreError: if the directory can't be used.
    """
    parsed = parse_location(location)
    if not parsed.is_local:
        return None
    return _local_files(parsed, options, digest, writing=writing, sync_each=sync_each)


def _local_files(
    location: Location,
    options: OptionsOf,
    digest: Digest,
    *,
    writing: bool = False,
    sync_each: bool = False,
) -> LocalFiles:
    chosen = options(location.text)
    if chosen.encryption:
        raise UsageError(f"{location.shown}: encrypted stores are not supported by this version")
    files = LocalFiles(
        location.path,
        location=location.shown,
        extension="" if chosen.uncompressed else ".cacnk",
        level=chosen.compression_level,
        digest=digest,
        skip_verify=chosen.skip_verify,
        sync_each=sync_each,
    )
    files.check(writing=writing)
    return files


def open_source(
    locations: Sequence[str],
    options: OptionsOf,
    reactor: Reactor,
    digest: Digest = SHA512_256,
    *,
    cache: str | None = None,
    cache_repair: bool = True,
) -> IChunkSource:
    """
    Open stores of any kind to read from, with the layers that the locations ask for.

    :param locations: what the user wrote, in the order of asking; ``a|b`` is a failover group.
    :param cache: where chunks are to be cached, if they are.
    :param cache_repair: whether an invalid chunk in the cache is replaced.
    :returns: the one store that is all of these; close it.
    :raises UsageError: if a location can't be understood, there is none, or the cache can't be
        written to.
    :raises StoreError: if a store can't be used.
    """
    from .cache import Cache
    from .failover import Failover
    from .route import Route

    if not locations:
        raise UsageError("no store provided")
    groups = [parse_group(location) for location in locations]
    with _closing_on_error() as opened:
        members: list[IChunkSource] = []
        for group in groups:
            stores = [_open(location, options, reactor, digest) for location in group]
            opened += stores
            members.append(stores[0] if len(stores) == 1 else Failover(stores))
        source = members[0] if len(members) == 1 else Route(members)
        if not cache:
            return source
        target = open_target(cache, options, reactor, digest)
        opened.append(target)
        return Cache(source, target, cache_repair)


def open_target(
    location: str,
    options: OptionsOf,
    reactor: Reactor,
    digest: Digest = SHA512_256,
    *,
    sync_each: bool = False,
) -> IChunkTarget:
    """
    Open a store of any kind to write to.

    :param location: what the user wrote; a ``|`` in it is part of a path.
    :param sync_each: make each chunk last as it is written, where the store can.
    :returns: the store; close it.
    :raises UsageError: if the location can't be understood, or no store of its kind can be written.
    :raises StoreError: if the store can't be used.
    """
    from desync.interfaces import IChunkTarget

    parsed = parse_location(location)
    with _closing_on_error() as opened:
        store = _open(parsed, options, reactor, digest, writing=True, sync_each=sync_each)
        opened.append(store)
        if not IChunkTarget.providedBy(store):
            raise UsageError(f"store '{parsed.shown}' does not support writing")
        return IChunkTarget(store)


def _open(
    location: Location,
    options: OptionsOf,
    reactor: Reactor,
    digest: Digest,
    *,
    writing: bool = False,
    sync_each: bool = False,
) -> IChunkSource:
    if location.is_local:
        from .local import LocalStore

        files = _local_files(location, options, digest, writing=writing, sync_each=sync_each)
        return LocalStore(files, reactor)
    where = _find_opener(location)
    chosen = options(location.text)
    opener: Opener = _imported(where)
    store = opener(location, chosen, digest, reactor)
    extra = _EXTRA_ATTEMPTS.get(location.scheme)
    if extra is None:
        return store
    from .retry import retrying

    interval = chosen.error_retry_base_interval / 1e9
    return retrying(store, reactor, chosen.error_retry + extra, interval)


def open_index_store(
    location: str,
    options: StoreOptions,
    reactor: Reactor,
    digest: Digest = SHA512_256,
    *,
    writing: bool = False,
) -> tuple[IIndexSource, str]:
    """
    Open the store on another machine that an index is in.

    :param location: of the index.
    :param options: how to use the store.
    :param writing: whether the index is to be written.
    :returns: the store, which is to be closed, and the index's name in it.
    :raises UsageError: if the location can't be understood, or indexes can't be read from, or
        written to, a store of its kind.
    """
    from desync.interfaces import IIndexTarget

    where, name = index_location(location)
    opener: IndexOpener = _imported(_find_index_opener(where))
    store = opener(where, options, digest, reactor)
    if writing and not IIndexTarget.providedBy(store):
        store.close().addErrback(lambda _: None)
        raise UsageError(f"index store '{where.shown}' does not support writing")
    return store, name


def check_scheme(location: str) -> None:
    """
    Make sure that stores of some kind can be opened, before anything else is done.

    :raises UsageError: if they can't, or the location can't be understood.
    """
    parsed = parse_location(location)
    if not parsed.is_local:
        _find_opener(parsed)


def check_index_scheme(location: str) -> None:
    """
    Make sure that the store of an index can be opened, before anything else is done.

    :param location: of the index, on another machine.
    :raises UsageError: if it can't, or the location can't be understood.
    """
    _find_index_opener(index_location(location)[0])


def _find_opener(location: Location) -> str:
    where = REMOTE_OPENERS.get(location.scheme)
    if where is None:
        raise UsageError(
            f"{location.shown}: stores over {location.scheme} are not supported by this version"
        )
    return where


def _find_index_opener(location: Location) -> str:
    where = REMOTE_INDEX_OPENERS.get(location.scheme)
    if where is None:
        raise UsageError(
            f"{location.shown}: indexes over {location.scheme} are not supported by this version"
        )
    return where


def _imported(where: str) -> Any:
    from importlib import import_module

    module, _, name = where.partition(":")
    return getattr(import_module(module), name)


@contextmanager
def _closing_on_error() -> Iterator[list[IChunkSource]]:
    """Close what was opened if something else can't be."""
    opened: list[IChunkSource] = []
    try:
        yield opened
    except BaseException:
        for store in opened:
            store.close().addErrback(lambda _: None)
        raise
