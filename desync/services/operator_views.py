# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What of a server's figures an operator is shown: for servers that answer requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .metrics import prometheus

if TYPE_CHECKING:
    from .figures import Snapshot


class View(Protocol):
    """
    What is shown of a server's figures.

    :ivar heading: over the rows.
    """

    heading: str

    def tiles(self, snapshot: Snapshot, rates: tuple[float, float, float]) -> list[tuple[str, str]]:
        """
        Give what is shown large: value and name.

        :param rates: requests (or sessions), bytes sent and bytes received a second.
        """

    def rows(self, snapshot: Snapshot) -> list[tuple[str, str]]:
        """Give all that was counted: name and value."""

    def metrics(self, snapshot: Snapshot) -> str:
        """Give it all for programs, in the text format of Prometheus."""


class RequestsView:
    """Shows requests and their answers."""

    heading = "Requests"

    def tiles(self, snapshot: Snapshot, rates: tuple[float, float, float]) -> list[tuple[str, str]]:
        """See :meth:`View.tiles`."""
        counters = snapshot.counters
        requests, sent, received = rates
        asked = counters.cache_hits + counters.upstream_chunks
        shown = [
            (f"{requests:.1f}", "requests a second"),
            (f"{shown_bytes(sent)}/s", "sent"),
            (f"{shown_bytes(received)}/s", "received"),
            (str(snapshot.in_flight), "requests in flight"),
            (str(snapshot.connections), "connections"),
        ]
        if asked:
            shown.append((f"{100 * counters.cache_hits / asked:.0f} %", "found in the cache"))
        return shown

    def rows(self, snapshot: Snapshot) -> list[tuple[str, str]]:
        """See :meth:`View.rows`."""
        counters = snapshot.counters
        return [
            *(
                (f"{method.decode()} {_outcome(code)}", f"{count:,}")
                for (method, code), count in sorted(counters.requests.items())
            ),
            ("sent", shown_bytes(counters.sent)),
            ("received", shown_bytes(counters.received)),
            ("found in the cache", f"{counters.cache_hits:,}"),
            ("fetched from upstream", f"{counters.upstream_chunks:,}"),
            ("failures of stores", f"{counters.upstream_errors:,}"),
            ("failed verifications", f"{counters.verification_failures:,}"),
            ("ended for taking too long", f"{counters.timeouts:,}"),
            ("written by clients", f"{counters.stored:,}"),
            ("processes", str(snapshot.processes)),
        ]

    def metrics(self, snapshot: Snapshot) -> str:
        """See :meth:`View.metrics`."""
        return prometheus(snapshot)


def _outcome(code: int) -> str:
    return str(code) if code else "(client left)"


def shown_bytes(count: float) -> str:
    """Say for people how many bytes there are."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
