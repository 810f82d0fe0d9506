# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Who may say what and when in the casync protocol: one side of a session, without input or output.

Both sides say HELLO at once, with what they offer and what they want. From then on either sends
what the other wants: an index, an archive, requests for chunks, and chunks in answer to requests.
The side that pulls ends by closing its output, or with GOODBYE; when the other side pushes, it gets
GOODBYE once all is stored. ABORT ends a session at any time. ``docs/casync-protocol.rst`` has a
picture.

The same class is the client and the server: only their flags differ. Feed it what arrived, and
write what :meth:`Session.send` gives.
"""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, Final

from .ids import ChunkIds
from .protocol import (
    EBADE,
    EPROTONOSUPPORT,
    MAX_FRAME,
    Abort,
    ArchiveData,
    ArchiveEnd,
    ChunkData,
    Goodbye,
    Hello,
    IndexData,
    IndexEnd,
    LocalProtocolError,
    MessageReader,
    Missing,
    RemoteProtocolError,
    Request,
    name_of,
)

if TYPE_CHECKING:
    from .protocol import Message


class Service(IntFlag):
    """What a side offers (the first six) and wants (the others)."""

    READABLE_STORE = 0x1
    WRITABLE_STORE = 0x2
    READABLE_INDEX = 0x4
    WRITABLE_INDEX = 0x8
    READABLE_ARCHIVE = 0x10
    WRITABLE_ARCHIVE = 0x20
    PULL_CHUNKS = 0x40
    PULL_INDEX = 0x80
    PULL_ARCHIVE = 0x100
    PUSH_CHUNKS = 0x200
    PUSH_INDEX = 0x400
    PUSH_INDEX_CHUNKS = 0x800
    PUSH_ARCHIVE = 0x1000


_KNOWN: Final = 0x1FFF

# What each wish needs the other side to offer.
_NEEDS: Final = {
    Service.PULL_CHUNKS: Service.READABLE_STORE,
    Service.PULL_INDEX: Service.READABLE_INDEX,
    Service.PULL_ARCHIVE: Service.READABLE_ARCHIVE,
    Service.PUSH_CHUNKS: Service.WRITABLE_STORE,
    Service.PUSH_INDEX: Service.WRITABLE_INDEX,
    Service.PUSH_INDEX_CHUNKS: Service.WRITABLE_INDEX | Service.WRITABLE_STORE,
    Service.PUSH_ARCHIVE: Service.WRITABLE_ARCHIVE,
}
_WISHES: Final = Service(0x1FC0)
_PUSHES: Final = Service(0x1E00)

#: How many low requests are remembered so that the high ones that repeat them go unanswered.
_REMEMBERED: Final = 1 << 16

#: The first piece of an index has to reach beyond its header: casync takes the header for a piece
#: of the table if it has between 41 and 63 bytes of the index at any moment.
FIRST_INDEX_PIECE: Final = 64


class _Way:
    """What one side has sent of the things that come in pieces."""

    def __init__(self) -> None:
        self.hello = False
        self.index_ended = False
        self.archive_ended = False


class Session:
    """
    One side of a session.

    :param flags: what this side offers and wants.
    :param limit: the longest frame that is taken, in bytes.
    :ivar theirs: what the peer offers and wants; 0 until it has said so.
    :ivar over: whether the session has ended, by either side's GOODBYE or ABORT or an error. What
        the peer says afterwards is ignored.
    """

    def __init__(self, flags: Service, limit: int = MAX_FRAME) -> None:
        self.mine = flags
        self.theirs = Service(0)
        self.over = False
        self._reader = MessageReader(limit)
        self._sent, self._received = _Way(), _Way()
        self._asked: set[bytes] = set()  # of the peer, and not answered yet
        self._owed: set[bytes] = set()  # by us
        self._low: dict[bytes, None] = {}  # asked for with low priority only, so far

    @property
    def is_open(self) -> bool:
        """Whether both sides have said HELLO, and neither that it is over."""
        return self._sent.hello and self._received.hello and not self.over

    @property
    def asked(self) -> int:
        """How many chunks the peer has been asked for without an answer yet."""
        return len(self._asked)

    @property
    def owed(self) -> int:
        """How many chunks the peer has asked for without an answer yet."""
        return len(self._owed)

    # What we say

    def send(self, message: Message) -> tuple[bytes, ...]:
        """
        Say something.

        :returns: what is to be written, in pieces.
        :raises LocalProtocolError: if it can't be said, or not now; then nothing has changed.
        """
        if self.over:
            raise LocalProtocolError(f"{name_of(message)} after the session's end")
        if not isinstance(message, Abort):
            if not self._sent.hello and not isinstance(message, Hello):
                raise LocalProtocolError(f"{name_of(message)} before HELLO")
            if not isinstance(message, Hello) and not self._received.hello:
                raise LocalProtocolError(f"{name_of(message)} before the peer's HELLO")
        why = self._why_not(message, self._sent, self.mine, self.theirs, self._owed)
        if why is not None:
            raise LocalProtocolError(why)
        pieces = message.pieces()
        if isinstance(message, Request):
            fresh = set(message.ids)
            if len(fresh) != len(message.ids) or not self._asked.isdisjoint(fresh):
                raise LocalProtocolError("a chunk is asked for that has been asked for already")
            self._asked |= fresh
        elif isinstance(message, (ChunkData, Missing)):
            self._owed.discard(message.chunk_id)
        self._note(message, self._sent)
        return pieces

    def hello(self) -> tuple[bytes, ...]:
        """Say what this side offers and wants: the first thing to do."""
        return self.send(Hello(self.mine))

    # What we are told

    def receive(self, data: bytes) -> list[Message]:
        """
        Take what arrived.

        A request is given without the ids that needn't be answered: those that are being answered,
        and those that casync asks for again, with high priority, after the answer.

        :returns: what the peer said; each message is fit to be said at its time.
        :raises RemoteProtocolError: if it said what it mustn't. Only when no message came before
            that; else they are given, and it is raised the next time (see :attr:`error`).
        """
        if self.over:
            return []
        if self._reader.error is not None:
            self.over = True
            raise self._reader.error
        taken: list[Message] = []
        try:
            for message in self._reader.feed(data):
                heard = self._hear(message)
                if heard is not None:
                    taken.append(heard)
                if self.over:
                    break
        except RemoteProtocolError as error:
            self._reader.error = error
            if not taken:
                self.over = True
                raise
        return taken

    @property
    def error(self) -> RemoteProtocolError | None:
        """What the peer did wrong after what it was last heard to say."""
        return self._reader.error

    def finish(self) -> None:
        """
        Take note that the peer says nothing more.

        :raises RemoteProtocolError: if that comes too early: within a message, before HELLO, or
            before what we wait for. A peer that only pulls may leave at any time.
        """
        if self.over:
            return
        self.over = True
        self._reader.finish()
        if not self._received.hello:
            raise RemoteProtocolError("the connection ended before the peer had said anything")
        if self.mine & _WISHES or self.theirs & _PUSHES:
            raise RemoteProtocolError("the connection ended before all was said")

    def _hear(self, message: Message) -> Message | None:
        if isinstance(message, Hello):
            self._greet(message.flags)
        elif not self._received.hello and not isinstance(message, Abort):
            raise RemoteProtocolError(f"{name_of(message)} before HELLO")
        why = self._why_not(message, self._received, self.theirs, self.mine, self._asked)
        if why is not None:
            raise RemoteProtocolError(why)
        self._note(message, self._received)
        if isinstance(message, (ChunkData, Missing)):
            self._asked.remove(message.chunk_id)
        elif isinstance(message, Request):
            return self._without_repeats(message)
        return message

    def _greet(self, flags: int) -> None:
        if self._received.hello:
            raise RemoteProtocolError("a second HELLO")
        if flags & ~_KNOWN:
            raise RemoteProtocolError(f"HELLO with unknown flags {flags:#x}", EPROTONOSUPPORT)
        theirs = Service(flags)
        push_all = Service.PUSH_INDEX | Service.PUSH_CHUNKS
        if theirs & Service.PUSH_INDEX_CHUNKS and theirs & push_all != push_all:
            raise RemoteProtocolError(f"HELLO with flags {flags:#x} that don't go together")
        for wish, offer in _NEEDS.items():
            for one, other in ((self.mine, theirs), (theirs, self.mine)):
                if one & wish and other & offer != offer:
                    text = (wish.name or "").lower().replace("_", " ")
                    who = "the peer doesn't offer" if one is self.mine else "the peer wants"
                    raise RemoteProtocolError(f"{who} to {text}", EBADE)
        if not (self.mine | theirs) & _WISHES:
            raise RemoteProtocolError("neither side wants anything", EBADE)
        self.theirs = theirs

    def _without_repeats(self, request: Request) -> Message | None:
        fresh = bytearray()
        for chunk_id in request.ids:
            if chunk_id in self._owed:
                if request.high_priority:
                    self._low.pop(chunk_id, None)
                continue
            if request.high_priority:
                if chunk_id in self._low:
                    del self._low[chunk_id]
                    continue
            else:
                self._low[chunk_id] = None
                if len(self._low) > _REMEMBERED:
                    del self._low[next(iter(self._low))]
            self._owed.add(chunk_id)
            fresh += chunk_id
        if not fresh:
            return None
        return Request(ChunkIds.from_bytes(bytes(fresh)), request.high_priority)

    # The rules, the same in both directions

    def _why_not(
        self,
        message: Message,
        way: _Way,
        speaker: Service,
        listener: Service,
        wanted: set[bytes],
    ) -> str | None:
        """
        Say why a message can't be sent now; None if it can.

        :param way: what its sender has sent.
        :param speaker: the sender's flags.
        :param listener: the receiver's flags.
        :param wanted: what the receiver has asked for.
        """
        name = name_of(message)
        if isinstance(message, Hello):
            return f"a second {name}" if way.hello else None
        if isinstance(message, (IndexData, IndexEnd)):
            if not (listener & Service.PULL_INDEX or speaker & Service.PUSH_INDEX):
                return f"{name}, which nobody wants"
            if way.index_ended:
                return f"{name} after the index's end"
        elif isinstance(message, (ArchiveData, ArchiveEnd)):
            if not (listener & Service.PULL_ARCHIVE or speaker & Service.PUSH_ARCHIVE):
                return f"{name}, which nobody wants"
            if way.archive_ended:
                return f"{name} after the archive's end"
        elif isinstance(message, Request):
            if not (speaker & Service.PULL_CHUNKS or listener & Service.PUSH_INDEX_CHUNKS):
                return f"{name} where none was expected"
        elif isinstance(message, (ChunkData, Missing)) and message.chunk_id not in wanted:
            return f"{name} for {message.chunk_id.hex()}, which nobody asked for"
        return None

    def _note(self, message: Message, way: _Way) -> None:
        if isinstance(message, Hello):
            way.hello = True
        elif isinstance(message, IndexEnd):
            way.index_ended = True
        elif isinstance(message, ArchiveEnd):
            way.archive_ended = True
        elif isinstance(message, (Goodbye, Abort)):
            self.over = True
