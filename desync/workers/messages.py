# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What parent and worker say to each other over a pair of pipes: frames of a length, a kind and a
payload.

Parent to worker: JOB (settings), then UNITs. Worker to parent: READY once, and for each unit any
number of NOTEs and at last either a RESULT or FAILED. A worker that goes silent in the middle of a
unit has died: end of file never means success.
"""

from __future__ import annotations

import struct
from typing import Final

HEADER: Final = struct.Struct("<IB")

JOB: Final = 1
UNIT: Final = 2
READY: Final = 16
NOTE: Final = 17
RESULT: Final = 18
FAILED: Final = 19

#: More than any unit or result has: a longer frame means that the two sides have lost step.
MAX_PAYLOAD: Final = 1 << 30


class OutOfStep(Exception):
    """The peer sent something that isn't a frame."""


def frame(kind: int, payload: bytes | bytearray | memoryview = b"") -> bytes:
    """Put one frame together."""
    return HEADER.pack(len(payload), kind) + payload


class FrameReader:
    """Takes bytes as they arrive, in any pieces, and gives frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """
        Take some bytes.

        :returns: the frames that are complete by now: kind and payload.
        :raises OutOfStep: if they can't be frames.
        """
        buffer = self._buffer
        buffer += data
        frames = []
        position = 0
        while len(buffer) - position >= HEADER.size:
            length, kind = HEADER.unpack_from(buffer, position)
            if length > MAX_PAYLOAD:
                raise OutOfStep(f"a frame of {length} bytes")
            end = position + HEADER.size + length
            if len(buffer) < end:
                break
            frames.append((kind, bytes(memoryview(buffer)[position + HEADER.size : end])))
            position = end
        if position:
            del buffer[:position]
        return frames

    @property
    def pending(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._buffer)
