# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What a writer asks before it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.interfaces import IBatch, IBatchRenewer

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from desync.formats.ids import ChunkIds
    from desync.interfaces import IChunkTarget


def lacking(target: IChunkTarget, ids: ChunkIds) -> Deferred[ChunkIds]:
    """
    Find out which of some chunks have to be written.

    Those that are there are made young where the store can do that, for an index that isn't
    written yet is about to rely on them, and a prune spares what is young.

    :returns: the ids of the others, sorted.
    :raises StoreError: if the store can't tell.
    """
    renewer = IBatchRenewer(target, None)
    if renewer is not None:
        renewed: Deferred[ChunkIds] = renewer.renew_many(ids)
        return renewed
    missing: Deferred[ChunkIds] = IBatch(target).missing(ids)
    return missing
