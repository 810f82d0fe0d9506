# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The channels of an SSH connection, each of which runs a command and keeps to the client's window.

They are ours, because Conch's way of waiting for the window doesn't work: it gathers everything in
one growing buffer, or waits forever.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from twisted.conch.error import ConchError
from twisted.conch.ssh import common
from twisted.conch.ssh.channel import SSHChannel
from twisted.conch.ssh.connection import (
    MSG_CHANNEL_OPEN_FAILURE,
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_CONNECT_FAILED,
    OPEN_RESOURCE_SHORTAGE,
    SSHConnection,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import ILogObserver, Logger, LogLevel, globalLogPublisher
from zope.interface import provider

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.protocol import Protocol
    from twisted.logger import LogEvent

#: How many bytes may wait for the client's window before the session is asked to wait, and how few
#: let it go on.
_FULL: Final = 1 << 18
_LOW: Final = 1 << 16

#: How many bytes a client may send ahead of us.
_WINDOW: Final = 1 << 20
_PACKET: Final = 1 << 15

#: Clients that take only smaller packets would cost too much, in bytes.
_LEAST_PACKET: Final = 256

#: How many channels a connection may have at once.
_MOST_CHANNELS: Final = 16


@provider(ILogObserver)
def _serious(event: LogEvent) -> None:
    """Let through what Conch takes for a failure. What clients do is for the service to log."""
    if event.get("log_level") is LogLevel.critical:
        globalLogPublisher(event)


#: For what Conch has to say.
quiet: Final = Logger(namespace="desync.server", observer=_serious)


class CommandChannel(SSHChannel):
    """
    A channel that runs one command: a session of the casync protocol. It is its transport.

    What runs may have an ``exit_code``, which the client is told.
    """

    _log = quiet
    name = b"session"
    disconnecting = False

    def __init__(self, **arguments: Any) -> None:
        super().__init__(localWindow=_WINDOW, localMaxPacket=_PACKET, **arguments)
        self.conn: Any = None  # set when the channel is opened
        self._waiting: deque[bytes | memoryview] = deque()
        self._held = 0
        self._producer: Any = None
        self._producer_waits = False
        self._protocol: Protocol | None = None
        self.is_paused = False

    def channelOpen(self, specificData: bytes) -> None:  # noqa: N802, N803
        """Nothing happens before a command comes."""

    def requestReceived(self, requestType: bytes, data: bytes) -> bool:  # noqa: N802, N803
        """Take one command, and nothing else: no terminal, shell, subsystem or variable."""
        if requestType != b"exec" or self._protocol is not None:
            return False
        try:
            command, _ = common.getNS(data)
        except (struct.error, IndexError, ValueError):
            return False
        avatar: Any = self.avatar
        self.conn.transport.active += 1
        protocol: Protocol = avatar.run(self.conn.transport, command)
        self._protocol = protocol
        protocol.makeConnection(self)
        return True

    # What Conch tells

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Pass data on."""
        self.conn.transport.active += 1
        if self._protocol is not None:
            self._protocol.dataReceived(data)

    def extReceived(self, dataType: int, data: bytes) -> None:  # noqa: N802, N803
        """Clients have nothing to say there."""

    def eofReceived(self) -> None:  # noqa: N802
        """Pass the end of the client's output on."""
        protocol: Any = self._protocol
        if protocol is not None:
            protocol.readConnectionLost()

    def closeReceived(self) -> None:  # noqa: N802
        """End what runs: nobody listens any longer."""
        self._drop()
        self.conn.sendClose(self)

    def closed(self) -> None:
        """Take note that the channel, or the connection, is gone."""
        self._drop()

    def _drop(self) -> None:
        self._waiting.clear()
        self._held = 0
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            self._producer = None
            protocol.connectionLost(connectionDone)

    def addWindowBytes(self, data: int) -> None:  # noqa: N802
        """Go on sending: the client has made room."""
        self.remoteWindowLeft += data
        self.flush()

    # What the session does

    def write(self, data: bytes) -> None:
        """Send data, now or when the client has room for it."""
        if data and not self.localClosed and not self.disconnecting:
            self._waiting.append(data)
            self._held += len(data)
            self.flush()

    def writeSequence(self, data: Sequence[bytes]) -> None:  # noqa: N802
        """See :meth:`write`."""
        if not self.localClosed and not self.disconnecting:
            self._waiting.extend(data)
            self._held += sum(map(len, data))
            self.flush()

    def flush(self) -> None:
        """Send what there is room for."""
        link: Any = self.conn.transport
        while (
            self._waiting
            and self.remoteWindowLeft > 0
            and not link.is_full
            and not self.localClosed
        ):
            pieces, size = self._take(min(self.remoteWindowLeft, self.remoteMaxPacket or _PACKET))
            link.active += 1
            self._held -= size
            self.remoteWindowLeft -= size
            link.send_data(self.conn.channelsToRemoteChannel[self], pieces, size)
        self._tell_producer()
        if self.disconnecting and not self._waiting:
            self._end()

    def _take(self, most: int) -> tuple[list[bytes | memoryview], int]:
        """Take so many bytes, or all there are, from what waits."""
        waiting = self._waiting
        pieces: list[bytes | memoryview] = []
        size = 0
        while waiting and size < most:
            piece = waiting.popleft()
            room = most - size
            if len(piece) > room:
                view = memoryview(piece)
                waiting.appendleft(view[room:])
                piece = view[:room]
            pieces.append(piece)
            size += len(piece)
        return pieces, size

    def _tell_producer(self) -> None:
        if self._producer is None:
            return
        if self._held > _FULL and not self._producer_waits:
            self._producer_waits = True
            self._producer.pauseProducing()
        elif self._held <= _LOW and self._producer_waits:
            self._producer_waits = False
            self._producer.resumeProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: N802
        """Tell somebody when there is room and when not."""
        self._producer = producer

    def unregisterProducer(self) -> None:  # noqa: N802
        """Tell nobody any longer."""
        self._producer = None

    def pauseProducing(self) -> None:  # noqa: N802
        """Give the client no more room."""
        self.is_paused = True

    def resumeProducing(self) -> None:  # noqa: N802
        """Give the client room again."""
        if self.is_paused:
            self.is_paused = False
            if not self.localClosed and not self.remoteClosed and self.conn is not None:
                self.conn.adjustWindow(self, 0)

    def loseConnection(self) -> None:  # noqa: N802
        """Close the channel once all has been sent."""
        if not self.disconnecting:
            self.disconnecting = True
            self.flush()

    def _end(self) -> None:
        if not self.localClosed:
            protocol, self._protocol = self._protocol, None
            self.conn.sendEOF(self)
            code = getattr(protocol, "exit_code", 0)
            self.conn.sendRequest(self, b"exit-status", struct.pack(">L", code))
            self.conn.sendClose(self)
            if protocol is not None:
                protocol.connectionLost(connectionDone)


class Connection(SSHConnection):
    """The service of channels: bounded, and with windows that stay closed while nobody reads."""

    _log = quiet

    def serviceStarted(self) -> None:  # noqa: N802
        """Take note that somebody is logged in."""
        super().serviceStarted()  # type: ignore[no-untyped-call]
        link: Any = self.transport
        link.factory.logged_in(link, link.avatar.user)

    def adjustWindow(self, channel: Any, bytesToAdd: int) -> None:  # noqa: N802, N803
        """Give a client room, unless its channel is paused."""
        if channel.is_paused:
            return
        room = channel.localWindowSize - channel.localWindowLeft
        if room > 0:
            super().adjustWindow(channel, room)  # type: ignore[no-untyped-call]

    def ssh_CHANNEL_OPEN(self, packet: bytes) -> None:  # noqa: N802
        """Open a channel for a command, if it isn't one too many; no other kind."""
        kind, rest = common.getNS(packet)
        sender, _, most = struct.unpack_from(">3L", rest)
        if kind != b"session":
            why, text = OPEN_ADMINISTRATIVELY_PROHIBITED, b"not here"
        elif len(self.channels) >= _MOST_CHANNELS:
            why, text = OPEN_RESOURCE_SHORTAGE, b"too many channels"
        elif most < _LEAST_PACKET:
            why, text = OPEN_CONNECT_FAILED, b"too small packets"
        else:
            super().ssh_CHANNEL_OPEN(packet)  # type: ignore[no-untyped-call]
            return
        failure = struct.pack(">2L", sender, why) + common.NS(text) + common.NS(b"")
        link: Any = self.transport
        link.sendPacket(MSG_CHANNEL_OPEN_FAILURE, failure)

    def ssh_CHANNEL_OPEN_CONFIRMATION(self, packet: bytes) -> None:  # noqa: N802
        """
        End the connection: no channel was asked for from here.

        :raises ConchError: always. Conch would take it for one that the client has opened.
        """
        raise ConchError("an answer to no request")

    def ssh_CHANNEL_OPEN_FAILURE(self, packet: bytes) -> None:  # noqa: N802
        """See :meth:`ssh_CHANNEL_OPEN_CONFIRMATION`."""
        raise ConchError("an answer to no request")

    def flush(self) -> None:
        """Send what the channels have."""
        for channel in list(self.channels.values()):
            channel.flush()

    def ssh_CHANNEL_EOF(self, packet: bytes) -> None:  # noqa: N802
        """Ignore what is said about channels that are gone: both sides may close at once."""
        self._for_known(packet, super().ssh_CHANNEL_EOF)

    def ssh_CHANNEL_CLOSE(self, packet: bytes) -> None:  # noqa: N802
        """See :meth:`ssh_CHANNEL_EOF`."""
        self._for_known(packet, super().ssh_CHANNEL_CLOSE)

    def ssh_CHANNEL_DATA(self, packet: bytes) -> None:  # noqa: N802
        """See :meth:`ssh_CHANNEL_EOF`."""
        self._for_known(packet, super().ssh_CHANNEL_DATA)

    def ssh_CHANNEL_WINDOW_ADJUST(self, packet: bytes) -> None:  # noqa: N802
        """See :meth:`ssh_CHANNEL_EOF`."""
        self._for_known(packet, super().ssh_CHANNEL_WINDOW_ADJUST)

    def ssh_CHANNEL_REQUEST(self, packet: bytes) -> None:  # noqa: N802
        """See :meth:`ssh_CHANNEL_EOF`."""
        self._for_known(packet, super().ssh_CHANNEL_REQUEST)

    def _for_known(self, packet: bytes, handle: Callable[[bytes], None]) -> None:
        if struct.unpack_from(">L", packet)[0] in self.channels:
            handle(packet)
