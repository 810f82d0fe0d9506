# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of :mod:`desync.formats.protocol`."""

from __future__ import annotations

import dataclasses
import struct
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.formats import protocol
from desync.formats.ids import ChunkIds
from desync.formats.protocol import LocalProtocolError, MessageReader, RemoteProtocolError

from .protocol_messages import divided, messages

if TYPE_CHECKING:
    from desync.formats.protocol import Message

ONE_ID = bytes(range(32))

frames = messages.map(lambda message: message.encode())


def decode(pieces: list[bytes], limit: int = protocol.MAX_FRAME) -> tuple[list[Message], str]:
    """Give the messages in some bytes, and what is wrong after them."""
    reader = MessageReader(limit)
    found: list[Message] = []
    try:
        for piece in pieces:
            found += reader.feed(piece)
        reader.finish()
    except RemoteProtocolError as error:
        return found, str(error)
    return found, ""


def frame(number: int, body: bytes = b"", size: int | None = None) -> bytes:
    """Make a frame, true or not."""
    return struct.pack("<2Q", len(body) + 16 if size is None else size, number) + body


class EncodeTests(SynchronousTestCase):
    """Messages as bytes."""

    def test_layout(self) -> None:
        """Frames have the layout and the numbers that casync writes."""
        two = ChunkIds.from_bytes(ONE_ID + bytes(32))
        for message, expected in (
            (protocol.Hello(0xC0), "1800000000000000eefba58c94d0713cc000000000000000"),
            (protocol.IndexData(b"ab"), "1200000000000000f8273e2bdd912ab36162"),
            (protocol.IndexEnd(), "1000000000000000f5183704f132094f"),
            (protocol.ArchiveData(b"c"), "1100000000000000c5dced698a42d69563"),
            (protocol.ArchiveEnd(), "1000000000000000adcb243f66ef0b45"),
            (
                protocol.Request(two, high_priority=True),
                "580000000000000010929df8e027b48a0100000000000000" + ONE_ID.hex() + bytes(32).hex(),
            ),
            (
                protocol.ChunkData(ONE_ID, b"xy", compressed=True),
                "3a000000000000008cbc840a18dd13520100000000000000" + ONE_ID.hex() + "7879",
            ),
            (protocol.Missing(ONE_ID), "30000000000000006c7b2bc8faf910d0" + ONE_ID.hex()),
            (protocol.Goodbye(), "1000000000000000c386361abf5d20ad"),
            (protocol.Abort(2, "no"), "1b0000000000000052a3fe7e6b13d9e702000000000000006e6f00"),
        ):
            self.assertEqual(message.encode().hex(), expected)

    def test_no_copy(self) -> None:
        """The data of a chunk or a file goes out as the object it came as."""
        data = b"x" * 1000
        for message in (
            protocol.ChunkData(ONE_ID, data, compressed=False),
            protocol.IndexData(data),
            protocol.ArchiveData(data),
        ):
            self.assertIs(message.pieces()[-1], data)

    def test_unfit(self) -> None:
        """A message that the protocol doesn't allow can't be made."""
        for make in (
            lambda: protocol.Hello(0),
            lambda: protocol.Hello((1 << 64) - 1),
            lambda: protocol.IndexData(b""),
            lambda: protocol.ArchiveData(b""),
            lambda: protocol.Request(ChunkIds.from_bytes(b"")),
            lambda: protocol.ChunkData(b"short", b"x", compressed=False),
            lambda: protocol.ChunkData(ONE_ID, b"", compressed=False),
            lambda: protocol.Missing(b""),
            lambda: protocol.Abort(-1, ""),
            lambda: protocol.Abort((1 << 31) - 1, ""),
            lambda: protocol.Abort(1, "two\nlines"),
            lambda: protocol.Abort(1, "x" * 5000),
        ):
            with self.assertRaises(LocalProtocolError):
                make()

    def test_frozen(self) -> None:
        """A message doesn't change once it is made."""
        with self.assertRaises(dataclasses.FrozenInstanceError):
            protocol.Missing(ONE_ID).chunk_id = bytes(32)  # type: ignore[misc]

    def test_too_long(self) -> None:
        """A frame longer than the limit isn't sent: 16 MiB."""
        most = protocol.MAX_FRAME - protocol.CHUNK_OVERHEAD
        chunk = protocol.ChunkData(ONE_ID, bytes(most), compressed=True)
        self.assertEqual(len(chunk.encode()), protocol.MAX_FRAME)
        longer = protocol.ChunkData(ONE_ID, bytes(most + 1), compressed=True)
        with self.assertRaisesRegex(LocalProtocolError, "CHUNK of 16777217 bytes"):
            longer.encode()

    def test_abort_text(self) -> None:
        """An abort can say anything: what can't travel is left out."""
        abort = protocol.Abort.saying(5, "one\n\ttwo\x00 " + "\U0001f4be" * 5000)
        self.assertTrue(abort.text.startswith("one two"))
        self.assertEqual(MessageReader().feed(abort.encode()), [abort])
        surrogate = protocol.Abort.saying(5, "\udcff" * 500)
        self.assertEqual(len(MessageReader().feed(surrogate.encode())), 1)

    def test_names(self) -> None:
        """Messages are called what the protocol calls them."""
        self.assertEqual(protocol.name_of(protocol.Goodbye()), "GOODBYE")
        self.assertEqual(protocol.name_of(protocol.ChunkData), "CHUNK")


