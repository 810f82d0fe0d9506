# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Making an index of a file, and storing the file's chunks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from desync.assembly.runs import runs_of
from desync.assembly.upload import EarlyUploads
from desync.formats import flags as feature
from desync.formats.index import IndexBuilder
from desync.jobs.compare import CompareJob
from desync.jobs.cut import CutJob, CutSegment
from desync.jobs.source import SourceFile
from desync.stores.local_files import LocalFiles

if TYPE_CHECKING:
    from desync.assembly.upload import Uploads
    from desync.chunking.digests import Digest
    from desync.chunking.sizes import ChunkSizes
    from desync.formats.index import Index
    from desync.progress import Progress
    from desync.workers.pool import Runner

#: The first bytes of a file, which tell whether it is an archive whose feature flags its index has
#: to repeat.
_HEAD = feature.ENTRY_SIZE


#: Seconds. Far less than the age that prune spares, so that what is not looked for again is young.
RECHECK_AFTER: Final = 60.0


class Made:
    """
    What a make produced.

    :ivar index: the file's index, not written anywhere yet.
    :ivar produced: how many chunks the file has.
    :ivar stored: how many of them were new to the store.
    :ivar stored_bytes: the size of those as they are stored; 0 where the store doesn't say.
    """

    __slots__ = ("index", "produced", "stored", "stored_bytes")

    def __init__(self, index: Index, stored: int, stored_bytes: int) -> None:
        self.index = index
        self.produced = len(index)
        self.stored = stored
        self.stored_bytes = stored_bytes


async def make(
    path: str | bytes,
    sizes: ChunkSizes,
    digest: Digest,
    pool: Runner,
    progress: Progress,
    store: LocalFiles | Uploads | None = None,
    recheck_after: float = RECHECK_AFTER,
) -> Made:
    """
    Cut a file into chunks and store those that the store doesn't have.

    When this returns, every chunk that the index names is in the store. With a local store, or
    none, it never suspends.

    :param path: a regular file or a block device.
    :param store: where the chunks go; None for the index alone.
    :param recheck_after: when it took this long, in seconds, the chunks are looked for again at
        the end: a prune may have taken those of the beginning for old and unneeded.
    :raises FileError: if the file can't be read; InputChanged if it changes meanwhile.
    :raises StoreError: if the store failed.
    """
    source = SourceFile(path)
    began = time.monotonic()
    try:
        builder = IndexBuilder(sizes, digest, _flags(source, digest))

        def take(segment: CutSegment) -> None:
            builder.append_segment(segment.ends, segment.ids, segment.start)

        if isinstance(store, EarlyUploads):
            uploaded = await store.cut_and_upload(source, sizes, digest, take, pool, progress)
            return Made(builder.finish(source.size), uploaded.chunks, uploaded.stored_bytes)
        stored = stored_bytes = 0
        with progress.start("Chunking", source.size, "bytes") as tracker:

            def count(segment: CutSegment) -> None:
                nonlocal stored, stored_bytes
                take(segment)
                stored += segment.stored
                stored_bytes += segment.stored_bytes
                tracker.set(builder.size)

            files = store if isinstance(store, LocalFiles) else None
            job = CutJob(source, sizes, digest, count, store=files)
            await pool.run(job)
            job.check_complete()
        index = builder.finish(source.size)
        if files is not None and time.monotonic() - began >= recheck_after:
            await _store_again(index, source, files, pool, progress)
        if store is not None and not isinstance(store, LocalFiles):
            uploaded = await store.upload(source, index, index.ids, pool, progress)
            stored, stored_bytes = uploaded.chunks, uploaded.stored_bytes
            source.check_unchanged()
        return Made(index, stored, stored_bytes)
    finally:
        source.close()


async def _store_again(
    index: Index, source: SourceFile, store: LocalFiles, pool: Runner, progress: Progress
) -> None:
    """Make all chunks young, and store those again that have disappeared meanwhile."""
    gone = {chunk_id for chunk_id in index.ids.sorted_unique() if not store.renew(chunk_id)}
    if gone:
        with progress.start("Storing", len(gone), "chunks") as tracker:
            runs = runs_of(index, bytes(chunk_id in gone for chunk_id in index.ids))
            job = CompareJob(source, index, runs, tracker.add, store)
            await pool.run(job)
            job.check_complete()


def _flags(source: SourceFile, digest: Digest) -> int:
    head = bytearray(min(_HEAD, source.size))
    source.read_into(memoryview(head), 0)
    return feature.blob_flags(digest, bytes(head))
