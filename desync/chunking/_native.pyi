# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
from collections.abc import Sequence

from .kernels import ReadableBuffer, WritableBuffer

def best_level() -> int: ...
def cut_kernel(level: int, /) -> str: ...
def hash_kernel(level: int, /) -> str | None: ...
def find_cuts(
    level: int,
    buffer: ReadableBuffer,
    start: int,
    stop: int,
    end: int,
    final: bool,
    min: int,
    max: int,
    discriminator: int,
    ends: WritableBuffer,
    /,
) -> int: ...
def hash_ranges(
    level: int,
    buffer: ReadableBuffer,
    start: int,
    ends: ReadableBuffer,
    count: int,
    null: tuple[int, bytes] | None,
    /,
) -> bytes | None: ...
def hash_buffers(level: int, buffers: Sequence[ReadableBuffer], /) -> bytes | None: ...
def is_zero(buffer: ReadableBuffer, /) -> bool: ...
def check_table(table: ReadableBuffer, max_size: int, /) -> int: ...
def sort_ids(table: ReadableBuffer, offset: int, stride: int, count: int, /) -> bytes: ...
def unique_ids(
    table: ReadableBuffer, offset: int, stride: int, count: int, order: ReadableBuffer, /
) -> bytes: ...
def first_positions(
    table: ReadableBuffer, offset: int, stride: int, count: int, order: ReadableBuffer, /
) -> bytes: ...
def keep_memory() -> None: ...
