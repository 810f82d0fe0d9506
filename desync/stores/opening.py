# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
From locations to stores.

Commands whose stores are all local directories work on their files directly and import no Twisted:
they ask :func:`local_source` and :func:`local_target` first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.chunking.digests import SHA512_256
from desync.errors import UsageError

from .local_files import LocalFiles
from .location import parse_group, parse_location

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from desync.chunking.digests import Digest
    from desync.config import StoreOptions

    from .location import Location

    #: Tells what is configured for a store, by its location as the user wrote it.
    OptionsOf: TypeAlias = Callable[[str], StoreOptions]


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
