# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""How often, and after which waits, a request to an object store is made again."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from twisted.internet.task import deferLater

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from desync.options import StoreOptions

#: Statuses that may be others the next time.
PASSING_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})

#: Seconds; no wait is longer.
_LONGEST: Final = 20.0

#: How often a request is made at least when the service asks for fewer of them: it is at work, and
#: a burst may take longer than a failure is worth waiting for.
_PATIENCE: Final = 8


class Attempts:
    """
    Waits between the attempts of requests. Each wait is twice the one before, less up to half of
    it by chance, so that those who failed together don't come again together.

    :param clock: waits.
    :param options: ``error-retry`` and ``error-retry-base-interval``.
    :param chance: gives numbers from 0 to 1.
    """

    def __init__(
        self,
        clock: IReactorTime,
        options: StoreOptions,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._most = max(1, options.error_retry + 1)
        self._base = options.error_retry_base_interval / 1e9
        self._chance = chance

    def more(self, made: int, *, slow_down: bool = False) -> bool:
        """
        Tell whether a request is to be made again.

        :param made: how often it was made.
        :param slow_down: whether the service only asks for patience.
        """
        most = self._most
        if slow_down and most > 1:
            most = max(most, _PATIENCE)
        return made < most

    async def pause(self, made: int, least: float = 0.0) -> None:
        """
        Wait before the next attempt.

        :param made: how often the request was made.
        :param least: seconds that the service asks for.
        """
        longest = min(_LONGEST, self._base * 2 ** (made - 1))
        wait = longest * (1 - self._chance() / 2)
        await deferLater(self._clock, max(wait, min(least, _LONGEST)))
