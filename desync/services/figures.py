# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What an operator is shown: the state of a server, wherever its figures come from.

A server that serves in one process gives its own; one with several adds up theirs
(:mod:`.processes`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall

from .counters import Counters

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IReactorTime

    from .metering import Troubles
    from .server import Server


class Snapshot(NamedTuple):
    """
    The figures of a moment.

    :param counters: since the server started.
    :param in_flight: requests that are being answered, or sessions that are under way.
    :param connections: that are open.
    :param processes: that serve.
    """

    counters: Counters
    in_flight: int
    connections: int
    processes: int = 1

    def to_json(self) -> dict[str, Any]:
        """Give all, fit for JSON; see :func:`add_up`."""
        return {
            "counters": self.counters.to_json(),
            "in_flight": self.in_flight,
            "connections": self.connections,
        }


class Figures(Protocol):
    """
    Where an operator's figures come from.

    :ivar troubles: the last things that went wrong.
    """

    troubles: Troubles

    def about(self) -> dict[str, str]:
        """Say what is served, and from where: name -> text, secrets masked."""

    def snapshot(self) -> Deferred[Snapshot]:
        """Give the figures of this moment."""

    def is_ready(self) -> bool:
        """Tell whether requests are served."""


class OwnFigures:
    """
    The figures of the server in this process.

    :param server: its connections.
    :param about: see :meth:`Figures.about`.
    """

    def __init__(
        self, server: Server, troubles: Troubles, about: Callable[[], dict[str, str]]
    ) -> None:
        self.troubles = troubles
        self.about = about
        self._server = server

    def take(self) -> Snapshot:
        """Give the figures of this moment, at once."""
        server = self._server
        return Snapshot(server.counters, len(server.active), len(server.connections))

    def snapshot(self) -> Deferred[Snapshot]:
        """See :meth:`Figures.snapshot`."""
        return succeed(self.take())

    def is_ready(self) -> bool:
        """See :meth:`Figures.is_ready`."""
        return not self._server.draining and bool(self._server.numPorts)


def add_up(parts: list[dict[str, Any]], base: Counters | None = None) -> Snapshot:
    """
    Add up the figures of several processes.

    :param parts: what :meth:`Snapshot.to_json` gave in each.
    :param base: what those counted that are no more.
    """
    counters = Counters()
    if base is not None:
        counters.add_json(base.to_json())
    in_flight = connections = 0
    for part in parts:
        counters.add_json(part["counters"])
        in_flight += part["in_flight"]
        connections += part["connections"]
    return Snapshot(counters, in_flight, connections, len(parts))


class Rates:
    """
    How much there is to do lately: figures are looked at now and then.

    :param figures: where they come from.
    """

    #: Seconds between two looks, and how many are kept: a minute's.
    INTERVAL = 5.0
    KEPT = 13

    def __init__(self, figures: Figures, reactor: IReactorTime) -> None:
        self._figures = figures
        self._clock = reactor
        self._seen: deque[tuple[float, int, int, int]] = deque(maxlen=self.KEPT)
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """Begin to look."""
        self._looking.start(self.INTERVAL)

    def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> Deferred[None]:
        return self._figures.snapshot().addCallbacks(self._add, lambda failure: None)

    def _add(self, snapshot: Snapshot) -> None:
        counters = snapshot.counters
        seen = (self._clock.seconds(), counters.total, counters.sent, counters.received)
        self._seen.append(seen)

    def per_second(self) -> tuple[float, float, float]:
        """
        Give requests (or sessions), bytes sent and bytes received a second, over the last minute.
        """
        if len(self._seen) < 2:
            return 0.0, 0.0, 0.0
        first, last = self._seen[0], self._seen[-1]
        seconds = max(last[0] - first[0], 1e-9)
        requests, sent, received = (
            (mine - before) / seconds for mine, before in zip(last[1:], first[1:], strict=True)
        )
        return requests, sent, received
