# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of :mod:`desync.formats.ids`."""

from __future__ import annotations

import io
from collections.abc import Iterable
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.errors import UsageError
from desync.formats import ids as ids_module
from desync.formats.id_set import IdSet
from desync.formats.ids import ChunkIds, InvalidId, parse_id, read_id_lines


def numbered(*numbers: int) -> list[bytes]:
    """Make ids that sort like the numbers they are made of."""
    return [number.to_bytes(4, "big") * 8 for number in numbers]


def pack(*numbers: int) -> ChunkIds:
    """Make sorted ids of ascending numbers."""
    return ChunkIds.from_iterable(numbered(*numbers)).sorted_unique()


# Few values, so that duplicates and ids that both sides have are common.
some_ids = st.lists(st.integers(0, 60).map(lambda number: numbered(number)[0]), max_size=50)
any_ids = st.lists(st.binary(min_size=32, max_size=32), max_size=20)


class ParseIdTests(SynchronousTestCase):
    """One id as text."""

    def test_both_cases(self) -> None:
        """64 hexadecimal digits of either case are an id, as text and as bytes."""
        text = "0123456789abcdef" * 4
        expected = bytes.fromhex(text)
        for form in (text, text.upper(), text.encode(), text.upper().encode()):
            self.assertEqual(expected, parse_id(form))

    def test_refused(self) -> None:
        """Whatever isn't exactly 64 hexadecimal digits is refused, as either kind of error."""
        good = "ab" * 32
        for bad in (
            "",
            good[:-1],
            good[:-2],
            good + "0",
            good + "00",
            good + "\n",
            good[:-1] + "g",
            good[:-1] + " ",
            good[:31] + "  " + good[33:],
            "0x" + good[2:],
            good[:-1] + "\u0661",
            good[:-1].encode() + b"\xff",
            good[:-1].encode() + b"\0",
        ):
            with self.subTest(bad=bad):
                self.assertRaises(UsageError, parse_id, bad)
                self.assertRaises(ValueError, parse_id, bad)

    def test_message_is_one_short_line(self) -> None:
        """What was read instead of an id is quoted briefly, its control characters escaped."""
        error = self.assertRaises(InvalidId, parse_id, "a\n\x1b[31m" + "x" * 1000)
        self.assertTrue(str(error).startswith(r"not a chunk id: 'a\n\x1b[31mxxx"))
        self.assertLess(len(str(error)), 130)
        error = self.assertRaises(InvalidId, parse_id, b"\xff\n")
        self.assertEqual(r"not a chunk id: '\\xff\n'", str(error))


class ReadIdLinesTests(SynchronousTestCase):
    """Text files of ids."""

    a, b = numbered(1, 0xABCDEF)

    def test_blanks(self) -> None:
        """Blanks around ids and empty lines mean nothing; order and duplicates are kept."""
        text = f"\n  {self.b.hex()}\t\r\n\n{self.a.hex().upper()}\n   \n{self.b.hex()}"
        expected = [self.b, self.a, self.b]
        self.assertEqual(expected, list(read_id_lines(text)))
        self.assertEqual(expected, list(read_id_lines(text.encode())))
        self.assertEqual(expected, list(read_id_lines(io.BytesIO(text.encode()))))
        self.assertEqual(expected, list(read_id_lines(io.StringIO(text))))
        self.assertEqual(expected, list(read_id_lines(text.splitlines())))

    def test_empty(self) -> None:
        """A file without ids is fine."""
        self.assertEqual(0, len(read_id_lines("")))
        self.assertEqual(0, len(read_id_lines(b"\n \n")))

    def test_bad_line(self) -> None:
        """A line that isn't an id names the file and the line."""
        error = self.assertRaises(
            InvalidId, read_id_lines, f"{self.a.hex()}\n\n nonsense \n", "ids.txt"
        )
        self.assertEqual("ids.txt: line 3: not a chunk id: 'nonsense'", str(error))
        error = self.assertRaises(InvalidId, read_id_lines, b"\0\n")
        self.assertEqual(r"chunk ids: line 1: not a chunk id: '\x00'", str(error))


