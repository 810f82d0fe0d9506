# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The messages of the casync protocol: what travels between ``casync`` and ``casync pull`` or ``push``
on another machine, in both directions at once.

A frame is its length with these 16 bytes (64 bits), its type (64 bits), a body; all integers are
unsigned and little-endian. :class:`MessageReader` makes messages of bytes, their own ``encode``
bytes of messages. Who may say what and when is the business of
:mod:`desync.formats.protocol_session`.

Two errors come out of here and nothing else: :class:`LocalProtocolError` for what we got wrong,
:class:`RemoteProtocolError` for what the peer did.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from desync.errors import DesyncError

from .ids import ID_SIZE, ChunkIds

if TYPE_CHECKING:
    from collections.abc import Callable

#: The longest frame that casync takes, in bytes, header included.
MAX_FRAME: Final = 16 << 20

#: Length in bytes of a frame's header: its length and its type.
HEADER_SIZE: Final = 16

#: How much longer than a chunk's bytes the frame is that carries them.
CHUNK_OVERHEAD: Final = HEADER_SIZE + 8 + ID_SIZE

#: The most bytes of a chunk that fit in a frame.
MAX_CHUNK_DATA: Final = MAX_FRAME - CHUNK_OVERHEAD

#: The most bytes that the text of an abort may have.
ABORT_TEXT_LIMIT: Final = 4096

# Error numbers mean the same on all systems here: they are Linux's, as casync sends them.
ENOENT: Final = 2
EIO: Final = 5
EACCES: Final = 13
EBADE: Final = 52
EBADMSG: Final = 74
EPROTONOSUPPORT: Final = 93

_HEADER = struct.Struct("<2Q")
_WORD = struct.Struct("<Q")
_FLAG = (_WORD.pack(0), _WORD.pack(1))
_ERRNO_LIMIT = (1 << 31) - 1
_ALL_ONES = (1 << 64) - 1


class ProtocolError(DesyncError):
    """Something was said that the protocol doesn't allow."""


class LocalProtocolError(ProtocolError):
    """We were about to say something that the protocol doesn't allow: a mistake in our code."""


class RemoteProtocolError(ProtocolError):
    """
    The peer said something that the protocol doesn't allow.

    :param errno: what to tell it in an abort (:class:`Abort`).
    """

    def __init__(self, why: str, errno: int = EBADMSG) -> None:
        super().__init__(why)
        self.errno = errno


class Unfit(LocalProtocolError, ValueError):
    """A message can't have this content. What the peer sent becomes a RemoteProtocolError."""


class _Framed:
    """A message. It checks what it is made of; that it fits in a frame is checked last."""

    __slots__ = ()

    def body(self) -> bytes:
        """Give what follows the frame's header."""
        return b""

    def encode(self) -> bytes:
        """
        Give the frame.

        :raises LocalProtocolError: if it would be too long.
        """
        return b"".join(self.pieces())

    def pieces(self) -> tuple[bytes, ...]:
        """Give the frame in pieces to be written one after the other. See :meth:`encode`."""
        body = self.body()
        start = _start(type(self), len(body))
        return (start, body) if body else (start,)


@dataclass(frozen=True, slots=True)
class Hello(_Framed):
    """
    The first message of either side: what it offers and what it wants.

    :param flags: bits of :mod:`desync.formats.protocol_session`'s ``Service``; not all zeros nor
        all ones.
    """

    flags: int

    def __post_init__(self) -> None:
        if not 0 < self.flags < _ALL_ONES:
            raise Unfit(f"a hello with the flags {self.flags:#x}")

    def body(self) -> bytes:
        return _WORD.pack(self.flags)


