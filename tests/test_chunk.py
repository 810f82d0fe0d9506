# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Chunks on their way."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.digests import SHA256, SHA512_256
from desync.errors import ChunkInvalid
from desync.formats.chunk import Chunk
from desync.formats.stored import Compressed, Plain


class CountingForm(Compressed):
    """Counts how often it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded = self.decoded = 0

    def encode(self, plain: bytes | bytearray | memoryview) -> bytes:
        self.encoded += 1
        return super().encode(plain)

    def decode(
        self, stored: bytes | bytearray | memoryview, limit: int, size: int | None = None
    ) -> bytes:
        self.decoded += 1
        return super().decode(stored, limit, size)


class ChunkTests(SynchronousTestCase):
    """What a chunk carries and when it is converted."""

    def setUp(self) -> None:
        self.plain = b"some data" * 100
        self.chunk_id = SHA512_256.id_of(self.plain)

    def test_of(self) -> None:
        """The chunk that some bytes are is verified, whichever digest names it."""
        for digest in SHA512_256, SHA256:
            chunk = Chunk.of(self.plain, digest)
            self.assertEqual((chunk.chunk_id, chunk.verified), (digest.id_of(self.plain), True))
            chunk.verify(digest)

    def test_needs_bytes(self) -> None:
        """A chunk without bytes, or with stored ones of unknown form, makes no sense."""
        self.assertRaises(ValueError, Chunk, self.chunk_id)
        self.assertRaises(ValueError, Chunk, self.chunk_id, stored=b"data")
        self.assertRaises(ValueError, Chunk, self.chunk_id, form=Plain())

    def test_keeps_form(self) -> None:
        """What came compressed is decompressed once, when needed, and not compressed again."""
        form = CountingForm()
        stored = Compressed(19).encode(self.plain)
        chunk = Chunk(self.chunk_id, stored=stored, form=form)
        self.assertEqual(form.decoded, 0)
        chunk.verify(SHA512_256)
        chunk.verify(SHA512_256)
        self.assertEqual(chunk.plain, self.plain)
        self.assertEqual(form.decoded, 1)
        target = CountingForm()
        self.assertIs(chunk.stored_as(target), stored)
        self.assertEqual(chunk.stored_as(Plain()), self.plain)
        self.assertIs(chunk.stored_as(target), stored)
        self.assertEqual((form.encoded, target.encoded, chunk.stored_size), (0, 0, len(stored)))

    def test_converts_once(self) -> None:
        """What came plain is compressed once, when needed."""
        form = CountingForm()
        chunk = Chunk.of(self.plain, SHA512_256)
        self.assertEqual(chunk.stored_size, len(self.plain))
        first = chunk.stored_as(form)
        self.assertIs(chunk.stored_as(form), first)
        self.assertEqual((form.encoded, chunk.stored_size), (1, len(first)))

    def test_verify(self) -> None:
        """A chunk is verified once its bytes have been found to be what its id says."""
        form = Compressed()
        for chunk in (
            Chunk(self.chunk_id, self.plain),
            Chunk(self.chunk_id, stored=form.encode(self.plain), form=form),
        ):
            self.assertFalse(chunk.verified)
            chunk.verify(SHA512_256, len(self.plain))
            self.assertTrue(chunk.verified)
            self.assertIn(" verified", repr(chunk))

    def test_invalid(self) -> None:
        """What isn't the chunk is refused with its id and the cause."""
        form = Compressed()
        for chunk, cause in (
            (Chunk(self.chunk_id, b"other data"), "its sha512-256 is "),
            (Chunk(self.chunk_id, b""), "it holds no data"),
            (Chunk(self.chunk_id, stored=b"", form=form), "it is empty"),
            (Chunk(self.chunk_id, stored=b"rubbish", form=form), "it is not a compressed chunk"),
            (
                Chunk(self.chunk_id, stored=form.encode(self.plain), form=form, limit=10),
                "it holds 900 bytes, more than 10",
            ),
        ):
            error = self.assertRaises(ChunkInvalid, chunk.verify, SHA512_256)
            self.assertEqual(error.chunk_id, self.chunk_id)
            beginning = f"chunk {self.chunk_id.hex()} is invalid: {cause}"
            self.assertTrue(str(error).startswith(beginning), str(error))
            self.assertFalse(chunk.verified)

    def test_wrong_size(self) -> None:
        """A chunk of another size than expected is refused, verified or not."""
        for chunk in Chunk(self.chunk_id, self.plain), Chunk.of(self.plain, SHA512_256):
            error = self.assertRaises(ChunkInvalid, chunk.verify, SHA512_256, 899)
            self.assertIn("unexpected size: 900 instead of 899 bytes", str(error))

    def test_wrong_digest(self) -> None:
        """A chunk named by the other digest is another chunk."""
        self.assertRaises(ChunkInvalid, Chunk(self.chunk_id, self.plain).verify, SHA256)

    def test_copy(self) -> None:
        """A copy has the same bytes and shares no codec."""
        form = CountingForm()
        chunk = Chunk(self.chunk_id, stored=form.encode(self.plain), form=form)
        copy = chunk.copy()
        copy.verify(SHA512_256)
        self.assertEqual((copy.plain, copy.verified, chunk.verified), (self.plain, True, False))
        self.assertEqual(form.decoded, 0)
        self.assertTrue(copy.copy().verified)
        self.assertEqual(Chunk.of(self.plain, SHA512_256).copy().plain, self.plain)
