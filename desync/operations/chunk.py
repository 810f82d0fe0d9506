# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Finding the chunks that a file would be cut into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.jobs.cut import CutJob, CutSegment
from desync.jobs.source import SourceFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.chunking.digests import Digest
    from desync.chunking.sizes import ChunkSizes
    from desync.progress import Progress
    from desync.workers.pool import Runner


async def chunk(
    path: str | bytes,
    sizes: ChunkSizes,
    digest: Digest,
    pool: Runner,
    progress: Progress,
    write: Callable[[str], object],
    begin: int = 0,
) -> None:
    """
    List the chunks of a file: where each starts, how long it is, its id. Never suspends.

    :param write: takes some lines at a time, in the order of the file. What was written before an
        error is right, but not all.
    :param begin: where cutting begins, in bytes; beyond the file's end there is nothing to list.
    :raises FileError: if the file can't be read; InputChanged if it changes meanwhile.
    """
    source = SourceFile(path)
    try:
        if begin > source.size:
            return
        with progress.start("", source.size - begin, "bytes") as tracker:

            def take(segment: CutSegment) -> None:
                ids = segment.ids.hex("\n", 32).split("\n")
                lines = []
                start = segment.start
                for end, chunk_id in zip(segment.ends, ids, strict=True):
                    end += segment.start
                    lines.append(f"{start}\t{end - start}\t{chunk_id}\n")
                    start = end
                write("".join(lines))
                tracker.set(start - begin)

            job = CutJob(source, sizes, digest, take, begin=begin)
            await pool.run(job)
            job.check_complete()
    finally:
        source.close()
