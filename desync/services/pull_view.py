# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What of an SSH server's figures an operator is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .metrics import family, sample, shared_lines, text_of
from .operator_views import shown_bytes
from .pull_counters import PullCounters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .figures import Snapshot

_COUNTERS: Final = (
    ("chunks_sent", "chunks_sent", "Chunks that clients were sent."),
    ("chunks_received", "chunks_received", "Chunks that clients sent and that were stored."),
    ("chunks_missing", "missing", "Chunks that clients asked for and that weren't there."),
)


class SessionsView:
    """Shows sessions of the casync protocol."""

    heading = "Sessions"

    def tiles(self, snapshot: Snapshot, rates: tuple[float, float, float]) -> list[tuple[str, str]]:
        """See :meth:`.operator_views.View.tiles`."""
        _, sent, received = rates
        return [
            (str(snapshot.in_flight), "sessions"),
            (str(snapshot.connections), "connections"),
            (f"{shown_bytes(sent)}/s", "sent"),
            (f"{shown_bytes(received)}/s", "received"),
        ]

    def rows(self, snapshot: Snapshot) -> list[tuple[str, str]]:
        """See :meth:`.operator_views.View.rows`."""
        counters = _counters(snapshot)
        return [
            *(
                (f"{verb}, {outcome}", f"{count:,}")
                for (verb, outcome), count in sorted(counters.sessions.items())
            ),
            *(
                (f"refused: {kind}", f"{count:,}")
                for kind, count in sorted(counters.refusals.items())
            ),
            ("chunks sent", f"{counters.chunks_sent:,}"),
            ("chunks received", f"{counters.chunks_received:,}"),
            ("chunks missing", f"{counters.missing:,}"),
            ("sent", shown_bytes(counters.sent)),
            ("received", shown_bytes(counters.received)),
            ("fetched from upstream", f"{counters.upstream_chunks:,}"),
            ("failures of stores", f"{counters.upstream_errors:,}"),
            ("failed verifications", f"{counters.verification_failures:,}"),
        ]

    def metrics(self, snapshot: Snapshot) -> str:
        """See :meth:`.operator_views.View.metrics`."""
        return text_of(_lines(snapshot))


def _lines(snapshot: Snapshot) -> Iterator[str]:
    counters = _counters(snapshot)
    yield from family("sessions_total", "counter", "Sessions that are over, and how they ended.")
    for (verb, outcome), count in sorted(counters.sessions.items()):
        yield sample("sessions_total", count, verb=verb, outcome=outcome)
    yield from family("refusals_total", "counter", "Connections, logins and commands refused.")
    for kind, count in sorted(counters.refusals.items()):
        yield sample("refusals_total", count, kind=kind)
    for name, attribute, about in _COUNTERS:
        yield from family(f"{name}_total", "counter", about)
        yield sample(f"{name}_total", getattr(counters, attribute))
    yield from shared_lines(snapshot)
    yield from family("sessions", "gauge", "Sessions that are under way.")
    yield sample("sessions", snapshot.in_flight)


def _counters(snapshot: Snapshot) -> PullCounters:
    assert isinstance(snapshot.counters, PullCounters)
    return snapshot.counters
