# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Room for the answers that are in memory: so many bytes over all connections of a server.

An answer that is read from a file again and again needs none (:mod:`.near_files`). Any other one
waits for its turn before it is made, and gives its room back when its client has taken it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from twisted.internet.defer import Deferred

#: Bytes that are reserved for an answer whose size isn't known: a chunk's, of the usual sizes.
USUAL: Final = 1 << 18


class Room:
    """
    Bytes that may be held at once.

    :param size: how many. One that wants more gets it when nobody else has any.
    :ivar held: how many there are.
    """

    def __init__(self, size: int) -> None:
        self.held = 0
        self._size = size
        self._waiting: deque[tuple[Deferred[None], int]] = deque()
        self._is_granting = False

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def take(self, size: int) -> Deferred[None] | None:
        """
        Take some, in the order of asking.

        :returns: None if it is granted, or what fires when it is. Canceling that gives it up.
        """
        if not self._waiting and self._fits(size):
            self.held += size
            return None
        waiting: Deferred[None] = Deferred(self._forget)
        self._waiting.append((waiting, size))
        return waiting

    def change(self, before: int, after: int) -> None:
        """Turn something that was taken into more or less, whether or not there is room."""
        self.held += after - before
        if self._is_granting:
            return
        # Whoever is granted something may be done with it at once, and call this again.
        self._is_granting = True
        try:
            while self._waiting and self._fits(self._waiting[0][1]):
                waiting, size = self._waiting.popleft()
                self.held += size
                waiting.callback(None)
        finally:
            self._is_granting = False

    def _fits(self, size: int) -> bool:
        return not self.held or self.held + size <= self._size

    def _forget(self, given_up: Deferred[None]) -> None:
        self._waiting = deque(each for each in self._waiting if each[0] is not given_up)
        # It may have kept smaller ones waiting.
        self.change(0, 0)
