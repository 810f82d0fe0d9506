# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What the client's sessions of the casync protocol have in common, whatever they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import DesyncError, IndexMissing, StoreError
from desync.formats.protocol import ENOENT, Abort, Goodbye, ProtocolError, RemoteProtocolError

from .casync_wire import SessionEnded, SessionProtocol
from .silence import SilenceWatch

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from desync.formats.protocol_session import Session


class ClientSession(SessionProtocol):
    """
    The client's side of a session.

    :param session: not begun yet.
    :param where: the server, for messages.
    """

    def __init__(self, session: Session, where: str) -> None:
        super().__init__(session)
        self._where = where
        self._watch: SilenceWatch | None = None

    def is_owed(self) -> bool:
        """Tell whether the server has to say something now. Asked only of an open session."""
        raise NotImplementedError

    def watch(self, reactor: IReactorTime, patience: float | None) -> None:
        """
        End the session when the server owes something and nothing has come for some time.

        It may take as long as it likes to begin: somebody may have to type a password for ssh.

        :param patience: in seconds; None for without end.
        """
        if patience is not None:
            self._watch = SilenceWatch(
                reactor,
                patience,
                owes=lambda: self.session.is_open and self.is_owed(),
                heard=lambda: self.active,
                give_up=lambda why: self.finish(StoreError(self._where, why)),
            )

    def leave(self) -> None:
        """End the session as both relatives can take it: with a word, and the end of our output."""
        if not self.is_over and self.session.is_open:
            self.say(Goodbye())
        self.finish()

    def given_up(self, said: Abort, *, for_index: bool = False) -> None:
        """
        End the session because the server did.

        :param for_index: whether what it may not have is an index.
        """
        if for_index and said.code == ENOENT:
            self.finish(IndexMissing(self._where, "no such index"))
        else:
            text = said.text or f"error {said.code}"
            self.finish(StoreError(self._where, f"the server gave up: {text}"))

    def ended(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def why(self) -> DesyncError:
        """Say what ended the session."""
        why = self.ended_by
        if isinstance(why, DesyncError) and not isinstance(why, (ProtocolError, SessionEnded)):
            return why
        text = "the session was closed" if why is None else str(why)
        if isinstance(why, RemoteProtocolError):
            text = f"casync protocol: {text}"
        if self.lost_by:
            text = f"{text} ({self.lost_by})"
        return StoreError(self._where, text)
