# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
SSH as far as the casync protocol needs it: public keys, and commands that are no more than names.

There is no shell, no terminal, no forwarding, no subsystem. Conch brings the protocol; the channels
and the packets are ours (:mod:`.ssh_channel`, :mod:`.ssh_transport`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.conch.avatar import ConchUser
from twisted.conch.checkers import SSHPublicKeyChecker
from twisted.conch.error import ValidPublicKey
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.userauth import SSHUserAuthServer
from twisted.internet.defer import execute

from .ssh_channel import CommandChannel, Connection, quiet
from .ssh_transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.cred.portal import Portal
    from twisted.internet.interfaces import IDelayedCall
    from twisted.internet.protocol import Protocol
    from twisted.python.failure import Failure


class UserAuth(SSHUserAuthServer):
    """Public keys, a few tries, and no long wait."""

    _log = quiet

    loginTimeout = 60  # noqa: N815
    attemptsBeforeDisconnect = 10  # noqa: N815


class Avatar(ConchUser):
    """
    A user who is logged in.

    :param user: the name.
    :param run: makes the session of a command.
    """

    def __init__(self, user: str, run: Callable[[Transport, str, bytes], Protocol]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.user = user
        self.channelLookup = {b"session": CommandChannel}
        self._run = run

    def run(self, link: Transport, command: bytes) -> Protocol:
        """Make the session of a command."""
        return self._run(link, self.user, command)


class KeyChecker(SSHPublicKeyChecker):
    """Lets users in by their keys, and lets nobody sign with a key that isn't theirs."""

    def requestAvatarId(self, credentials: Any) -> Any:  # noqa: N802
        """Check the key, then the signature."""
        checking = execute(Key.fromString, credentials.blob)
        checking.addCallback(self._checkKey, credentials)

        def signed(key: Key) -> Key:
            if not credentials.signature:
                raise ValidPublicKey
            return key

        checking.addCallback(signed)
        checking.addCallback(self._verifyKey, credentials)
        return checking


class Factory(SSHFactory):
    """
    Makes connections.

    :param key: the host key.
    :param portal: lets users in.
    :param begun: called with each connection.
    :param logged_in: called with it and the user's name.
    :param lost: called with it when it is gone.
    :param not_understood: called with it and a failure when something in it can't be dealt with.
    :param call_later: the reactor's.
    """

    _log = quiet
    protocol = Transport
    primes = None
    noisy = False

    def __init__(
        self,
        key: Key,
        portal: Portal,
        begun: Callable[[Transport], None],
        logged_in: Callable[[Transport, str], None],
        lost: Callable[[Transport], None],
        not_understood: Callable[[Transport, Failure], None],
        call_later: Callable[..., IDelayedCall],
    ) -> None:
        kind = key.sshType()
        self.publicKeys = {kind: key.public()}
        self.privateKeys = {kind: key}
        self.services = {b"ssh-userauth": UserAuth, b"ssh-connection": Connection}
        self.portal = portal
        self.begun = begun
        self.logged_in = logged_in
        self.lost = lost
        self.not_understood = not_understood
        self.call_later = call_later
