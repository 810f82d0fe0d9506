# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What servers hold of answers that nobody takes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from desync.services.exchange import PIECE, Exchange
from desync.services.room import Room
from desync.services.server import Limits
from tests.server_wire import Wire, request


class RoomTests(SynchronousTestCase):
    """Room itself."""

    def test_order(self) -> None:
        """Who can't have what it wants waits, and so does who comes later and wants less."""
        room = Room(100)
        self.assertIsNone(room.take(60))
        first, second = room.take(50), room.take(10)
        assert first is not None and second is not None
        self.assertTrue(room.is_wanted)
        room.change(60, 55)
        self.assertNoResult(first)
        room.change(55, 40)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual((room.held, room.is_wanted), (100, False))

    def test_more_than_all(self) -> None:
        """Who wants more than there is gets it when nobody else has any."""
        room = Room(100)
        self.assertIsNone(room.take(1000))
        waiting = room.take(101)
        assert waiting is not None
        room.change(1000, 0)
        self.successResultOf(waiting)
        self.assertEqual(room.held, 101)

    def test_given_up(self) -> None:
        """Who gives up waiting keeps nobody waiting."""
        room = Room(100)
        room.take(60)
        large, small = room.take(90), room.take(20)
        assert large is not None and small is not None
        large.cancel()
        self.failureResultOf(large, CancelledError)
        self.successResultOf(small)
        self.assertEqual(room.held, 80)

    def test_many_at_once(self) -> None:
        """However many are granted something at once, each may give it back at once."""
        room = Room(10)
        room.take(10)
        for _ in range(5000):
            waiting = room.take(10)
            assert waiting is not None
            waiting.addCallback(lambda _: room.change(10, 0))
        room.change(10, 0)
        self.assertEqual((room.held, room.is_wanted), (0, False))

    @given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=40))
    def test_never_more(self, wishes: list[tuple[int, int]]) -> None:
        """Whatever is wanted and given back, no more is held than there is; nobody is forgotten."""
        room = Room(40)
        got: list[int] = []
        waiting = 0

        def grant(_: object, size: int) -> None:
            nonlocal waiting
            waiting -= 1
            got.append(size)

        for size, back in wishes:
            waiting += 1
            turn = room.take(size)
            if turn is None:
                grant(None, size)
            else:
                turn.addCallback(grant, size)
            for _ in range(min(back, len(got))):
                room.change(got.pop(0), 0)
            self.assertEqual(room.held, sum(got))
            self.assertLessEqual(room.held, 40)
        while got:
            room.change(got.pop(), 0)
        self.assertEqual((room.held, waiting), (0, 0))


class HoldingSite:
    """
    Answers with as many bytes as the path says: ``/size/5`` with what is in memory, ``/turn/5``
    with what has waited for its turn, ``/file/5`` with what can be read again.
    """

    def __init__(self) -> None:
        self.reads: list[int] = []
        self.fails = False

    def admit(self, exchange: Exchange) -> None:
        pass

    def handle(self, exchange: Exchange) -> None:
        _, kind, size = exchange.path.split(b"/")
        if kind == b"turn":
            exchange.run(self._turn(exchange, int(size)))
            return
        body = content(int(size))

        async def again(at: int) -> bytes:
            self.reads.append(at)
            if self.fails:
                raise OSError("gone")
            return body[at : at + PIECE]

        exchange.respond(200, body, again=again if kind == b"file" else None)

    async def _turn(self, exchange: Exchange, size: int) -> None:
        await exchange.turn(size)
        exchange.respond(200, content(size))


