# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Checking that a file is what its index says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.assembly.runs import runs_of
from desync.jobs.compare import CompareJob
from desync.jobs.source import SourceFile

if TYPE_CHECKING:
    from desync.formats.index import Index
    from desync.progress import Progress
    from desync.workers.pool import Runner


async def verify_index(index: Index, path: str | bytes, pool: Runner, progress: Progress) -> None:
    """
    Compare every chunk of a file with the index. Never suspends.

    :raises FileError: if the file differs in size or content, or can't be read; names the first
        place where it does.
    """
    source = SourceFile.described_by(index, path)
    try:
        with progress.start("", len(index), "chunks") as tracker:
            job = CompareJob(source, index, runs_of(index), tracker.add)
            await pool.run(job)
            job.check_complete()
    finally:
        source.close()
