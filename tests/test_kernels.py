# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Tests for :mod:`desync.chunking.kernels`: that every implementation gives what the readable one in
Python gives, and refuses what it refuses.

Where known data is cut is in test_cuts; which implementation runs, and the C code alone, in
test_kernel_choice.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from array import array
from collections.abc import Callable
from functools import partial
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from desync.chunking import kernels, portable
from desync.chunking.buzhash import CutRule
from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes

from .test_cuts import Rule, window_with_hash

ROUNDS = 60


def native_kernels() -> list[kernels.KernelSet]:
    """The implementations in C that run here."""
    found = [kernels.named(name) for name in kernels.available() if name != "portable"]
    if not found:
        raise SkipTest("the native kernels weren't built")
    return found


def random_data(source: random.Random, size: int) -> bytes:
    """Bytes of one of some kinds: random, few values, zeros, zeros with something in between."""
    kind = source.randrange(4)
    if kind == 0:
        return source.randbytes(size)
    if kind == 1:
        return bytes(source.choices((0, 1, 7), k=size))
    data = bytearray(size)
    if kind == 2:
        for _ in range(source.randrange(4)):
            place = source.randrange(size + 1)
            data[place : place + 40] = source.randbytes(min(40, size - place))
    return bytes(data)


def random_rule(source: random.Random) -> Rule:
    """Any cut rule: minimum around the window or larger, discriminator special or not."""
    minimum = source.choice((48 + source.randrange(300), 1 + source.randrange(100)))
    maximum = max(48, minimum) + source.choice((0, source.randrange(100), source.randrange(6000)))
    discriminator = source.choice(
        (1 << source.randrange(32), 1 + source.randrange(5000), 1, 0xFFFFFFFF, 0x80000001)
    )
    return Rule(minimum, maximum, discriminator)


