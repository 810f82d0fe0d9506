# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Tests for :mod:`desync.chunking.buzhash`, the rule, and for where every kernel cuts by it.

The vectors were found with the real casync and Go desync.
"""

from __future__ import annotations

import hashlib
import random
import struct
from array import array
from itertools import pairwise
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from desync.chunking import kernels
from desync.chunking.buzhash import TABLE, CutRule, cut_length, find_match, hash_window
from desync.chunking.digests import SHA512_256
from desync.chunking.long_integers import find_match_in_blocks
from desync.chunking.sizes import ChunkSizes


class Rule(NamedTuple):
    """A cut rule with a discriminator that no chunk sizes lead to."""

    min: int
    max: int
    discriminator: int

    @property
    def fixed(self) -> bool:
        """As in ChunkSizes."""
        return self.min == self.max


def casync_data(size: int) -> bytes:
    """The test data of the vectors from casync."""
    pieces = range((size + 31) // 32)
    return b"".join(hashlib.sha256(struct.pack("<I", i)).digest() for i in pieces)[:size]


def desync_data() -> bytes:
    """The test data of the vectors from Go desync, 1 MiB."""
    return b"".join(hashlib.sha256(struct.pack("<Q", i)).digest() for i in range(32768))


def lengths(kernel: kernels.KernelSet, data: bytes, sizes: CutRule) -> list[int]:
    """The lengths of all chunks."""
    shortest = max(1, sizes.min)
    ends = array("I", bytes(4 * (len(data) // shortest + 1)))
    count = kernel.find_cuts(data, 0, len(data), len(data), True, sizes, ends)
    bounds = [0, *ends[:count]]
    return [end - start for start, end in pairwise(bounds)]


class BuzhashTests(SynchronousTestCase):
    """The hash and the readable rule."""

    def test_table(self) -> None:
        """The table is casync's."""
        self.assertEqual(
            hashlib.sha256(struct.pack("<256I", *TABLE)).hexdigest(),
            "5b52080d38287da9d2e278466e3e0db7ec98e5e8b226f50612a56fa012b1f660",
        )

    def test_hash_window(self) -> None:
        """The hashes of some windows."""
        self.assertEqual(hash_window(bytes(48)), 0x9E489E48)
        self.assertEqual(hash_window(b"\xff" * 48), 0xFDC4023B)
        self.assertEqual(hash_window(bytes(range(48))), 0x6B67DEC6)
        for size in (0, 47, 49):
            with self.assertRaises(ValueError):
                hash_window(bytes(size))

    def test_first_cut(self) -> None:
        """The hash at the first cut of the vectors matches the discriminator."""
        value = hash_window(casync_data(1 << 20)[31199 - 48 : 31199])
        self.assertEqual(value, 0x386B6CDA)
        self.assertEqual(value % 49535, 49534)
        self.assertEqual(cut_length(casync_data(1 << 20), ChunkSizes.DEFAULT), 31199)

    def test_first_test_at_the_minimum(self) -> None:
        """A chunk can end at exactly the minimum: casync's rule, where Go desync begins later."""
        data = random.Random(3).randbytes(500)
        for minimum in (48, 49, 100, 300):
            match = hash_window(data[minimum - 48 : minimum]) + 1
            for kernel in map(kernels.named, kernels.available()):
                self.assertEqual(lengths(kernel, data, Rule(minimum, 400, match))[0], minimum)
            self.assertEqual(cut_length(data, Rule(minimum, 400, match)), minimum)

    def test_rule_of_fixed_sizes(self) -> None:
        """Chunks of a fixed size are cut without looking at them."""
        sizes = ChunkSizes(10, 10, 10)
        self.assertEqual(cut_length(bytes(35), sizes), 10)
        self.assertEqual(cut_length(bytes(5), sizes), 5)


class SearchTests(SynchronousTestCase):
    """The searches in plain Python."""

    def test_agree(self) -> None:
        """Byte by byte and by blocks find the same, wherever it is."""
        source = random.Random(1)
        for _ in range(150):
            size = source.choice((source.randrange(48, 700), source.randrange(48, 9000)))
            data = source.choice((source.randbytes(size), bytes([source.randrange(256)]) * size))
            chunk = memoryview(data)
            first = source.randrange(48, size + 1)
            place = source.randrange(48, size + 1)
            discriminator = source.choice(
                (
                    1 << source.randrange(32),
                    1 + source.randrange(20000),
                    0xFFFFFFFF,
                    3 << 20,
                    # One that matches at that place, if not before.
                    (hash_window(chunk[place - 48 : place]) + 1) % (1 << 32) or 1,
                )
            )
            self.assertEqual(
                find_match_in_blocks(chunk, first, size, discriminator),
                find_match(chunk, first, size, discriminator),
                f"size {size}, first {first}, discriminator {discriminator}",
            )

    def test_largest_hash(self) -> None:
        """
        The hash 2^32 - 1, plus 1, wraps around to 0, which every number divides: it matches only
        discriminators that are powers of two.
        """
        window = window_with_hash(0xFFFFFFFF)
        self.assertEqual(hash_window(window), 0xFFFFFFFF)
        data = b"\xaa" * 200 + window + b"\xaa" * 3000
        for discriminator in (1 << 31, 1 << 20, 3 << 20, 65537, 0xFFFFFFFF, 0xFFFFFFFE):
            expected = cut_length(data, Rule(48, 2900, discriminator))
            wanted = 248 if 0xFFFFFFFF % discriminator == discriminator - 1 else 2900
            self.assertEqual(expected, wanted)
            for name in kernels.available():
                found = lengths(kernels.named(name), data, Rule(48, 2900, discriminator))
                self.assertEqual(found[0], expected, f"{name}, {discriminator}")


