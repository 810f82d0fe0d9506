# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for :mod:`desync.chunking.sizes`."""

from __future__ import annotations

import copy
import pickle

from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.sizes import LARGEST, ChunkSizes
from desync.errors import UsageError


class ConstructorTests(SynchronousTestCase):
    """What sizes there can be."""

    def test_default(self) -> None:
        """The default is that of casync and of Go desync: 16, 64 and 256 KiB."""
        self.assertEqual(tuple(ChunkSizes.DEFAULT), (16384, 65536, 262144))
        self.assertFalse(ChunkSizes.DEFAULT.fixed)

    def test_immutable(self) -> None:
        """Sizes can't be changed, are equal by value, and survive pickling and copying."""
        sizes = ChunkSizes(48, 64, 128)
        with self.assertRaises(AttributeError):
            sizes.min = 1  # type: ignore[misc]
        with self.assertRaises(AttributeError):
            sizes.other = 1  # type: ignore[attr-defined]
        self.assertEqual(sizes, ChunkSizes(48, 64, 128))
        restored = pickle.loads(pickle.dumps(sizes))
        self.assertEqual(restored, sizes)
        self.assertIs(type(restored), ChunkSizes)
        self.assertIs(type(copy.copy(sizes)), ChunkSizes)

    def test_out_of_order(self) -> None:
        """A minimum above the average, or an average above the maximum, is refused."""
        for wrong in ((65, 64, 128), (48, 129, 128), (300, 200, 100)):
            with self.assertRaisesRegex(UsageError, "out of order"):
                ChunkSizes(*wrong)

    def test_not_positive(self) -> None:
        """No size may be zero or negative."""
        for wrong in ((0, 64, 128), (-1, 64, 128), (0, 0, 0)):
            with self.assertRaisesRegex(UsageError, "not a positive number"):
                ChunkSizes(*wrong)

    def test_too_large(self) -> None:
        """The largest chunk is 128 MiB, as in casync."""
        self.assertEqual(ChunkSizes(48, 64, LARGEST).max, 128 << 20)
        with self.assertRaisesRegex(UsageError, "too large"):
            ChunkSizes(48, 64, LARGEST + 1)

    def test_below_the_window(self) -> None:
        """A maximum below the 48 bytes of the hash window is refused, a lower minimum is not."""
        for wrong in ((10, 20, 30), (1, 30, 47)):
            with self.assertRaisesRegex(UsageError, "max chunk size too small"):
                ChunkSizes(*wrong)
        self.assertEqual(ChunkSizes(1, 30, 48).first_test, 48)
        self.assertEqual(ChunkSizes(49, 60, 70).first_test, 49)

    def test_fixed(self) -> None:
        """Three equal sizes are a fixed size, and that may be any, as nothing is hashed."""
        for size in (1, 47, 48, 4096, LARGEST):
            self.assertTrue(ChunkSizes(size, size, size).fixed)
        self.assertFalse(ChunkSizes(48, 48, 49).fixed)


class DiscriminatorTests(SynchronousTestCase):
    """casync's discriminator."""

    def test_reference_values(self) -> None:
        """The values of casync and Go desync for usual averages."""
        for average, expected in (
            (4096, 3075),
            (8192, 6153),
            (32768, 24680),
            (65536, 49535),
            (131072, 99777),
            (262144, 202440),
            (1048576, 886711),
        ):
            self.assertEqual(ChunkSizes.resolve(avg=average).discriminator, expected)

    def test_clamped(self) -> None:
        """A discriminator outside the sizes becomes the nearest of them."""
        self.assertEqual(ChunkSizes(60000, 65536, 262144).discriminator, 60000)
        self.assertEqual(ChunkSizes(1048576, 8 << 20, 32 << 20).discriminator, 32 << 20)
        self.assertEqual(ChunkSizes.resolve(avg=64).discriminator, 48)

    def test_negative_divisor(self) -> None:
        """From an average of 9324557 bytes on the formula turns negative, and means the maximum."""
        for average in (9324557, 9400000, 12000000, 16777216):
            sizes = ChunkSizes.resolve(avg=average)
            self.assertEqual(sizes.discriminator, sizes.max)
        # Just below it is huge, and clamped all the same.
        self.assertEqual(ChunkSizes(1, 9324556, LARGEST).discriminator, LARGEST)