@dataclass(frozen=True, slots=True)
class IndexData(_Framed):
    """The next bytes of an index file, at least one."""

    data: bytes

    def __post_init__(self) -> None:
        if not self.data:
            raise Unfit("an empty piece of an index")

    def body(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class IndexEnd(_Framed):
    """The index is complete."""


@dataclass(frozen=True, slots=True)
class ArchiveData(_Framed):
    """The next bytes of an archive (catar), at least one."""

    data: bytes

    def __post_init__(self) -> None:
        if not self.data:
            raise Unfit("an empty piece of an archive")

    def body(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class ArchiveEnd(_Framed):
    """The archive is complete."""


@dataclass(frozen=True, slots=True)
class Request(_Framed):
    """
    Asks for chunks.

    :param ids: which, at least one.
    :param high_priority: they are needed now. Advice, no more.
    """

    ids: ChunkIds
    high_priority: bool = True

    def __post_init__(self) -> None:
        if not self.ids:
            raise Unfit("a request for no chunk")

    def body(self) -> bytes:
        return _WORD.pack(self.high_priority) + self.ids.to_bytes()


@dataclass(frozen=True, slots=True)
class ChunkData(_Framed):
    """
    A chunk.

    :param chunk_id: 32 bytes.
    :param data: its bytes, at least one.
    :param compressed: whether they are one compressed frame (zstd, xz or gzip: the data says
        which), or the chunk as it is.
    """

    chunk_id: bytes
    data: bytes
    compressed: bool = True

    def __post_init__(self) -> None:
        if len(self.chunk_id) != ID_SIZE:
            raise Unfit(f"an id of {len(self.chunk_id)} bytes")
        if not self.data:
            raise Unfit(f"no data for chunk {self.chunk_id.hex()}")

    def body(self) -> bytes:
        return _WORD.pack(self.compressed) + self.chunk_id + self.data

    def encode_head(self) -> bytes:
        """Give the frame without the data at its end, for whoever writes that apart."""
        return chunk_head(self.chunk_id, len(self.data), self.compressed)

    def pieces(self) -> tuple[bytes, ...]:
        return (self.encode_head(), self.data)  # which isn't copied


@dataclass(frozen=True, slots=True)
class Missing(_Framed):
    """Whoever was asked for this chunk doesn't have it."""

    chunk_id: bytes

    def __post_init__(self) -> None:
        if len(self.chunk_id) != ID_SIZE:
            raise Unfit(f"an id of {len(self.chunk_id)} bytes")

    def body(self) -> bytes:
        return self.chunk_id


@dataclass(frozen=True, slots=True)
class Goodbye(_Framed):
    """Everything has been said."""


@dataclass(frozen=True, slots=True)
class Abort(_Framed):
    """
    The sender gives up.

    :param code: why, as one of Linux's error numbers, below 2^31 - 1. It is all that casync
        shows; 0 is allowed.
    :param text: why, in words, without control characters.
    """

    code: int
    text: str

    def __post_init__(self) -> None:
        if not 0 <= self.code < _ERRNO_LIMIT:
            raise Unfit(f"an abort with the error number {self.code}")
        if any(character < " " for character in self.text):
            raise Unfit("an abort whose text holds control characters")
        if len(self._encoded()) > ABORT_TEXT_LIMIT:
            raise Unfit("an abort with too long a text")

    @classmethod
    def saying(cls, code: int, text: str) -> Abort:
        """Make one of any text: control characters don't travel, nor does what is too much."""
        clean = " ".join("".join(c if c >= " " else " " for c in text).split())
        return cls(code, clean[: ABORT_TEXT_LIMIT // 12])  # as long as an escape can get

    def _encoded(self) -> bytes:
        return self.text.encode("utf-8", "backslashreplace")

    def body(self) -> bytes:
        return _WORD.pack(self.code) + self._encoded() + b"\0"


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


def _bit(word: int, what: str) -> bool:
    if word > 1:
        raise Unfit(f"{what} with the flags {word:#x}")
    return bool(word)


def _hello(body: memoryview) -> Hello:
    return Hello(*_WORD.unpack(body))


def _request(body: memoryview) -> Request:
    (flags,) = _WORD.unpack_from(body)
    urgent = _bit(flags, "a request")
    rest = body[8:]
    if len(rest) % ID_SIZE:
        raise Unfit(f"a request of {len(rest)} bytes of ids")
    return Request(ChunkIds.from_bytes(bytes(rest)), urgent)


def _chunk(body: memoryview) -> ChunkData:
    (flags,) = _WORD.unpack_from(body)
    compressed = _bit(flags, "a chunk")
    return ChunkData(bytes(body[8:40]), bytes(body[40:]), compressed)


def _abort(body: memoryview) -> Abort:
    (code,) = _WORD.unpack_from(body)
    text = bytes(body[8:])
    if not text.endswith(b"\0"):
        raise Unfit("an abort whose text has no end")
    return Abort(code, text[:-1].decode("utf-8", "backslashreplace"))


class _Kind(NamedTuple):
    """How messages of a type look: their name, the lengths of their bodies, how they are read."""

    name: str
    number: int
    least: int
    most: int
    parse: Callable[[memoryview], Message]


_UNLIMITED = 1 << 62
_KINDS: Final[dict[type[_Framed], _Kind]] = {
    Hello: _Kind("HELLO", 0x3C71D0948CA5FBEE, 8, 8, _hello),
    IndexData: _Kind(
        "INDEX", 0xB32A91DD2B3E27F8, 1, _UNLIMITED, lambda body: IndexData(bytes(body))
    ),
    IndexEnd: _Kind("INDEX_EOF", 0x4F0932F1043718F5, 0, 0, lambda body: IndexEnd()),
    ArchiveData: _Kind(
        "ARCHIVE", 0x95D6428A69EDDCC5, 1, _UNLIMITED, lambda body: ArchiveData(bytes(body))
    ),
    ArchiveEnd: _Kind("ARCHIVE_EOF", 0x450BEF663F24CBAD, 0, 0, lambda body: ArchiveEnd()),
    Request: _Kind("REQUEST", 0x8AB427E0F89D9210, 8 + ID_SIZE, _UNLIMITED, _request),
    ChunkData: _Kind("CHUNK", 0x5213DD180A84BC8C, 8 + ID_SIZE + 1, _UNLIMITED, _chunk),
    Missing: _Kind(
        "MISSING", 0xD010F9FAC82B7B6C, ID_SIZE, ID_SIZE, lambda body: Missing(bytes(body))
    ),
    Goodbye: _Kind("GOODBYE", 0xAD205DBF1A3686C3, 0, 0, lambda body: Goodbye()),
    Abort: _Kind("ABORT", 0xE7D9136B7EFEA352, 9, 8 + ABORT_TEXT_LIMIT + 1, _abort),
}
_BY_NUMBER: Final = {kind.number: kind for kind in _KINDS.values()}


def _start(kind: type[_Framed], body_size: int) -> bytes:
    size = HEADER_SIZE + body_size
    if size > MAX_FRAME:
        raise LocalProtocolError(f"a {_KINDS[kind].name} of {size} bytes is too long to be sent")
    return _HEADER.pack(size, _KINDS[kind].number)


def chunk_head(chunk_id: bytes, size: int, compressed: bool) -> bytes:
    """
    Give what precedes the data in the frame of a :class:`ChunkData`, without making one.

    :param size: of the data, in bytes.
    :raises LocalProtocolError: if the frame would be too long.
    """
    return _start(ChunkData, CHUNK_OVERHEAD - HEADER_SIZE + size) + _FLAG[compressed] + chunk_id


def name_of(message: Message | type[Message]) -> str:
    """Give the protocol's word for a message, such as ``INDEX_EOF``."""
    kind = message if isinstance(message, type) else type(message)
    return _KINDS[kind].name


class MessageReader:
    """
    Takes bytes as they come, in any pieces, and gives messages.

    A frame's size is checked against its type before any of its body is kept. What is kept is never
    more than one frame and what was fed last.

    :param limit: the longest frame that is taken, in bytes, header included.
    :ivar error: what was wrong with the bytes that were fed last; None while nothing is.
    """

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._rest = bytearray()  # the beginning of a frame
        self._wanted = HEADER_SIZE  # how many bytes it takes to get any further
        self.error: RemoteProtocolError | None = None

    def feed(self, data: bytes) -> list[Message]:
        """
        Take some bytes.

        :returns: the messages that are complete by now. If what follows them can't be a message,
            they are given all the same, and :attr:`error` is set.
        :raises RemoteProtocolError: if there was no message before what can't be one, and each time
            after that.
        """
        if self.error is not None:
            raise self.error
        messages: list[Message] = []
        begin = self._complete(data, messages) if self._rest else 0
        if begin < len(data) and self.error is None:
            begin = self._parse(data, begin, messages)
            self._rest += memoryview(data)[begin:]
        if self.error is not None:
            self._rest.clear()
            if not messages:
                raise self.error
        return messages

    def _complete(self, data: bytes, messages: list[Message]) -> int:
        """
        Complete the frame that has begun, with as much of what was fed as belongs to it: the others
        are read where they are.

        :returns: how much that was.
        """
        rest = self._rest
        used = 0
        while self._rest and used < len(data) and self.error is None:
            more = data[used : used + self._wanted - len(rest)]
            rest += more
            used += len(more)
            if len(rest) >= self._wanted:
                del rest[: self._parse(rest, 0, messages)]
        return used

    def _parse(self, buffer: bytes | bytearray, begin: int, messages: list[Message]) -> int:
        """Make what messages there are from some place on, and say where the rest begins."""
        with memoryview(buffer) as view:
            while len(view) - begin >= HEADER_SIZE:
                size, number = _HEADER.unpack_from(view, begin)
                kind = _BY_NUMBER.get(number)
                try:
                    self._check(size, number)
                    if len(view) - begin < size:
                        self._wanted = size
                        return begin
                    assert kind is not None
                    with view[begin + HEADER_SIZE : begin + size] as body:
                        messages.append(kind.parse(body))
                except Unfit as error:
                    self.error = RemoteProtocolError(str(error))
                    return begin
                begin += size
        self._wanted = HEADER_SIZE
        return begin

    def _check(self, size: int, number: int) -> None:
        kind = _BY_NUMBER.get(number)
        if kind is None:
            raise Unfit(f"a message of the unknown type {number:016x}")
        if size > self._limit or not kind.least <= size - HEADER_SIZE <= kind.most:
            raise Unfit(f"a message {kind.name} of {size} bytes")

    @property
    def pending(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._rest)

    def finish(self) -> None:
        """
        Take note that nothing more comes.

        :raises RemoteProtocolError: if that is within a message, or something was wrong before.
        """
        if self.error is None and self.pending:
            self.error = RemoteProtocolError("the connection ended within a message")
        if self.error is not None:
            raise self.error
