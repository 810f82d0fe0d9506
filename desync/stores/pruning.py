# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What a prune did, or would do."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.formats.ids import ChunkIds

#: Seconds. Chunks and temporary files younger than this are spared unless the caller says
#: otherwise: another process may be writing them, or may have found them present for an index that
#: it hasn't written yet.
DEFAULT_MIN_AGE: Final = 600.0


class Pruned(NamedTuple):
    """
    The outcome of a prune.

    :ivar kept: chunks that the caller wanted kept.
    :ivar removed: chunks removed (or that would be).
    :ivar removed_bytes: their stored size, in bytes.
    :ivar spared: chunks not wanted, but too young to remove.
    :ivar spared_bytes: their stored size, in bytes.
    :ivar leftovers: temporary files removed (or that would be).
    """

    kept: int = 0
    removed: int = 0
    removed_bytes: int = 0
    spared: int = 0
    spared_bytes: int = 0
    leftovers: int = 0


def membership(ids: ChunkIds) -> Callable[[bytes], bool]:
    """
    Make a fast test for whether an id is among some.

    Millions of ids stay packed: only those that begin alike, as the ids in one subdirectory of a
    store do, are taken out at a time.

    :param ids: sorted.
    """
    ids = ids.sorted_unique()
    begin = b""
    alike: frozenset[bytes] = frozenset()

    def contains(chunk_id: bytes) -> bool:
        nonlocal begin, alike
        if chunk_id[:2] != begin:
            begin = chunk_id[:2]
            first = bisect_left(ids, begin + bytes(30))
            alike = frozenset(ids[first : bisect_right(ids, begin + b"\xff" * 30)])
        return chunk_id in alike

    return contains
