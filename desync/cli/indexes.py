# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Reading and writing the indexes that a command is given the locations of.

They are local files, or ``-`` for standard input and output, and need no reactor; or they are in a
store on another machine. For those a reactor is run until they are read or written, so that
commands needn't care. It can't be done from within an operation that a reactor runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from desync.formats.index import Index
from desync.stores import index_files
from desync.stores.location import parse_location

from .streams import STANDARD_INPUT

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from twisted.internet.defer import Deferred

    from desync.interfaces import IIndexSource, IIndexTarget

    from .invocation import Invocation

_T = TypeVar("_T")

STANDARD = index_files.STANDARD


def is_local_index(location: str) -> bool:
    """
    Tell whether an index is read and written without the network.

    :raises UsageError: if the location is malformed.
    """
    return location == STANDARD or parse_location(location).is_local


def read_index(invocation: Invocation, location: str) -> Index:
    """
    Read an index, whose ids have to be made with the digest algorithm in use.

    :param location: as the user wrote it; ``-`` is standard input.
    :raises UsageError: if the location is malformed, or of a kind that can't be read.
    :raises StoreError: if it can't be read, :class:`desync.errors.IndexMissing` if it isn't there.
    :raises InvalidIndex: if it isn't an index.
    """
    invocation.index_options(location)  # if only to refuse what it can't do
    if not is_local_index(location):
        return _with_store(invocation, location, lambda store, name: store.get_index(name))
    if location != STANDARD:
        return index_files.read_index(location, invocation.digest)

    def readinto(view: memoryview) -> int:
        data = invocation.stdin.read(len(view))
        view[: len(data)] = data
        return len(data)

    return Index.parse(index_files.read_bytes(readinto), STANDARD_INPUT, invocation.digest)


def write_index(invocation: Invocation, location: str, index: Index, *, sync: str = "end") -> None:
    """
    Write an index, so that whoever opens it finds all of it or what was there before.

    :param location: as the user wrote it; ``-`` is standard output.
    :param sync: ``none`` to leave it to the system when it reaches the disk.
    :raises UsageError: if the location is malformed, or of a kind that can't be written.
    :raises StoreError: if it can't be written.
    """
    invocation.index_options(location)
    if not is_local_index(location):
        _with_store(
            invocation,
            location,
            lambda store, name: cast("IIndexTarget", store).put_index(name, index),
            writing=True,
        )
        return
    if location != STANDARD:
        index_files.write_index(location, index, sync=sync)
        return
    for piece in index.pieces():
        invocation.out.write(piece)
    invocation.out.flush()


def _with_store(
    invocation: Invocation,
    location: str,
    work: Callable[[IIndexSource, str], Deferred[_T]],
    *,
    writing: bool = False,
) -> _T:
    from desync.running import import_reactor, run_with_reactor
    from desync.stores.opening import open_index_store

    options = invocation.index_options(location)

    async def operation(reactor: Any) -> _T:
        store, name = open_index_store(
            location, options, reactor, invocation.digest, writing=writing
        )
        try:
            return await work(store, name)
        finally:
            await store.close()

    import_reactor()
    return run_with_reactor(operation)
