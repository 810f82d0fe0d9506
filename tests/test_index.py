# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of :mod:`desync.formats.index`."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from array import array
from itertools import accumulate
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import desync
from desync.chunking.digests import SHA256, SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import DesyncError, InvalidIndex, WrongDigest
from desync.formats import flags
from desync.formats.index import Index, IndexBuilder, IndexSizes

SIZES = ChunkSizes.DEFAULT

GO_FLAGS = 0xA000000000000000

chunk_ids = st.binary(min_size=32, max_size=32)
chunk_lists = st.lists(st.tuples(st.integers(1, SIZES.max), chunk_ids), max_size=30)


def build(chunks: list[tuple[int, bytes]]) -> Index:
    """Make the index of chunks, each given by its length and id."""
    builder = IndexBuilder(SIZES, SHA512_256)
    ends = list(accumulate(length for length, _ in chunks))
    builder.append_segment(ends, b"".join(chunk_id for _, chunk_id in chunks))
    return builder.finish()


def words(*replaced: tuple[int, int], count: int = 2) -> bytes:
    """
    Make an index of chunks of 100 bytes, then replace some of its 64-bit words.

    :param replaced: pairs of a word's offset in the file and its new value.
    """
    data = bytearray(build([(100, bytes([i]) * 32) for i in range(1, count + 1)]).to_bytes())
    for offset, value in replaced:
        struct.pack_into("<Q", data, offset, value)
    return bytes(data)


class VectorTests(SynchronousTestCase):
    """Files whose bytes other programs fixed."""

    def test_empty(self) -> None:
        """The index of an empty stream is the 104 bytes that Go desync writes."""
        expected = struct.pack(
            "<13Q",
            48,
            0x96824D9C7B129FF9,
            GO_FLAGS,
            16384,
            65536,
            262144,
            2**64 - 1,
            0xE75B9E112F17417D,
            0,
            0,
            48,
            0x38,
            0x4B4F050E5549ECD1,
        )
        self.assertEqual(104, len(expected))
        self.assertEqual(expected, IndexBuilder(SIZES, SHA512_256).finish(0).to_bytes())
        index = Index.parse(expected)
        self.assertEqual((0, 0), (len(index), index.size))
        self.assertEqual([], list(index))
        self.assertEqual(0, len(index.ids))
        self.assertEqual(0, index.position_of(0))

    def test_file_of_go_desync(self) -> None:
        """Cuts of a known stream give the index files that Go desync makes of it."""
        stream = b"".join(hashlib.sha256(struct.pack("<Q", i)).digest() for i in range(32768))
        lengths = [
            *(80921, 57299, 49192, 49960, 59423, 52114, 88424, 46418),
            *(100282, 92236, 99913, 16782, 72780, 41585, 38454, 102793),
        ]
        for digest, word, expected in (
            (
                SHA512_256,
                0xA000000000000000,
                "05fe9cdfd2a6d428d6e0e0917d22cfda4e26530d465d01924cfa073d4a9d9f9b",
            ),
            (
                SHA256,
                0x8000000000000000,
                "13eb778f9477eab6a142e4002d813cc2394f196aaa3cb95711e1eccffa6b0f37",
            ),
        ):
            builder = IndexBuilder(SIZES, digest)
            start = 0
            for length in lengths:
                builder.append(length, digest.id_of(stream[start : start + length]))
                start += length
            index = builder.finish(len(stream))
            self.assertEqual(word, index.flags)
            self.assertEqual(expected, hashlib.sha256(index.to_bytes()).hexdigest())

    def test_file_of_casync(self) -> None:
        """The index that casync sends in a recorded session is read, and written, as it is."""
        chunk_id = "15b5331421ee3c54ebd843c34eaf6d657e3eb90159841e264ca066200a4090db"
        data = bytes.fromhex(
            "3000000000000000f99f127b9c4d829626feefff010000b0"
            "004000000000000000000100000000000000040000000000"
            "ffffffffffffffff7d41172f119e5be7"
            f"a189010000000000{chunk_id}"
            "0000000000000000000000000000000030000000000000006000000000000000d1ec49550e054f4b"
        )
        index = Index.parse(data)
        self.assertEqual(0xB0000001FFEFFE26, index.flags)
        self.assertEqual(IndexSizes(16384, 65536, 262144), index.sizes)
        self.assertIs(SHA512_256, index.digest)
        self.assertEqual([(0, 100769, bytes.fromhex(chunk_id))], list(index))
        self.assertEqual(data, index.to_bytes())


