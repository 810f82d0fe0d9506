# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A casync-protocol session on a transport: what client and server have in common.

:class:`desync.formats.protocol_session.Session` decides; this moves its bytes, waits when the
peer doesn't read, and ends the session on the first thing that is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from desync.errors import DesyncError
from desync.formats.protocol import Abort, LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from twisted.python.failure import Failure

    from desync.formats.protocol import Message
    from desync.formats.protocol_session import Session

#: How much of a file goes into one frame, in bytes.
PIECE: Final = 1 << 16


class SessionEnded(DesyncError):
    """The session ended before all was said."""


@implementer(IPushProducer, IHalfCloseableProtocol)
class SessionProtocol(Protocol):
    """
    One side of a session.

    Subclasses say what is done about messages (:meth:`hear`) and at the end (:meth:`ended`).

    :param session: not begun yet.
    :ivar ended_by: why it is over; None while it isn't, and afterwards if nothing was wrong.
    :ivar closed: fires when the connection is gone.
    :ivar lost_by: why the connection is gone, if it didn't just end.
    :ivar active: incremented whenever bytes are received or room is made for more.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.ended_by: BaseException | None = None
        self.lost_by = ""
        self.is_over = False
        self.active = 0
        self._room: Deferred[None] | None = None  # waited for, while the transport has none
        self._connected = False
        self.closed: Deferred[None] = Deferred()

    # For subclasses

    def hear(self, message: Message) -> None:
        """Do something about what the peer said."""
        raise NotImplementedError

    def heard(self) -> None:
        """Do something after all the messages that arrived together."""

    def ended(self) -> None:
        """Do something at the end, which comes once: see :attr:`ended_by`."""
        raise NotImplementedError

    # What we do

    def say(self, message: Message) -> None:
        """
        Say something. See :meth:`desync.formats.protocol_session.Session.send`.

        :raises SessionEnded: if the peer has ended the session, perhaps with what arrived together
            with what this answers.
        """
        self.say_all((message,))

    def say_all(self, messages: Iterable[Message]) -> None:
        """
        Say some things, which travel together.

        :raises SessionEnded: as :meth:`say`.
        """
        pieces: list[bytes] = []
        try:
            for message in messages:
                if self.session.over:
                    raise SessionEnded("the peer has ended the session")
                pieces += self.session.send(message)
        finally:
            if pieces:
                self.transport_.writeSequence(pieces)

    @property
    def transport_(self) -> Any:
        """The transport, whatever it is."""
        return self.transport

    def room(self) -> Deferred[None] | None:
        """
        Ask whether more may be said.

        :returns: None if so, else what fires when it may; it fails if the session ends before.
        """
        if self._room is None:
            return None
        waiting: Deferred[None] = Deferred()

        def pass_on(result: Any) -> Any:
            if not waiting.called:
                waiting.callback(result)
            return None

        def chain(result: Any) -> Any:
            pass_on(result)
            return result

        self._room.addBoth(chain)
        return waiting

    def abort(self, code: int, text: str, why: BaseException) -> None:
        """Give up, and tell the peer."""
        if self.is_over:
            return
        if not self.session.over:
            self.say(Abort.saying(code, text))
        self.finish(why)

    def finish(self, why: BaseException | None = None) -> None:
        """
        End the session.

        :param why: what was wrong, if something was.
        """
        if self.is_over:
            return
        self.is_over = True
        self.session.over = True
        self.ended_by = why
        if self._connected:
            self.transport_.unregisterProducer()
            # One that was paused, because too much had come, would not see the peer leave.
            self.transport_.resumeProducing()
            self.transport_.loseConnection()
        if self._room is not None:
            room, self._room = self._room, None
            room.addErrback(lambda _: None)
            room.errback(why or SessionEnded("the session is over"))
        self.ended()

    # What the transport calls

    def connectionMade(self) -> None:  # noqa: N802
        """Say hello."""
        self._connected = True
        self.transport_.registerProducer(self, True)
        self.transport_.writeSequence(self.session.hello())

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        """Take what arrived."""
        self.active += 1
        if self.is_over:
            return
        try:
            for message in self.session.receive(data):
                self.hear(message)
                if self.is_over:
                    return
            self.heard()
            if self.session.error is not None:
                raise self.session.error
        except RemoteProtocolError as error:
            self._wrong(error)
        except LocalProtocolError as error:
            self.abort(0, "internal error", error)

    def _wrong(self, error: RemoteProtocolError) -> None:
        if not self.is_over:
            # The session takes nothing more, but this it still says.
            self.session.over = False
            self.abort(error.errno, str(error), error)

    def readConnectionLost(self) -> None:  # noqa: N802
        """Take note that the peer says nothing more."""
        if self.is_over:
            return
        try:
            self.session.finish()
        except RemoteProtocolError as error:
            self.finish(error)
        else:
            self.finish()

    def writeConnectionLost(self) -> None:  # noqa: N802
        """Take note that the peer hears nothing more: it has left."""
        self.readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: N802
        """Take note that the connection is gone."""
        self._connected = False
        if not reason.check(ConnectionDone):
            self.lost_by = " ".join(reason.value.args) if reason.value else ""
        self.readConnectionLost()
        self.closed.callback(None)

    def pauseProducing(self) -> None:  # noqa: N802
        """Say no more for now."""
        if self._room is None and not self.is_over:
            self._room = Deferred()

    def resumeProducing(self) -> None:  # noqa: N802
        """Go on."""
        self.active += 1
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:  # noqa: N802
        """Take note that the connection is about to be gone."""
        self.readConnectionLost()
