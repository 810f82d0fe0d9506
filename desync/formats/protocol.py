# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The messages of the casync protocol: what they hold, and their form on the wire.

A message is a frame: its size in bytes with these eight, its type, and a body; all numbers are
64-bit little-endian. The same frames are on the pipes of a casync session and in the answers of a
chunk server that is asked for many chunks at once.

Types, sizes and flags are those of casync (its ``caprotocol.h``).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeAlias

from desync.formats.ids import ID_SIZE

#: The least and the most bytes of a frame, header included.
HEADER_SIZE: Final = 16
MAX_FRAME: Final = 16 << 20

#: The most bytes of a chunk that fit in a frame.
MAX_CHUNK_DATA: Final = MAX_FRAME - HEADER_SIZE - 8 - ID_SIZE

_HELLO: Final = 0x3C71D0948CA5FBEE
_INDEX: Final = 0xB32A91DD2B3E27F8
_INDEX_EOF: Final = 0x4F0932F1043718F5
_ARCHIVE: Final = 0x95D6428A69EDDCC5
_ARCHIVE_EOF: Final = 0x450BEF663F24CBAD
_REQUEST: Final = 0x8AB427E0F89D9210
_CHUNK: Final = 0x5213DD180A84BC8C
_MISSING: Final = 0xD010F9FAC82B7B6C
_GOODBYE: Final = 0xAD205DBF1A3686C3
_ABORT: Final = 0xE7D9136B7EFEA352

_U64: Final = struct.Struct("<Q")
_HEADER: Final = struct.Struct("<QQ")
_NUMBER: Final = struct.Struct("<QQQ")

_HIGH_PRIORITY: Final = 1
_COMPRESSED: Final = 1
_LARGEST_ERRNO: Final = (1 << 31) - 2


class LocalProtocolError(ValueError):
    """We were about to send what the protocol doesn't allow."""


class RemoteProtocolError(Exception):
    """The peer sent what the protocol doesn't allow. The message says what, in one line."""


def _check(holds: bool, why: str) -> None:
    if not holds:
        raise LocalProtocolError(why)


class Hello(NamedTuple):
    """
    What a side offers and wants: the first message, both ways.

    :ivar flags: a bit for each thing offered or wanted.
    """

    flags: int

    def encode(self) -> bytes:
        """Give the frame."""
        _check(0 < self.flags < (1 << 64) - 1, "a hello without meaning")
        return _NUMBER.pack(HEADER_SIZE + 8, _HELLO, self.flags)


class IndexData(NamedTuple):
    """A piece of an index file."""

    data: bytes

    def encode(self) -> bytes:
        """Give the frame."""
        return _data_frame(_INDEX, self.data)


class IndexEnd(NamedTuple):
    """There is no more of the index."""

    def encode(self) -> bytes:
        """Give the frame."""
        return _HEADER.pack(HEADER_SIZE, _INDEX_EOF)


class ArchiveData(NamedTuple):
    """A piece of an archive (``.catar``)."""

    data: bytes

    def encode(self) -> bytes:
        """Give the frame."""
        return _data_frame(_ARCHIVE, self.data)


class ArchiveEnd(NamedTuple):
    """There is no more of the archive."""

    def encode(self) -> bytes:
        """Give the frame."""
        return _HEADER.pack(HEADER_SIZE, _ARCHIVE_EOF)


class Request(NamedTuple):
    """
    Asks for chunks.

    :ivar ids: one id or more, 32 bytes each.
    :ivar high_priority: whether they are wanted before what was asked for otherwise.
    """

    ids: tuple[bytes, ...]
    high_priority: bool = True

    def encode(self) -> bytes:
        """Give the frame."""
        joined = b"".join(self.ids)
        _check(bool(joined), "a request for nothing")
        _check(len(joined) == ID_SIZE * len(self.ids), "an id of a wrong size")
        size = HEADER_SIZE + 8 + len(joined)
        _check(size <= MAX_FRAME, "too many ids in a request")
        return _NUMBER.pack(size, _REQUEST, _HIGH_PRIORITY * self.high_priority) + joined