class ChunkIdsTests(SynchronousTestCase):
    """Packed ids as a sequence."""

    def assertSequence(self, expected: list[bytes], ids: ChunkIds) -> None:
        """Check every way to look at ids."""
        self.assertEqual(len(expected), len(ids))
        self.assertEqual(expected, list(ids))
        self.assertEqual(expected, [ids[i] for i in range(len(expected))])
        self.assertEqual(expected, [ids[i - len(expected)] for i in range(len(expected))])
        self.assertEqual(b"".join(expected), ids.to_bytes())
        self.assertEqual(list(reversed(expected)), list(reversed(ids)))
        self.assertTrue(all(type(i) is bytes for i in ids))
        for beyond in (len(expected), -len(expected) - 1):
            with self.assertRaises(IndexError):
                ids[beyond]

    @given(any_ids, st.integers(0, 20), st.integers(32, 80), st.binary(max_size=10))
    def test_anywhere_in_a_buffer(
        self, expected: list[bytes], offset: int, stride: int, tail: bytes
    ) -> None:
        """Ids are found wherever they lie at equal distances, with or without bytes after them."""
        gap = b"\xee" * (stride - 32)
        buffer = b"\xdd" * offset + gap.join(expected) + tail
        for form in (buffer, bytearray(buffer), memoryview(buffer)):
            self.assertSequence(expected, ChunkIds(form, offset, stride, len(expected)))

    @given(any_ids)
    def test_from_and_to_bytes(self, expected: list[bytes]) -> None:
        """Ids come from and go to packed bytes and iterables unchanged."""
        self.assertSequence(expected, ChunkIds.from_bytes(b"".join(expected)))
        self.assertSequence(expected, ChunkIds.from_iterable(iter(expected)))

    @given(any_ids, st.slices(20), st.slices(20))
    def test_slices(self, expected: list[bytes], first: slice, second: slice) -> None:
        """Slices of ids, and slices of those, are what lists would give."""
        ids = ChunkIds.from_iterable(expected)
        self.assertSequence(expected[first], ids[first])
        self.assertSequence(expected[first][second], ids[first][second])

    def test_slices_are_views(self) -> None:
        """A slice forward copies nothing, and a slice of sorted ids is sorted."""
        buffer = bytearray(b"".join(numbered(1, 2, 3, 4)))
        ids = ChunkIds.from_bytes(buffer, is_sorted=True)
        part = ids[1::2]
        with self.assertRaises(BufferError):
            buffer.append(0)
        buffer[32:36] = b"seen"
        self.assertEqual(b"seen", part[0][:4])
        self.assertTrue(part.is_sorted)
        self.assertFalse(ids[::-1].is_sorted)

    def test_impossible_places(self) -> None:
        """Ids that would lie outside of their buffer, or over each other, are refused."""
        for arguments in (
            (bytes(63), 0, 32, 2),
            (bytes(64), 1, 32, 2),
            (bytes(71), 0, 40, 2),
            (bytes(64), -1, 32, 1),
            (bytes(64), 0, 31, 1),
            (bytes(64), 0, 32, -1),
        ):
            self.assertRaises(ValueError, ChunkIds, *arguments)
        self.assertEqual(2, len(ChunkIds(bytes(72), 0, 40, 2)))
        self.assertRaises(ValueError, ChunkIds.from_bytes, bytes(33))
        self.assertRaises(ValueError, ChunkIds.from_iterable, [bytes(32), bytes(31), bytes(33)])

    def test_equality(self) -> None:
        """Ids are equal when they are the same in the same order, wherever they lie."""
        ids = pack(1, 2, 3)
        self.assertEqual(ids, ChunkIds.from_iterable(numbered(1, 2, 3)))
        self.assertNotEqual(ids, pack(1, 2))
        self.assertNotEqual(ids, pack(1, 2, 4))
        self.assertNotEqual(ids, ChunkIds.from_iterable(numbered(3, 2, 1)))
        self.assertNotEqual(ids, list(ids))
        self.assertRaises(TypeError, hash, ids)

    def test_repr(self) -> None:
        """A representation stays short whatever the number of ids."""
        self.assertEqual("<3 chunk ids, sorted>", repr(pack(1, 2, 3)))
        self.assertEqual("<2 chunk ids>", repr(ChunkIds.from_iterable(numbered(2, 1))))

    @given(some_ids, some_ids)
    def test_membership(self, members: list[bytes], asked: list[bytes]) -> None:
        """Sorted or not, ids know what they contain and where it is."""
        plain = ChunkIds.from_iterable(members)
        for ids in (plain, plain.sorted_unique()):
            for chunk_id in asked:
                self.assertEqual(chunk_id in members, chunk_id in ids)
                if chunk_id in members:
                    self.assertEqual(list(ids).index(chunk_id), ids.index(chunk_id))
                else:
                    self.assertRaises(ValueError, ids.index, chunk_id)
            self.assertNotIn(b"short", ids)
            self.assertNotIn("text", ids)