class IndexTests(SynchronousTestCase):
    """Looking at an index."""

    @given(chunk_lists)
    def test_round_trip(self, chunks: list[tuple[int, bytes]]) -> None:
        """Any chunks come back from an index file as they were put in."""
        data = build(chunks).to_bytes()
        self.assertEqual(104 + 40 * len(chunks), len(data))
        for form in (data, bytearray(data), memoryview(data)):
            index = Index.parse(form, "it", SHA512_256)
            self.assertEqual(data, index.to_bytes())
            self.assertEqual(data, b"".join(index.pieces()))
            self.assertEqual(len(chunks), len(index))
            self.assertEqual(sum(length for length, _ in chunks), index.size)
            self.assertEqual([chunk_id for _, chunk_id in chunks], list(index.ids))
            position = 0
            for number, (start, length, chunk_id) in enumerate(index):
                self.assertEqual((start, length, chunk_id), (position, *chunks[number]))
                position += length
                self.assertEqual(start, index.start(number))
                self.assertEqual(length, index.length(number))
                self.assertEqual(position, index.end(number))
                self.assertEqual(chunk_id, index.id(number))

    @given(chunk_lists, st.integers(-40, 40), st.none() | st.integers(-40, 40))
    def test_runs(self, chunks: list[tuple[int, bytes]], first: int, stop: int | None) -> None:
        """A run of chunks is what a slice of the list of all would be."""
        index = build(chunks)
        self.assertEqual(list(index)[first:stop], list(index.chunks(first, stop)))

    @given(chunk_lists, st.data())
    def test_position_of(self, chunks: list[tuple[int, bytes]], data: st.DataObject) -> None:
        """Each byte of the stream is in the chunk that says so, the end is after the last one."""
        index = build(chunks)
        offset = data.draw(st.integers(0, index.size))
        position = index.position_of(offset)
        if offset == index.size:
            self.assertEqual(len(index), position)
        else:
            self.assertTrue(index.start(position) <= offset < index.end(position))
        for number in range(len(index)):
            self.assertEqual(number, index.position_of(index.start(number)))
            self.assertEqual(number, index.position_of(index.end(number) - 1))
        self.assertRaises(ValueError, index.position_of, -1)
        self.assertRaises(ValueError, index.position_of, index.size + 1)

    def test_no_such_chunk(self) -> None:
        """Positions outside of the index are errors, negative ones included."""
        index = build([(5, bytes(32)), (6, bytes(32))])
        for method in (index.start, index.end, index.length, index.id):
            for position in (-1, 2):
                self.assertRaises(IndexError, method, position)

    def test_views(self) -> None:
        """Table and ids are views on the file's bytes; nothing is copied."""
        data = bytearray(words())
        index = Index.parse(data)
        ids, (_, table, _) = index.ids, index.pieces()
        data[72:76] = b"seen"
        self.assertEqual(b"seen", ids[0][:4])
        self.assertEqual(b"seen", bytes(table[8:12]))
        self.assertTrue(table.readonly)

    def test_digest(self) -> None:
        """An index of the other digest is refused by name; without a wish either is read."""
        for mine, other, name in (
            (SHA512_256, SHA256, "SHA512-256"),
            (SHA256, SHA512_256, "SHA256"),
        ):
            data = IndexBuilder(SIZES, mine).finish().to_bytes()
            self.assertIs(mine, Index.parse(data).digest)
            self.assertIs(mine, Index.parse(data, digest=mine).digest)
            error = self.assertRaises(WrongDigest, Index.parse, data, "a/b.caibx", other)
            self.assertEqual(f"a/b.caibx: index file uses {name}", str(error))


