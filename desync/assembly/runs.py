# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Dividing an index into pieces of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from desync.formats.index import Index

#: What a run has at the most where the caller doesn't say: chunks, and bytes of them.
RUN_CHUNKS: Final = 1024
RUN_BYTES: Final = 4 << 20


def runs_of(
    index: Index,
    wanted: bytes | bytearray | None = None,
    *,
    first: int = 0,
    stop: int | None = None,
    most_chunks: int = RUN_CHUNKS,
    most_bytes: int = RUN_BYTES,
) -> Iterator[tuple[int, int]]:
    """
    Divide an index into runs of chunks that follow each other.

    :param wanted: tells by position whether a chunk takes part: a byte each, 0 if not. All do if
        it is None.
    :param first: the position to begin at.
    :param stop: the position to end before; the index's end, if None.
    :param most_chunks: what a run has at the most.
    :param most_bytes: likewise; a single chunk may be larger.
    :returns: for each run the position of its first chunk and the one after its last.
    """
    begin = first
    size = 0
    position = first
    for _, length, _ in index.chunks(first, stop):
        unwanted = wanted is not None and not wanted[position]
        if position > begin and (
            unwanted or position - begin >= most_chunks or size + length > most_bytes
        ):
            yield begin, position
            begin = position
            size = 0
        if unwanted:
            begin = position + 1
        else:
            size += length
        position += 1
    if position > begin:
        yield begin, position