def content(size: int) -> bytes:
    """Make bytes of which none can be taken for others nearby."""
    return b"".join(b"%08x" % number for number in range(size // 8 + 1))[:size]


class AnswerTests(SynchronousTestCase):
    """Answers that nobody takes, or slowly."""

    def setUp(self) -> None:
        self.site = HoldingSite()
        self.wire = Wire(self.site, Limits(answers=100, requests=3))
        self.server = self.wire.server
        self.wire.transport.stuck = True

    def another(self) -> Wire:
        return Wire(self.site, server=self.server, clock=self.wire.clock)

    def assert_nothing_held(self) -> None:
        self.assertEqual((self.server.room.held, self.server.outgoing), (0, 0))
        self.assertEqual(len(self.server.active), 0)

    def test_pipelined(self) -> None:
        """The next request is looked at when the answer to the one before has been taken."""
        self.wire.send(request("GET", "/size/50") * 4)
        for _ in range(4):
            [answer] = self.wire.answers()
            self.assertEqual(answer.body, content(50))
            self.assertEqual(self.server.room.held, 50)
            self.wire.connection.resumeProducing()
        self.assert_nothing_held()

    def test_split_while_stuck(self) -> None:
        """What comes meanwhile, whole requests or parts of them, is answered in order."""
        data = b"".join(request("GET", f"/size/{size}") for size in range(1, 7))

        @given(st.sets(st.integers(1, len(data) - 1), max_size=6), st.integers(0, 3))
        def check(cuts: set[int], drains: int) -> None:
            wire = Wire(HoldingSite())
            wire.transport.stuck = True
            at = 0
            for number, cut in enumerate((*sorted(cuts), len(data))):
                wire.send(data[at:cut])
                at = cut
                if number < drains:
                    wire.connection.resumeProducing()
            for _ in range(6):
                wire.connection.resumeProducing()
            self.assertEqual([len(each.body) for each in wire.answers()], [1, 2, 3, 4, 5, 6])

        check()

    def test_nothing_more_is_read(self) -> None:
        """Whoever takes no answer isn't listened to: what it has sent meanwhile is all it can."""
        self.wire.send(request("GET", "/size/50"))
        self.assertEqual(self.wire.transport.producerState, "producing")
        self.wire.send(request("GET", "/size/50"))
        self.assertEqual(self.wire.transport.producerState, "paused")
        self.wire.transport.drain()
        self.assertEqual(self.wire.transport.producerState, "producing")
        self.assertEqual(len(self.wire.answers()), 2)

    def test_turns(self) -> None:
        """Who would exceed the room waits, and who left meanwhile is left out."""
        self.wire.send(request("GET", "/turn/80"))
        [answer] = self.wire.answers()
        self.assertEqual((answer.body, self.server.room.held), (content(80), 80))
        others = [self.another() for _ in range(2)]
        for other in others:
            other.send(request("GET", "/turn/30"))
            self.assertEqual(other.answers(), [])
        others[0].transport.loseConnection()
        self.wire.transport.drain()
        [answer] = others[1].answers()
        self.assertEqual(answer.body, content(30))
        self.assert_nothing_held()

    def test_impatience(self) -> None:
        """Who takes nothing of what others wait for is given less time."""
        self.wire.send(request("GET", "/turn/80"))
        self.wire.turn(60)
        other = self.another()
        other.send(request("GET", "/turn/30"))
        self.assertFalse(self.wire.transport.aborted)
        self.wire.turn(2)
        self.assertTrue(self.wire.transport.aborted)
        [answer] = other.answers()
        self.assertEqual(answer.code, 200)
        self.assert_nothing_held()

    def test_client_leaves(self) -> None:
        """What was held for a client that leaves isn't held any more."""
        for path in "/turn/80", f"/size/{2 * PIECE}", f"/file/{2 * PIECE}", "/turn/900":
            wire = self.another()
            wire.transport.stuck = True
            wire.send(request("GET", path))
            wire.transport.loseConnection()
            self.assert_nothing_held()

    def test_again(self) -> None:
        """Of what can be read again a little is given to the transport, and nothing is held."""
        size = 3 * PIECE + 5
        self.wire.send(request("GET", f"/file/{size}"))
        self.assertLess(len(self.wire.transport.value()), PIECE // 4)
        self.assertEqual((self.server.room.held, self.server.outgoing), (0, 1))
        for _ in range(3):
            before = len(self.wire.transport.value())
            self.wire.connection.resumeProducing()
            added = len(self.wire.transport.value()) - before
            self.assertTrue(0 < added < PIECE // 4, added)
        self.assertEqual(self.site.reads, sorted(set(self.site.reads)))
        self.wire.transport.drain()
        [answer] = self.wire.answers()
        self.assertEqual(answer.body, content(size))
        self.assert_nothing_held()

    def test_again_fails(self) -> None:
        """If it can't be read any more, the answer is broken off."""
        self.wire.send(request("GET", f"/file/{PIECE}"))
        self.site.fails = True
        self.wire.transport.drain()
        self.assertTrue(self.wire.transport.aborted)
        self.assert_nothing_held()

    def test_little_by_little(self) -> None:
        """Who takes less than a piece in the time for one is given up."""
        self.wire.send(request("GET", f"/file/{8 * PIECE}"))
        for _ in range(6):
            self.wire.turn(20)
            self.assertFalse(self.wire.transport.aborted)
            self.wire.connection.resumeProducing()
        self.wire.turn(2)
        self.assertTrue(self.wire.transport.aborted)

    def test_requests(self) -> None:
        """Answers that only wait for their clients aren't counted among the requests at once."""
        wires = [self.another() for _ in range(6)]
        for wire in wires:
            wire.transport.stuck = True
            wire.send(request("GET", f"/file/{PIECE}"))
        self.assertEqual(self.another().ask("GET", "/size/1").code, 200)
        for wire in wires:
            wire.transport.drain()
            [answer] = wire.answers()
            self.assertEqual(answer.body, content(PIECE))
        self.assert_nothing_held()

    def test_stopping(self) -> None:
        """A server that stops waits for what is being taken."""
        self.wire.send(request("GET", f"/file/{PIECE}"))
        done = Deferred.fromCoroutine(self.server.drain())
        self.assertNoResult(done)
        self.wire.transport.drain()
        [answer] = self.wire.answers()
        self.assertEqual(answer.body, content(PIECE))
        self.successResultOf(done)
