# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The figures of a server in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .counters import LATENCIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    """Format the figures of a server that answers requests."""
    return text_of(_lines(snapshot))


def text_of(lines: Iterable[str]) -> str:
    """Make the whole text of its lines."""
    return "".join(f"{line}\n" for line in lines)


def _lines(snapshot: Snapshot) -> Iterator[str]:
    yield from family("requests_total", "counter", "Requests by method and status; 0: client left.")
    for (method, code), count in sorted(snapshot.counters.requests.items()):
        yield sample("requests_total", count, method=method.decode("ascii", "replace"), code=code)
    yield from shared_lines(snapshot)
    yield from family("chunks_in_flight", "gauge", "Requests that are being answered.")
    yield sample("chunks_in_flight", snapshot.in_flight)


def shared_lines(snapshot: Snapshot) -> Iterator[str]:
    """Give what all servers count."""
    counters = snapshot.counters
    for name, attribute, about in _COUNTERS:
        yield from family(f"{name}_total", "counter", about)
        yield sample(f"{name}_total", getattr(counters, attribute))
    yield from family("upstream_seconds", "histogram", "Time until upstream answered for a chunk.")
    total = 0
    for bound, count in zip((*LATENCIES, "+Inf"), counters.latencies, strict=True):
        total += count
        yield sample("upstream_seconds_bucket", total, le=bound)
    yield sample("upstream_seconds_sum", counters.latency_sum)
    yield sample("upstream_seconds_count", total)
    for name, value, about in (
        ("connections", snapshot.connections, "Connections that are open."),
        ("processes", snapshot.processes, "Processes that serve."),
    ):
        yield from family(name, "gauge", about)
        yield sample(name, value)


def family(name: str, kind: str, about: str) -> Iterator[str]:
    """Give what comes before the samples of a name."""
    yield f"# HELP desync_{name} {about}"
    yield f"# TYPE desync_{name} {kind}"


def sample(name: str, value: float, **labels: object) -> str:
    """Give the line of a sample. Labels are ours, and need no escapes."""
    inside = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"desync_{name}{{{inside}}} {value}" if inside else f"desync_{name} {value}"