def window_with_hash(wanted: int) -> bytes:
    """
    48 bytes that have a given hash.

    Choosing one of two bytes in 40 places adds (exclusively or) one of 40 numbers or not; which of
    them make up the difference is a system of linear equations over two elements.
    """
    window = bytearray(48)
    basis: dict[int, tuple[int, int]] = {}
    for place in range(40):
        rotation = (47 - place) % 32
        change = TABLE[0] ^ TABLE[1 + place]
        vector = (change << rotation | change >> (32 - rotation)) & 0xFFFFFFFF
        used = 1 << place
        while vector and vector.bit_length() in basis:
            other, others = basis[vector.bit_length()]
            vector ^= other
            used ^= others
        if vector:
            basis[vector.bit_length()] = (vector, used)
    missing = hash_window(bytes(48)) ^ wanted
    chosen = 0
    while missing:
        vector, used = basis[missing.bit_length()]
        missing ^= vector
        chosen ^= used
    for place in range(40):
        if chosen >> place & 1:
            window[place] = 1 + place
    return bytes(window)


class VectorTests(SynchronousTestCase):
    """Where every kernel cuts known data."""

    def check(self, data: bytes, sizes: ChunkSizes, expected: list[int]) -> None:
        """Compare the first chunks with the vector."""
        for name in kernels.available():
            found = lengths(kernels.named(name), data, sizes)
            self.assertEqual(found[: len(expected)], expected, name)
            self.assertEqual(sum(found), len(data))

    def test_casync_default(self) -> None:
        """casync, 1 MiB, default sizes."""
        expected = [31199, 42902, 117173, 24361, 22550, 107136, 262144, 29268, 95829, 206201]
        self.check(casync_data(1 << 20), ChunkSizes.DEFAULT, [*expected, 109813])

    def test_casync_average(self) -> None:
        """casync, only the average given."""
        expected = [23896, 11754, 10235, 37457, 28256, 90923, 97479]
        self.check(casync_data(300000), ChunkSizes.resolve(avg=32768), expected)

    def test_casync_small(self) -> None:
        """casync, small chunks."""
        expected = [11661, 10990, 16384, 3296, 1407, 2438, 7136, 1116, 2247, 8193, 3243, 14832]
        self.check(casync_data(100000), ChunkSizes(1024, 4096, 16384), expected)

    def test_casync_below_the_window(self) -> None:
        """casync, a minimum of 16 bytes: the first test is at 48 all the same."""
        sizes = ChunkSizes.resolve(avg=64)
        expected = [109, 107, 68, 68, 80, 108, 57, 123, 61, 102, 152, 86]
        data = casync_data(20000)
        self.check(data, sizes, expected)
        self.assertEqual(len(lengths(kernels.named("portable"), data, sizes)), 218)

    def test_casync_uniform(self) -> None:
        """casync, zeros and ones: no match, so every chunk has the maximum size."""
        for byte in (b"\0", b"\xff"):
            self.check(byte * (1 << 20), ChunkSizes.DEFAULT, [262144] * 4)

    def test_desync_default(self) -> None:
        """Go desync, 1 MiB, default sizes, with the ids."""
        expected = (
            (80921, "0fac270dc01e8432"),
            (57299, "9f0c3d2c709f1b9d"),
            (49192, "ccb2b7fdf100a825"),
            (49960, "605945b8129447dd"),
            (59423, "4ff44b15cf44d0fb"),
            (52114, "27b2c22befee4e09"),
            (88424, "5d85b4b89504497f"),
            (46418, "9800d13f5de1d39a"),
            (100282, "26f2b52e82e3689f"),
            (92236, "5d4b5c91c282cafb"),
            (99913, "2cb1dc5ebeabf4b8"),
            (16782, "07d05610224d294d"),
            (72780, "c4854da72bab4363"),
            (41585, "2407c94193f7a1fa"),
            (38454, "7d0a66178e627ee0"),
            (102793, "1a8885417125d123"),
        )
        data = desync_data()
        self.check(data, ChunkSizes.DEFAULT, [length for length, _ in expected])
        start = 0
        for length, prefix in expected:
            self.assertEqual(SHA512_256.id_of(data[start : start + length]).hex()[:16], prefix)
            start += length

    def test_desync_small(self) -> None:
        """Go desync, 1 MiB, small chunks: its whole list of starts, lengths and ids."""
        data = desync_data()
        for name in kernels.available():
            start = 0
            lines = []
            for length in lengths(kernels.named(name), data, ChunkSizes.parse_kib("1:2:8")):
                chunk_id = SHA512_256.id_of(data[start : start + length])
                lines.append(f"{start}\t{length}\t{chunk_id.hex()}\n")
                start += length
            self.assertEqual(len(lines), 403)
            self.assertEqual(
                hashlib.sha256("".join(lines).encode()).hexdigest(),
                "9902e527a9310ed3af7108c52024bd75edb8c7bb6402a9d38821199428384a27",
            )

    def test_zeros_with_a_rest(self) -> None:
        """3 000 000 zeros are 11 chunks of the maximum size and a rest."""
        self.check(bytes(3000000), ChunkSizes.DEFAULT, [262144] * 11 + [116416])
