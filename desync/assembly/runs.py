# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Dividing an index into pieces of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from desync.formats.index import Index

#: What a run has at the most where the caller doesn't say: chunks, and bytes of them.
RUN_CHUNKS: Final = 1024
RUN_BYTES: Final = 4 << 20


def runs_of(
    index: Index,
    wanted: Callable[[int, bytes], bool] | None = None,
    *,
    first: int = 0,
    stop: int | None = None,
    most_chunks: int = RUN_CHUNKS,
    most_bytes: int = RUN_BYTES,
) -> Iterator[tuple[int, int]]:
    """
    Divide an index into runs of chunks that follow each other.

    :param wanted: tells by position and id whether a chunk takes part; all do if it is None.
    :param first: the position to begin at.
    :param stop: the position to end before; the index's end, if None.
    :param most_chunks: what a run has at the most.
    :param most_bytes: likewise; a single chunk may be larger.
    """
    begin = first
    size = 0
    position = first - 1
    for position, (_, length, chunk_id) in enumerate(index.chunks(first, stop), first):
        unwanted = wanted is not None and not wanted(position, chunk_id)
        full = position - begin >= most_chunks or size + length > most_bytes
        if position > begin and (unwanted or full):
            yield begin, position
            begin, size = position, 0
        if unwanted:
            begin, size = position + 1, 0
        else:
            size += length
    if position >= begin:
        yield begin, position + 1
