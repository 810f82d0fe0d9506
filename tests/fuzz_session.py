# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Fuzzing of the casync protocol's session machine, in both roles::

    python -m tests.fuzz_session SECONDS [SEED]

Sessions hear random messages, spoiled and in random pieces, and are told to say random ones.
Nothing may come out but the protocol's two errors, each for its own side: what is heard never
raises that of what is said. Then two sessions talk to each other, with delays: what one may say,
the other takes.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from typing import Any, Final

from desync.formats import protocol as p
from desync.formats.ids import ChunkIds
from desync.formats.protocol import LocalProtocolError, RemoteProtocolError
from desync.formats.protocol_session import Service, Session

from .fuzz_seeds import main

IDS: Final = [bytes([number]) * 32 for number in range(12)]

#: What the two sides of a session say in HELLO.
PAIRS: Final = (
    (0xC0, 0x05),
    (0x80, 0x04),
    (0x40, 0x01),
    (0x100, 0x10),
    (0xE00, 0x0A),
    (0x400, 0x08),
    (0x1000, 0x20),
    (0x1C0, 0x3F),
)


class SessionFuzz:
    """
    One run.

    :param seed: which.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def run_once(self) -> None:
        """Hold one conversation of each kind."""
        self.hear_anything()
        self.talk()

    def a_message(self) -> Any:
        """Choose something to be said."""
        choose = self.random
        match choose.randrange(10):
            case 0:
                return p.Hello(choose.choice([*sum(PAIRS, ()), choose.randrange(1, 1 << 64 - 1)]))
            case 1:
                return p.IndexData(choose.randbytes(choose.choice([1, 40, 64, 1000])))
            case 2:
                return p.IndexEnd()
            case 3:
                return p.ArchiveData(choose.randbytes(choose.choice([1, 100])))
            case 4:
                return p.ArchiveEnd()
            case 5:
                ids = [choose.choice(IDS) for _ in range(choose.randrange(1, 6))]
                return p.Request(ChunkIds.from_iterable(ids), choose.random() < 0.5)
            case 6 | 7:
                data = choose.randbytes(choose.randrange(1, 50))
                return p.ChunkData(choose.choice(IDS), data, choose.random() < 0.5)
            case 8:
                return p.Missing(choose.choice(IDS))
            case _:
                if choose.random() < 0.7:
                    return self.a_message()
                return choose.choice([p.Goodbye(), p.Abort(choose.randrange(200), "no")])

    def spoiled(self, data: bytes) -> bytes:
        """Change a few bytes, sometimes."""
        changed = bytearray(data)
        while changed and self.random.random() < 0.2:
            at = self.random.randrange(len(changed))
            match self.random.randrange(4):
                case 0:
                    changed[at] ^= 1 << self.random.randrange(8)
                case 1:
                    del changed[at:]
                case 2:
                    changed[at:at] = self.random.randbytes(self.random.randrange(1, 30))
                case _:
                    del changed[at : at + self.random.randrange(1, 30)]
        return bytes(changed)

    def hear_anything(self) -> None:
        """Have a session hear anything and say anything."""
        mine, theirs = self.random.choice(PAIRS)
        if self.random.random() < 0.5:
            mine, theirs = theirs, mine
        session = Session(Service(mine))
        said = [self.a_message() for _ in range(self.random.randrange(12))]
        if self.random.random() < 0.9:
            said.insert(0, p.Hello(theirs))
        data = b"".join(self.spoiled(each.encode()) for each in said)
        begin = 0
        while begin < len(data):
            if self.random.random() < 0.4:
                self.say(session, p.Hello(mine) if begin == 0 else self.a_message())
            end = begin + self.random.choice([1, 7, 30, 200])
            self.hear(session, data[begin:end])
            begin = end
        with contextlib.suppress(RemoteProtocolError):
            session.finish()
        assert session.over
        assert self.hear(session, b"more") is not None

    def say(self, session: Session, message: Any) -> bytes:
        """Have a session say something if it may."""
        before = (session.asked, session.owed, session.over, session.is_open)
        try:
            return b"".join(session.send(message))
        except LocalProtocolError:
            now = (session.asked, session.owed, session.over, session.is_open)
            assert now == before, "what can't be said has changed something"
            return b""

    def hear(self, session: Session, data: bytes) -> list[Any] | None:
        """Have a session hear something; None if that was wrong."""
        was_over = session.over
        try:
            heard = session.receive(data)
        except RemoteProtocolError as error:
            assert session.over
            assert 0 < error.errno < 200
            return None
        assert not (was_over and heard), "something is heard after the end"
        return list(heard)

    def talk(self) -> None:
        """Have two sessions talk to each other; what is on its way waits for a while."""
        flags = self.random.choice(PAIRS)
        sides = [Session(Service(each)) for each in flags]
        ways: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        for side, way in zip(sides, ways, strict=True):
            way.append(b"".join(side.hello()))
        for _ in range(self.random.randrange(60)):
            number = self.random.randrange(2)
            if self.random.random() < 0.5:
                said = self.say(sides[number], self.a_message())
                if said:
                    ways[number].append(said)
            elif ways[number]:
                self.deliver(sides[1 - number], ways[number].popleft())
        for number in (0, 1):
            while ways[number]:
                self.deliver(sides[1 - number], ways[number].popleft())

    def deliver(self, listener: Session, data: bytes) -> None:
        """Have one hear what the other was let say, in two pieces."""
        cut = self.random.randrange(len(data) + 1)
        for piece in (data[:cut], data[cut:]):
            listener.receive(piece)
            assert listener.error is None, listener.error


if __name__ == "__main__":
    main(lambda seed: SessionFuzz(seed).run_once())
