# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Finding single nodes of an archive without reading the rest, by the goodbye tables.

There is no input or output here: what is to be read is asked for. Each function is a generator that
yields (offset, length) and is sent the bytes there, fewer at the archive's end only; its value is
what was looked for. :func:`answered` runs one with a function that reads::

    root = answered(root_of(size), read)
    node = answered(find(root, [b"usr", b"share", b"motd"]), read)
    start, length = node.content

Tables say where things are, and an archive can say anything: every place is checked to lie within
its directory, so that whoever follows them comes to an end.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable, Generator, Iterable
from typing import Final, NamedTuple, TypeAlias, TypeVar

from desync.errors import InvalidArchive

from . import catar
from .catar import Metadata
from .catar_goodbye import ITEM, ITEM_SIZE, SMALLEST, name_hash
from .catar_records import LIMITS, RANKS, RECORD_NAMES, Bad, NodeRecords, text_of

_T = TypeVar("_T")

Reading: TypeAlias = Generator[tuple[int, int], bytes, _T]
"""Asks for parts of the archive, and comes to a value."""

_HEADER: Final = struct.Struct("<2Q")
_DEVICE: Final = struct.Struct("<16x2Q")

#: Bytes that are asked for where a node begins: nearly always all there is before its content.
_FIRST_READ: Final = 512

#: Tables up to this many bytes are read as a whole; in larger ones item by item is looked at.
_WHOLE_TABLE: Final = 1 << 16


class Node(NamedTuple):
    """
    A node, and where in the archive it is.

    :ivar name: empty for the root.
    :ivar start: where its ENTRY record begins, in bytes from the archive's begin.
    :ivar end: where what belongs to it ends.
    :ivar flags: the archive's feature flags.
    :ivar target: of a symbolic link.
    :ivar device: (major, minor) of a device.
    :ivar content: (offset, length) of a regular file's content, or of what a directory's children
        take up; (offset, 0) for others.
    """

    name: bytes
    start: int
    end: int
    flags: int
    metadata: Metadata
    target: bytes
    device: tuple[int, int]
    content: tuple[int, int]
    depth: int


def answered(reading: Reading[_T], read: Callable[[int, int], bytes]) -> _T:
    """
    Give what a generator of this module comes to.

    :param read: takes an offset and a length, and gives the bytes there.
    """
    try:
        wanted = next(reading)
        while True:
            wanted = reading.send(read(*wanted))
    except StopIteration as done:
        value: _T = done.value
        return value


def root_of(size: int, where: str = "archive") -> Reading[Node]:
    """
    Read the root.

    :param size: length in bytes of the archive, which has to end with its last table.
    :param where: the archive, as errors name it.
    :raises InvalidArchive: if it is no archive that can be looked into.
    """
    node = yield from _read_node(b"", 0, size, 1, where)
    if not stat.S_ISDIR(node.metadata.mode):
        raise InvalidArchive(where, "the root is no directory")
    return node


def find(root: Node, path: Iterable[bytes], where: str = "archive") -> Reading[Node | None]:
    """
    Find a node by the names on the way to it.

    :returns: None if there is none.
    """
    node: Node | None = root
    for name in path:
        assert node is not None
        if not stat.S_ISDIR(node.metadata.mode):
            return None
        node = yield from lookup(node, name, where)
        if node is None:
            return None
    return node


def lookup(directory: Node, name: bytes, where: str = "archive") -> Reading[Node | None]:
    """
    Find a child of a directory by its name.

    :returns: None if there is none: names without an item in the table aren't found.
    :raises InvalidArchive: if the table leads to nothing that can be there.
    """
    table = _Table(directory, where)
    yield from table.load()
    wanted = name_hash(name)
    waiting = [0]
    while waiting:
        number = waiting.pop()
        if number >= table.count:
            continue
        offset, size, hashed = yield from table.item(number)
        if hashed == wanted:
            start, end = table.place(offset, size)
            found, entry = yield from _read_name(start, end, where)
            if found == name:
                return (yield from _read_node(name, entry, end, directory.depth + 1, where))
        # Equal hashes may be on either side.
        if hashed >= wanted:
            waiting.append(2 * number + 1)
        if hashed <= wanted:
            waiting.append(2 * number + 2)
    return None


