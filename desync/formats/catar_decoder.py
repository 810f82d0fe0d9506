# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Reading archives from their beginning to their end: bytes in, events out."""

from __future__ import annotations

import stat
import struct
from typing import Final

from desync.errors import InvalidArchive

from . import catar
from .catar import Event
from .catar_goodbye import ITEM, ITEM_SIZE, SMALLEST
from .catar_records import LIMITS, RANKS, RECORD_NAMES, Bad, NodeRecords, text_of

_HEADER: Final = struct.Struct("<2Q")
_DEVICE: Final = struct.Struct("<16x2Q")

#: Archives don't get so large; what would end beyond is refused where it begins.
_LARGEST_OFFSET: Final = (1 << 63) - 1


class CatarDecoder:
    """
    Takes an archive in pieces of any size and gives the nodes in it.

    ::

        decoder = CatarDecoder("os.catar")
        for piece in pieces:
            for event in decoder.feed(piece):
                ...
        decoder.finish()

    The events are those of :mod:`desync.formats.catar`, checked: they come in a good order, every
    name is one that a node can have, no directory is deeper than 64 levels. Names may repeat in a
    directory, and links may lead anywhere: whoever makes files of them has to be prepared.

    It keeps no more than one record, of at most 64 KiB; a file's content and tables of directories
    pass through.

    :param where: the archive, as errors name it.
    """

    def __init__(self, where: str = "archive") -> None:
        self._where = where
        self._records = NodeRecords()
        self._rest = b""
        self._offset = 0
        self._error: InvalidArchive | None = None
        # Where the ENTRY records of the directories under way begin.
        self._open: list[int] = []
        self._name: bytes | None = b""
        self._entry = 0
        # The node whose records are being read: its mode, or None between nodes.
        self._mode: int | None = None
        self._payload_left = 0
        self._items_left = 0
        self._goodbye = (0, 0)
        self.complete = False

    @property
    def flags(self) -> int:
        """The archive's feature flags; 0 before its first 64 bytes were read."""
        return self._records.flags or 0

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """
        Take the next piece of the archive.

        What comes after the end of the archive is ignored, as casync does.

        :param data: of any length. Payload events are views of it, so it must not be changed while
            they are in use.
        :returns: what is complete now.
        :raises InvalidArchive: if it is no archive. Events before the bad place are returned first:
            the next call of this, or of :meth:`finish`, raises then.
        """
        if self._error is not None:
            raise self._error
        if self.complete:
            return []
        view = memoryview(data).cast("B")
        if self._rest:
            view = memoryview(self._rest + bytes(view))
        events: list[Event] = []
        at = 0
        try:
            at = self._read(view, events)
        except _Refused as refused:
            where = self._offset + refused.at
            self._error = InvalidArchive(self._where, f"{refused.why} (at byte {where})")
            self._rest = b""
            if not events:
                raise self._error from None
            return events
        self._rest = bytes(view[at:])
        self._offset += at
        return events

    def finish(self) -> None:
        """
        Say that there is no more.

        :raises InvalidArchive: if the archive isn't complete, or was refused.
        """
        if self._error is not None:
            raise self._error
        if not self.complete:
            size = self._offset + len(self._rest)
            why = f"truncated: it has no end after {size} bytes" if size else "it is empty"
            self._error = InvalidArchive(self._where, why)
            raise self._error

    def _read(self, view: memoryview, events: list[Event]) -> int:
        """Read all records that are complete, and say where they end."""
        at = 0
        end = len(view)
        unpack = _HEADER.unpack_from
        try:
            while True:
                if self._payload_left:
                    take = min(self._payload_left, end - at)
                    if take:
                        events.append(catar.Payload(view[at : at + take]))
                        self._payload_left -= take
                        at += take
                    if self._payload_left:
                        return at
                if self._items_left:
                    take = min(self._items_left, end - at)
                    self._items_left -= take
                    at += take
                    if self._items_left:
                        return at
                if self._goodbye[1]:
                    if end - at < ITEM_SIZE:
                        return at
                    self._take_tail(view, at, events)
                    at += ITEM_SIZE
                    if self.complete:
                        return at
                if end - at < catar.HEADER_SIZE:
                    return at
                size, kind = unpack(view, at)
                if kind == catar.PAYLOAD:
                    self._begin_payload(size, at, events)
                    at += catar.HEADER_SIZE
                    continue
                if kind == catar.GOODBYE:
                    self._begin_goodbye(size, at, events)
                    at += catar.HEADER_SIZE
                    continue
                limits = LIMITS.get(kind)
                if limits is None:
                    if not self._open and self._mode is None:
                        raise Bad("not an archive")
                    raise Bad(f"unknown record type {kind:#x}")
                if not limits[0] <= size <= limits[1]:
                    raise Bad(f"{RECORD_NAMES[kind]} of {size} bytes")
                if end - at < size:
                    # It can be seen to be out of place before all of it is there.
                    self._check_place(kind)
                    return at
                self._take(kind, view[at : at + size], at, events)
                at += size
        except Bad as bad:
            raise _Refused(str(bad), at) from None

    def _check_place(self, kind: int) -> None:
        if kind == catar.ENTRY:
            if self._name is None or self._mode is not None:
                raise Bad("ENTRY is out of order")
        elif kind == catar.FILENAME:
            if self._mode is None and self._name is not None and not self._is_stray_name():
                raise Bad("FILENAME is out of order")
        elif self._mode is None:
            raise Bad(f"{RECORD_NAMES[kind]} is out of order")

    def _is_stray_name(self) -> bool:
        # Go desync names fifos and sockets before it notices that it can't record them.
        return self._records.as_go and self._mode is None and bool(self._open)

    def _take(self, kind: int, record: memoryview, at: int, events: list[Event]) -> None:
        if kind == catar.ENTRY:
            if self._name is None or self._mode is not None:
                raise Bad("ENTRY is out of order")
            self._mode = self._records.entry(record)
            self._entry = self._offset + at
            if not self._open and not stat.S_ISDIR(self._mode):
                raise Bad("the root is no directory")
        elif kind == catar.FILENAME:
            self._between(events)
            if self._name is not None and not self._is_stray_name():
                raise Bad("FILENAME is out of order")
            if len(self._open) >= catar.DEPTH_LIMIT:
                raise Bad(f"nodes deeper than {catar.DEPTH_LIMIT} levels")
            name = text_of(record)
            bad = catar.why_bad_name(name)
            if bad is not None:
                raise Bad(f"a bad name: {bad}")
            self._name = name
        elif self._mode is None:
            raise Bad(f"{RECORD_NAMES[kind]} is out of order")
        elif kind in RANKS:
            self._records.more(kind, record)
        elif kind == catar.SYMLINK:
            if not stat.S_ISLNK(self._mode):
                raise Bad("SYMLINK in what is no symbolic link")
            target = text_of(record)
            events.append(catar.Symlink(self._end_name(), self._records.finish(), target))
        else:
            if stat.S_IFMT(self._mode) not in (stat.S_IFCHR, stat.S_IFBLK):
                raise Bad("DEVICE in what is no device")
            major, minor = _DEVICE.unpack(record)
            if major >= 1 << 12 or minor >= 1 << 20:
                raise Bad(f"device number {major}:{minor}")
            events.append(catar.Device(self._end_name(), self._records.finish(), major, minor))

    def _end_name(self) -> bytes:
        """Give the name of the node whose records are complete."""
        name = self._name
        assert name is not None
        self._name = None
        self._mode = None
        return name

    def _between(self, events: list[Event]) -> None:
        """Bring the node to its end, or a directory to its children, before FILENAME or GOODBYE."""
        if self._mode is None:
            return
        kind = stat.S_IFMT(self._mode)
        metadata = self._records.finish()
        if kind == stat.S_IFDIR:
            events.append(catar.Directory(self._end_name(), metadata))
            self._open.append(self._entry)
        elif kind == stat.S_IFIFO:
            events.append(catar.Fifo(self._end_name(), metadata))
        elif kind == stat.S_IFSOCK:
            events.append(catar.Socket(self._end_name(), metadata))
        else:
            raise Bad("a node without its content")

    def _begin_payload(self, size: int, at: int, events: list[Event]) -> None:
        if self._mode is None:
            raise Bad("PAYLOAD is out of order")
        if not stat.S_ISREG(self._mode):
            raise Bad("PAYLOAD in what is no regular file")
        if size < catar.HEADER_SIZE or size > _LARGEST_OFFSET - self._offset - at:
            raise Bad(f"PAYLOAD of {size} bytes")
        size -= catar.HEADER_SIZE
        events.append(catar.File(self._end_name(), self._records.finish(), size))
        self._payload_left = size

    def _begin_goodbye(self, size: int, at: int, events: list[Event]) -> None:
        self._between(events)
        if not self._open or (self._name is not None and not self._is_stray_name()):
            raise Bad("GOODBYE is out of order")
        items, rest = divmod(size - SMALLEST, ITEM_SIZE)
        if items < 0 or rest or size > _LARGEST_OFFSET - self._offset - at:
            raise Bad(f"GOODBYE of {size} bytes")
        self._name = None
        self._goodbye = (self._offset + at, size)
        self._items_left = items * ITEM_SIZE

    def _take_tail(self, view: memoryview, at: int, events: list[Event]) -> None:
        begin, size = self._goodbye
        expected = (begin - self._open.pop(), size, catar.GOODBYE_TAIL_MARKER)
        if ITEM.unpack_from(view, at) != expected:
            raise Bad("GOODBYE with a bad tail")
        self._goodbye = (0, 0)
        events.append(catar.EndDirectory())
        self.complete = not self._open


class _Refused(Exception):
    def __init__(self, why: str, at: int) -> None:
        super().__init__(why)
        self.why = why
        self.at = at
