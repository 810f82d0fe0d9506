# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Index files of this machine, read and written directly: for commands on local files and for threads.

Neither needs Twisted; :mod:`desync.stores.index_local` makes a store with Deferreds of them.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import TYPE_CHECKING, Final

from desync.chunking import kernels
from desync.errors import FileError, IndexMissing, StoreError, UsageError
from desync.formats.index import (
    CHUNK_SIZE_LIMIT,
    HEADER_SIZE,
    INDEX_TYPE,
    ITEM_SIZE,
    TABLE_START,
    Index,
)
from desync.replace import replacing

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.chunking.digests import Digest

#: Names standard input where an index is read, standard output where one is written.
STANDARD: Final = "-"

_MAGIC: Final = struct.pack("<2Q", HEADER_SIZE, INDEX_TYPE)
_STEP: Final = 1 << 24

#: Bytes after which is looked whether it is still an index that is read; then at four times as
#: many, and so on.
_CHECK: Final = 1 << 26

#: A file's size is believed up to this many bytes before they have been read.
_LARGEST_GUESS: Final = 1 << 30
_CONTROLS: Final = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0))))


class InvalidIndexName(UsageError, ValueError):
    """A name that no index can have: an index is a file directly in its store."""


def check_index_name(name: str) -> str:
    """
    Make sure that a name is one path component that leads nowhere else.

    Either slash is refused on every system, so that a server can't be talked out of its directory.

    :returns: the name.
    :raises InvalidIndexName: if it is empty, only dots, or has a slash, a backslash, a control
        character or something that no file name can have in it.
    """
    if not name.strip(".") or "/" in name or "\\" in name or _CONTROLS.intersection(name):
        raise InvalidIndexName(f"invalid index name {name[:255]!a}")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise InvalidIndexName(f"invalid index name {name[:255]!a}") from None
    return name


def read_index(path: str, digest: Digest | None = None, shown: str | None = None) -> Index:
    """
    Read an index file, or standard input if the path is ``-``.

    What isn't an index is not read any further than it takes to see that: see :func:`read_bytes`.

    :param digest: the algorithm that its ids must be made with; either, if None.
    :param shown: how messages name it; the path if None.
    :raises IndexMissing: if there is no such file.
    :raises StoreError: if it can't be read.
    :raises InvalidIndex: if it isn't an index, :class:`desync.errors.WrongDigest` among them.
    """
    shown = path if shown is None else shown
    try:
        descriptor = 0 if path == STANDARD else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = read_bytes(
                lambda view: os.readv(descriptor, [view]), os.fstat(descriptor).st_size
            )
        finally:
            if path != STANDARD:
                os.close(descriptor)
    except FileNotFoundError as error:
        raise IndexMissing(shown, error.strerror or str(error)) from None
    except OSError as error:
        raise StoreError(shown, error.strerror or str(error)) from None
    return Index.parse(data, shown, digest)


def read_bytes(readinto: Callable[[memoryview], int], size: int = 0) -> bytearray:
    """
    Read the bytes of an index file, for :meth:`desync.formats.index.Index.parse`.

    What doesn't begin as an index does is not read any further, and what goes on where an index
    ends not much further, even if it has no end itself.

    :param readinto: reads some bytes into a buffer, and gives their number; 0 at the end.
    :param size: how many there probably are. A pipe doesn't tell, and a file may be growing.
    :returns: all there are, or enough to see that they aren't an index.
    """
    data = bytearray(max(min(size + 1, _LARGEST_GUESS), 2 * TABLE_START))
    length, check_at = 0, _CHECK
    while True:
        end = TABLE_START if length < TABLE_START else length + _STEP
        with memoryview(data) as view:
            count = readinto(view[length:end])
            length += count
            done = not count
            if length == TABLE_START:
                done = view[: len(_MAGIC)] != _MAGIC
            elif length >= check_at:
                done = done or _goes_on(view[:length])
                check_at = 4 * length
        if done:
            del data[length:]
            return data
        if length == len(data):
            data.extend(bytes(max(length, _STEP)))


def _goes_on(data: memoryview) -> bool:
    """Tell whether there is something behind what can only be the end of an index."""
    (largest,) = struct.unpack_from("<Q", data, 40)
    whole = (len(data) - TABLE_START) // ITEM_SIZE * ITEM_SIZE
    items = data[TABLE_START : TABLE_START + whole]
    count = kernels.check_table(items, min(largest, CHUNK_SIZE_LIMIT))
    return count >= 0 and TABLE_START + (count + 1) * ITEM_SIZE < len(data)


def write_index(
    path: str, index: Index, *, sync: str = "end", mode: int | None = None, shown: str | None = None
) -> None:
    """
    Write an index file, or to standard output if the path is ``-``.

    The file is replaced as a whole: see :func:`desync.replace.replacing`.

    :raises StoreError: if it can't be written; then the old one, if any, is still there.
    """
    shown = path if shown is None else shown
    if path == STANDARD:
        try:
            sys.stdout.flush()
            for piece in index.pieces():
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise  # the reader left: not a failing store
        except OSError as error:
            raise StoreError("standard output", error.strerror or str(error)) from None
        return
    try:
        with replacing(path, mode, sync, shown=shown) as out:
            for piece in index.pieces():
                out.write(piece)
    except FileError as error:
        raise StoreError(shown, error.why) from None
