# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What servers of the casync protocol have in common: how a session ends, and what it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred

from desync.errors import DesyncError
from desync.formats.protocol import EIO, ENOENT, Abort, Goodbye, Hello
from desync.formats.protocol_session import Session
from desync.stores.casync_wire import SessionEnded, SessionProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.python.failure import Failure

    from desync.formats.protocol import Message
    from desync.stores.threads import Threads

    from .casync_offer import Offer

EBADMSG: Final = 74
EFBIG: Final = 27


class GaveUp(SessionEnded):
    """The peer ended the session with an ABORT."""


class ServerSession(SessionProtocol):
    """
    A server's side of a session.

    :param offer: what there is.
    :param threads: for files and for what takes long.
    :param on_end: called with the session at its end.
    :ivar chunks: how many chunks were sent or taken.
    :ivar missing: how many that were asked for weren't there.
    :ivar transferred: bytes of chunks, indexes and archives, as they travelled.
    :ivar troubles: what went wrong with single chunks, the first of it.
    """

    def __init__(
        self, offer: Offer, threads: Threads, on_end: Callable[[ServerSession], None]
    ) -> None:
        super().__init__(Session(offer.flags))
        self.offer = offer
        self.threads = threads
        self.chunks = self.missing = self.transferred = 0
        self.troubles: list[str] = []
        self._on_end = on_end
        self._tasks: set[Deferred[None]] = set()

    def begin(self) -> None:
        """Do what there is to do once both have said hello."""

    def take(self, message: Message) -> None:
        """Do something about a message."""
        raise NotImplementedError

    def hear(self, message: Message) -> None:
        if isinstance(message, Hello):
            self.begin()
        elif isinstance(message, Goodbye):
            self.said_goodbye()
        elif isinstance(message, Abort):
            self.finish(GaveUp(f"the client gave up: {message.text or message.code}"))
        else:
            self.take(message)

    def said_goodbye(self) -> None:
        """Do something about a GOODBYE."""
        self.finish()

    def run(self, work: Coroutine[Deferred[Any], Any, None]) -> Deferred[None]:
        """Start some work that ends with the session, and ends the session if it fails."""
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def done(outcome: Failure | None) -> None:
            self._tasks.discard(task)
            if outcome is not None and not self.is_over:
                self.failed(outcome)

        task.addBoth(done)
        return task

    def failed(self, why: Failure) -> None:
        """End the session because of something that went wrong here."""
        if why.check(CancelledError, SessionEnded):
            self.finish(why.value)
        else:
            # What it is about is nobody's business but the operator's.
            text = "not available" if why.check(DesyncError) else "internal error"
            self.abort(EIO, text, why.value or SessionEnded("internal error"))

    def not_there(self, what: str) -> None:
        """Say that something that was asked for by name isn't there."""
        self.abort(ENOENT, f"no such {what}", SessionEnded(f"no such {what}"))

    async def wait_for_room(self) -> None:
        """Wait until more may be said."""
        while not self.is_over:
            room = self.room()
            if room is None:
                return
            await room

    def trouble(self, text: str) -> None:
        """Remember something that went wrong with a chunk."""
        if len(self.troubles) < 10:
            self.troubles.append(text)

    def ended(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._on_end(self)
