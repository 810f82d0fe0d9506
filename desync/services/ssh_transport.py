# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
An SSH connection: Conch's, but for its packets (:mod:`.ssh_packets`), and for who chooses the
cipher.

By the protocol the client's order decides, and OpenSSH before 10.0 puts AES-GCM last, with which
the same processor sends half as much again. So the client says first what it can do, and is offered
nothing else if that is among it. This takes one round trip more.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from twisted.conch.ssh.common import getNS
from twisted.conch.ssh.connection import MSG_CHANNEL_DATA
from twisted.conch.ssh.transport import DISCONNECT_MAC_ERROR, SSHServerTransport
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from .ssh_channel import Connection, quiet
from .ssh_packets import CIPHERS, CODES, GCM_CIPHERS, BadPacket, Ciphers

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What precedes a channel's data in its packet: the packet's type, the channel, the data's size.
_DATA: Final = struct.Struct(">BLL")

#: How many bytes are made ready for the client's system, at most one packet more.
_READY: Final = 1 << 18

#: How long a client is waited for that waits for us to speak first, in seconds.
_PATIENCE: Final = 1.0


def offered_to(packet: bytes) -> tuple[bytes, ...]:
    """
    Choose the ciphers to offer to a client.

    :param packet: its KEXINIT, without the type (RFC 4253, section 7.1).
    """
    lists = getNS(packet[16:], 4)[2:4]
    able = all(set(GCM_CIPHERS).intersection(names.split(b",")) for names in lists)
    return GCM_CIPHERS if able else CIPHERS


@implementer(IPushProducer)
class Transport(SSHServerTransport):
    """
    One connection.

    :ivar is_full: whether the client doesn't take what was sent, so that nothing more is.
    :ivar active: incremented whenever a channel does something. Keeping a connection alive is not
        enough.
    """

    _log = quiet
    version = b"desync"
    ourVersionString = b"SSH-2.0-desync"  # noqa: N815
    supportedCiphers: Any = CIPHERS  # noqa: N815
    supportedMACs: Any = CODES  # noqa: N815
    supportedCompressions: Any = (b"none",)  # noqa: N815
    factory: Any
    is_full = False
    active = 0
    _waiting: Any = None

    def connectionMade(self) -> None:  # noqa: N802
        self._waiting = self.factory.call_later(_PATIENCE, self._speak)
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.transport.bufferSize = _READY  # type: ignore[union-attr]
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]
        self.factory.begun(self)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Take what arrived. Conch takes much on trust: what it trips over ends the connection."""
        try:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
        except Exception:
            self.factory.not_understood(self, Failure())
            self.transport.abortConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: N802
        self._stop_waiting()
        try:
            super().connectionLost(reason or connectionDone)
        finally:
            self.factory.lost(self)

    def sendKexInit(self) -> None:  # noqa: N802
        """Say what we can do; at first only after the client, see this module."""
        if self._waiting is None:
            super().sendKexInit()  # type: ignore[no-untyped-call]
        else:
            # As if it had been said: there is nothing else that may be.
            self._keyExchangeState = self._KEY_EXCHANGE_REQUESTED
            self._blockedByKeyExchange: list[tuple[int, bytes]] = []

    def _stop_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting.active():
            waiting.cancel()

    def _speak(self) -> None:
        self._stop_waiting()
        self._keyExchangeState = self._KEY_EXCHANGE_NONE
        self.sendKexInit()

    def ssh_KEXINIT(self, packet: bytes) -> None:  # noqa: N802
        """Agree upon keys, and have packets made with them in our way."""
        if self._waiting is not None:
            self.supportedCiphers = offered_to(packet)
            self._speak()
        super().ssh_KEXINIT(packet)
        agreed = self.nextEncryptions
        self.nextEncryptions = Ciphers(  # type: ignore[no-untyped-call]
            agreed.outCipType, agreed.inCipType, agreed.outMACType, agreed.inMACType
        )

    def sendPacket(self, messageType: int, payload: bytes) -> None:  # noqa: N802, N803
        """Send a packet, or keep it until new keys are agreed upon."""
        kind = bytes((messageType,))
        if not self._seal((kind, payload), 1 + len(payload), messageType):
            super().sendPacket(messageType, payload)  # type: ignore[no-untyped-call]

    def send_data(self, channel: int, pieces: Sequence[bytes | memoryview], size: int) -> None:
        """
        Send a packet of a channel's data (RFC 4254, section 5.2).

        :param channel: by the client's number.
        :param pieces: the data.
        :param size: their bytes; no more than the client takes in a packet.
        """
        head = _DATA.pack(MSG_CHANNEL_DATA, channel, size)
        if not self._seal((head, *pieces), len(head) + size, MSG_CHANNEL_DATA):
            data = head[1:] + b"".join(pieces)
            super().sendPacket(MSG_CHANNEL_DATA, data)  # type: ignore[no-untyped-call]

    def _seal(self, pieces: Sequence[bytes | memoryview], size: int, kind: int) -> bool:
        """Send a packet now, if it may be sent and there are keys."""
        ciphers = self.currentEncryptions
        waits = self._keyExchangeState != self._KEY_EXCHANGE_NONE and not (
            self._allowedKeyExchangeMessageType(kind)  # type: ignore[no-untyped-call]
        )
        if waits or not isinstance(ciphers, Ciphers):
            return False
        self.transport.writeSequence(  # type: ignore[union-attr]
            ciphers.seal(self.outgoingPacketSequence, pieces, size)
        )
        # The number is one of 32 bits, and begins again.
        self.outgoingPacketSequence = (self.outgoingPacketSequence + 1) & 0xFFFFFFFF
        return True

    def getPacket(self) -> bytes | None:  # noqa: N802
        """Take a packet from what arrived, if one is whole."""
        opening = getattr(self.currentEncryptions, "opening", None)
        if opening is None:
            packet: bytes | None = super().getPacket()  # type: ignore[no-untyped-call]
            return packet
        try:
            found = opening.open(self.buf)
        except BadPacket as error:
            self.buf = b""
            self.sendDisconnect(DISCONNECT_MAC_ERROR, str(error).encode())  # type: ignore[no-untyped-call]
            return None
        if found is None:
            return None
        packet, end = found
        self.buf = self.buf[end:]
        self.incomingPacketSequence += 1
        return packet

    def pauseProducing(self) -> None:  # noqa: N802
        """Send no more: the client's system doesn't take it."""
        self.is_full = True

    def resumeProducing(self) -> None:  # noqa: N802
        """Go on."""
        self.is_full = False
        service = getattr(self, "service", None)
        if isinstance(service, Connection):
            service.flush()

    def stopProducing(self) -> None:  # noqa: N802
        """The connection is about to be gone."""
