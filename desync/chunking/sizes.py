# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
How long chunks may be: minimum, average and maximum, in bytes, and what follows from them for the
cut rule.

The resolution of missing values and the discriminator are casync's (``src/cachunker.c``).
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

from desync.errors import UsageError

WINDOW = 48
"""The bytes that the rolling hash looks at: no cut can be found before a chunk has as many."""

LARGEST = 128 * 1024 * 1024
"""The longest chunk that casync makes or takes, in bytes."""

_KIB = 1024
_DEFAULT_AVERAGE = 64 * _KIB


class _Sizes(NamedTuple):
    min: int
    avg: int
    max: int


class ChunkSizes(_Sizes):
    """
    The chunk sizes of an index, immutable.

    :param min: bytes that a chunk has at least, the last one of a file excepted.
    :param avg: bytes that a chunk has on average.
    :param max: bytes that a chunk has at most. All three equal: every chunk has this length and
        nothing is hashed.
    :raises UsageError: no chunker can work with these: not ``1 <= min <= avg <= max <= 128 MiB``,
        or a maximum below the 48 bytes of the hash window. (casync takes such a maximum and then
        fails on its own chunks.)
    """

    __slots__ = ()

    DEFAULT: ClassVar[ChunkSizes]
    """16, 64 and 256 KiB, the default of casync and of Go desync."""

    def __new__(cls, min: int, avg: int, max: int) -> ChunkSizes:
        if min < 1:
            raise UsageError(f"min chunk size {min} is not a positive number of bytes")
        if not min <= avg <= max:
            raise UsageError(f"chunk sizes out of order: min {min}, avg {avg}, max {max} bytes")
        if max > LARGEST:
            raise UsageError(
                f"max chunk size {max} too large, must be {LARGEST} bytes (128 MiB) or less"
            )
        if max < WINDOW and min != max:
            raise UsageError(f"max chunk size too small, must be over {WINDOW}")
        return super().__new__(cls, min, avg, max)

    @classmethod
    def resolve(
        cls, min: int | None = None, avg: int | None = None, max: int | None = None
    ) -> ChunkSizes:
        """
        Fill in what is missing (None or 0), as casync does.

        :raises UsageError: as the constructor does.
        """
        if not avg:
            if min and max:
                avg = (
                    round(2 ** ((math.log2(min) + math.log2(max)) / 2))
                    if min > 0 and max > 0
                    else 0
                )
            elif min:
                avg = min * 4
            elif max:
                avg = max // 4
            else:
                avg = _DEFAULT_AVERAGE
        if not min:
            min = avg // 4 or 1
        if not max:
            max = avg * 4 if avg * 4 < LARGEST else LARGEST
        return cls(min, avg, max)

    @classmethod
    def parse_kib(cls, text: str) -> ChunkSizes:
        """
        Read the command line's form, ``MIN:AVG:MAX`` in KiB, as ``16:64:256``.

        :raises UsageError: it isn't three whole numbers, or they make no usable sizes. Unlike the
            constructor this refuses a minimum below the window even for a fixed size, as Go desync
            does.
        """
        parts = text.split(":")
        if len(parts) != 3:
            raise UsageError(f"invalid chunk size '{text}'")
        minimum, average, maximum = (
            _parse_number(name, part) * _KIB
            for name, part in zip(("min", "avg", "max"), parts, strict=True)
        )
        if minimum < WINDOW:
            raise UsageError(f"min chunk size too small, must be over {WINDOW}")
        return cls(minimum, average, maximum)

    @property
    def fixed(self) -> bool:
        """Whether every chunk has the same length."""
        return self.min == self.max

    @property
    def discriminator(self) -> int:
        """
        The number ``d`` of the cut rule ``hash % d == d - 1``.

        casync's formula in double precision, truncated, and clamped to [min, max]. From an average
        of 9324557 bytes on its divisor is negative; what casync then gets on x86-64 is the maximum.
        """
        divisor = -1.42888852e-7 * self.avg + 1.33237515
        if divisor <= 0:
            return self.max
        wanted = int(self.avg / divisor)
        return self.min if wanted < self.min else self.max if wanted > self.max else wanted

    @property
    def first_test(self) -> int:
        """The shortest length at which a chunk can end by its content, in bytes."""
        return self.min if self.min > WINDOW else WINDOW


ChunkSizes.DEFAULT = ChunkSizes(16 * _KIB, 64 * _KIB, 256 * _KIB)


def _parse_number(name: str, text: str) -> int:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()):
        raise UsageError(f'{name} chunk size: parsing "{text}": invalid syntax')
    # More digits can only be too large, and converting a very long text to a number is slow and in
    # the end refused.
    return int(text) if len(digits) < 20 else (-LARGEST if text[0] == "-" else LARGEST)
