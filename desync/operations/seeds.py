# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Seeds: files that have chunks in common with one that is to be rebuilt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.chunking.sizes import ChunkSizes
from desync.formats.index import IndexBuilder
from desync.jobs.cut import CutJob, CutSegment
from desync.jobs.source import SourceFile

if TYPE_CHECKING:
    from desync.formats.index import Index
    from desync.progress import Progress
    from desync.workers.pool import Runner


class Seed:
    """
    A file that may have chunks of a target.

    :param path: a regular file or a block device.
    :param index: says what is in it; it is cut into chunks if this is None.
    :ivar file: the file, as long as it is open.
    :ivar regenerated: whether its index was found to be wrong and made anew.
    """

    def __init__(self, path: str, index: Index | None = None) -> None:
        self.path = path
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

    async def cut(self, like: Index, pool: Runner, progress: Progress, title: str) -> Index:
        """
        Make an index of what the file has now, and use it from now on.

        :param like: the index whose chunk sizes and digest are used.
        :raises FileError: if the file can't be read, InputChanged if it gets shorter meanwhile.
            That it changes is no matter, because what is taken from it is verified.
        :raises UsageError: if nothing can be cut like that.
        """
        self.close()
        file = self.open()
        builder = IndexBuilder(like.sizes, like.digest)
        with progress.start(title, file.size, "bytes") as tracker:

            def take(segment: CutSegment) -> None:
                builder.append_segment(segment.ends, segment.ids, segment.start)
                tracker.set(builder.size)

            await pool.run(CutJob(file, ChunkSizes(*like.sizes), like.digest, take))
        self.index = builder.finish(file.size)
        return self.index
