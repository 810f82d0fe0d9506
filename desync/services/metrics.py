# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The figures of a server in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .counters import LATENCIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .figures import Snapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS: Final = (
    ("received_bytes", "received", "Bytes from clients."),
    ("sent_bytes", "sent", "Bytes to clients."),
    ("timeouts", "timeouts", "Connections that were ended for taking too long."),
    ("refused_connections", "turned_away", "Connections that were too many."),
    ("cache_hits", "cache_hits", "Chunks that were found in the cache."),
    ("upstream_chunks", "upstream_chunks", "Chunks that upstream stores handed out."),
    ("upstream_missing", "upstream_missing", "Chunks that upstream stores didn't have."),
    ("store_errors", "upstream_errors", "Times that a store failed."),
    (
        "verification_failures",
        "verification_failures",
        "Chunks, of clients or stores, that weren't what their id says.",
    ),
    ("stored", "stored", "Chunks or indexes that clients wrote."),
)


def prometheus(snapshot: Snapshot) -> str:
    """Format figures."""
    return "".join(f"{line}\n" for line in _lines(snapshot))


def _lines(snapshot: Snapshot) -> Iterator[str]:
    counters = snapshot.counters
    yield from _head("requests_total", "counter", "Requests by method and status; 0: client left.")
    for (method, code), count in sorted(counters.requests.items()):
        name = method.decode("ascii", "replace")
        yield f'desync_requests_total{{method="{name}",code="{code}"}} {count}'
    for name, attribute, about in _COUNTERS:
        yield from _head(f"{name}_total", "counter", about)
        yield f"desync_{name}_total {getattr(counters, attribute)}"
    yield from _head("upstream_seconds", "histogram", "Time until upstream answered for a chunk.")
    total = 0
    for bound, count in zip((*LATENCIES, "+Inf"), counters.latencies, strict=True):
        total += count
        yield f'desync_upstream_seconds_bucket{{le="{bound}"}} {total}'
    yield f"desync_upstream_seconds_sum {counters.latency_sum}"
    yield f"desync_upstream_seconds_count {total}"
    for name, value, about in (
        ("chunks_in_flight", snapshot.in_flight, "Requests that are being answered."),
        ("connections", snapshot.connections, "Connections that are open."),
        ("processes", snapshot.processes, "Processes that serve."),
    ):
        yield from _head(name, "gauge", about)
        yield f"desync_{name} {value}"


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP desync_{name} {about}"
    yield f"# TYPE desync_{name} {kind}"
