# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Reading and writing the indexes that a command is given the locations of.

So far they are local files, or ``-`` for standard input and output, and this needs no reactor.
:func:`is_local_index` tells a command whether it can do without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import UsageError
from desync.formats.index import Index
from desync.stores import index_files
from desync.stores.location import parse_location

from .streams import STANDARD_INPUT

if TYPE_CHECKING:
    from .invocation import Invocation

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
    _check(invocation, location)
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
    _check(invocation, location)
    if location != STANDARD:
        index_files.write_index(location, index, sync=sync)
        return
    for piece in index.pieces():
        invocation.out.write(piece)
    invocation.out.flush()


def _check(invocation: Invocation, location: str) -> None:
    # What the configuration says about the index's store holds for local ones too, if only to
    # refuse what they can't do.
    invocation.index_options(location)
    if not is_local_index(location):
        parsed = parse_location(location)
        raise UsageError(f"{parsed.shown}: indexes at {parsed.scheme}:// are not supported yet")
