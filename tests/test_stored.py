# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The forms that chunks are stored in."""

from __future__ import annotations

import gzip
import lzma
import random
import tracemalloc

import zstandard
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.formats.stored import (
    MAX_CHUNK_SIZE,
    Compressed,
    Malformed,
    Plain,
    StoredForm,
    chunk_id_of_name,
    chunk_name,
    form_named,
    other_form,
)

MAGICS = (b"", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"\x1f\x8b", b"\x50\x2a\x4d\x18")
SIZES = (1, 47, 48, 1000, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 1 << 20)


def noise(size: int) -> bytes:
    """Give bytes that don't compress."""
    return random.Random(size).randbytes(size)


def streamed(plain: bytes) -> bytes:
    """Compress as casync does: in a stream, so that the frame doesn't say its size."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(plain) + compressor.flush()


class FormTests(SynchronousTestCase):
    """Both forms, and what tells them apart."""

    def test_round_trip(self) -> None:
        """What was encoded is decoded, whatever its size."""
        for form in Plain(), Compressed(), Compressed(1), Compressed(12):
            for size in SIZES:
                for plain in noise(size), bytes(size):
                    stored = form.encode(plain)
                    self.assertEqual(form.decode(stored, size), plain)
                    self.assertEqual(form.decode(stored, MAX_CHUNK_SIZE, size), plain)
                    self.assertEqual(form.decode(memoryview(stored), size), plain)

    def test_encode_buffers(self) -> None:
        """Any buffer can be encoded, and the result doesn't change with it."""
        for form in Plain(), Compressed():
            buffer = bytearray(b"some data")
            for view in buffer, memoryview(buffer)[:4]:
                stored = form.encode(view)
                expected = bytes(view)
                buffer[0] ^= 1
                self.assertEqual(form.decode(stored, 100), expected)

    def test_names(self) -> None:
        """A form is known by its extension."""
        self.assertEqual(form_named(""), Plain())
        self.assertEqual(form_named(".cacnk", 7), Compressed())
        self.assertEqual(len({Compressed(1), Compressed(2), Plain(), Plain()}), 2)
        self.assertNotEqual(Plain(), Compressed())
        self.assertEqual(other_form(Plain()), Compressed())
        self.assertEqual(other_form(Compressed()), Plain())
        self.assertRaises(ValueError, form_named, ".xz")

    def test_level(self) -> None:
        """A higher level makes less of it, and any level is read."""
        with open(random.__file__, "rb") as file:
            plain = file.read()
        stored = [Compressed(level).encode(plain) for level in (1, 3, 19)]
        self.assertGreater(len(stored[0]), len(stored[1]))
        self.assertGreater(len(stored[1]), len(stored[2]))
        for one in stored:
            self.assertEqual(Compressed().decode(one, len(plain)), plain)

    def test_writes_size(self) -> None:
        """A frame says how large its content is, so that readers can allocate it at once."""
        for size in SIZES:
            stored = Compressed().encode(bytes(size))
            self.assertEqual(zstandard.frame_content_size(stored), size)

    def test_stored_limit(self) -> None:
        """No chunk within a limit has a stored form beyond the limit for those."""
        for form in Plain(), Compressed(), Compressed(1), Compressed(12):
            for size in SIZES:
                self.assertLessEqual(len(form.encode(noise(size))), form.stored_limit(size))
        for size in SIZES:
            plain = noise(size)
            for stored in streamed(plain), lzma.compress(plain), gzip.compress(plain):
                self.assertLessEqual(len(stored), Compressed().stored_limit(size))


