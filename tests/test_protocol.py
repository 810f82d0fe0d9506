# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The messages of the casync protocol."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as some
from twisted.trial.unittest import SynchronousTestCase

from desync.formats.protocol import (
    MAX_CHUNK_DATA,
    MAX_FRAME,
    Abort,
    ArchiveData,
    ArchiveEnd,
    ChunkData,
    Goodbye,
    Hello,
    IndexData,
    IndexEnd,
    LocalProtocolError,
    Message,
    MessageReader,
    Missing,
    RemoteProtocolError,
    Request,
)

ID = bytes(range(32))

ids = some.binary(min_size=32, max_size=32)
data = some.binary(min_size=1, max_size=200)
messages = some.one_of(
    some.builds(Hello, some.integers(1, (1 << 64) - 2)),
    some.builds(IndexData, data),
    some.builds(ArchiveData, data),
    some.just(IndexEnd()),
    some.just(ArchiveEnd()),
    some.just(Goodbye()),
    some.builds(Request, some.lists(ids, min_size=1, max_size=5).map(tuple), some.booleans()),
    some.builds(ChunkData, ids, data, some.booleans()),
    some.builds(Missing, ids),
    some.builds(Abort, some.integers(0, 200), some.just("no such file")),
)


def frame(kind: bytes, body: bytes) -> bytes:
    """Put together a frame that may be wrong; the type as its bytes on the wire, in hex."""
    return struct.pack("<Q", 16 + len(body)) + bytes.fromhex(kind.decode()) + body


