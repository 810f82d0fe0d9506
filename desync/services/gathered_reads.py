# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Reading chunk files in threads where the kernel can't say what it has at hand (tmpfs, above all).

Telling a thread takes longer than reading a file that is in memory, so requests that come while
all threads are at it are handed over together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from desync.stores.threads import Threads

    from .near_files import NearFiles


class GatheredReads:
    """
    Reads files for many requests.

    :param threads: what reads.
    """

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._waiting: list[tuple[NearFiles, bytes, Deferred[bytes | None]]] = []
        self._reading = 0

    def read(self, near: NearFiles, chunk_id: bytes) -> Deferred[bytes | None]:
        """
        Read a chunk's file.

        :returns: its bytes; None if the stores have to be asked, whatever the reason.
        """
        told: Deferred[bytes | None] = Deferred()
        self._waiting.append((near, chunk_id, told))
        if self._reading < self._threads.size:
            self._reading += 1
            Deferred.fromCoroutine(self._read())
        return told

    async def _read(self) -> None:
        """Read as long as somebody waits, each time no more than this thread's share."""
        try:
            while self._waiting:
                near = self._waiting[0][0]
                share = -(-len(self._waiting) // self._threads.size)
                count = 1
                # What is in another directory, since the store was replaced, comes next.
                while count < share and self._waiting[count][0] is near:
                    count += 1
                some, self._waiting = self._waiting[:count], self._waiting[count:]
                found: list[bytes | None]
                try:
                    found = await self._threads.run(near.read_many, [each[1] for each in some])
                except Exception:
                    found = [None] * len(some)  # the stores say what is wrong
                for (_, _, told), data in zip(some, found, strict=True):
                    if not told.called:
                        told.callback(data)
        finally:
            self._reading -= 1