class RefusalTests(SynchronousTestCase):
    """What no reader takes."""

    def assertRefused(self, data: bytes, why: str) -> None:
        """Check that an index is refused for this reason, in one line."""
        error = self.assertRaises(InvalidIndex, Index.parse, data, "x.caibx")
        self.assertEqual(f"x.caibx: {why}", str(error))

    def test_good(self) -> None:
        """What the other tests break is fine before they do."""
        self.assertEqual(2, len(Index.parse(words())))

    def test_header(self) -> None:
        """The first record must be of an index, and have an index's size."""
        for data in (words((0, 47)), words((8, 1)), b"#!/bin/sh\n" * 100, bytes(1000)):
            self.assertRefused(data, "not an index file")
        for size in (0, 15):
            self.assertRefused(words()[:size], f"not an index file: only {size} bytes")

    def test_table_header(self) -> None:
        """The second record must be a table of unknown size."""
        for data in (words((48, 2**64 - 2)), words((48, 136)), words((56, 0))):
            self.assertRefused(data, "index table not found")

    def test_flags(self) -> None:
        """Unknown flags, and flags that aren't normalized, are refused."""
        for word, why in (
            (2**64 - 1, "unknown feature flags 0xffffffe00000000"),
            (GO_FLAGS | 1 << 33, "unknown feature flags 0x200000000"),
            (GO_FLAGS | 1 << 59, "unknown feature flags 0x800000000000000"),
            (0x3, "feature flags 0x3 contradict each other"),
            (GO_FLAGS | 0x100000, "feature flags 0xa000000000100000 contradict each other"),
        ):
            self.assertRefused(words((16, word)), why)

    def test_sizes(self) -> None:
        """Chunk sizes must be in order, from 1 byte to 128 MiB."""
        most = 128 << 20
        for low, avg, high in (
            (0, 65536, 262144),
            (0, 0, 0),
            (16384, 16383, 262144),
            (16384, 262145, 262144),
            (16384, 65536, most + 1),
            (most + 1, most + 1, most + 1),
            (16384, 65536, 2**64 - 1),
        ):
            self.assertRefused(
                words((24, low), (32, avg), (40, high)),
                f"impossible chunk sizes {low}:{avg}:{high}",
            )
        for low, avg, high in ((1, 1, 100), (100, 100, 100), (1, 2, most), (most, most, most)):
            index = Index.parse(words((24, low), (32, avg), (40, high)))
            self.assertEqual((low, avg, high), index.sizes)

    def test_items(self) -> None:
        """Chunks must have at least one byte and at most the maximum."""
        self.assertRefused(words((104, 100)), "chunk 1 ends at 100, but starts at 100")
        self.assertRefused(words((104, 99)), "chunk 1 ends at 99, but starts at 100")
        self.assertRefused(
            words((104, 100 + 262145)), "chunk 1 has 262145 bytes, more than the maximum of 262144"
        )
        self.assertRefused(
            words((64, 2**64 - 1)),
            f"chunk 0 has {2**64 - 1} bytes, more than the maximum of 262144",
        )
        self.assertEqual(262144, Index.parse(words((104, 100 + 262144))).length(1))

    def test_small_chunks(self) -> None:
        """The minimum isn't checked anywhere: casync takes such indexes too."""
        self.assertEqual(1, Index.parse(words((64, 1))).length(0))

    def test_tail(self) -> None:
        """Each word of the tail must be right; the first one makes it the tail."""
        for offset, value in ((152, 1), (160, 47), (168, 135), (168, 2**64 - 1), (176, 0)):
            self.assertRefused(words((offset, value)), "the table of 2 chunks has a bad tail")
        self.assertRefused(words((144, 300)), "truncated: the table of chunks has no end")
        self.assertRefused(words((64, 0)), "the table of 0 chunks has a bad tail")
        self.assertRefused(words((144, 7)), "chunk 2 ends at 7, but starts at 200")

    def test_trailing(self) -> None:
        """Nothing may follow the tail."""
        good = words()
        for more in (b"\0", bytes(40), good):
            self.assertRefused(good + more, f"{len(more)} bytes too many at the end")

    def test_truncated(self) -> None:
        """No beginning of an index is an index, whatever its length."""
        good = words()
        for size in range(len(good)):
            with self.subTest(size=size):
                error = self.assertRaises(InvalidIndex, Index.parse, good[:size])
                self.assertRegex(str(error), "truncated|only")

    def test_without_a_name(self) -> None:
        """Errors read well where the index has no name."""
        error = self.assertRaises(InvalidIndex, Index.parse, b"")
        self.assertEqual("index: not an index file: only 0 bytes", str(error))

    @given(
        chunk_lists,
        st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
        st.integers(0, 2000),
        st.binary(max_size=50),
    )
    @example([], [], 0, b"")
    def test_corruption(
        self,
        chunks: list[tuple[int, bytes]],
        changes: list[tuple[int, int]],
        cut: int,
        more: bytes,
    ) -> None:
        """
        Damaged bytes give an InvalidIndex or an index that is written as it was read, never
        another error.
        """
        data = bytearray(build(chunks).to_bytes())
        for offset, value in changes:
            data[offset % len(data)] = value
        for damaged in (bytes(data), bytes(data[:cut]), bytes(data + more), more):
            try:
                index = Index.parse(damaged)
            except InvalidIndex as error:
                self.assertNotIn("\n", str(error))
            else:
                self.assertEqual(damaged, index.to_bytes())
                self.assertEqual(index.size, sum(length for _, length, _ in index))


