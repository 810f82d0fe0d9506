# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The packets that our SSH server makes and takes, and who chooses the cipher."""

from __future__ import annotations

import os
import struct
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from twisted.conch.ssh.common import NS
from twisted.conch.ssh.connection import MSG_CHANNEL_DATA
from twisted.conch.ssh.transport import (
    DISCONNECT_MAC_ERROR,
    MSG_DISCONNECT,
    SSHCiphers,
    SSHServerTransport,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from desync.services.ssh_packets import (
    CIPHERS,
    CODES,
    GCM_CIPHERS,
    BadPacket,
    Ciphers,
    Gcm,
)
from desync.services.ssh_transport import Transport, offered_to

KEY = bytes(range(64))
NONCE = bytes(range(100, 164))
CODE_KEY = bytes(range(30, 94))


def kexinit(client_to_server: bytes, server_to_client: bytes) -> bytes:
    """Make what a client says it can do, without the message's type (RFC 4253, section 7.1)."""
    lists = [
        *(b"curve25519-sha256", b"ssh-ed25519", client_to_server, server_to_client),
        *([b"hmac-sha2-256"] * 2 + [b"none"] * 2 + [b""] * 2),
    ]
    return os.urandom(16) + b"".join(map(NS, lists)) + bytes(5)


class GcmTests(SynchronousTestCase):
    """Packets with AES-GCM."""

    @given(st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=5), st.data())
    def test_packets(self, payloads: list[bytes], data: st.DataObject) -> None:
        """What is sealed is opened, however it arrives, and looks as RFC 5647 says."""
        nonce = data.draw(st.binary(min_size=12, max_size=12))
        sealing, opening = Gcm(KEY[:16], nonce), Gcm(KEY[:16], nonce)
        wire = bytearray()
        count = int.from_bytes(nonce[4:], "big")
        for payload in payloads:
            at = data.draw(st.integers(0, len(payload)))
            length, sealed = sealing.seal([payload[:at], memoryview(payload)[at:]], len(payload))
            self.assertEqual(int.from_bytes(length, "big"), len(sealed) - 16)
            this = nonce[:4] + (count % (1 << 64)).to_bytes(8, "big")
            plain = AESGCM(KEY[:16]).decrypt(this, sealed, length)
            self.assertEqual(len(plain) % 16, 0)
            self.assertGreaterEqual(plain[0], 4)
            self.assertEqual(plain[1 : -plain[0]], payload)
            wire += length + sealed
            count += 1
        found, arrived = [], bytearray()
        for byte in wire:
            arrived.append(byte)
            opened = opening.open(bytes(arrived))
            if opened is not None:
                found.append(opened[0])
                self.assertEqual(opened[1], len(arrived))
                arrived.clear()
        self.assertEqual(found, payloads)

    def test_count(self) -> None:
        """The count that makes each nonce another one begins again after its last."""
        last = NONCE[:4] + b"\xff" * 8
        sealing, opening = Gcm(KEY[:32], last), Gcm(KEY[:32], last)
        for payload in (b"a", b"b"):
            packet = b"".join(sealing.seal([payload], 1))
            self.assertEqual(opening.open(packet), (payload, len(packet)))

    def test_changed(self) -> None:
        """A packet of which any byte was changed is none."""
        packet = b"".join(Gcm(KEY[:16], NONCE[:12]).seal([b"payload"], 7))
        for at in range(len(packet)):
            changed = bytearray(packet)
            changed[at] ^= 1
            with self.assertRaises(BadPacket):
                # As long as what the changed length makes of it.
                Gcm(KEY[:16], NONCE[:12]).open(bytes(changed) + bytes(1 << 17))

    def test_again(self) -> None:
        """A packet is taken once, and in its turn."""
        sealing, opening = Gcm(KEY[:16], NONCE[:12]), Gcm(KEY[:16], NONCE[:12])
        packet = b"".join(sealing.seal([b"payload"], 7))
        opening.open(packet)
        self.assertRaises(BadPacket, opening.open, packet)

    def test_sizes(self) -> None:
        """Sizes that no packet has are refused before anything is waited for."""
        for size in (0, 15, 17, (1 << 20) + 16, 0xFFFFFFF0):
            opening = Gcm(KEY[:16], NONCE[:12])
            self.assertRaises(BadPacket, opening.open, struct.pack(">L", size))

    def test_padding(self) -> None:
        """More padding than packet is refused, be it the peer's own."""
        for padding in (0, 3, 16, 255):
            body = bytes((padding,)) + bytes(15)
            length = struct.pack(">L", 16)
            packet = length + AESGCM(KEY[:16]).encrypt(NONCE[:12], body, length)
            self.assertRaises(BadPacket, Gcm(KEY[:16], NONCE[:12]).open, packet)


