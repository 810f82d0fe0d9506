# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of :mod:`desync.formats.protocol_session`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.formats import protocol as p
from desync.formats.ids import ChunkIds
from desync.formats.protocol import LocalProtocolError, RemoteProtocolError
from desync.formats.protocol_session import Service, Session

from .protocol_messages import divided, messages

if TYPE_CHECKING:
    from desync.formats.protocol import Message

IDS = [bytes([number]) * 32 for number in range(9)]
PULL = Service.PULL_CHUNKS | Service.PULL_INDEX
SERVE = Service.READABLE_STORE | Service.READABLE_INDEX
PUSH = Service.PUSH_CHUNKS | Service.PUSH_INDEX | Service.PUSH_INDEX_CHUNKS
TAKE = Service.WRITABLE_STORE | Service.WRITABLE_INDEX
ROLES = (
    PULL,
    SERVE,
    PUSH,
    TAKE,
    Service.PULL_ARCHIVE,
    Service.READABLE_ARCHIVE,
    Service.PUSH_ARCHIVE,
    Service.WRITABLE_ARCHIVE,
)


def ask(*numbers: int, high: bool = False) -> p.Request:
    """Ask for chunks."""
    return p.Request(ChunkIds.from_iterable(IDS[number] for number in numbers), high)


def chunk(number: int) -> p.ChunkData:
    """Make a chunk."""
    return p.ChunkData(IDS[number], b"data")


def greeted(flags: Service, peer: int) -> Session:
    """Make a session in which both sides have said HELLO."""
    session = Session(flags)
    session.hello()
    session.receive(p.Hello(peer).encode())
    return session


def hear(session: Session, *said: Message) -> list[Message]:
    """Let a session hear something."""
    return session.receive(b"".join(message.encode() for message in said))


def story(flags: Service, greet: bool, pieces: list[bytes]) -> tuple[list[Message], str]:
    """Give what a session hears in some bytes, and the error that ends it."""
    session = Session(flags)
    heard: list[Message] = []
    try:
        session.hello()
        if greet and Service.PULL_CHUNKS & flags:
            heard += session.receive(p.Hello(SERVE).encode())
            session.send(ask(0, 1, 2))
        for piece in pieces:
            heard += session.receive(piece)
        session.finish()
    except RemoteProtocolError as error:
        return heard, str(error)
    return heard, ""


class HelloTests(SynchronousTestCase):
    """The beginning."""

    def test_sessions_of_casync(self) -> None:
        """The flags of the sessions that casync has go together."""
        for client, server in (
            (0xC0, 0x05),
            (0x80, 0x04),
            (0x40, 0x01),
            (0x100, 0x10),
            (0xE00, 0x0A),
            (0x400, 0x08),
            (0x200, 0x02),
            (0x1000, 0x20),
            (0x40, 0x3F),
        ):
            self.assertTrue(greeted(Service(client), server).is_open)
            self.assertTrue(greeted(Service(server), client).is_open)

    def test_refused(self) -> None:
        """What doesn't go together is refused with the number that casync would send."""
        for mine, theirs, errno, why in (
            (SERVE, 0x2000, p.EPROTONOSUPPORT, "unknown flags 0x2000"),
            (PULL, 0x04, p.EBADE, "the peer doesn't offer to pull chunks"),
            (SERVE, 0x100, p.EBADE, "the peer wants to pull archive"),
            (SERVE, 0x05, p.EBADE, "neither side wants anything"),
            (TAKE, 0x800, p.EBADMSG, "don't go together"),
        ):
            session = Session(mine)
            session.hello()
            with self.assertRaisesRegex(RemoteProtocolError, why) as caught:
                hear(session, p.Hello(theirs))
            self.assertEqual(caught.exception.errno, errno)
            self.assertTrue(session.over)

    def test_first(self) -> None:
        """Nothing but an abort comes before the hellos, and neither comes twice."""
        session = Session(PULL)
        self.assertRaises(LocalProtocolError, session.send, ask(1))
        session.hello()
        self.assertRaises(LocalProtocolError, session.hello)
        self.assertRaises(LocalProtocolError, session.send, ask(1))
        self.assertRaises(RemoteProtocolError, hear, session, p.IndexData(b"x"))
        session = greeted(PULL, SERVE)
        self.assertRaises(RemoteProtocolError, hear, session, p.Hello(SERVE))
        session = Session(PULL)
        self.assertEqual(hear(session, p.Abort(2, "")), [p.Abort(2, "")])
        self.assertTrue(session.over)