class DecodeTests(SynchronousTestCase):
    """Bytes as messages."""

    @given(st.lists(messages, max_size=6), st.data())
    def test_round_trip(self, sent: list[Message], more: st.DataObject) -> None:
        """What is encoded is decoded, however the bytes are divided."""
        whole = st.just(b"".join(message.encode() for message in sent))
        self.assertEqual(decode(more.draw(divided(whole))), (sent, ""))

    @given(
        st.lists(
            st.one_of(messages.map(lambda message: message.encode()), st.binary(max_size=80)),
            max_size=4,
        ),
        st.data(),
    )
    def test_any_division(self, parts: list[bytes], more: st.DataObject) -> None:
        """Good bytes and bad ones give the same messages and the same error however divided."""
        whole = b"".join(parts)
        expected = decode([whole])
        self.assertEqual(decode(more.draw(divided(st.just(whole)))), expected)
        self.assertEqual(decode([whole[i : i + 1] for i in range(len(whole))]), expected)

    def test_refused(self) -> None:
        """A frame that can't be one is refused, those before it are taken, and so it stays."""
        good = protocol.Goodbye().encode()
        for number, (bad, why) in enumerate(
            (
                (frame(1), "unknown type 0000000000000001"),
                (frame(0xAD205DBF1A3686C3, b"x"), "GOODBYE of 17 bytes"),
                (frame(0xAD205DBF1A3686C3, size=15), "GOODBYE of 15 bytes"),
                (frame(0xB32A91DD2B3E27F8, size=16), "INDEX of 16 bytes"),
                (frame(0xB32A91DD2B3E27F8, size=(16 << 20) + 1), "INDEX of 16777217 bytes"),
                (frame(0x3C71D0948CA5FBEE, bytes(8)), "a hello with the flags 0x0"),
                (frame(0x3C71D0948CA5FBEE, b"\xff" * 8), "a hello with the flags"),
                (frame(0x8AB427E0F89D9210, bytes(8)), "REQUEST of 24 bytes"),
                (frame(0x8AB427E0F89D9210, bytes(8 + 33)), "a request of 33 bytes"),
                (frame(0x8AB427E0F89D9210, b"\2" + bytes(39)), "a request with the flags 0x2"),
                (frame(0x5213DD180A84BC8C, b"\2" + bytes(40)), "a chunk with the flags 0x2"),
                (frame(0x5213DD180A84BC8C, bytes(40)), "CHUNK of 56 bytes"),
                (frame(0xD010F9FAC82B7B6C, bytes(31)), "MISSING of 47 bytes"),
                (frame(0xE7D9136B7EFEA352, bytes(8)), "ABORT of 24 bytes"),
                (frame(0xE7D9136B7EFEA352, bytes(8) + b"no"), "whose text has no end"),
                (frame(0xE7D9136B7EFEA352, bytes(8) + b"\n\0"), "control characters"),
                (frame(0xE7D9136B7EFEA352, b"\xff" * 8 + b"\0"), "the error number"),
                (frame(0xE7D9136B7EFEA352, bytes(8 + 5000)), "ABORT of 5024 bytes"),
            )
        ):
            found, error = decode([good + bad + good])
            self.assertEqual(found, [protocol.Goodbye()], number)
            self.assertIn(why, error)
        reader = MessageReader()
        for _ in range(2):
            self.assertRaises(RemoteProtocolError, reader.feed, frame(1) + good)
        self.assertRaises(RemoteProtocolError, reader.finish)

    def test_error_known(self) -> None:
        """Whoever takes the messages before a bad one can see at once that one follows."""
        reader = MessageReader()
        self.assertEqual(reader.feed(protocol.Goodbye().encode() + frame(1)), [protocol.Goodbye()])
        self.assertIsInstance(reader.error, RemoteProtocolError)
        self.assertFalse(reader.pending)

    def test_early(self) -> None:
        """A frame's length is refused before its body has come, under the limit that was set."""
        reader = MessageReader(limit=1000)
        with self.assertRaisesRegex(RemoteProtocolError, "CHUNK of 1001 bytes"):
            reader.feed(frame(0x5213DD180A84BC8C, size=1001))

    def test_truncated(self) -> None:
        """An end in the middle of a frame is an error, one between frames is none."""
        whole = protocol.Missing(ONE_ID).encode()
        for length in range(1, len(whole)):
            self.assertEqual(
                decode([whole[:length]]), ([], "the connection ended within a message")
            )
        self.assertEqual(decode([whole]), ([protocol.Missing(ONE_ID)], ""))

    def test_large_limit(self) -> None:
        """A frame larger than casync's limit is taken where the caller allows it."""
        chunk = protocol.ChunkData(ONE_ID, bytes(17 << 20), compressed=False)
        body = chunk.body()
        whole = frame(0x5213DD180A84BC8C, body)
        found, error = decode([whole[i : i + 65536] for i in range(0, len(whole), 65536)], 1 << 30)
        self.assertEqual((found, error), ([chunk], ""))