def children(directory: Node, where: str = "archive") -> Reading[list[tuple[bytes, int, int]]]:
    """
    List a directory.

    :returns: name, start and end of each child, in the archive's order; :func:`child` reads one.
    :raises InvalidArchive: if the table leads to nothing that can be there.
    """
    table = _Table(directory, where)
    yield from table.load(all_of_it=True)
    places = []
    for number in range(table.count):
        offset, size, _ = yield from table.item(number)
        places.append(table.place(offset, size))
    places.sort()
    before = directory.content[0]
    found = []
    for start, end in places:
        if start < before:
            raise InvalidArchive(where, f"children overlap (at byte {start})")
        before = end
        name, entry = yield from _read_name(start, end, where)
        found.append((name, entry, end))
    return found


def child(
    directory: Node, name: bytes, start: int, end: int, where: str = "archive"
) -> Reading[Node]:
    """Read a child that :func:`children` listed."""
    return (yield from _read_node(name, start, end, directory.depth + 1, where))


class _Table:
    """
    A directory's table.

    :ivar count: how many items it has.
    """

    def __init__(self, directory: Node, where: str) -> None:
        self._where = where
        self._low = directory.content[0]
        self._high = directory.content[0] + directory.content[1]
        self.count = (directory.end - self._high - SMALLEST) // ITEM_SIZE
        self._items = b""

    def load(self, *, all_of_it: bool = False) -> Reading[None]:
        """Read the table, if it is no large one, or needed as a whole."""
        size = self.count * ITEM_SIZE
        if size and (all_of_it or size <= _WHOLE_TABLE):
            self._items = yield from _exactly(self._high + catar.HEADER_SIZE, size, self._where)

    def item(self, number: int) -> Reading[tuple[int, int, int]]:
        """Give an item: offset, size, hash."""
        if self._items:
            return ITEM.unpack_from(self._items, number * ITEM_SIZE)
        at = self._high + catar.HEADER_SIZE + number * ITEM_SIZE
        data = yield from _exactly(at, ITEM_SIZE, self._where)
        return ITEM.unpack(data)

    def place(self, offset: int, size: int) -> tuple[int, int]:
        """Say where a child begins and ends."""
        start = self._high - offset
        end = start + size
        if not self._low <= start < end <= self._high:
            raise InvalidArchive(
                self._where, f"a child outside its directory (table at byte {self._high})"
            )
        return start, end


def _exactly(offset: int, length: int, where: str) -> Reading[bytes]:
    data = yield offset, length
    if len(data) != length:
        raise InvalidArchive(where, f"truncated (at byte {offset + len(data)})")
    return data


def _read_name(start: int, end: int, where: str) -> Reading[tuple[bytes, int]]:
    """
    Read a FILENAME record.

    :returns: the name, and where the ENTRY record begins.
    """
    limits = LIMITS[catar.FILENAME]
    data = yield start, min(limits[1], end - start)
    try:
        if len(data) < catar.HEADER_SIZE:
            raise Bad("truncated")
        size, kind = _HEADER.unpack_from(data)
        if kind != catar.FILENAME or not limits[0] <= size <= limits[1] or size > len(data):
            raise Bad("no FILENAME where the table says")
        name = text_of(data[:size])
        bad = catar.why_bad_name(name)
        if bad is not None:
            raise Bad(f"a bad name: {bad}")
    except Bad as bad_record:
        raise InvalidArchive(where, f"{bad_record} (at byte {start})") from None
    return name, start + size