class ChunkData(NamedTuple):
    """
    A chunk.

    :ivar data: its stored form, one compressed frame, or its plain bytes.
    :ivar compressed: which of both it is.
    """

    chunk_id: bytes
    data: bytes
    compressed: bool = True

    def encode_head(self) -> bytes:
        """Give the frame without the data at its end, for whoever writes that apart."""
        _check(len(self.chunk_id) == ID_SIZE, "an id of a wrong size")
        _check(0 < len(self.data) <= MAX_CHUNK_DATA, "a chunk that fits in no frame")
        size = HEADER_SIZE + 8 + ID_SIZE + len(self.data)
        return _NUMBER.pack(size, _CHUNK, _COMPRESSED * self.compressed) + self.chunk_id

    def encode(self) -> bytes:
        """Give the frame."""
        return self.encode_head() + self.data


class Missing(NamedTuple):
    """A chunk that was asked for isn't there."""

    chunk_id: bytes

    def encode(self) -> bytes:
        """Give the frame."""
        _check(len(self.chunk_id) == ID_SIZE, "an id of a wrong size")
        return _HEADER.pack(HEADER_SIZE + ID_SIZE, _MISSING) + self.chunk_id


class Goodbye(NamedTuple):
    """All is done: the end of a session, or of an answer."""

    def encode(self) -> bytes:
        """Give the frame."""
        return _HEADER.pack(HEADER_SIZE, _GOODBYE)


class Abort(NamedTuple):
    """
    The side can't go on.

    :ivar code: an error number of the system; 0 where there is none.
    :ivar text: why, for people. Control characters don't travel.
    """

    code: int
    text: str

    def encode(self) -> bytes:
        """Give the frame."""
        _check(0 <= self.code <= _LARGEST_ERRNO, "an error number out of range")
        text = " ".join(self.text.split()).encode("utf-8", "replace")
        text = bytes(byte for byte in text if byte >= 0x20)[:4096] or b"error"
        body = text + b"\0"
        return _NUMBER.pack(HEADER_SIZE + 8 + len(body), _ABORT, self.code) + body


Message: TypeAlias = (
    Hello
    | IndexData
    | IndexEnd
    | ArchiveData
    | ArchiveEnd
    | Request
    | ChunkData
    | Missing
    | Goodbye
    | Abort
)

# The sizes that frames of each type can have: the least, and the most.
_SIZES: Final = {
    _HELLO: (HEADER_SIZE + 8, HEADER_SIZE + 8),
    _INDEX: (HEADER_SIZE + 1, MAX_FRAME),
    _INDEX_EOF: (HEADER_SIZE, HEADER_SIZE),
    _ARCHIVE: (HEADER_SIZE + 1, MAX_FRAME),
    _ARCHIVE_EOF: (HEADER_SIZE, HEADER_SIZE),
    _REQUEST: (HEADER_SIZE + 8 + ID_SIZE, MAX_FRAME),
    _CHUNK: (HEADER_SIZE + 8 + ID_SIZE + 1, MAX_FRAME),
    _MISSING: (HEADER_SIZE + ID_SIZE, HEADER_SIZE + ID_SIZE),
    _GOODBYE: (HEADER_SIZE, HEADER_SIZE),
    _ABORT: (HEADER_SIZE + 8 + 1, HEADER_SIZE + 8 + 65536),
}


def _data_frame(kind: int, data: bytes) -> bytes:
    _check(0 < len(data) <= MAX_FRAME - HEADER_SIZE, "a piece that fits in no frame")
    return _HEADER.pack(HEADER_SIZE + len(data), kind) + data


