# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The kernels in C, each for the instruction sets that it gains from.

Importing this fails with ImportError where the extension wasn't built. What each function does,
takes and raises is said once, in :mod:`.kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import _native, portable

if TYPE_CHECKING:
    from array import array

    from .buzhash import CutRule
    from .kernels import ReadableBuffer, WritableBuffer

_LEVELS = {"scalar": 0, "avx2": 1, "avx512": 2}
"""The levels of ``native/levels.h``."""


def supported() -> tuple[str, ...]:
    """The instruction sets that this processor has code for, the slowest first."""
    best = _native.best_level()
    return tuple(name for name, level in _LEVELS.items() if level <= best)


class CompiledKernels:
    """
    The native kernels for one instruction set.

    :param name: one of :func:`supported`.
    """

    __slots__ = ("_hashes", "_level", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._level = _LEVELS[name]
        # Several chunks at once are what makes ours fast. Where the processor can't do that,
        # OpenSSL has the better code.
        self._hashes = _native.hash_kernel(self._level) is not None

    def describe(self) -> str:
        """Which code runs, in a few words."""
        cuts = _native.cut_kernel(self._level)
        hashes = _native.hash_kernel(self._level) or "OpenSSL"
        return f"native (cuts {cuts}, sha512-256 {hashes})"

    def find_cuts(
        self,
        buffer: ReadableBuffer,
        start: int,
        stop: int,
        end: int,
        final: bool,
        sizes: CutRule,
        ends: WritableBuffer,
    ) -> int:
        discriminator = 0 if sizes.fixed else sizes.discriminator
        return _native.find_cuts(
            self._level, buffer, start, stop, end, final, sizes.min, sizes.max, discriminator, ends
        )

    def hash_ranges(
        self,
        buffer: ReadableBuffer,
        start: int,
        ends: ReadableBuffer,
        count: int,
        null: tuple[int, bytes] | None = None,
    ) -> bytes:
        if self._hashes:
            ids = _native.hash_ranges(self._level, buffer, start, ends, count, null)
            if ids is not None:
                return ids
        return portable.hash_ranges(buffer, start, ends, count, null)

    def hash_buffers(self, buffers: Sequence[ReadableBuffer]) -> bytes:
        if self._hashes:
            ids = _native.hash_buffers(self._level, buffers)
            if ids is not None:
                return ids
        return portable.hash_buffers(buffers)

    def is_zero(self, buffer: ReadableBuffer) -> bool:
        return _native.is_zero(buffer)

    def siphash(self, data: ReadableBuffer, key: ReadableBuffer) -> int:
        return _native.siphash(data, key)

    def check_table(self, table: ReadableBuffer, max_size: int) -> int:
        return _native.check_table(table, max_size)

    def sort_ids(self, table: ReadableBuffer, offset: int, stride: int, count: int) -> bytes:
        return _native.sort_ids(table, offset, stride, count)

    def unique_ids(
        self, table: ReadableBuffer, offset: int, stride: int, count: int, order: ReadableBuffer
    ) -> bytes:
        return _native.unique_ids(table, offset, stride, count, order)

    def first_positions(
        self, table: ReadableBuffer, offset: int, stride: int, count: int, order: ReadableBuffer
    ) -> bytes:
        return _native.first_positions(table, offset, stride, count, order)

    def read_files(self, paths: Sequence[bytes], limit: int) -> list[bytes | None]:
        return _native.read_files(paths, limit)

    def write_buffers(
        self, descriptor: int, buffers: Sequence[ReadableBuffer], offsets: array[int]
    ) -> None:
        # A checkout's extension may be older than the checkout.
        write = getattr(_native, "write_buffers", portable.write_buffers)
        write(descriptor, buffers, offsets)

    def keep_memory(self) -> None:
        _native.keep_memory()
