# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Index files that every command has to refuse."""

from __future__ import annotations

import struct
from collections.abc import Callable


def _with_word(data: bytes, offset: int, value: int) -> bytes:
    return data[:offset] + struct.pack("<Q", value) + data[offset + 8 :]


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "not an index file"),
    "foreign": (lambda data: b"\x7fELF" + data, "not an index file"),
    "text": (lambda data: b"Dear reader,\n" * 9, "not an index file"),
    "cut in its head": (lambda data: data[:50], "truncated"),
    "cut in its table": (lambda data: data[:150], "truncated"),
    "without its tail": (lambda data: data[:-40], "truncated"),
    "a chunk that ends before it starts": (
        lambda data: _with_word(data, 64 + 40, 5),
        "chunk 1 ends at 5",
    ),
    "a chunk larger than the maximum": (
        lambda data: _with_word(data, 64, 1 << 40),
        "more than the maximum",
    ),
    "chunks of more than 128 MiB": (
        lambda data: _with_word(data, 40, 1 << 40),
        "impossible chunk sizes",
    ),
    "something after it": (lambda data: data + bytes(8), "too many"),
    "a foreign tail": (lambda data: data[:-8] + bytes(8), "bad tail"),
}
"""Of what is wrong: makes the file from a good one of three chunks or more; a part of the error."""
