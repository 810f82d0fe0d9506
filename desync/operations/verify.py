# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Checking every chunk of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from desync.jobs.check import BadChunk, CheckJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.progress import Progress
    from desync.stores.local_files import LocalFiles
    from desync.workers.pool import Runner


class Verified(NamedTuple):
    """
    What a verify found.

    :ivar checked: how many chunks it looked at.
    :ivar checked_bytes: their size, decoded.
    :ivar bad: how many aren't what their names say.
    :ivar removed: how many of those were removed.
    """

    checked: int
    checked_bytes: int
    bad: int
    removed: int


async def verify(
    store: LocalFiles,
    pool: Runner,
    progress: Progress,
    report: Callable[[BadChunk], object],
    repair: bool = False,
) -> Verified:
    """
    Decode every chunk of a local store in the form that it is configured for, and compare it with
    its id. Never suspends.

    Files in the other form, and temporary ones, are let be.

    :param report: told of each bad chunk as it is found.
    :param repair: remove bad chunks.
    :raises StoreError: if the store or a file in it can't be read.
    """
    bad = removed = 0

    def count(chunk: BadChunk) -> None:
        nonlocal bad, removed
        bad += 1
        removed += chunk.removed
        report(chunk)

    with progress.start("", 0, "chunks") as tracker:
        job = CheckJob(store, repair, count, tracker.add)
        await pool.run(job)
        job.check_complete()
    return Verified(job.checked, job.checked_bytes, bad, removed)