class DecodeTests(SynchronousTestCase):
    """What is refused, and what others wrote."""

    def refused(self, form: StoredForm, stored: bytes, limit: int, size: int | None = None) -> str:
        error = self.assertRaises(Malformed, form.decode, stored, limit, size)
        self.assertNotIn("\n", str(error))
        self.assertNotEqual(str(error), "")
        return str(error)

    def test_others(self) -> None:
        """Chunks that casync wrote with any compression are read."""
        with_checksum = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)
        for plain in noise(100), bytes(100_000), noise(1 << 19), noise(1 << 16) + bytes(4 << 20):
            for stored in (
                streamed(plain),
                with_checksum.compress(plain),
                lzma.compress(plain),
                gzip.compress(plain),
            ):
                for size in None, len(plain):
                    found = Compressed().decode(stored, MAX_CHUNK_SIZE, size)
                    self.assertEqual(found, plain)

    def test_truncated(self) -> None:
        """A frame that ends early is refused, wherever that is."""
        plain = b"some text that is long enough to be compressed a little, a little" * 3
        for stored in (
            Compressed().encode(plain),
            streamed(plain),
            lzma.compress(plain),
            gzip.compress(plain),
        ):
            for end in range(len(stored)):
                self.refused(Compressed(), stored[:end], 1000)
                self.refused(Compressed(), stored[:end], 1000, len(plain))

    def test_followed(self) -> None:
        """Anything after the frame is refused: a second frame, or a single byte."""
        with_checksum = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)
        for stored in (
            Compressed().encode(b"data"),
            streamed(b"data"),
            with_checksum.compress(b"data"),
            lzma.compress(b"data"),
            gzip.compress(b"data"),
        ):
            for rest in stored, b"\0", b"\x50\x2a\x4d\x18\0\0\0\0":
                self.refused(Compressed(), stored + rest, 1000)
                self.refused(Compressed(), stored + rest, 1000, 4)
                self.refused(Compressed(), stored + rest, 1000, 8)

    def test_wrong_size(self) -> None:
        """A chunk that isn't as large as it must be is refused in either form."""
        for form, stored in (
            (Plain(), b"data"),
            (Compressed(), Compressed().encode(b"data")),
            (Compressed(), streamed(b"data")),
            (Compressed(), lzma.compress(b"data")),
            (Compressed(), gzip.compress(b"data")),
        ):
            for size in 1, 3, 5, 1000:
                self.refused(form, stored, 1000, size)

    def test_no_data(self) -> None:
        """No chunk is empty."""
        for stored in (
            b"",
            Compressed().encode(b""),
            streamed(b""),
            lzma.compress(b""),
            gzip.compress(b""),
        ):
            self.refused(Compressed(), stored, 1000)
        self.refused(Plain(), b"", 1000)

    def test_too_large(self) -> None:
        """A chunk at the limit is taken, one byte more isn't."""
        for size in 100, 300_000:
            for plain in noise(size), bytes(size):
                for form, stored in (
                    (Plain(), plain),
                    (Compressed(), Compressed().encode(plain)),
                    (Compressed(), streamed(plain)),
                    (Compressed(), lzma.compress(plain)),
                    (Compressed(), gzip.compress(plain)),
                ):
                    self.assertEqual(form.decode(stored, size), plain)
                    self.refused(form, stored, size - 1)

    def test_bombs(self) -> None:
        """What would become far larger than the limit takes no more memory than the limit."""
        plain = bytes(16 << 20)
        bombs = [
            Compressed().encode(plain),
            streamed(plain),
            lzma.compress(plain, preset=0),
            gzip.compress(plain, 1),
        ]
        limit = 1 << 20
        for stored in bombs:
            form = Compressed()
            for size in None, 1000:
                tracemalloc.start()
                try:
                    self.refused(form, stored, limit, size)
                    _, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                self.assertLess(peak, 3 * limit)

    def test_lying_size(self) -> None:
        """A frame whose content isn't as large as it says is refused."""
        stored = bytearray(Compressed().encode(noise(1000)))
        # Byte 4 is the frame header's descriptor; of a single-segment frame the size follows.
        self.assertEqual(int.from_bytes(stored[5:7], "little") + 256, 1000)
        for lie in 999, 1001, 60_000:
            stored[5:7] = (lie - 256).to_bytes(2, "little")
            self.refused(Compressed(), bytes(stored), 100_000)

    @given(st.sampled_from(MAGICS), st.binary(max_size=200), st.none() | st.integers(1, 300))
    def test_garbage(self, magic: bytes, rest: bytes, size: int | None) -> None:
        """Whatever it is given, decoding refuses it or gives data within the limit."""
        for form in Plain(), Compressed():
            try:
                found = form.decode(magic + rest, 150, size)
            except Malformed:
                continue
            self.assertTrue(0 < len(found) <= 150)

    @given(st.binary(min_size=1, max_size=300), st.data())
    def test_damaged(self, plain: bytes, data: st.DataObject) -> None:
        """A damaged frame is refused or gives data within the limit, never another error."""
        intact = [
            Compressed().encode(plain),
            streamed(plain),
            lzma.compress(plain),
            gzip.compress(plain),
        ]
        stored = bytearray(data.draw(st.sampled_from(intact)))
        for _ in range(data.draw(st.integers(1, 3))):
            position = data.draw(st.integers(0, len(stored) - 1))
            stored[position] = data.draw(st.integers(0, 255))
        try:
            found = Compressed().decode(bytes(stored), 300)
        except Malformed:
            return
        self.assertTrue(0 < len(found) <= 300)


class NameTests(SynchronousTestCase):
    """What stored chunks are called."""

    @given(st.binary(min_size=32, max_size=32))
    def test_round_trip(self, chunk_id: bytes) -> None:
        """The name of a chunk in its subdirectory tells its id, and in which form it is."""
        for extension in "", ".cacnk":
            name = chunk_name(chunk_id, extension)
            directory, _, last = name.partition("/")
            self.assertEqual(directory, chunk_id.hex()[:4])
            self.assertEqual(chunk_id_of_name(last, extension), chunk_id)
            other = ".cacnk" if not extension else ""
            self.assertIsNone(chunk_id_of_name(last, other))

    def test_known(self) -> None:
        """The name is that of casync and Go desync."""
        self.assertEqual(
            chunk_name(bytes(range(32)), ".cacnk"),
            "0001/000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f.cacnk",
        )

    def test_foreign(self) -> None:
        """Other names are no chunks': capitals, other lengths, other extensions, leftovers."""
        good = "ab" * 32
        for name in (
            good.upper(),
            good[:-1],
            good + "0",
            good[:-1] + "g",
            good[:-2] + "\u0661\u0661",
            good + ".cacn",
            good + ".cacnk.tmp",
            "." + good,
            ".tmp-cacnk.123",
            "",
        ):
            self.assertIsNone(chunk_id_of_name(name, ""))
            self.assertIsNone(chunk_id_of_name(name + ".cacnk", ".cacnk"))
