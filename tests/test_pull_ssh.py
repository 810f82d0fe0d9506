# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What a client who is logged in may send besides sessions: nothing that is kept."""

from __future__ import annotations

import struct
from typing import Any

from twisted.conch.error import ConchError
from twisted.conch.ssh.common import NS
from twisted.conch.ssh.connection import (
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_CHANNEL_OPEN_FAILURE,
)
from twisted.trial.unittest import SynchronousTestCase

from desync.services.pull_ssh import Avatar
from desync.services.ssh_channel import Connection


class Link:
    """
    What a connection's channels see of it.

    :ivar sent: the numbers of the messages that were sent.
    """

    is_full = False
    active = 0

    def __init__(self) -> None:
        self.avatar = Avatar("alice", lambda *_: self.fail())
        self.sent: list[int] = []

    def fail(self) -> Any:
        raise AssertionError("nothing is run here")

    def sendPacket(self, number: int, packet: bytes) -> None:  # noqa: N802
        self.sent.append(number)


class AnswerTests(SynchronousTestCase):
    """Answers to channels that nobody opened."""

    def test_answers(self) -> None:
        """They are an error, and take no channel away that the client has opened."""
        for number in (MSG_CHANNEL_OPEN_CONFIRMATION, MSG_CHANNEL_OPEN_FAILURE):
            connection: Any = Connection()  # type: ignore[no-untyped-call]
            connection.transport = Link()
            opening = NS(b"session") + struct.pack(">3L", 0, 1 << 20, 1 << 15)
            connection.packetReceived(MSG_CHANNEL_OPEN, opening)
            self.assertEqual(connection.transport.sent, [MSG_CHANNEL_OPEN_CONFIRMATION])
            answer = struct.pack(">4L", 0, 0, 0, 0) + NS(b"")
            self.assertRaises(ConchError, connection.packetReceived, number, answer)
            connection.serviceStopped()
            self.assertEqual(connection.channels, {})
