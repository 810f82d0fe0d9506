# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Removing the chunks that no index needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from desync.formats.ids import ChunkIds
from desync.stores.local_files import LocalFiles
from desync.stores.pruning import membership

if TYPE_CHECKING:
    from desync.formats.index import Index
    from desync.interfaces import IChunkRemover
    from desync.progress import Progress
    from desync.stores.pruning import Pruned


def needed_by(indexes: Iterable[Index]) -> ChunkIds:
    """Collect the chunks that any of some indexes names: sorted ids, each once."""
    needed = ChunkIds.from_bytes(b"", is_sorted=True)
    for index in indexes:
        needed = needed.union(index.ids.sorted_unique())
    return needed


async def prune(
    keep: ChunkIds,
    store: LocalFiles | IChunkRemover,
    progress: Progress,
    min_age: float,
    dry_run: bool = False,
) -> Pruned:
    """
    Remove from a store what isn't kept, and what interrupted writers left there.

    What is younger than `min_age` is spared, for somebody may be about to name it in an index. With
    a local store it never suspends.

    :param keep: sorted ids.
    :param min_age: seconds.
    :param dry_run: remove nothing, only say what would be.
    :raises StoreError: if the store failed.
    """
    if not isinstance(store, LocalFiles):
        return await store.prune(keep, min_age, dry_run)
    with progress.start("", 0, "chunks") as tracker:
        return store.prune(membership(keep), min_age, dry_run=dry_run, pause=tracker.set)
