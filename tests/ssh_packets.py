# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
An SSH client that logs in and then sends packets that make no sense::

    python -m tests.ssh_packets PORT USER KEY SEED COUNT

It connects so many times. Messages of the connection protocol (RFC 4254) are made of random fields,
right ones among them, and spoiled.
"""

from __future__ import annotations

import random
import struct
import sys
from typing import Any

from twisted.conch.ssh.common import NS
from twisted.conch.ssh.connection import SSHConnection
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import SSHClientTransport
from twisted.conch.ssh.userauth import SSHUserAuthClient
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure

reactor: Any = _reactor

#: Packets of a connection, and how many of them at a time.
PACKETS = 30


class Spoiler(SSHConnection):
    """Sends packets that make no sense, as soon as it is logged in."""

    def __init__(self, chooser: random.Random) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.random = chooser

    def serviceStarted(self) -> None:  # noqa: N802
        self.send_some(PACKETS)

    def packetReceived(self, messageNum: int, packet: bytes) -> None:  # noqa: N802, N803
        """Whatever the server says is of no interest."""

    def send_some(self, left: int) -> None:
        """Send a few packets, then some more, then leave."""
        transport: Any = self.transport
        for _ in range(min(left, self.random.randrange(1, 6))):
            transport.sendPacket(*self.packet())
            left -= 1
        if left <= 0 or self.random.random() < 0.05:
            if self.random.random() < 0.5:
                transport.loseConnection()
            else:
                transport.transport.abortConnection()
        else:
            reactor.callLater(0, self.send_some, left)

    def word(self) -> bytes:
        """Choose a number of 32 bits: often that of a channel."""
        few = self.random.randrange(4)
        return struct.pack(
            ">L", self.random.choice([few, few, few, 1 << 15, 1 << 31, (1 << 32) - 1])
        )

    def packet(self) -> tuple[int, bytes]:
        """Make a packet: its number and what is in it."""
        choose = self.random
        command = choose.choice([b"casync pull - - - os", b"casync push - - os/y.caibx os", b"ls"])
        number, payload = choose.choice(
            [
                (80, NS(b"keepalive@openssh.com") + choose.choice([b"\1", b"\0", b""])),
                (80, NS(b"tcpip-forward") + b"\1" + NS(b"") + self.word()),
                (90, NS(b"session") + self.word() + self.word() + self.word()),
                (90, NS(b"session") + struct.pack(">3L", 0, 1 << 20, 1 << 15)),
                (90, NS(b"session") + struct.pack(">3L", 1, 1 << 20, 1 << 15)),
                (90, NS(b"direct-tcpip") + self.word() * 3 + NS(b"localhost")),
                (91, self.word() * 4),
                (92, self.word() * 2 + NS(b"no")),
                (93, self.word() + self.word()),
                (94, self.word() + NS(choose.randbytes(choose.choice([0, 24, 40000])))),
                (95, self.word() + self.word() + NS(b"text")),
                (96, self.word()),
                (97, self.word()),
                (98, self.word() + NS(b"exec") + b"\1" + NS(command)),
                (98, self.word() + NS(b"exec") + b"\1" + NS(command)),
                (98, self.word() + NS(b"pty-req") + b"\1" + choose.randbytes(20)),
                (98, self.word() + NS(b"exec") + b"\1" + self.word()),
                (99, self.word()),
                (100, self.word()),
                (81, b""),
                (82, b""),
                (choose.randrange(256), choose.randbytes(choose.randrange(50))),
                (50, NS(b"alice") + NS(b"ssh-connection") + NS(b"none")),
                (5, NS(b"ssh-userauth")),
                (20, choose.randbytes(60)),
            ]
        )
        spoiled = bytearray(payload)
        if spoiled and choose.random() < 0.3:
            at = choose.randrange(len(spoiled))
            spoiled[at : at + choose.randrange(1, 9)] = choose.randbytes(choose.randrange(5))
        return number, bytes(spoiled)


class Auth(SSHUserAuthClient):
    """Logs in with a key."""

    def __init__(self, user: bytes, instance: Any, key: Key) -> None:
        super().__init__(user, instance)
        self._key = key

    def getPublicKey(self) -> Any:  # noqa: N802
        if self.lastPublicKey:
            return None
        return self._key.public()

    def getPrivateKey(self) -> Deferred[Key]:  # noqa: N802
        return succeed(self._key)


class Transport(SSHClientTransport):
    """A connection that asks for nothing but to log in."""

    def __init__(self, user: bytes, key: Key, chooser: random.Random) -> None:
        self.gone: Deferred[None] = Deferred()
        self._auth = Auth(user, Spoiler(chooser), key)

    def verifyHostKey(self, pubKey: bytes, fingerprint: str) -> Deferred[bool]:  # noqa: N802, N803
        return succeed(True)

    def connectionSecure(self) -> None:  # noqa: N802
        self.requestService(self._auth)

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: N802
        super().connectionLost(reason or connectionDone)
        self.gone.callback(None)


async def run(clock: Any, port: int, user: str, key: Key, seed: int, count: int) -> None:
    """Connect so many times."""
    chooser = random.Random(seed)
    for _ in range(count):
        transport = Transport(user.encode(), key, chooser)
        await connectProtocol(HostnameEndpoint(clock, "127.0.0.1", port), transport)
        await transport.gone.addTimeout(60, clock)


def main(port: str, user: str, key: str, seed: str, count: str) -> None:
    """Run as a program."""
    with open(key, "rb") as file:
        private = Key.fromString(file.read())
    react(
        lambda clock: Deferred.fromCoroutine(
            run(clock, int(port), user, private, int(seed), int(count))
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
