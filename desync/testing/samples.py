# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Chunks for tests: the same ones in every run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from desync.chunking.digests import SHA512_256
from desync.formats.chunk import Chunk

if TYPE_CHECKING:
    from desync.chunking.digests import Digest


def sample_chunk(number: int = 0, size: int = 1000, digest: Digest = SHA512_256) -> Chunk:
    """
    Make a chunk whose bytes compress to about half.

    :param number: chunks of different numbers differ.
    :param size: in bytes, at least 1.
    """
    noise = random.Random(f"{number}:{size}").randbytes((size + 1) // 2)
    return Chunk.of((noise + bytes(size))[:size], digest)


def sample_chunks(count: int, digest: Digest = SHA512_256) -> list[Chunk]:
    """Make some chunks of different sizes, from one byte to some 300 kB."""
    sizes = (1, 300_000, 17, 65_536, 1000)
    return [
        sample_chunk(number, sizes[number] if number < len(sizes) else 500 + number, digest)
        for number in range(count)
    ]
