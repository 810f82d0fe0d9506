# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Two sides of a casync-protocol session, connected within the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone

if TYPE_CHECKING:
    from twisted.internet.protocol import Protocol

#: How many bytes lie between the sides before the one that writes is asked to wait.
ROOM = 1 << 16


class End:
    """
    The transport of one side.

    :ivar written: how many bytes were written to it.
    """

    disconnecting = False

    def __init__(self, reactor: Any, protocol: Protocol) -> None:
        self.protocol = protocol
        self.other: End
        self.written = 0
        self.is_lost = False
        self._reactor = reactor
        self._inbox: list[bytes] = []
        self._closing = False
        self._is_paused = False
        self._producer: Any = None
        self._producer_paused = False
        self._scheduled = False

    def write(self, data: bytes) -> None:
        """Send bytes to the other side."""
        self.written += len(data)
        if data and not self.is_lost and not self.disconnecting:
            self.other._inbox.append(data)
            self.other.schedule()
            self.look()

    def writeSequence(self, data: Any) -> None:  # noqa: N802
        """Send bytes to the other side."""
        self.write(b"".join(data))

    def look(self) -> None:
        """Ask the protocol to wait, or to go on."""
        full = sum(map(len, self.other._inbox)) > ROOM
        if self._producer is not None and full != self._producer_paused:
            self._producer_paused = full
            if full:
                self._producer.pauseProducing()
            else:
                self._producer.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802
        self._producer = producer

    def unregisterProducer(self) -> None:  # noqa: N802
        self._producer = None

    def pauseProducing(self) -> None:  # noqa: N802
        self._is_paused = True

    def resumeProducing(self) -> None:  # noqa: N802
        self._is_paused = False
        self.schedule()

    def loseConnection(self) -> None:  # noqa: N802
        if not self.disconnecting:
            self.disconnecting = True
            self.other._closing = True
            self.other.schedule()
            self._reactor.callLater(0, self._lose)

    def schedule(self) -> None:
        """Deliver what has come, a little later."""
        if not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        if self._is_paused or self.is_lost:
            return
        data, self._inbox = b"".join(self._inbox), []
        if data:
            self.protocol.dataReceived(data)
        self.other.look()
        if self._closing and not self._inbox:
            self._lose()

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.protocol.connectionLost(connectionDone)


def connect(reactor: Any, one: Protocol, other: Protocol) -> tuple[End, End]:
    """Connect two sides."""
    ends = End(reactor, one), End(reactor, other)
    ends[0].other, ends[1].other = ends[1], ends[0]
    one.makeConnection(ends[0])
    other.makeConnection(ends[1])
    return ends