class SetTests(SynchronousTestCase):
    """Sorted ids as sets."""

    @given(any_ids | some_ids, st.integers(0, 8), st.integers(32, 48))
    def test_sorted_unique(self, members: list[bytes], offset: int, stride: int) -> None:
        """Sorting gives each id once, ascending as bytes compare, from wherever they lie."""
        buffer = bytes(offset) + b"".join(i.ljust(stride, b"\xff") for i in members)
        ids = ChunkIds(buffer, offset, stride, len(members)).sorted_unique()
        self.assertTrue(ids.is_sorted)
        self.assertEqual(sorted(set(members)), list(ids))
        self.assertIs(ids, ids.sorted_unique())

    def check_algebra(self, left: Iterable[bytes], right: Iterable[bytes]) -> None:
        """Compare every operation with what Python's own sets give."""
        mine, theirs = set(left), set(right)
        a = ChunkIds.from_iterable(sorted(mine)).sorted_unique()
        b = ChunkIds.from_iterable(sorted(theirs)).sorted_unique()
        for expected, result in (
            (mine | theirs, a.union(b)),
            (mine - theirs, a.difference(b)),
            (mine & theirs, a.intersection(b)),
        ):
            self.assertEqual(sorted(expected), list(result))
            self.assertTrue(result.is_sorted)
        self.assertEqual(len(mine & theirs), a.count_common(b))

    @given(some_ids | any_ids, some_ids | any_ids, st.integers(1, 9))
    def test_algebra(self, left: list[bytes], right: list[bytes], block: int) -> None:
        """Union, difference and intersection are those of sets, wherever blocks end."""
        with mock.patch.object(ids_module, "_BLOCK", block):
            self.check_algebra(left, right)

    def test_algebra_of_many(self) -> None:
        """Sets longer than a block, dense, sparse and one after the other, merge alike."""
        size = 3 * ids_module._BLOCK + 7
        every = numbered(*range(size))
        for other in (every[::2], every[::1000], every[: size // 2], every[-3:], every, []):
            self.check_algebra(every, other)
            self.check_algebra(other, every)
        self.check_algebra(every[: size // 2], every[size // 2 :])
        self.check_algebra(every[size // 2 :], every[: size // 2])

    def test_views_merge(self) -> None:
        """Sorted ids that lie apart from each other merge like packed ones."""
        spread = b"".join(b"\xff" * 8 + i for i in numbered(1, 3, 5, 7))
        ids = ChunkIds(spread, 8, 40, 4, is_sorted=True)
        self.assertEqual(numbered(3, 7), list(ids.difference(pack(1, 5))))
        self.assertEqual(numbered(1, 2, 3, 5, 7), list(pack(2).union(ids)))

    def test_unsorted_is_refused(self) -> None:
        """Merging ids that nobody sorted is an error, not a wrong result."""
        wild = ChunkIds.from_iterable(numbered(2, 1))
        tame = pack(1, 2)
        for operation in ("union", "difference", "intersection", "count_common"):
            self.assertRaises(ValueError, getattr(wild, operation), tame)
            self.assertRaises(ValueError, getattr(tame, operation), wild)


class IdSetTests(SynchronousTestCase):
    """A set of ids that grows."""

    @given(st.lists(st.integers(0, 5000).map(lambda number: numbered(number)[0]), max_size=200))
    def test_as_a_set(self, ids: list[bytes]) -> None:
        """It says of each id whether it's new, as a set of objects would."""
        mine, known = IdSet(), set()
        for chunk_id in ids:
            self.assertEqual(chunk_id in mine, chunk_id in known)
            self.assertEqual(mine.add(chunk_id), chunk_id not in known)
            known.add(chunk_id)
            self.assertIn(chunk_id, mine)
        self.assertEqual(len(mine), len(known))

    def test_many(self) -> None:
        """It grows, and forgets nothing."""
        ids = numbered(*range(0, 200_000, 7))
        mine = IdSet()
        self.assertTrue(all(map(mine.add, ids)))
        self.assertFalse(any(map(mine.add, ids)))
        self.assertEqual(len(mine), len(ids))
        self.assertFalse(any(chunk_id in mine for chunk_id in numbered(*range(1, 7000, 7))))

    def test_refusals(self) -> None:
        """What is no id is refused, and isn't in it."""
        mine = IdSet()
        self.assertRaises(ValueError, mine.add, b"short")
        self.assertNotIn(b"short", mine)
        self.assertNotIn("text", mine)