class CiphersTests(SynchronousTestCase):
    """Packets with ciphers that Conch has."""

    @given(
        st.sampled_from([name for name in CIPHERS if name not in GCM_CIPHERS]),
        st.sampled_from(CODES),
        st.lists(st.binary(max_size=200), min_size=1, max_size=4),
        st.integers(0, 0xFFFFFFFF),
    )
    def test_conch(self, cipher: bytes, code: bytes, pieces: list[bytes], number: int) -> None:
        """Conch takes them for its own."""
        make: Any = Ciphers
        make_theirs: Any = SSHCiphers
        ours = make(cipher, cipher, code, code)
        ours.setKeys(NONCE, KEY, NONCE, KEY, CODE_KEY, CODE_KEY)
        conchs = make_theirs(cipher, cipher, code, code)
        conchs.setKeys(NONCE, KEY, NONCE, KEY, CODE_KEY, CODE_KEY)
        self.assertIsNone(ours.opening)
        payload = b"".join(pieces)
        packet, authenticated = ours.seal(number, pieces, len(payload))
        plain = conchs.decrypt(packet)
        self.assertTrue(conchs.verify(number, plain, authenticated))
        length, padding = struct.unpack_from(">LB", plain)
        self.assertEqual(length, len(plain) - 4)
        self.assertEqual(len(plain) % 16, 0)
        self.assertGreaterEqual(padding, 4)
        self.assertEqual(plain[5:-padding], payload)