class MessageTests(SynchronousTestCase):
    """Their forms on the wire."""

    def test_known_frames(self) -> None:
        """The frames of a real session come out byte for byte."""
        hello = "1800000000000000eefba58c94d0713cc000000000000000"
        self.assertEqual(Hello(0xC0).encode().hex(), hello)
        self.assertEqual(len(Request((ID,)).encode()), 56)
        self.assertEqual(Request((ID,)).encode()[8:16].hex(), "10929df8e027b48a")
        self.assertEqual(Request((ID,), False).encode()[16:24], bytes(8))
        chunk = ChunkData(ID, b"data").encode()
        self.assertEqual(chunk[:24].hex(), "3c000000000000008cbc840a18dd13520100000000000000")
        self.assertEqual(chunk[24:], ID + b"data")
        self.assertEqual(Missing(ID).encode()[:16].hex(), "30000000000000006c7b2bc8faf910d0")
        self.assertEqual(Goodbye().encode().hex(), "1000000000000000c386361abf5d20ad")
        self.assertEqual(IndexEnd().encode().hex(), "1000000000000000f5183704f132094f")
        self.assertEqual(ArchiveEnd().encode().hex(), "1000000000000000adcb243f66ef0b45")
        self.assertEqual(IndexData(b"x").encode()[8:].hex(), "f8273e2bdd912ab378")
        self.assertEqual(ArchiveData(b"x").encode()[8:].hex(), "c5dced698a42d69578")
        abort = Abort(2, "gone").encode()
        self.assertEqual(abort[8:].hex(), "52a3fe7e6b13d9e7" + "0200000000000000" + "676f6e6500")

    @given(some.lists(messages, max_size=6), some.data())
    def test_any_split(self, sent: list[Message], choose: some.DataObject) -> None:
        """What is encoded is decoded, however the bytes are divided."""
        wire = b"".join(message.encode() for message in sent)
        cuts = choose.draw(some.lists(some.integers(0, len(wire)), max_size=8).map(sorted))
        reader = MessageReader()
        got: list[Message] = []
        for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            got += reader.feed(wire[begin:end])
        self.assertEqual(got, sent)
        self.assertFalse(reader.pending)

    @given(some.binary(max_size=400), some.integers(1, 50))
    def test_garbage(self, garbage: bytes, step: int) -> None:
        """Whatever comes, there is no other error than the one."""
        reader = MessageReader()
        try:
            for begin in range(0, len(garbage), step):
                reader.feed(garbage[begin : begin + step])
        except RemoteProtocolError:
            self.assertRaises(RemoteProtocolError, reader.feed, b"")

    @given(messages, some.integers(0, 400), some.integers(0, 255))
    def test_flipped(self, message: Message, position: int, value: int) -> None:
        """A frame with one byte changed is another message, unfinished, or refused."""
        wire = bytearray(message.encode())
        wire[position % len(wire)] = value
        try:
            got = MessageReader().feed(bytes(wire))
        except RemoteProtocolError:
            return
        for one in got:
            if isinstance(one, Abort):
                continue  # the peer's text is made fit for people
            self.assertEqual(one.encode(), bytes(wire)[: len(one.encode())])

    def test_refused(self) -> None:
        """Frames that can't be are refused before their body has come."""
        for wire in (
            struct.pack("<Q", 15) + Goodbye().encode()[8:],
            struct.pack("<Q", 17) + Goodbye().encode()[8:],
            struct.pack("<Q", 0) + Goodbye().encode()[8:],
            struct.pack("<Q", (1 << 64) - 1) + ChunkData(ID, b"x").encode()[8:16],
            struct.pack("<Q", MAX_FRAME + 1) + ChunkData(ID, b"x").encode()[8:16],
            struct.pack("<Q", 56) + ChunkData(ID, b"x").encode()[8:16],
            struct.pack("<QQ", 16, 1),
            frame(b"10929df8e027b48a", bytes(8) + ID + b"x"),
            frame(b"10929df8e027b48a", struct.pack("<Q", 2) + ID),
            frame(b"8cbc840a18dd1352", struct.pack("<Q", 2) + ID + b"x"),
            frame(b"eefba58c94d0713c", bytes(8)),
            frame(b"eefba58c94d0713c", b"\xff" * 8),
            frame(b"52a3fe7e6b13d9e7", bytes(8) + b"text"),
            frame(b"52a3fe7e6b13d9e7", bytes(8) + b"te\nxt\0"),
            frame(b"52a3fe7e6b13d9e7", struct.pack("<Q", 1 << 31) + b"text\0"),
        ):
            self.assertRaises(RemoteProtocolError, MessageReader().feed, wire)

    def test_limit(self) -> None:
        """A reader can be told to take less than the protocol allows."""
        wire = ChunkData(ID, bytes(1000)).encode()
        self.assertEqual(len(MessageReader(len(wire)).feed(wire)), 1)
        self.assertRaises(RemoteProtocolError, MessageReader(len(wire) - 1).feed, wire[:16])

    def test_pieces_are_not_joined_again_and_again(self) -> None:
        """A large chunk that comes in many pieces is put together once."""
        wire = ChunkData(ID, bytes(MAX_CHUNK_DATA)).encode()
        self.assertEqual(len(wire), MAX_FRAME)
        reader = MessageReader()
        got: list[Message] = []
        for begin in range(0, len(wire), 1000):
            got += reader.feed(wire[begin : begin + 1000])
        self.assertEqual(got, [ChunkData(ID, bytes(MAX_CHUNK_DATA))])

    def test_not_sent(self) -> None:
        """What the protocol doesn't allow isn't encoded."""
        for message in (
            Hello(0),
            Hello((1 << 64) - 1),
            IndexData(b""),
            ArchiveData(bytes(MAX_FRAME)),
            Request(()),
            Request((ID[:31],)),
            ChunkData(ID, b""),
            ChunkData(ID, bytes(MAX_CHUNK_DATA + 1)),
            ChunkData(b"", b"x"),
            Missing(b""),
            Abort(-1, "text"),
            Abort(1 << 31, "text"),
        ):
            self.assertRaises(LocalProtocolError, message.encode)

    def test_abort_text(self) -> None:
        """The text of an abort loses what the protocol doesn't carry, and is never empty."""
        for text, carried in (("a\nb\x01", "a b"), ("", "error"), ("\u00e4", "\u00e4")):
            wire = Abort(5, text).encode()
            self.assertEqual(MessageReader().feed(wire), [Abort(5, carried)])