class MessageReader:
    """
    Takes bytes as they come, in any pieces, and gives messages.

    A frame's size is checked against its type before any of its body is kept.

    :param limit: the most bytes of a frame, header included, where less is expected than the
        protocol allows.
    """

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._held = 0
        # How many bytes it takes to get any further: what came of a large frame isn't looked at
        # again with each piece.
        self._wanted = HEADER_SIZE
        self._broken = False

    def feed(self, data: bytes) -> list[Message]:
        """
        Take some bytes.

        :returns: the messages that are complete by now.
        :raises RemoteProtocolError: if the bytes can't be messages; those before them, of the same
            call, are lost. Nothing can be read afterwards.
        """
        if self._broken:
            raise RemoteProtocolError("nothing can follow a broken message")
        self._pieces.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return []
        joined = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        messages: list[Message] = []
        begin = 0
        try:
            while True:
                if len(joined) - begin < HEADER_SIZE:
                    self._wanted = HEADER_SIZE
                    break
                size, kind = _HEADER.unpack_from(joined, begin)
                self._check_size(size, kind)
                if len(joined) - begin < size:
                    self._wanted = size
                    break
                messages.append(_parse(kind, joined, begin + HEADER_SIZE, begin + size))
                begin += size
        except RemoteProtocolError:
            self._broken = True
            self._pieces.clear()
            raise
        rest = joined[begin:]
        self._pieces = [rest] if rest else []
        self._held = len(rest)
        return messages

    @property
    def pending(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._held)

    def _check_size(self, size: int, kind: int) -> None:
        sizes = _SIZES.get(kind)
        if sizes is None:
            raise RemoteProtocolError(f"a message of unknown type {kind:#018x}")
        if not sizes[0] <= size <= min(sizes[1], self._limit):
            raise RemoteProtocolError(f"a message of {size} bytes, of type {kind:#018x}")


def _parse(kind: int, data: bytes, begin: int, end: int) -> Message:
    """Make the message of a frame whose body is data[begin:end], of a size that it can have."""
    if kind == _CHUNK:
        flags = _flags(data, begin, _COMPRESSED)
        start = begin + 8 + ID_SIZE
        return ChunkData(data[begin + 8 : start], data[start:end], bool(flags & _COMPRESSED))
    if kind == _MISSING:
        return Missing(data[begin:end])
    if kind == _REQUEST:
        flags = _flags(data, begin, _HIGH_PRIORITY)
        if (end - begin - 8) % ID_SIZE:
            raise RemoteProtocolError("a request that ends within an id")
        ids = tuple(data[at : at + ID_SIZE] for at in range(begin + 8, end, ID_SIZE))
        return Request(ids, bool(flags & _HIGH_PRIORITY))
    if kind == _INDEX:
        return IndexData(data[begin:end])
    if kind == _ARCHIVE:
        return ArchiveData(data[begin:end])
    if kind == _HELLO:
        (number,) = _U64.unpack_from(data, begin)
        if number in (0, (1 << 64) - 1):
            raise RemoteProtocolError("a hello without meaning")
        return Hello(number)
    if kind == _ABORT:
        return _parse_abort(data[begin:end])
    return _EMPTY[kind]


_EMPTY: Final[dict[int, Message]] = {
    _INDEX_EOF: IndexEnd(),
    _ARCHIVE_EOF: ArchiveEnd(),
    _GOODBYE: Goodbye(),
}


def _flags(data: bytes, begin: int, known: int) -> int:
    (flags,) = _U64.unpack_from(data, begin)
    if flags & ~known:
        raise RemoteProtocolError(f"unknown flags {flags:#x}")
    return int(flags)


def _parse_abort(body: bytes) -> Abort:
    (code,) = _U64.unpack_from(body)
    text = body[8:]
    if code > _LARGEST_ERRNO or not text.endswith(b"\0") or min(text[:-1], default=0x20) < 0x20:
        raise RemoteProtocolError("a malformed abort")
    return Abort(code, text[:-1].decode("utf-8", "replace"))
