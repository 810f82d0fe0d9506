# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What the SSH server counts."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from .counters import Counters

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Session(Protocol):
        """What is counted of a session: see :class:`.casync_serving.ServerSession`."""

        chunks: int
        missing: int
        invalid: int
        transferred: int


class PullCounters(Counters):
    """
    The counts of one SSH server. ``sent`` and ``received`` are bytes of chunks, indexes and
    archives.

    :ivar sessions: verb and outcome -> how many that are over. Outcomes are those of
        :attr:`.casync_serving.ServerSession.outcome`.
    :ivar refusals: what was refused -> how often: a connection, a login, or a command.
    :ivar chunks_sent: to clients.
    :ivar chunks_received: from clients, and stored.
    :ivar missing: chunks that clients asked for and that weren't there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[tuple[str, str], int] = {}
        self.refusals: dict[str, int] = {}
        self.chunks_sent = 0
        self.chunks_received = 0
        self.missing = 0

    @property
    def total(self) -> int:
        """How many sessions there were."""
        return sum(self.sessions.values())

    def refused(self, what: str) -> None:
        """Count something that was refused."""
        self.refusals[what] = self.refusals.get(what, 0) + 1

    def ended(self, verb: str, outcome: str, session: Session) -> None:
        """Count a session that is over."""
        key = (verb, outcome)
        self.sessions[key] = self.sessions.get(key, 0) + 1
        self._add(verb, session)

    def with_open(self, sessions: Iterable[tuple[str, Session]]) -> PullCounters:
        """
        Give the counts of this moment.

        :param sessions: those that aren't over, by verb.
        """
        now = copy.copy(self)
        for verb, session in sessions:
            now._add(verb, session)
        return now

    def _add(self, verb: str, session: Session) -> None:
        self.missing += session.missing
        self.verification_failures += session.invalid
        if verb == "push":
            self.chunks_received += session.chunks
            self.received += session.transferred
            self.stored += session.chunks
        else:
            self.chunks_sent += session.chunks
            self.sent += session.transferred
