# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Seeds: files that have chunks in common with one that is to be rebuilt."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final

from desync.chunking.sizes import ChunkSizes
from desync.formats.index import Index, IndexBuilder
from desync.jobs.cut import CutJob, CutSegment
from desync.jobs.source import SourceFile

if TYPE_CHECKING:
    from desync.progress import Progress
    from desync.workers.pool import Runner

_ITEM: Final = struct.Struct("<Q32s")


class Seed:
    """
    A file that may have chunks of a target.

    :param path: a regular file or a block device.
    :param index: says what is in it; it is cut into chunks if this is None.
    :param named: whether somebody asked for it, and wants to know if it is of no use.
    :ivar file: the file, as long as it is open.
    :ivar regenerated: whether its index was found to be wrong and made anew.
    """

    def __init__(self, path: str, index: Index | None = None, named: bool = True) -> None:
        self.path = path
        self.named = named
        self.index = index
        self.file: SourceFile | None = None
        self.regenerated = False

    def open(self) -> SourceFile:
        """
        Open the file, if it isn't open.

        :raises FileError: if it can't be opened, or is no file to read at places of.
        """
        if self.file is None:
            self.file = SourceFile(self.path)
        return self.file

    def close(self) -> None:
        """Close the file, if it is open."""
        file, self.file = self.file, None
        if file is not None:
            file.close()

    async def cut(
        self, like: Index, pool: Runner, progress: Progress, title: str, begin: int = 0
    ) -> Index:
        """
        Make an index of what the file has now, and use it from now on.

        :param like: the index whose chunk sizes and digest are used.
        :param begin: where to begin, in bytes. What lies before counts as one chunk that nothing is
            equal to.
        :raises FileError: if the file can't be read, InputChanged if it gets shorter meanwhile.
            That it changes is no matter, because what is taken from it is verified.
        :raises UsageError: if nothing can be cut like that.
        """
        self.close()
        file = self.open()
        builder = IndexBuilder(like.sizes, like.digest)
        with progress.start(title, file.size - begin, "bytes") as tracker:

            def take(segment: CutSegment) -> None:
                builder.append_segment(segment.ends, segment.ids, segment.start - begin)
                tracker.set(builder.size)

            sizes = ChunkSizes(*like.sizes)
            await pool.run(CutJob(file, sizes, like.digest, take, begin=begin))
        self.index = _behind(builder.finish(file.size - begin), begin)
        return self.index


def _behind(index: Index, begin: int) -> Index:
    """Shift an index, so that it describes what lies behind so many other bytes."""
    if not begin:
        return index
    table = bytearray(_ITEM.pack(begin, os.urandom(32)))
    for start, length, chunk_id in index:
        table += _ITEM.pack(begin + start + length, chunk_id)
    return Index(index.flags, index.sizes, table)
