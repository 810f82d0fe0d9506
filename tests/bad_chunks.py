# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Stored chunks that aren't what their names say, in every way that a reader has to notice."""

from __future__ import annotations

from collections.abc import Callable

import zstandard


def _frame(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def _bomb(data: bytes) -> bytes:
    """Make a small frame of a gibibyte of zeros that doesn't say how large it is."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    zeros = bytes(1 << 20)
    return b"".join(compressor.compress(zeros) for _ in range(1024)) + compressor.flush()


BAD: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "not compressed": lambda data: data,
    "truncated": lambda data: _frame(data)[:-3],
    "a bit changed": lambda data: _frame(data)[:-1] + bytes([_frame(data)[-1] ^ 1]),
    "two frames": lambda data: _frame(data[:100]) + _frame(data[100:]),
    "something after it": lambda data: _frame(data) + b"x",
    "shorter": lambda data: _frame(data[:-1]),
    "longer": lambda data: _frame(data + b"x"),
    "other content": lambda data: _frame(bytes(len(data))),
    "an empty frame": lambda data: _frame(b""),
    "a bomb": _bomb,
    "a bomb that says so": lambda data: _frame(bytes(200 << 20)),
}
"""Of what is wrong: makes the stored form from a chunk's plain bytes."""
