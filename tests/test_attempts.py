# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""How often requests to object stores are made again, and after which waits."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from desync.options import StoreOptions
from desync.stores.attempts import Attempts


class AttemptsTests(SynchronousTestCase):
    """Attempts and waits."""

    def test_count(self) -> None:
        """A service that asks for patience gets more, unless nothing is to be tried again."""
        for error_retry, most, patient in (0, 1, 1), (1, 2, 8), (3, 4, 8), (20, 21, 21):
            attempts = Attempts(Clock(), StoreOptions(error_retry=error_retry))
            for slow_down, expected in (False, most), (True, patient):
                made = 1
                while attempts.more(made, slow_down=slow_down):
                    made += 1
                self.assertEqual(made, expected)

    def test_waits(self) -> None:
        """Waits double, vary by chance, have a limit, and heed what the service asks for."""
        for made, chance, least, seconds in (
            (1, 0.0, 0.0, 0.5),
            (1, 1.0, 0.0, 0.25),
            (3, 0.0, 0.0, 2.0),
            (30, 0.0, 0.0, 20.0),
            (1, 0.0, 7.0, 7.0),
            (1, 0.0, 9999.0, 20.0),
        ):
            clock = Clock()
            attempts = Attempts(clock, StoreOptions(), lambda chance=chance: chance)  # type: ignore[misc]
            waiting = Deferred.fromCoroutine(attempts.pause(made, least))
            clock.advance(seconds - 0.01)
            self.assertNoResult(waiting)
            clock.advance(0.02)
            self.successResultOf(waiting)
