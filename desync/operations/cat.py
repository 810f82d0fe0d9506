# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Writing the content that an index describes, or a part of it, to a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from desync.assembly.reading import read_local
from desync.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.assembly.fetch import ChunkDownloads
    from desync.formats.index import Index
    from desync.progress import Progress
    from desync.stores.local_files import LocalFiles


class Span(NamedTuple):
    """
    A part of a stream, as chunks.

    :ivar first: position of the first chunk that is needed.
    :ivar stop: position after the last.
    :ivar skip: bytes of the first that aren't wanted.
    :ivar length: how many bytes are wanted in all.
    """

    first: int
    stop: int
    skip: int
    length: int


def span_of(index: Index, offset: int, length: int) -> Span:
    """
    Find the chunks that hold a part of the stream.

    :param offset: where it begins, in bytes. The stream's size is allowed, and gives nothing.
    :param length: how many bytes; 0 for all that follow.
    :raises UsageError: if the part isn't within the stream.
    """
    size = index.size
    if offset < 0 or length < 0:
        raise UsageError("unable to seek before start of file")
    if offset > size:
        raise UsageError(f"the offset {offset} is beyond the {size} bytes of the index")
    if length > size - offset:
        raise UsageError(
            f"{length} bytes from {offset} on are more than the {size} bytes of the index"
        )
    wanted = length or size - offset
    if not wanted:
        return Span(0, 0, 0, 0)
    first = index.position_of(offset)
    stop = index.position_of(offset + wanted - 1) + 1
    return Span(first, stop, offset - index.start(first), wanted)


async def cat(
    index: Index,
    source: tuple[LocalFiles, ...] | ChunkDownloads,
    write: Callable[[memoryview], object],
    progress: Progress,
    offset: int = 0,
    length: int = 0,
    concurrency: int = 1,
) -> None:
    """
    Write a part of the stream that an index describes, in order, each chunk checked against its id.

    What was written before an error is right, but not all. With local stores it never suspends.

    :param write: takes all of what it is given.
    :param offset: where to begin, in bytes.
    :param length: how many bytes; 0 for all that follow.
    :param concurrency: how many threads read and decode.
    :raises UsageError: if the part isn't within the stream.
    :raises ChunkMissing, ChunkInvalid, StoreError: as the stores do.
    """
    span = span_of(index, offset, length)
    left, skip = span.length, span.skip
    with progress.start("", span.stop - span.first, "chunks") as tracker:

        def take(plain: bytes) -> None:
            nonlocal left, skip
            data = memoryview(plain)[skip : skip + left]
            skip = 0
            left -= len(data)
            write(data)
            tracker.add(1)

        if isinstance(source, tuple):
            for batch in read_local(index, source, span.first, span.stop, concurrency):
                for plain in batch:
                    take(plain)
        else:
            await source.stream(index, span.first, span.stop, take)
