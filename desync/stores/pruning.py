# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What a prune did, or would do."""

from __future__ import annotations

from typing import Final, NamedTuple

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
