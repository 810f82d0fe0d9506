# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Sessions of the casync protocol that pull chunks: requests go out before the answers are in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.python.failure import Failure

from desync.errors import StoreError
from desync.formats.ids import ChunkIds
from desync.formats.protocol import Abort, ChunkData, Goodbye, Missing, Request
from desync.formats.protocol_session import Service, Session

from .casync_client import ClientSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from desync.formats.protocol import Message

    #: Takes answers that came together, or what ended the session; and the ids that this is about.
    Answered: TypeAlias = Callable[[list[ChunkData | Missing], list[bytes], Failure | None], None]

#: How many chunks are asked of one session before it is replaced: what it was asked for has to be
#: remembered, because casync answers no id twice.
ASKED_LIMIT: Final = 1 << 16

#: How many bytes of answers may lie about, unverified, before a session reads no more.
UNREAD_LIMIT: Final = 8 << 20


class ChunkSession(ClientSession):
    """
    A session that asks for chunks.

    :param where: the store, for messages.
    :param on_end: called with the session at its end.
    :ivar is_retired: whether it is to be asked for no more; it ends once it owes nothing.
    """

    def __init__(self, where: str, on_end: Callable[[ChunkSession], None]) -> None:
        super().__init__(Session(Service.PULL_CHUNKS), where)
        self.is_retired = False
        self._on_end = on_end
        self._waiting: dict[bytes, Answered] = {}
        self._unsent: list[bytes] = []
        self._ever: set[bytes] = set()
        self._held = 0
        self._is_paused = False
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
        if self.session.is_open:
            self._request(wanted)
        else:
            self._unsent += wanted

    def _request(self, ids: list[bytes]) -> None:
        # Each by itself: Go desync's server answers only the first of a request.
        self.say_all(Request(ChunkIds.from_bytes(chunk_id)) for chunk_id in ids)

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

    def is_owed(self) -> bool:
        return bool(self._waiting) and not self._is_paused

    def retire(self) -> None:
        """End the session as soon as it owes nothing."""
        self.is_retired = True
        if not self._waiting:
            self.leave()

    def hear(self, message: Message) -> None:
        if isinstance(message, (ChunkData, Missing)):
            answered = self._waiting.pop(message.chunk_id)
            self._block.setdefault(answered, []).append(message)
        elif isinstance(message, Abort):
            self.given_up(message)
        elif isinstance(message, Goodbye):
            self.finish(StoreError(self._where, "the server ended the session"))

    def heard(self) -> None:
        if self._unsent and self.session.is_open:
            unsent, self._unsent = self._unsent, []
            self._request(unsent)
        block, self._block = self._block, {}
        for answered, messages in block.items():
            answered(messages, [], None)
        if self.is_retired and not self._waiting:
            self.leave()

    def ended(self) -> None:
        super().ended()
        block, self._block = self._block, {}
        for answered, messages in block.items():
            answered(messages, [], None)
        why = self.why()
        waiting, self._waiting = self._waiting, {}
        lost: dict[Answered, list[bytes]] = {}
        for chunk_id, answered in waiting.items():
            lost.setdefault(answered, []).append(chunk_id)
        self._on_end(self)
        for answered, ids in lost.items():
            answered([], ids, Failure(why))
