# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Listing the chunks of a store part by part: there may be more than fit in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import DeferredLock

from .batches import packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.defer import Deferred

    from desync.formats.ids import ChunkIds

    #: What gets the parts of a listing: see :meth:`desync.interfaces.IChunkRemover.list_ids`.
    TakeIds = Callable[[ChunkIds], Deferred[None] | None]

#: How many ids a part has at most; those in a directory or a page come together.
PART: Final = 4096

#: How many ids are worth handing over while there are more.
_ENOUGH: Final = 1000


class Parts:
    """
    Makes parts of ids that come a few at a time, and hands them over one after the other.

    :param take: gets them.
    """

    def __init__(self, take: TakeIds) -> None:
        self._take = take
        self._gathered: list[bytes] = []
        self._lock = DeferredLock()

    async def add(self, ids: Iterable[bytes]) -> None:
        """Take some ids; returns when more may be found."""
        self._gathered += ids
        if len(self._gathered) >= _ENOUGH:
            await self.finish()

    async def finish(self) -> None:
        """Hand over what there is."""
        async with self._lock:
            while self._gathered:
                some, self._gathered = self._gathered[:PART], self._gathered[PART:]
                pressure = self._take(packed(some))
                if pressure is not None:
                    await pressure
