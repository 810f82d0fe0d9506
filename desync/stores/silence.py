# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Noticing a peer that owes something and says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime


class SilenceWatch:
    """
    Looks from time to time whether a peer has been silent while it owed something.

    It takes one timer, however much is said; so a peer is given up after one to two times the
    patience.

    :param patience: in seconds.
    :param owes: tells whether the peer owes something.
    :param heard: gives a number that is another one each time it has shown a sign of life.
    :param give_up: called once, with what is wrong; nothing is watched after that.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        patience: float,
        owes: Callable[[], bool],
        heard: Callable[[], int],
        give_up: Callable[[str], object],
    ) -> None:
        self._reactor = reactor
        self._patience = patience
        self._owes = owes
        self._heard = heard
        self._give_up = give_up
        self._seen = (heard(), False)
        self._timer: IDelayedCall | None = reactor.callLater(patience, self._look)

    def _look(self) -> None:
        self._timer = None
        owes, heard = self._owes(), self._heard()
        if owes and self._seen == (heard, True):
            self._give_up(f"no answer for {self._patience:g} seconds")
            return
        self._seen = (heard, owes)
        self._timer = self._reactor.callLater(self._patience, self._look)

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
