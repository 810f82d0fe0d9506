# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Using the tree that an archive is unpacked over as a seed."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from desync.assembly.pending import Pending
from desync.chunking.sizes import ChunkSizes
from desync.formats import catar
from desync.formats import flags as feature
from desync.trees.seeding import TreeSeed, find_chunks
from desync.trees.walking import Selection

from .tar import Packing, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from desync.formats.index import Index

    InThread = Callable[..., Deferred[Any]]


async def seed_of_tree(target: str, index: Index, in_thread: InThread) -> TreeSeed | None:
    """
    Look through a tree for the chunks of an archive.

    :param index: of the archive; its feature flags say what the tree's own archive would have.
    :param in_thread: calls a function that may block in a thread.
    :returns: None if there is nothing to look through.
    """
    flags = index.flags
    if feature.why_refused(flags) is not None or not flags:
        return None
    try:
        if not os.listdir(target):
            return None
    except OSError:
        return None
    selection = Selection(
        nodump=bool(flags & feature.EXCLUDE_NODUMP) and flags != catar.GO_FLAGS,
        exclude_files=bool(flags & feature.EXCLUDE_FILE) and flags != catar.GO_FLAGS,
        submounts=bool(flags & feature.EXCLUDE_SUBMOUNTS),
    )
    packing = Packing(flags, flags == catar.GO_FLAGS, selection)
    stopped = threading.Event()
    pending = Pending()

    def find() -> TreeSeed:
        pieces = pack(os.fsencode(target), packing, lambda path, why: None)
        found = find_chunks(
            pieces,
            ChunkSizes(*index.sizes),
            index.digest,
            index.ids.sorted_unique(),
            stopped.is_set,
        )
        return TreeSeed(found, target, index.digest, in_thread)

    try:
        return await pending.watch(in_thread(find))
    finally:
        stopped.set()
        await pending.settled()