class BuilderTests(SynchronousTestCase):
    """Making an index."""

    @given(st.lists(chunk_lists, max_size=5))
    def test_every_way_to_append(self, segments: list[list[tuple[int, bytes]]]) -> None:
        """Chunks one by one, with ends from a base, with ends from the start, packed: all equal."""
        single, based, absolute, packed = (IndexBuilder(SIZES, SHA512_256) for _ in range(4))
        for segment in segments:
            base = single.size
            ids = b"".join(chunk_id for _, chunk_id in segment)
            ends = list(accumulate(length for length, _ in segment))
            for length, chunk_id in segment:
                single.append(length, chunk_id)
            based.append_segment(memoryview(array("I", ends)), memoryview(ids), base)
            absolute.append_segment([base + end for end in ends], bytearray(ids))
            packed.append_items(
                b"".join(
                    struct.pack("<Q32s", base + end, chunk_id)
                    for end, (_, chunk_id) in zip(ends, segment, strict=True)
                )
            )
            self.assertEqual(single.size, based.size)
            self.assertEqual(len(single), len(based))
        expected = build([chunk for segment in segments for chunk in segment]).to_bytes()
        for builder in (single, based, absolute, packed):
            self.assertEqual(expected, builder.finish(builder.size).to_bytes())

    def test_flags(self) -> None:
        """The flag word of an archive is kept; one that a reader refuses is refused here."""
        index = IndexBuilder(SIZES, SHA512_256, 0xB0000001FFEFFE26).finish()
        self.assertEqual(0xB0000001FFEFFE26, Index.parse(index.to_bytes()).flags)
        self.assertEqual(flags.EXCLUDE_NODUMP, IndexBuilder(SIZES, SHA256).finish().flags)
        for digest, word in ((SHA256, GO_FLAGS), (SHA512_256, 0), (SHA256, 3), (SHA256, 1 << 40)):
            self.assertRaises(ValueError, IndexBuilder, SIZES, digest, word)

    def test_uneven(self) -> None:
        """Ids that don't fit the number of ends, and broken items, are refused."""
        builder = IndexBuilder(SIZES, SHA512_256)
        self.assertRaises(ValueError, builder.append_segment, [10], bytes(64))
        self.assertRaises(ValueError, builder.append_segment, [10, 20], bytes(63))
        self.assertRaises(ValueError, builder.append, 10, bytes(31))
        self.assertRaises(ValueError, builder.append_items, bytes(39))
        self.assertEqual(0, len(builder))

    def test_unreadable_index(self) -> None:
        """What no reader would take can't be finished."""
        for ends in ([0], [10, 10], [20, 10], [262145], [10, 10 + 262145]):
            builder = IndexBuilder(SIZES, SHA512_256)
            builder.append_segment(ends, bytes(32 * len(ends)))
            error = self.assertRaises(ValueError, builder.finish)
            self.assertEqual(
                f"chunk {len(ends) - 1} is empty, larger than the maximum or out of order",
                str(error),
            )
        self.assertRaises(ValueError, IndexBuilder(IndexSizes(0, 1, 2), SHA256).finish)
        self.assertRaises(ValueError, IndexBuilder(IndexSizes(1, 1, 1 << 28), SHA256).finish)

    def test_incomplete(self) -> None:
        """Chunks that don't make up the whole stream never become an index."""
        builder = IndexBuilder(SIZES, SHA512_256)
        self.assertRaises(ValueError, builder.finish, 1)
        builder.append(10, bytes(32))
        self.assertRaises(ValueError, builder.finish, 0)
        self.assertRaises(ValueError, builder.finish, 11)
        self.assertEqual(10, builder.finish(10).size)

    def test_errors_are_no_user_errors(self) -> None:
        """A builder's complaints are about its caller, not about what a user gave."""
        builder = IndexBuilder(SIZES, SHA512_256)
        error = self.assertRaises(ValueError, builder.finish, 1)
        self.assertNotIsInstance(error, DesyncError)


class StartUpTests(SynchronousTestCase):
    """What commands that only read an index must not wait for."""

    def test_imports(self) -> None:
        """Reading an index imports nothing of Twisted, zope, attrs or dataclasses."""
        program = (
            "import sys, desync.formats.index\n"
            "data = desync.formats.index.Index(0, (1, 1, 1), b'').to_bytes()\n"
            "desync.formats.index.Index.parse(data).ids.sorted_unique()\n"
            "unwanted = {'twisted', 'zope.interface', 'attr', 'dataclasses'}\n"
            "print(*sorted(unwanted & set(sys.modules)))\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(desync.__file__).parents[1])},
        )
        self.assertEqual("\n", result.stdout)
