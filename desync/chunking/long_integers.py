# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The search for a cut in Python, with long integers as vectors: eight times as fast as byte by byte.

An integer of thousands of bits holds a 32-bit hash for each position of a block. The hash of two
bytes comes of two neighbors of one byte, that of four of two neighbors of two, and so on: with
``Hn(i)`` for the hash of the ``n`` bytes up to position ``i``, ``H2n(i)`` is ``Hn(i)`` and
``Hn(i - n)``, rotated left by ``n``, exclusively or-ed. That of 48 bytes comes of those of 32 and
of 16. Each step is a handful of operations on whole blocks, which Python does at the speed of C.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from .buzhash import TABLE, find_match
from .sizes import WINDOW

_WORDS = 2048 + WINDOW
"""Words of a block. An even number, because the test for matches works on pairs."""

_BLOCK = _WORDS - (WINDOW - 1)
"""Lengths that a block tests; the bytes before are only looked at."""

_WORTHWHILE = 512
"""For fewer lengths a whole block takes longer than looking at them one by one."""

_WORD = 0xFFFFFFFF


def _in_words(word: int) -> int:
    """The same number in each word of a block."""
    return int.from_bytes(word.to_bytes(4, "little") * _WORDS, "little")


def _in_pairs(number: int) -> int:
    """The same number in each pair of words of a block."""
    return int.from_bytes(number.to_bytes(8, "little") * (_WORDS // 2), "little")


class _Step(NamedTuple):
    """
    Moves each word ``n`` positions on and rotates it left by ``n``, in two parts: the bits that a
    rotation leaves in their word, and those that come in again on the right.
    """

    left: int
    left_mask: int
    right: int
    right_mask: int


def _step(n: int) -> _Step:
    return _Step(
        32 * n + n, _in_words(_WORD << n & _WORD), 32 * n + n - 32, _in_words((1 << n) - 1)
    )


_PLANES = tuple(bytes(word >> shift & 0xFF for word in TABLE) for shift in (0, 8, 16, 24))
"""The bytes of the words of the table, the lowest first, each a table for ``bytes.translate``."""

_STEPS = tuple(map(_step, (1, 2, 4, 8, 16)))
_LOWER = _in_pairs(_WORD)


def _hashes(data: bytes) -> int:
    """The hash of the 48 bytes up to each of ``_WORDS`` positions; the first 47 are of fewer."""
    words = bytearray(4 * _WORDS)
    for number, plane in enumerate(_PLANES):
        words[number::4] = data.translate(plane)
    value = int.from_bytes(words, "little")
    of_16 = value
    for left, left_mask, right, right_mask in _STEPS:
        of_16 = value
        value ^= (value << left & left_mask) | (value << right & right_mask)
    # Another 32 positions back; a rotation by 32 is none. Nobody looks at what is beyond the block.
    return value ^ of_16 << 32 * 32


class _Test(NamedTuple):
    """What tells matches of a discriminator ``odd << shift``: ``struct divisor`` in buzhash.h."""

    inverse: int
    inverses: int
    shift: int
    shifted_out: int
    limits: int


@lru_cache(maxsize=4)
def _test_for(discriminator: int) -> _Test:
    shift = (discriminator & -discriminator).bit_length() - 1
    inverse = pow(discriminator >> shift, -1, 1 << 32)
    return _Test(
        inverse,
        _in_pairs(inverse),
        shift,
        _in_pairs((1 << shift) - 1),
        _in_pairs((1 << 32) + _WORD // discriminator),
    )


_TESTED = ((1 << 32 * _WORDS) - 1) >> 32 * (WINDOW - 1) << 32 * (WINDOW - 1)
_CARRIES = _in_pairs(1 << 32)
_FLAGS = _in_words(1) & _TESTED


def _candidates(hashes: int, test: _Test) -> int:
    """
    A one in each word that matches, and, rarely, in one that doesn't.

    Hash and 1 times the inverse is the quotient if the discriminator divides them, and otherwise
    larger than any quotient. The hash 2^32 - 1 seems to have the quotient 0.
    """
    flags = 0
    for half in (0, 32):
        quotients = ((hashes >> half & _LOWER) * test.inverse + test.inverses) & _LOWER
        if test.shift:
            rotated_in = (quotients & test.shifted_out) << (32 - test.shift)
            quotients = (quotients >> test.shift & _LOWER) | rotated_in
        # No pair borrows from the next, as each limit has a bit more than any quotient.
        flags |= ((test.limits - quotients) & _CARRIES) >> 32 << half
    return flags & _FLAGS


def find_match_in_blocks(chunk: memoryview, first: int, limit: int, discriminator: int) -> int:
    """
    Do what :func:`.buzhash.find_match` does, block by block.

    :param chunk: from the start of the chunk on.
    :param first: the shortest length to test, at least 48.
    :param limit: the length to return if no shorter one matches.
    """
    test = _test_for(discriminator)
    while limit - first >= _WORTHWHILE:
        end = min(first + _BLOCK, limit)
        data = bytes(chunk[first - WINDOW : end - 1]).ljust(_WORDS, b"\0")
        flags = _candidates(_hashes(data), test)
        if flags:
            position = ((flags & -flags).bit_length() - 1) // 32
            length = first + position - (WINDOW - 1)
            # Another look at the candidate, and if it was none, at what follows it in this block.
            found = find_match(chunk, length, end, discriminator)
            if found < end:
                return found
        first = end
    return find_match(chunk, first, limit, discriminator)
