# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Ending threads as stores are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from desync.stores.threads import Threads


class Stopping:
    """What closes threads when a server has stopped."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    def close(self) -> Deferred[None]:
        """End them."""
        return self._threads.stop()