class ResolveTests(SynchronousTestCase):
    """casync's rules for sizes that are not given."""

    def test_rules(self) -> None:
        """Each combination of given and missing sizes."""
        for given, expected in (
            ({}, (16384, 65536, 262144)),
            ({"avg": 64}, (16, 64, 256)),
            ({"min": 1024}, (1024, 4096, 16384)),
            ({"max": 16384}, (1024, 4096, 16384)),
            ({"min": 1024, "max": 4096}, (1024, 2048, 4096)),
            ({"min": 1000, "max": 3000}, (1000, 1732, 3000)),
            ({"min": 100, "avg": 1000}, (100, 1000, 4000)),
            ({"avg": 1000, "max": 2000}, (250, 1000, 2000)),
            ({"avg": 64 << 20}, (16 << 20, 64 << 20, 128 << 20)),
            ({"min": 0, "avg": 0, "max": 0}, (16384, 65536, 262144)),
        ):
            self.assertEqual(tuple(ChunkSizes.resolve(**given)), expected, str(given))

    def test_smallest_average(self) -> None:
        """An average of less than 12 bytes has a maximum below the window, and is refused."""
        self.assertEqual(tuple(ChunkSizes.resolve(avg=12)), (3, 12, 48))
        with self.assertRaises(UsageError):
            ChunkSizes.resolve(avg=11)

    def test_nonsense(self) -> None:
        """Negative sizes are refused, in whatever place."""
        for name in ("min", "avg", "max"):
            with self.assertRaises(UsageError):
                ChunkSizes.resolve(**{name: -5})


class ParseTests(SynchronousTestCase):
    """The command line's form."""

    def test_kib(self) -> None:
        """Three numbers are sizes in KiB."""
        self.assertEqual(ChunkSizes.parse_kib("16:64:256"), ChunkSizes.DEFAULT)
        self.assertEqual(tuple(ChunkSizes.parse_kib("+1:2:8")), (1024, 2048, 8192))
        self.assertTrue(ChunkSizes.parse_kib("64:64:64").fixed)

    def test_not_three(self) -> None:
        """Anything but three parts is refused, and repeated in the message."""
        for text in ("", "64", "16:64", "16:64:256:1", "16,64,256"):
            with self.assertRaisesRegex(UsageError, f"^invalid chunk size '{text}'$"):
                ChunkSizes.parse_kib(text)

    def test_not_numbers(self) -> None:
        """A part that isn't a number is named with what it was meant to be."""
        for text, message in (
            ("a:64:256", 'min chunk size: parsing "a": invalid syntax'),
            ("16:6_4:256", 'avg chunk size: parsing "6_4": invalid syntax'),
            ("16:64: 256", 'max chunk size: parsing " 256": invalid syntax'),
            ("16:64:", 'max chunk size: parsing "": invalid syntax'),
            ("0x10:64:256", 'min chunk size: parsing "0x10": invalid syntax'),
            ("16:64:２５６", 'max chunk size: parsing "２５６": invalid syntax'),  # noqa: RUF001
            ("1.5:64:256", 'min chunk size: parsing "1.5": invalid syntax'),
        ):
            with self.assertRaises(UsageError) as raised:
                ChunkSizes.parse_kib(text)
            self.assertEqual(str(raised.exception), message)

    def test_too_small(self) -> None:
        """No minimum, or a negative one, is refused also for a fixed size."""
        for text in ("0:64:256", "-16:64:256", "0:0:0", "-1:-1:-1"):
            with self.assertRaisesRegex(UsageError, "min chunk size too small, must be over 48"):
                ChunkSizes.parse_kib(text)

    def test_out_of_order_or_too_large(self) -> None:
        """What the constructor refuses is refused here too, and long numbers cost nothing."""
        for text in ("64:16:256", "16:512:256", "1:2:131073", "1:2:" + "9" * 100000):
            with self.assertRaises(UsageError):
                ChunkSizes.parse_kib(text)
        self.assertEqual(ChunkSizes.parse_kib("1:2:131072").max, LARGEST)