def _read_node(name: bytes, start: int, end: int, depth: int, where: str) -> Reading[Node]:
    if depth > catar.DEPTH_LIMIT:
        raise InvalidArchive(where, f"nodes deeper than {catar.DEPTH_LIMIT} levels")
    records = NodeRecords()
    reader = _Records(start, end, where)
    mode: int | None = None
    target = b""
    device = (0, 0)
    try:
        while True:
            size, kind = yield from reader.header()
            if mode is not None and kind not in RANKS:
                break
            if (kind == catar.ENTRY) != (mode is None):
                raise Bad(f"{RECORD_NAMES.get(kind, 'an unknown record')} is out of order")
            limits = LIMITS[kind]
            if not limits[0] <= size <= limits[1]:
                raise Bad(f"{RECORD_NAMES[kind]} of {size} bytes")
            record = yield from reader.record(size)
            if kind == catar.ENTRY:
                mode = records.entry(record)
            else:
                records.more(kind, record)
        metadata = records.finish()
        at = reader.at
        content = (at, 0)
        if metadata.kind == stat.S_IFDIR:
            content = yield from _span_of_children(start, at, end, where)
        elif metadata.kind == stat.S_IFREG:
            if kind != catar.PAYLOAD or size < catar.HEADER_SIZE or size != end - at:
                raise Bad("a file without its content")
            content = (at + catar.HEADER_SIZE, size - catar.HEADER_SIZE)
        elif metadata.kind == stat.S_IFLNK:
            limits = LIMITS[catar.SYMLINK]
            if kind != catar.SYMLINK or not limits[0] <= size <= limits[1]:
                raise Bad("a symbolic link without its target")
            target = text_of((yield from reader.record(size)))
        elif metadata.kind in (stat.S_IFCHR, stat.S_IFBLK):
            if kind != catar.DEVICE or size != LIMITS[catar.DEVICE][0]:
                raise Bad("a device without its numbers")
            device = _DEVICE.unpack((yield from reader.record(size)))
    except Bad as bad:
        raise InvalidArchive(where, f"{bad} (at byte {reader.at})") from None
    flags = records.flags or 0
    return Node(name, start, end, flags, metadata, target, device, content, depth)


def _span_of_children(start: int, at: int, end: int, where: str) -> Reading[tuple[int, int]]:
    """Read the tail of a directory's table, and say between which places its children are."""
    if end - at < SMALLEST:
        raise Bad("a directory without its table")
    tail = yield from _exactly(end - ITEM_SIZE, ITEM_SIZE, where)
    entry_offset, size, marker = ITEM.unpack(tail)
    begin = end - size
    if (
        marker != catar.GOODBYE_TAIL_MARKER
        or size < SMALLEST
        or (size - SMALLEST) % ITEM_SIZE
        or begin < at
        or entry_offset != begin - start
    ):
        raise Bad("a directory without its table")
    header = yield from _exactly(begin, catar.HEADER_SIZE, where)
    if _HEADER.unpack(header) != (size, catar.GOODBYE):
        raise Bad("a directory without its table")
    return at, begin - at


class _Records:
    """
    Reads records one after the other, with few requests.

    :ivar at: where the next one begins.
    """

    def __init__(self, start: int, end: int, where: str) -> None:
        self.at = start
        self._end = end
        self._where = where
        self._data = b""
        self._begin = start

    def header(self) -> Reading[tuple[int, int]]:
        """Give size and type of the next record; of fifos and sockets there is none at the end."""
        if self.at == self._end:
            return 0, 0
        yield from self._need(catar.HEADER_SIZE)
        size, kind = _HEADER.unpack_from(self._data, self.at - self._begin)
        return size, kind

    def record(self, size: int) -> Reading[bytes]:
        """Give the next record and pass over it."""
        yield from self._need(size)
        begin = self.at - self._begin
        self.at += size
        return self._data[begin : begin + size]

    def _need(self, size: int) -> Reading[None]:
        if self.at + size > self._end:
            raise Bad("a record that is longer than what it is in")
        have = self._begin + len(self._data) - self.at
        if have < size:
            length = min(max(size, _FIRST_READ), self._end - self.at)
            data = yield self.at, length
            if len(data) < size:
                raise Bad("truncated")
            self._data = data
            self._begin = self.at
