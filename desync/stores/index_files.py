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

from desync.errors import FileError, IndexMissing, StoreError, UsageError
from desync.formats.index import HEADER_SIZE, INDEX_TYPE, TABLE_START, Index
from desync.replace import replacing

if TYPE_CHECKING:
    from desync.chunking.digests import Digest

#: Names standard input where an index is read, standard output where one is written.
STANDARD: Final = "-"

_MAGIC: Final = struct.pack("<2Q", HEADER_SIZE, INDEX_TYPE)
_STEP: Final = 1 << 24
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

    A file that doesn't begin as an index does is not read any further, however large it is.

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
            data = _read_all(descriptor, shown)
        finally:
            if path != STANDARD:
                os.close(descriptor)
    except FileNotFoundError as error:
        raise IndexMissing(shown, error.strerror or str(error)) from None
    except OSError as error:
        raise StoreError(shown, error.strerror or str(error)) from None
    return Index.parse(data, shown, digest)


def _read_all(descriptor: int, shown: str) -> bytes | bytearray:
    head = b""
    while len(head) < TABLE_START:
        more = os.read(descriptor, TABLE_START - len(head))
        if not more:
            return head
        head += more
    if not head.startswith(_MAGIC):
        return head  # whose parsing says what is wrong with it
    # The size is a hint: a pipe has none, and a file may be growing.
    data = bytearray(max(os.fstat(descriptor).st_size + 1, 2 * TABLE_START))
    data[:TABLE_START] = head
    length = TABLE_START
    while True:
        with memoryview(data) as view:
            count = os.readv(descriptor, [view[length : length + _STEP]])
        if not count:
            del data[length:]
            return data
        length += count
        if length == len(data):
            data.extend(bytes(max(length, _STEP)))


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
