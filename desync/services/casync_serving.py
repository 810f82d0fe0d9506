# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What servers of the casync protocol have in common: how a session ends, and what it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred

from desync.errors import DesyncError
from desync.formats.protocol import (
    EBADE,
    EBADMSG,
    EIO,
    ENOENT,
    EPROTONOSUPPORT,
    Abort,
    Goodbye,
    Hello,
)
from desync.formats.protocol_session import Session
from desync.stores.casync_wire import SessionEnded, SessionProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.python.failure import Failure

    from desync.formats.protocol import Message
    from desync.stores.threads import Threads

    from .casync_offer import Offer

EFBIG: Final = 27
EOPNOTSUPP: Final = 95
ECONNABORTED: Final = 103
ETIMEDOUT: Final = 110

#: How sessions end that end with an ABORT of ours, by its number; any other is "failed".
_OUTCOMES: Final = {
    ENOENT: "missing",
    EBADE: "wrong",
    EBADMSG: "wrong",
    EPROTONOSUPPORT: "wrong",
    EOPNOTSUPP: "wrong",
    ECONNABORTED: "stopped",
    ETIMEDOUT: "idle",
}


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
    :ivar invalid: how many, from the client or the store, weren't what their id says.
    :ivar transferred: bytes of chunks, indexes and archives, as they travelled.
    :ivar troubles: what went wrong with single chunks, the first of it.
    :ivar code: the number of the ABORT that the client was told; None if it wasn't.
    """

    def __init__(
        self, offer: Offer, threads: Threads, on_end: Callable[[ServerSession], None]
    ) -> None:
        super().__init__(Session(offer.flags))
        self.offer = offer
        self.threads = threads
        self.chunks = self.missing = self.invalid = self.transferred = 0
        self.code: int | None = None
        self.troubles: list[str] = []
        self._on_end = on_end
        self._tasks: set[Deferred[None]] = set()
        self._waiting: list[Deferred[None]] = []

    @property
    def outcome(self) -> str:
        """
        Say in a word how it ended: ``complete``; ``gave up`` or ``left``, for a client that told us
        or did not; or what we told the client: ``missing``, ``wrong``, ``idle``, ``stopped``,
        ``failed``.
        """
        if self.code is not None:
            return _OUTCOMES.get(self.code, "failed")
        if self.ended_by is None:
            return "complete"
        return "gave up" if isinstance(self.ended_by, GaveUp) else "left"

    @property
    def exit_code(self) -> int:
        """What a program would exit with."""
        return 0 if self.ended_by is None else 1

    def abort(self, code: int, text: str, why: BaseException) -> None:
        if not self.is_over:
            self.code = code
        super().abort(code, text, why)

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
            if not self._tasks:
                waiting, self._waiting = self._waiting, []
                for one in waiting:
                    one.callback(None)

        task.addBoth(done)
        return task

    async def settled(self) -> None:
        """Wait until no work is under way: what a session leaves is removed after its end."""
        if self._tasks:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting

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

    def bad_chunk(self, text: str) -> None:
        """Remember that a chunk isn't what its id says."""
        self.invalid += 1
        if len(self.troubles) < 10:
            self.troubles.append(text)

    def ended(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        self._on_end(self)
