# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Sessions of the casync protocol that pull chunks: requests go out before the answers are in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.python.failure import Failure

from desync.errors import StoreError
from desync.formats.ids import ChunkIds
from desync.formats.protocol import Abort, ChunkData, Goodbye, Missing, RemoteProtocolError, Request
from desync.formats.protocol_session import Service, Session

from .casync_wire import SessionProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeAlias

    from desync.formats.protocol import Message

    #: Takes answers that came together, or what ended the session; and the ids that this is about.
    Answered: TypeAlias = Callable[[list[ChunkData | Missing], list[bytes], Failure | None], None]

#: How many chunks are asked of one session before it is replaced: what it was asked for has to be
#: remembered, because casync answers no id twice.
ASKED_LIMIT: Final = 1 << 16

#: How many bytes of answers may lie about, unverified, before a session reads no more.
UNREAD_LIMIT: Final = 8 << 20


class ChunkSession(SessionProtocol):
    """
    A session that asks for chunks.

    :param where: the store, for messages.
    :param on_end: called with the session at its end.
    :ivar is_retired: whether it is to be asked for no more; it ends once it owes nothing.
    """

    def __init__(self, where: str, on_end: Callable[[ChunkSession], None]) -> None:
        super().__init__(Session(Service.PULL_CHUNKS))
        self.is_retired = False
        self._where = where
        self._on_end = on_end
        self._waiting: dict[bytes, Answered] = {}
        self._unsent: list[tuple[ChunkIds, bool]] = []
        self._ever: set[bytes] = set()
        self._held = 0
        self._is_paused = False
        self._watching: Any = None
        self._block: dict[Answered, list[ChunkData | Missing]] = {}

    @property
    def owes(self) -> int:
        """How many answers are still to come."""
        return len(self._waiting)

    def was_asked(self, chunk_id: bytes) -> bool:
        """Tell whether the session was asked for a chunk, ever: it can't be again."""
        return chunk_id in self._ever

    @property
    def is_worn(self) -> bool:
        """Whether it was asked for so much that it is to be replaced."""
        return len(self._ever) >= ASKED_LIMIT

    def ask(self, ids: Iterable[bytes], answered: Answered) -> None:
        """
        Ask for chunks that this session was never asked for.

        :param answered: called with each id once, some at a time.
        """
        wanted = list(ids)
        for chunk_id in wanted:
            self._waiting[chunk_id] = answered
        self._ever.update(wanted)
        request = (ChunkIds.from_iterable(wanted), True)
        if self.session.is_open:
            self.say(Request(*request))
        else:
            self._unsent.append(request)

    def holding(self, size: int) -> None:
        """Take note of bytes that were answered and lie about; negative when they have gone on."""
        self._held += size
        if self._held > UNREAD_LIMIT and not self._is_paused and not self.is_over:
            self._is_paused = True
            self.transport_.pauseProducing()
        elif self._held <= UNREAD_LIMIT // 2 and self._is_paused:
            self._is_paused = False
            if not self.is_over:
                self.transport_.resumeProducing()

    def watch(self, reactor: Any, timeout: float) -> None:
        """
        End the session when it owes something and nothing has come for some time.

        It may take as long as it likes to begin: somebody may have to type a password for ssh.

        :param timeout: in seconds.
        """
        seen = (self.active, False)

        def look() -> None:
            nonlocal seen
            if self.is_over:
                return
            waits = self.session.is_open and bool(self._waiting) and not self._is_paused
            if waits and seen == (self.active, True):
                self.finish(StoreError(self._where, f"no answer for {timeout:g} seconds"))
                return
            seen = (self.active, waits)
            self._watching = reactor.callLater(timeout, look)

        self._watching = reactor.callLater(timeout, look)

    def retire(self) -> None:
        """End the session as soon as it owes nothing."""
        self.is_retired = True
        if not self._waiting:
            self.leave()

    def leave(self) -> None:
        """End the session as both relatives can take it: with a word, and the end of our output."""
        if not self.is_over and self.session.is_open:
            self.say(Goodbye())
        self.finish()

    def hear(self, message: Message) -> None:
        if isinstance(message, (ChunkData, Missing)):
            answered = self._waiting.pop(message.chunk_id)
            self._block.setdefault(answered, []).append(message)
        elif isinstance(message, Abort):
            text = message.text or f"error {message.code}"
            self.finish(StoreError(self._where, f"the server gave up: {text}"))
        elif isinstance(message, Goodbye):
            self.finish(StoreError(self._where, "the server ended the session"))

    def heard(self) -> None:
        unsent: list[tuple[ChunkIds, bool]] = []
        if self._unsent and self.session.is_open:
            unsent, self._unsent = self._unsent, unsent
            for request in unsent:
                self.say(Request(*request))
        block, self._block = self._block, {}
        for answered, messages in block.items():
            answered(messages, [], None)
        if self.is_retired and not self._waiting:
            self.leave()

    def ended(self) -> None:
        if self._watching is not None and self._watching.active():
            self._watching.cancel()
        block, self._block = self._block, {}
        for answered, messages in block.items():
            answered(messages, [], None)
        why = self.ended_by
        if not isinstance(why, StoreError):
            text = "the session was closed" if why is None else str(why)
            if isinstance(why, RemoteProtocolError):
                text = f"casync protocol: {text}"
            if self.lost_by:
                text = f"{text} ({self.lost_by})"
            why = StoreError(self._where, text)
        waiting, self._waiting = self._waiting, {}
        lost: dict[Answered, list[bytes]] = {}
        for chunk_id, answered in waiting.items():
            lost.setdefault(answered, []).append(chunk_id)
        self._on_end(self)
        for answered, ids in lost.items():
            answered([], ids, Failure(why))