class SayTests(SynchronousTestCase):
    """What may be said."""

    def test_pull(self) -> None:
        """The side that pulls asks, and takes index and chunks that it asked for."""
        session = greeted(PULL, SERVE)
        session.send(ask(1, 2, high=True))
        self.assertEqual(session.asked, 2)
        said: list[Message] = [p.IndexData(b"x"), chunk(2), p.IndexEnd(), p.Missing(IDS[1])]
        self.assertEqual(hear(session, *said), said)
        self.assertEqual(session.asked, 0)
        for wrong in (chunk(1), p.Missing(IDS[1]), p.IndexEnd(), p.ArchiveEnd(), ask(1)):
            session = greeted(PULL, SERVE)
            hear(session, p.IndexEnd())
            with self.assertRaises(RemoteProtocolError):
                hear(session, wrong)

    def test_own_mistakes(self) -> None:
        """What would be wrong to say isn't said, and changes nothing."""
        session = greeted(PULL, SERVE)
        session.send(ask(1))
        for wrong in (ask(1), ask(2, 2), chunk(3), p.IndexData(b"x"), p.ArchiveEnd()):
            self.assertRaises(LocalProtocolError, session.send, wrong)
        self.assertEqual(session.asked, 1)
        session.send(p.Goodbye())
        self.assertRaises(LocalProtocolError, session.send, ask(2))
        self.assertEqual(hear(session, chunk(1)), [])

    def test_repeats(self) -> None:
        """A high request that repeats a low one goes unanswered once, whenever it comes."""
        session = greeted(SERVE, PULL)
        self.assertEqual(hear(session, ask(1, 2, 3)), [ask(1, 2, 3)])
        self.assertEqual(hear(session, ask(1, high=True)), [])
        session.send(chunk(1))
        session.send(chunk(2))
        self.assertEqual(hear(session, ask(2, high=True)), [])
        self.assertEqual(session.owed, 1)
        for _ in range(2):
            self.assertEqual(hear(session, ask(2, high=True)), [ask(2, high=True)])
            session.send(p.Missing(IDS[2]))
        self.assertRaises(LocalProtocolError, session.send, chunk(2))

    def test_push(self) -> None:
        """The side that takes a push asks, gets chunks, and says goodbye."""
        taking, pushing = greeted(TAKE, PUSH), greeted(PUSH, TAKE)
        hear(taking, p.IndexData(b"x"))
        self.assertEqual(hear(pushing, ask(1, 2)), [ask(1, 2)])
        taking.send(ask(1, 2))
        for message in (chunk(1), chunk(2)):
            self.assertEqual(taking.receive(b"".join(pushing.send(message))), [message])
        taking.send(p.Goodbye())
        self.assertEqual(hear(pushing, p.Goodbye()), [p.Goodbye()])
        self.assertTrue(taking.over and pushing.over)

    def test_end(self) -> None:
        """A peer that only pulls may leave; one that pushes or is pulled from may not."""
        greeted(SERVE, PULL).finish()
        for session in (Session(SERVE), greeted(PULL, SERVE), greeted(TAKE, PUSH)):
            self.assertRaises(RemoteProtocolError, session.finish)
        session = greeted(PUSH, TAKE)
        hear(session, p.Goodbye())
        session.finish()
        session = greeted(SERVE, PULL)
        session.receive(b"\x18")
        self.assertRaises(RemoteProtocolError, session.finish)

    def test_messages_before_error(self) -> None:
        """What was said before something wrong is heard, and the error comes next."""
        session = greeted(SERVE, PULL)
        self.assertEqual(hear(session, ask(1), p.IndexEnd()), [ask(1)])
        self.assertIsInstance(session.error, RemoteProtocolError)
        self.assertRaises(RemoteProtocolError, session.receive, b"")
        self.assertTrue(session.over)
        self.assertEqual(session.receive(b"more"), [])


class AnyInputTests(SynchronousTestCase):
    """Whatever arrives."""

    @given(
        st.sampled_from(ROLES),
        st.booleans(),
        st.lists(
            st.one_of(
                messages,
                st.sampled_from(ROLES).map(lambda role: p.Hello(int(role))),
                st.integers(0, 3).map(chunk),
                st.integers(0, 3).map(ask),
            ).map(lambda message: message.encode())
            | st.binary(max_size=40),
            max_size=6,
        ),
        st.data(),
    )
    def test_any_division(
        self, flags: Service, greet: bool, parts: list[bytes], more: st.DataObject
    ) -> None:
        """However the bytes are divided, the same is heard, and only one error comes out."""
        whole = b"".join(parts)
        expected = story(flags, greet, [whole])
        self.assertEqual(story(flags, greet, more.draw(divided(st.just(whole)))), expected)
        self.assertEqual(
            story(flags, greet, [whole[i : i + 1] for i in range(len(whole))]), expected
        )
