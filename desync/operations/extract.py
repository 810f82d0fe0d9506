# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Rebuilding a file from its index and its chunks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from desync.assembly.plan import Plan
from desync.errors import FileError, describe_os_error
from desync.jobs.rebuild import RebuildJob
from desync.replace import replacing

if TYPE_CHECKING:
    from desync.assembly.fetch import ChunkDownloads
    from desync.formats.index import Index
    from desync.progress import Progress
    from desync.stores.local_files import LocalFiles
    from desync.workers.pool import Runner


class Extracted(NamedTuple):
    """
    Where the target's content came from; sizes are in bytes.

    :ivar block_size: the block size of the target's file system; 0 where nothing was written.
    """

    chunks_total: int
    bytes_total: int
    chunks_from_store: int
    chunks_null: int
    bytes_copied: int
    block_size: int

    def to_json(self) -> dict[str, Any]:
        """Give what ``--print-stats`` shows, under the names that Go desync gives it."""
        return {
            "chunks-from-seeds": self.chunks_null,
            "chunks-from-store": self.chunks_from_store,
            "chunks-in-place": 0,
            "bytes-copied-from-seeds": self.bytes_copied,
            "bytes-cloned-from-seeds": 0,
            "blocksize": self.block_size,
            "bytes-total": self.bytes_total,
            "chunks-total": self.chunks_total,
            "seeds": 1 if self.chunks_total else 0,
        }


async def extract(
    index: Index,
    target: str,
    source: tuple[LocalFiles, ...] | ChunkDownloads,
    pool: Runner,
    progress: Progress,
    sync: str = "end",
) -> Extracted:
    """
    Rebuild the file that an index describes.

    The target is replaced once the new one is complete and every chunk of it was checked against
    its id. With local stores it never suspends.

    :param source: the local stores to ask in turn, or whatever else fetches chunks.
    :param sync: ``"none"`` leaves it to the system when the new file reaches the disk.
    :raises ChunkMissing: if no store has a chunk; ChunkInvalid if what it has isn't the chunk; the
        target is as it was.
    :raises FileError: if the target can't be written.
    :raises StoreError: if a store failed.
    """
    null_id = index.digest.null_id(index.sizes.max) if _may_have_null(index) else None
    plan = Plan(index, null_id)
    with replacing(target, sync=sync, regular=True) as out:
        try:
            os.ftruncate(out.fileno(), index.size)
            block_size = os.fstat(out.fileno()).st_blksize
        except OSError as error:
            raise FileError(target, error.strerror or describe_os_error(error)) from None
        with progress.start("Attempt 1: Assembling", len(index), "chunks") as tracker:
            tracker.add(plan.totals.null_chunks + plan.totals.copied_chunks)
            if isinstance(source, tuple):
                job = RebuildJob(
                    plan, out.working_path, source, index.digest, tracker.add, shown=target
                )
                await pool.run(job)
                job.check_complete()
            else:
                try:
                    await source.fetch(plan, out.fileno(), tracker)
                except EOFError as error:
                    raise FileError(target, str(error)) from None
                except OSError as error:
                    raise FileError(target, error.strerror or describe_os_error(error)) from None
    totals = plan.totals
    return Extracted(
        chunks_total=len(index),
        bytes_total=index.size,
        chunks_from_store=totals.fetched_chunks,
        chunks_null=totals.null_chunks,
        bytes_copied=totals.copied_bytes,
        block_size=block_size if len(index) else 0,
    )


def _may_have_null(index: Index) -> bool:
    # The null chunk's id costs hashing as many zeros as a chunk can have, which for an unusual
    # index is much.
    return index.size >= index.sizes.max