def random_ids(source: random.Random) -> tuple[bytes, int, int, int]:
    """Ids with many repetitions and common beginnings: a table, offset, stride and count."""
    count = source.choice((0, 1, source.randrange(200), 4090 + source.randrange(20)))
    offset, stride = source.randrange(20), 32 + source.randrange(20)
    alike = source.randrange(32)
    kinds = [bytes(alike) + source.randbytes(32 - alike) for _ in range(1 + count // 2)]
    table = bytearray(source.randbytes(offset + count * stride))
    for number in range(count):
        place = offset + number * stride
        table[place : place + 32] = source.choice(kinds)
    return bytes(table), offset, stride, count


class ComparisonTests(SynchronousTestCase):
    """Every implementation in C gives what the one in Python gives."""

    def test_find_cuts(self) -> None:
        """Cuts of random data by random rules, from anywhere to anywhere."""
        source = random.Random(1)
        native = native_kernels()
        for _ in range(3 * ROUNDS):
            size = source.choice((source.randrange(500), source.randrange(30000)))
            data = random_data(source, size)
            rule = random_rule(source)
            start = source.randrange(size + 1)
            end = source.randint(start, size)
            final = source.random() < 0.7
            stop = source.randint(start, end + 5) if final else max(start, end - rule.max + 1)
            room = array("I", bytes(4 * (size + 1)))
            count = portable.find_cuts(data, start, stop, end, final, rule, room)
            for kernel in native:
                found = array("I", bytes(4 * (size + 1)))
                self.assertEqual(
                    (kernel.find_cuts(data, start, stop, end, final, rule, found), found),
                    (count, room),
                    f"{rule}, {start}, {stop}, {end}, {final}",
                )

    def test_find_cuts_of_default_sizes(self) -> None:
        """Cuts of a few hundred kilobytes, where the vectors have long ways to go."""
        source = random.Random(2)
        data = random_data(source, 300000) + source.randbytes(700000)
        expected = array("I", bytes(400))
        sizes = ChunkSizes.DEFAULT
        count = portable.find_cuts(data, 0, len(data), len(data), True, sizes, expected)
        self.assertGreater(count, 5)
        for kernel in native_kernels():
            found = array("I", bytes(400))
            kernel.find_cuts(data, 0, len(data), len(data), True, sizes, found)
            self.assertEqual(found, expected)

    def test_a_match_at_every_place(self) -> None:
        """One match, at each position of the vectors in turn, is found there."""
        sizes = Rule(48, 700, 0x01234567)
        window = window_with_hash(sizes.discriminator - 1)
        for kernel in [*native_kernels(), portable]:
            for place in range(48, 699):
                data = bytearray(b"\x55" * 700)
                data[place - 48 : place] = window
                ends = array("I", bytes(64))
                kernel.find_cuts(data, 0, 1, 700, True, sizes, ends)
                self.assertEqual(ends[0], place)

    def test_hash_ranges(self) -> None:
        """Ids of random chunks, some of zeros, of few and of many, of all lengths of a tail."""
        source = random.Random(3)
        for _ in range(ROUNDS):
            data = random_data(source, source.randrange(20000))
            count = source.randrange(60)
            ends = array("I", sorted(source.randrange(len(data) + 1) for _ in range(count)))
            start = source.randrange(ends[0] + 1) if ends else 0
            null = source.choice((None, (source.randrange(300), b"0" * 32)))
            wanted = source.randrange(count + 1)
            expected = portable.hash_ranges(data, start, ends, wanted, null)
            for kernel in native_kernels():
                self.assertEqual(kernel.hash_ranges(data, start, ends, wanted, null), expected)

    def test_hash_buffers(self) -> None:
        """Ids of buffers of every length up to three blocks, in all the types that there are."""
        source = random.Random(4)
        for first in range(0, 390, 13):
            buffers: list[kernels.ReadableBuffer] = []
            for length in range(first, first + 13):
                data = source.randbytes(length)
                buffers += [data, bytearray(data), memoryview(data)[length // 3 :]]
            source.shuffle(buffers)
            expected = b"".join(map(SHA512_256.id_of, buffers))
            for kernel in [*native_kernels(), portable]:
                self.assertEqual(kernel.hash_buffers(buffers), expected)

    def test_hash_one_long_among_short(self) -> None:
        """A chunk that is far longer than the others has its right id too."""
        data = random.Random(5).randbytes(300000)
        buffers = [data[:20], data, data[:300], b"", data[:16000]]
        expected = b"".join(map(SHA512_256.id_of, buffers))
        for kernel in native_kernels():
            self.assertEqual(kernel.hash_buffers(buffers), expected)
            self.assertEqual(kernel.hash_buffers(buffers[1:2]), expected[32:64])

    def test_siphash(self) -> None:
        """SipHash-2-4 of random bytes of every length around the words' ends."""
        source = random.Random(11)
        native = native_kernels()
        for size in [*range(70), 254, 255, 256, 257, 1000]:
            data, key = source.randbytes(size), source.randbytes(16)
            expected = portable.siphash(data, key)
            for kernel in native:
                self.assertEqual(kernel.siphash(memoryview(data), key), expected)

    def test_is_zero(self) -> None:
        """Zeros of all lengths are zeros; one other byte anywhere is seen."""
        for kernel in [*native_kernels(), portable]:
            for size in (0, 1, 7, 8, 255, 256, 257, 2047, 2048, 2049, 5000, 65536, 70000):
                data = bytearray(size)
                self.assertIs(kernel.is_zero(data), True)
                for place in {0, size // 3, size - 1} if size else ():
                    data[place] = 128
                    self.assertIs(kernel.is_zero(memoryview(data)), False)
                    data[place] = 0

    def test_check_table(self) -> None:
        """The first item that ends before, at, or too far behind the one before it."""
        for kernel in [*native_kernels(), portable]:

            def check(
                ends: list[int],
                max_size: int = 10,
                check: Callable[[bytes, int], int] = kernel.check_table,
            ) -> int:
                items = (end.to_bytes(8, "little") + bytes(32) for end in ends)
                return check(b"".join(items), max_size)

            self.assertEqual(check([]), -1)
            self.assertEqual(check([10, 11, 21]), -1)
            self.assertEqual(check([0, 1]), 0)
            self.assertEqual(check([11]), 0)
            self.assertEqual(check([5, 5]), 1)
            self.assertEqual(check([5, 4]), 1)
            self.assertEqual(check([5, 10, 21, 3]), 2)
            self.assertEqual(check([1, (1 << 64) - 1, 5], 1 << 63), 1)
            self.assertEqual(check([1, (1 << 64) - 1, 5], (1 << 64) - 1), 2)

    def test_ids(self) -> None:
        """Ids are sorted, counted once and found again alike, whatever they have in common."""
        source = random.Random(6)
        for _ in range(ROUNDS):
            ids = random_ids(source)
            order = portable.sort_ids(*ids)
            unique = portable.unique_ids(*ids, order)
            first = portable.first_positions(*ids, order)
            for kernel in native_kernels():
                self.assertEqual(kernel.sort_ids(*ids), order)
                self.assertEqual(kernel.unique_ids(*ids, order), unique)
                self.assertEqual(kernel.first_positions(*ids, order), first)

    def test_many_ids(self) -> None:
        """A hundred thousand ids, more than are sorted by comparing: evenly divided, or alike."""
        source = random.Random(7)
        count = 100000
        tables = {
            "even": source.randbytes(32 * count),
            "alike at first": b"".join(
                bytes(29) + number.to_bytes(3, "little") for number in range(count)
            ),
            "all the same": bytes(32) * count,
        }
        for name, table in tables.items():
            expected = sorted(range(count), key=lambda i: table[32 * i : 32 * i + 32])
            for kernel in native_kernels():
                order = array("I", kernel.sort_ids(table, 0, 32, count))
                self.assertEqual(order.tolist(), expected, name)
                unique = kernel.unique_ids(table, 0, 32, count, order)
                self.assertEqual(len(unique), 32 * (1 if name == "all the same" else count))


class ContractTests(SynchronousTestCase):
    """What callers may rely on, of all implementations."""

    def setUp(self) -> None:
        self.every = [(name, kernels.named(name)) for name in kernels.available()]

    def test_segments(self) -> None:
        """Cutting segment by segment, each with a maximum chunk more, cuts as the whole is cut."""
        source = random.Random(8)
        data = random_data(source, 20000) + source.randbytes(60000)
        sizes = ChunkSizes(512, 2048, 8192)
        for name, kernel in self.every:
            whole = array("I", bytes(1000))
            count = kernel.find_cuts(data, 0, len(data), len(data), True, sizes, whole)
            found: list[int] = []
            segment, start, room = 10000, 0, array("I", bytes(200))
            for base in range(0, len(data), segment):
                buffer = data[base : base + segment + sizes.max]
                final = base + len(buffer) == len(data)
                some = kernel.find_cuts(
                    buffer, start - base, segment, len(buffer), final, sizes, room
                )
                found += [base + end for end in room[:some]]
                start = found[-1] if found else 0
            self.assertEqual(found, whole[:count].tolist(), name)

    def test_nothing_to_cut(self) -> None:
        """From a start at or past the stop there is nothing to do, whatever lies behind."""
        for name, kernel in self.every:
            for start, stop in ((0, 0), (30, 30), (30, 20), (100, 200)):
                ends = array("I")
                count = kernel.find_cuts(
                    bytes(100), start, stop, 100, start == 100, ChunkSizes.DEFAULT, ends
                )
                self.assertEqual(count, 0, name)

    def test_refused_cuts(self) -> None:
        """Places out of order or outside, too little data ahead, too little room: ValueError."""
        data = bytes(1000)
        sizes = ChunkSizes(48, 64, 100)
        room = array("I", bytes(400))
        arguments: list[tuple[int, int, int, bool, CutRule, array[int]]] = [
            (-1, 10, 1000, True, sizes, room),
            (0, 10, 1001, True, sizes, room),
            (500, 600, 400, True, sizes, room),
            (0, 902, 1000, False, sizes, room),
            (0, 2000, 1000, False, sizes, room),
            (0, 1000, 1000, True, sizes, array("I", bytes(4 * 20))),
            (0, 1000, 1000, True, ChunkSizes(100, 100, 100), array("I", bytes(4 * 9))),
            (0, 1, 1000, True, sizes, array("I")),
        ]
        for name, kernel in self.every:
            for start, stop, end, final, rule, ends in arguments:
                before = ends.tobytes()
                with self.assertRaises(ValueError, msg=f"{name} {start} {stop} {end}"):
                    kernel.find_cuts(data, start, stop, end, final, rule, ends)
                self.assertEqual(ends.tobytes(), before)
            self.assertEqual(kernel.find_cuts(data, 0, 901, 1000, False, sizes, room), 10)
            just_enough = array("I", bytes(4 * 21))
            self.assertEqual(
                kernel.find_cuts(data, 0, 1000, 1000, True, sizes, just_enough), 10, name
            )
            if kernel is not portable:
                with self.assertRaises(ValueError):
                    kernel.find_cuts(data, 0, 1, 1000, True, Rule(10, 20, 5), room)
                with self.assertRaises(ValueError):
                    kernel.find_cuts(data, 0, 1, 1000, True, Rule(50, 70, 1 << 32), room)
            with self.assertRaises((TypeError, BufferError)):
                kernel.find_cuts(data, 0, 1, 1000, True, sizes, bytes(8))  # type: ignore[arg-type]

    def test_refused_ranges(self) -> None:
        """Chunks out of order or outside the buffer, and fewer ends than said: ValueError."""
        for name, kernel in self.every:
            for start, ends, count in (
                (0, [10, 5, 20], 3),
                (11, [10, 20], 2),
                (0, [10, 101], 2),
                (0, [10], 2),
                (0, [10], -1),
                (-1, [10], 1),
            ):
                with self.assertRaises(ValueError, msg=name):
                    kernel.hash_ranges(bytes(100), start, array("I", ends), count)

    def test_refused_ids(self) -> None:
        """Ids that aren't all in the table, or an order of others: ValueError."""
        for name, kernel in self.every:
            for arguments in (
                (bytes(63), 0, 32, 2),
                (bytes(64), 1, 32, 2),
                (bytes(64), 0, 33, 2),
                (bytes(64), 0, 31, 2),
                (bytes(64), -1, 32, 1),
                (bytes(64), 0, 32, -1),
                (bytes(20), 0, 32, 1),
                (bytes(64), 1 << 62, 32, 1),
                (bytes(64), 0, 1 << 62, 4),
                (bytes(64), 0, 32, 1 << 32),
            ):
                with self.assertRaises(ValueError, msg=f"{name} {arguments[1:]}"):
                    kernel.sort_ids(*arguments)
            for order in ([0], [0, 2], [0, 1, 1]):
                packed = array("I", order).tobytes()
                with self.assertRaises(ValueError):
                    kernel.unique_ids(bytes(64), 0, 32, 2, packed)
                with self.assertRaises(ValueError):
                    kernel.first_positions(bytes(64), 0, 32, 2, packed)
            with self.assertRaises(ValueError):
                kernel.check_table(bytes(39), 10)
            for key in (b"", bytes(15), bytes(17)):
                with self.assertRaises(ValueError, msg=name):
                    kernel.siphash(b"name", key)
            self.assertEqual(kernel.sort_ids(b"", 0, 40, 0), b"")
            self.assertEqual(kernel.unique_ids(b"", 8, 40, 0, b""), b"")

    def test_buffers_are_let_go(self) -> None:
        """After a call, a failed one too, a buffer can be changed in size again."""
        for _, kernel in self.every:
            data = bytearray(1000)
            ends = array("I", bytes(100))
            sizes = ChunkSizes(48, 64, 100)
            kernel.find_cuts(data, 0, 1000, 1000, True, sizes, ends)
            kernel.hash_ranges(data, 0, ends, 10)
            kernel.hash_buffers([data] * 20)
            kernel.is_zero(data)
            kernel.check_table(data, 5)
            kernel.siphash(data, data[:16])
            kernel.unique_ids(data, 0, 32, 20, kernel.sort_ids(data, 0, 32, 20))
            calls: tuple[Callable[[], object], ...] = (
                partial(kernel.find_cuts, data, 9, 2, 1, True, sizes, ends),
                partial(kernel.hash_ranges, data, 0, ends, 500),
                partial(kernel.hash_ranges, data, 2000, ends, 5),
                partial(kernel.hash_buffers, [data, data, data, "no", ends]),  # type: ignore[list-item]
                partial(kernel.sort_ids, data, 0, 32, 500),
                partial(kernel.siphash, data, data),
            )
            for call in calls:
                with self.assertRaises((ValueError, TypeError)):
                    call()
            data.append(1)
            ends.append(1)

    def test_threads(self) -> None:
        """Several threads at once get the same results as one."""
        data = random.Random(9).randbytes(200000)
        sizes = ChunkSizes(512, 2048, 8192)
        expected = array("I", bytes(4 * 400))
        count = portable.find_cuts(data, 0, len(data), len(data), True, sizes, expected)
        ids = portable.hash_ranges(data, 0, expected, count)
        for kernel in native_kernels():
            results: list[tuple[bool, bool]] = []

            def work(
                kernel: kernels.KernelSet = kernel, results: list[tuple[bool, bool]] = results
            ) -> None:
                for _ in range(5):
                    ends = array("I", bytes(4 * 400))
                    kernel.find_cuts(data, 0, len(data), len(data), True, sizes, ends)
                    found = kernel.hash_ranges(data, 0, ends, count)
                    results.append((ends == expected, found == ids))

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(results, [(True, True)] * 20)

    def test_write_buffers(self) -> None:
        """Each buffer is written to its place, and errors are the system's."""
        path = self.mktemp()
        contents: list[kernels.ReadableBuffer] = [
            b"one",
            memoryview(b"_two_")[1:4],
            bytearray(100_000),
            b"",
        ]
        offsets = array("Q", [7, 0, 20, 3])
        expected = b"two\0\0\0\0one" + bytes(10 + 100_000)
        for name, kernel in self.every:
            with open(path, "wb+") as file:
                kernel.write_buffers(file.fileno(), contents, offsets)
                self.assertEqual(file.read(), expected, name)
                kernel.write_buffers(file.fileno(), [], array("Q"))
                for wrong in (array("Q", [1]), array("Q", range(5))):
                    self.assertRaises(
                        ValueError, kernel.write_buffers, file.fileno(), contents, wrong
                    )
                self.assertRaises(
                    TypeError, kernel.write_buffers, file.fileno(), ["text"], array("Q", [1])
                )
            with open(path, "rb") as file:
                error = self.assertRaises(
                    OSError, kernel.write_buffers, file.fileno(), [b"x"], array("Q", [0])
                )
                self.assertEqual(error.errno, errno.EBADF, name)
                self.assertEqual(file.read(), expected, name)

    def test_read_files(self) -> None:
        """Files within the limit are read whole; nothing is said of all others."""
        folder = self.mktemp()
        os.makedirs(folder)
        contents: dict[str, bytes | None] = {
            "small": b"x",
            "limit": bytes(range(250)) * 400,
            "larger": bytes(100_001),
            "empty": b"",
        }
        paths = []
        expected: list[bytes | None] = []
        for name, content in contents.items():
            assert content is not None
            path = os.path.join(folder, name)
            with open(path, "wb") as file:
                file.write(content)
            paths.append(os.fsencode(path))
            expected.append(content if 0 < len(content) <= 100_000 else None)
        os.mkfifo(os.path.join(folder, "pipe"))
        os.symlink("small", os.path.join(folder, "link"))
        paths += [os.fsencode(os.path.join(folder, name)) for name in ("pipe", "none", "", "link")]
        expected += [None, None, None, b"x"]
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for name, kernel in self.every:
            self.assertEqual(kernel.read_files(paths, 100_000), expected, name)
            self.assertEqual(kernel.read_files(tuple(paths), 0), [None] * len(paths), name)
            self.assertEqual(kernel.read_files([], 1), [], name)
            self.assertRaises(ValueError, kernel.read_files, [b"a\0b"], 1)
            self.assertRaises(TypeError, kernel.read_files, [5.5], 1)
        if before:
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_keep_memory(self) -> None:
        """Asking malloc to keep memory does no harm, again and again."""
        for _, kernel in self.every:
            kernel.keep_memory()
            kernel.keep_memory()
