# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What a server counts: plain integers, so that counting costs nothing.

The figures of several processes add up: :meth:`Counters.to_json` in each,
:meth:`Counters.add_json` where they come together.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

#: Upper ends of the classes of upstream's answering times, in seconds.
LATENCIES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_METHODS: Final = frozenset({b"GET", b"HEAD", b"PUT", b"POST"})

_NUMBERS: Final = (
    "received",
    "sent",
    "timeouts",
    "turned_away",
    "cache_hits",
    "upstream_chunks",
    "upstream_missing",
    "upstream_errors",
    "verification_failures",
    "stored",
)


class Counters:
    """
    The counts of one server.

    :ivar requests: method and status -> how many. A status of 0 is a client that left.
    :ivar received: bytes from clients.
    :ivar sent: bytes to clients.
    :ivar timeouts: connections that were ended because they took too long.
    :ivar turned_away: connections that were too many.
    :ivar cache_hits: chunks that were in the cache.
    :ivar upstream_chunks: chunks that stores were asked for and had.
    :ivar upstream_missing: chunks that they didn't have.
    :ivar upstream_errors: times that they failed.
    :ivar verification_failures: chunks, from clients or stores, that weren't what their id says.
    :ivar stored: chunks and indexes that clients put.
    :ivar latencies: how many of upstream's answers took how long, by :data:`LATENCIES`, and longer.
    :ivar latency_sum: seconds of all of them.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[bytes, int], int] = {}
        self.received = 0
        self.sent = 0
        self.timeouts = 0
        self.turned_away = 0
        self.cache_hits = 0
        self.upstream_chunks = 0
        self.upstream_missing = 0
        self.upstream_errors = 0
        self.verification_failures = 0
        self.stored = 0
        self.latencies = [0] * (len(LATENCIES) + 1)
        self.latency_sum = 0.0

    @property
    def total(self) -> int:
        """How many requests there were."""
        return sum(self.requests.values())

    def count(self, method: bytes, code: int) -> None:
        """Count a request."""
        key = (method, code)
        try:
            self.requests[key] += 1
        except KeyError:
            # A client can invent methods, but no new row for each.
            key = (method if method in _METHODS else b"other", code)
            self.requests[key] = self.requests.get(key, 0) + 1

    def took(self, seconds: float) -> None:
        """Count an answer of upstream."""
        self.latencies[bisect_left(LATENCIES, seconds)] += 1
        self.latency_sum += seconds

    def to_json(self) -> dict[str, Any]:
        """Give all counts, fit for JSON."""
        found: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        found["requests"] = [
            [method.decode("ascii", "replace"), code, count]
            for (method, code), count in self.requests.items()
        ]
        found["latencies"] = self.latencies
        found["latency_sum"] = self.latency_sum
        return found

    def add_json(self, counts: dict[str, Any]) -> None:
        """Add what another process counted."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + counts[name])
        for method, code, count in counts["requests"]:
            key = (method.encode(), code)
            self.requests[key] = self.requests.get(key, 0) + count
        self.latencies = [
            mine + other for mine, other in zip(self.latencies, counts["latencies"], strict=True)
        ]
        self.latency_sum += counts["latency_sum"]
