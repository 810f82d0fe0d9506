# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Storing the chunks that a file has according to its index."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from desync.assembly.plan import first_positions
from desync.assembly.runs import runs_of
from desync.formats.ids import ChunkIds
from desync.jobs.compare import CompareJob
from desync.jobs.source import SourceFile
from desync.stores.local_files import LocalFiles

if TYPE_CHECKING:
    from desync.assembly.upload import Uploads
    from desync.formats.index import Index
    from desync.progress import Progress
    from desync.workers.pool import Runner


class Chopped(NamedTuple):
    """
    What a chop did.

    :ivar chunks: how many different chunks it looked at.
    :ivar stored: how many of them were new to the store.
    :ivar stored_bytes: the size of those as they are stored; 0 where the store doesn't say.
    """

    chunks: int
    stored: int
    stored_bytes: int


async def chop(
    index: Index,
    path: str | bytes,
    store: LocalFiles | Uploads,
    pool: Runner,
    progress: Progress,
    ignore: ChunkIds | None = None,
) -> Chopped:
    """
    Store the chunks of a file that the store doesn't have.

    Each is checked against its id before it is stored. With a local store it never suspends.

    :param ignore: sorted ids of chunks that needn't be stored.
    :raises FileError: if the file isn't what the index says, or can't be read.
    :raises StoreError: if the store failed.
    """
    source = SourceFile.described_by(index, path)
    try:
        if not isinstance(store, LocalFiles):
            ids = index.ids.sorted_unique()
            if ignore is not None:
                ids = ids.difference(ignore)
            uploaded = await store.upload(source, index, ids, pool, progress)
            source.check_unchanged()
            return Chopped(len(ids), uploaded.chunks, uploaded.stored_bytes)
        wanted = _first_places(index, ignore)
        count = wanted.count(1)
        with progress.start("", count, "chunks") as tracker:
            job = CompareJob(source, index, runs_of(index, wanted), tracker.add, store)
            await pool.run(job)
            job.check_complete()
        return Chopped(count, job.stored, job.stored_bytes)
    finally:
        source.close()


def _first_places(index: Index, ignore: ChunkIds | None) -> bytes:
    """Mark by position the first place of each chunk that isn't ignored."""
    places = zip(first_positions(index.ids), index.ids, strict=True)
    return bytes(
        first == position and (ignore is None or chunk_id not in ignore)
        for position, (first, chunk_id) in enumerate(places)
    )