class Owner:
    """What a connection's factory is to it, with a clock of its own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.call_later = self.clock.callLater
        self.failures: list[Any] = []

    def begun(self, link: Transport) -> None:
        """Take note of a connection."""

    lost = begun

    def not_understood(self, link: Transport, why: Any) -> None:
        """Keep why a connection was ended."""
        self.failures.append(why)


class TransportTests(SynchronousTestCase):
    """Connections."""

    def connect(self) -> Any:
        """Make a connection; the other side has said its version."""
        link: Any = Transport()
        link.factory = Owner()
        link.makeConnection(StringTransport())
        link.dataReceived(b"SSH-2.0-test\r\n")
        return link

    def offered(self, link: Any) -> tuple[bytes, ...] | None:
        """Say which ciphers a client was offered; None if nothing yet."""
        version, _, packet = link.transport.value().partition(b"\r\n")
        self.assertEqual(version, b"SSH-2.0-desync")
        if not packet:
            return None
        (names,) = struct.unpack_from(">L", packet, 6 + 16)
        at = 6 + 16 + 4 + names
        at += 4 + struct.unpack_from(">L", packet, at)[0]
        size = struct.unpack_from(">L", packet, at)[0]
        return tuple(packet[at + 4 : at + 4 + size].split(b","))

    def say(self, link: Any, packet: bytes) -> None:
        """Have the client send a KEXINIT."""
        sent = StringTransport()
        client: Any = SSHServerTransport()  # only for its packets
        client.transport = sent
        client.currentEncryptions = link.currentEncryptions
        client.sendPacket(20, packet)
        link.dataReceived(sent.value())

    def test_able(self) -> None:
        """A client that can do AES-GCM is offered nothing else, whatever it likes best."""
        for name in GCM_CIPHERS:
            link = self.connect()
            self.assertIsNone(self.offered(link))
            self.say(link, kexinit(b"aes128-ctr," + name, b"chacha20-poly1305@openssh.com," + name))
            self.assertEqual(self.offered(link), GCM_CIPHERS)
            self.assertEqual(link.nextEncryptions.outCipType, name)
            self.assertEqual(link.nextEncryptions.inCipType, name)
            self.assertIsInstance(link.nextEncryptions, Ciphers)
            self.assertEqual(link.factory.clock.getDelayedCalls(), [])

    def test_unable(self) -> None:
        """A client that can't, or only in one direction, is offered the others."""
        for there, back in (
            (b"aes256-ctr", b"aes256-ctr"),
            (b"aes256-ctr," + GCM_CIPHERS[0], b"aes256-ctr"),
        ):
            link = self.connect()
            self.say(link, kexinit(there, back))
            self.assertEqual(self.offered(link), CIPHERS)
            self.assertEqual(link.nextEncryptions.outCipType, b"aes256-ctr")
            self.assertEqual(link.nextEncryptions.inCipType, b"aes256-ctr")

    def test_silent(self) -> None:
        """A client that waits for the server is told everything, and may answer later."""
        link = self.connect()
        link.factory.clock.advance(0.9)
        self.assertIsNone(self.offered(link))
        link.factory.clock.advance(0.2)
        self.assertEqual(self.offered(link), CIPHERS)
        said = len(link.transport.value())
        self.say(link, kexinit(b"aes128-ctr", b"aes128-ctr"))
        self.assertEqual(len(link.transport.value()), said)
        self.assertEqual(link.nextEncryptions.outCipType, b"aes128-ctr")

    def test_gone(self) -> None:
        """A client that leaves before is waited for no longer."""
        link = self.connect()
        link.connectionLost()
        self.assertEqual(link.factory.clock.getDelayedCalls(), [])

    def test_nothing_before(self) -> None:
        """Nothing is sent before keys are being agreed upon but what may be."""
        link = self.connect()
        link.sendPacket(MSG_CHANNEL_DATA, b"data")
        link.send_data(1, [b"data"], 4)
        self.assertIsNone(self.offered(link))

    def test_malformed(self) -> None:
        """A KEXINIT that is too short ends the connection."""
        link = self.connect()
        self.say(link, bytes(20))
        self.assertEqual(len(link.factory.failures), 1)
        self.assertTrue(link.transport.disconnecting or link.transport.disconnected)

    def test_changed(self) -> None:
        """A packet that isn't the client's ends the connection; what follows isn't looked at."""
        link = self.connect()
        make: Any = Ciphers
        ciphers = make(*GCM_CIPHERS[:1] * 2, *CODES[:1] * 2)
        ciphers.setKeys(NONCE, KEY, NONCE, KEY, CODE_KEY, CODE_KEY)
        link.currentEncryptions = ciphers
        link.transport.clear()
        link.dataReceived(struct.pack(">L", 16) + bytes(32 + 500))
        opened = Gcm(KEY[:16], NONCE[:12]).open(link.transport.value())
        assert opened is not None
        kind, reason = struct.unpack_from(">BL", opened[0])
        self.assertEqual((kind, reason), (MSG_DISCONNECT, DISCONNECT_MAC_ERROR))
        self.assertTrue(link.transport.disconnecting)
        self.assertEqual(link.buf, b"")

    def test_choice(self) -> None:
        """The choice needs no more of the client's message than its lists."""
        self.assertEqual(offered_to(kexinit(b"", b"")), CIPHERS)
        self.assertEqual(offered_to(kexinit(b",".join(CIPHERS), GCM_CIPHERS[1])), GCM_CIPHERS)
