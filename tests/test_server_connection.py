# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What connections to our servers are granted and refused, whatever is served over them."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from desync.services.exchange import PIECE, TEXT, Exchange, Refused
from desync.services.server import Limits
from tests.server_wire import Wire, parse_answer, request


class EchoSite:
    """Answers with the body, or with what the path names; ``/later`` when the test says so."""

    def __init__(self, limit: int = 100) -> None:
        self.limit = limit
        self.waiting: list[Deferred[bytes]] = []
        self.canceled = 0
        self.handled: list[bytes] = []

    def admit(self, exchange: Exchange) -> None:
        if exchange.path == b"/refused":
            raise Refused(400, "not here\n")
        exchange.limit = self.limit

    def handle(self, exchange: Exchange) -> None:
        self.handled.append(exchange.path)
        if exchange.path == b"/later":
            exchange.run(self._later(exchange))
        elif exchange.path == b"/broken":
            raise RuntimeError("secret")
        elif exchange.path == b"/stream":
            exchange.run(self._stream(exchange))
        elif exchange.path.startswith(b"/size/"):
            exchange.respond(200, bytes(int(exchange.path[6:])))
        else:
            exchange.respond(200, exchange.body, TEXT)

    async def _later(self, exchange: Exchange) -> None:
        waiting: Deferred[bytes] = Deferred()
        self.waiting.append(waiting)
        try:
            data = await waiting
        except CancelledError:
            self.canceled += 1
            raise
        exchange.respond(200, data)

    async def _stream(self, exchange: Exchange) -> None:
        exchange.start(200, TEXT)
        for number in range(5):
            pressure = exchange.write([b"%d," % number, bytes(20)])
            if pressure is not None:
                await pressure
        exchange.finish()


class Case(SynchronousTestCase):
    """A connection to a server that echoes."""

    def setUp(self) -> None:
        self.site = EchoSite()
        self.wire = Wire(self.site)

    def assert_unharmed(self, wire: Wire | None = None) -> None:
        """The server holds nothing any more, and answers the next one."""
        wire = wire or self.wire
        self.assertEqual((len(wire.server.active), wire.server.held), (0, 0))
        wire.connect()
        self.assertEqual(wire.ask("GET", "/fine").code, 200)


class ConnectionTests(Case):
    """Requests and answers."""

    def test_keep_alive(self) -> None:
        """A connection serves one request after another, with or without a body."""
        for body in (b"one", b"", b"x" * 100):
            answer = self.wire.ask("PUT", "/", body)
            self.assertEqual((answer.code, answer.body), (200, body))
        self.assertEqual(self.wire.ask("GET", "/").code, 200)
        self.assertFalse(self.wire.is_closed)
        self.assertIn("Date", self.wire.ask("GET", "/").headers)

    def test_close(self) -> None:
        """Who asks for that gets the connection closed, as does HTTP/1.0."""
        answer = self.wire.ask("GET", "/", Connection="close")
        self.assertEqual(answer.headers["Connection"], "close")
        self.assertTrue(self.wire.is_closed)
        self.wire.connect()
        self.wire.send(b"GET /stream HTTP/1.0\r\n\r\n")
        self.assertTrue(self.wire.is_closed)
        head, _, body = self.wire.transport.value().partition(b"\r\n\r\n")
        self.assertNotIn(b"chunked", head)
        self.assertTrue(body.startswith(b"0,") and b"4," in body)

    def test_pipelined(self) -> None:
        """Requests that come all at once are answered in order, however they are split."""
        data = b"".join(request("PUT", "/", b"%d" % number) for number in range(5))

        @given(st.sets(st.integers(1, len(data) - 1), max_size=8))
        def check(cuts: set[int]) -> None:
            wire = Wire(self.site)
            at = 0
            for cut in (*sorted(cuts), len(data)):
                wire.send(data[at:cut])
                at = cut
            self.assertEqual([int(answer.body) for answer in wire.answers()], [0, 1, 2, 3, 4])

        check()

    def test_pipelined_behind_slow(self) -> None:
        """What follows a request that takes time waits for it."""
        self.wire.send(request("GET", "/later") + request("PUT", "/", b"second"))
        self.assertEqual(self.wire.answers(), [])
        self.site.waiting.pop().callback(b"first")
        self.assertEqual([answer.body for answer in self.wire.answers()], [b"first", b"second"])

    def test_head(self) -> None:
        """An answer to HEAD has no body, and tells no length."""
        answer = self.wire.ask("HEAD", "/size/10")
        self.assertEqual((answer.code, answer.body), (200, b""))
        self.assertNotIn("Content-Length", answer.headers)
        self.assertEqual(self.wire.ask("GET", "/size/10").body, bytes(10))

    def test_chunked_request(self) -> None:
        """A body without a length is taken up to the limit, and no further."""
        body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        answer = self.wire.ask("PUT", "/", body, Transfer_Encoding="chunked")
        self.assertEqual(answer.body, b"abcde")
        self.wire.send(request("PUT", "/", Transfer_Encoding="chunked") + b"65\r\n" + b"x" * 101)
        [answer] = self.wire.answers()
        self.assertEqual(answer.code, 413)
        self.assertTrue(self.wire.is_closed)
        self.assert_unharmed()
        end = b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n"
        self.wire.send(request("PUT", "/", Transfer_Encoding="chunked") + end)
        self.assertEqual([answer.code for answer in self.wire.answers()], [413])
        self.assert_unharmed()

    def test_streamed_answer(self) -> None:
        """An answer whose length isn't known comes in chunks, and pauses while nobody reads."""
        answer = self.wire.ask("GET", "/stream")
        self.assertEqual(answer.body, b"".join(b"%d," % n + bytes(20) for n in range(5)))
        self.wire.send(b"GET /stream HTTP/1.1\r\n\r\n")
        self.wire.answers()
        self.wire.transport.stuck = True
        self.wire.send(request("GET", "/stream"))
        begun = self.wire.transport.value()
        self.assertIn(b"0,", begun)
        self.assertNotIn(b"1,", begun)
        self.wire.transport.drain()
        [answer] = self.wire.answers()
        self.assertIn(b"4,", answer.body)

    def test_large_answer(self) -> None:
        """A large body is written in pieces, as the client takes them; the first with the head."""
        self.wire.transport.stuck = True
        self.wire.send(request("GET", f"/size/{3 * PIECE + 5}"))
        begun = self.wire.transport.value()
        self.assertEqual(len(begun.partition(b"\r\n\r\n")[2]), PIECE)
        self.assertEqual(self.wire.server.active, {self.wire.connection.requests[0]})
        self.wire.transport.drain()
        [answer] = self.wire.answers()
        self.assertEqual(answer.body, bytes(3 * PIECE + 5))
        self.assert_unharmed()

    def test_not_http(self) -> None:
        """What isn't HTTP is answered with 400 and ends the connection."""
        for data in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/9\r\nHost: x\r\n\r\n",
            b"GET /a b HTTP/1.1\r\n\r\n",
            b"G(T / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nNa me: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
            b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 600 + b"\r\n",
            b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 20_000 + b"\r\n\r\n",
            b"GET /" + b"x" * 17_000 + b" HTTP/1.1\r\n\r\n",
        ):
            self.wire.connect()
            self.wire.send(data)
            written = self.wire.transport.value()
            if written:
                answer, rest = parse_answer(written)
                self.assertEqual((answer.code, rest), (400, b""), data[:60])
            self.assertTrue(self.wire.is_closed, data[:60])
            self.wire.send(b"GET / HTTP/1.1\r\n\r\n" * 2)
            self.assertEqual(self.wire.transport.value(), written)
            self.wire.transport.loseConnection()
            self.assert_unharmed()
        self.assertEqual(set(self.site.handled), {b"/fine"})

    def test_internal_error(self) -> None:
        """A defect is answered with 500 and logged; the peer learns nothing of it."""
        answer = self.wire.ask("GET", "/broken")
        self.assertEqual((answer.code, answer.body), (500, b"internal server error\n"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.wire.send(request("GET", "/later"))
        self.site.waiting.pop().errback(RuntimeError("secret"))
        self.assertEqual(self.wire.answers()[0].code, 500)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assert_unharmed()

    def test_client_leaves(self) -> None:
        """Work for a client that has left is canceled, and counted as not answered."""
        self.wire.send(request("GET", "/later"))
        self.wire.transport.loseConnection()
        self.assertEqual(self.site.canceled, 1)
        self.assertEqual(self.wire.server.counters.requests, {(b"GET", 0): 1})
        self.assert_unharmed()
        self.wire.send(request("PUT", "/", Content_Length="50") + b"half")
        self.assertEqual(self.wire.server.held, 4)
        self.wire.transport.loseConnection()
        self.assert_unharmed()


class RefusalTests(Case):
    """Requests that aren't admitted."""

    def test_authorization(self) -> None:
        """Without the right header nobody gets anything, not even an answer about the path."""
        wire = Wire(self.site, authorization="Bearer abc")
        for value in ("", "Bearer abcd", "Bearer ab", "bearer abc", "\u00e4"):
            for path in ("/", "/refused"):
                answer = wire.ask("GET", path, Authorization=value)
                self.assertEqual((answer.code, answer.body), (401, b"Unauthorized\n"))
        self.assertEqual(wire.ask("GET", "/").code, 401)
        self.assertEqual(self.site.handled, [])
        self.assertEqual(wire.ask("GET", "/", Authorization="Bearer abc").code, 200)

    def test_small_body_is_read(self) -> None:
        """A request that is refused with a small body leaves the connection as it was."""
        answer = self.wire.ask("PUT", "/refused", b"x" * 1000)
        self.assertEqual((answer.code, answer.body), (400, b"not here\n"))
        self.assertFalse(self.wire.is_closed)
        self.assertEqual(self.wire.ask("GET", "/").code, 200)
        self.assertNotIn(b"/refused", self.site.handled)

    def test_large_body_is_not_read(self) -> None:
        """One with a large body is answered at once, and what comes after that isn't looked at."""
        for more in (b"", b"y" * 200_000):
            self.wire.connect()
            self.wire.send(request("PUT", "/refused", Content_Length="9999999") + more)
            [answer] = self.wire.answers()
            self.assertEqual((answer.code, answer.headers["Connection"]), (400, "close"))
            # The client may go on sending for a while, so that it gets to read that.
            self.assertTrue(self.wire.transport.half_closed)
            self.wire.send(b"z" * 100_000 + request("GET", "/sneaked-in"))
            self.assertEqual(self.wire.answers(), [])
            self.assertFalse(self.wire.transport.aborted)
            self.wire.turn(10)
            self.assertTrue(self.wire.transport.aborted)
        self.assert_unharmed()

    def test_too_large(self) -> None:
        """A body that is said to be too large isn't read."""
        for length in (101, 2**40, 10**30):
            self.wire.connect()
            self.wire.send(request("PUT", "/", Content_Length=str(length)))
            if length > 1 << 16:
                self.assertEqual(self.wire.answers()[0].code, 413)
                self.assertTrue(self.wire.is_closed)
            self.wire.transport.loseConnection()
        self.assertEqual(self.wire.server.held, 0)

    def test_expect_continue(self) -> None:
        """Who asks first is told to go on, or why not."""
        self.wire.send(request("PUT", "/", Content_Length="3", Expect="100-continue"))
        self.assertEqual([answer.code for answer in self.wire.answers()], [100])
        self.wire.send(b"abc")
        self.assertEqual(self.wire.answers()[0].body, b"abc")
        for path, length, code in (("/refused", "3", 400), ("/", "300", 413)):
            self.wire.connect()
            self.wire.send(request("PUT", path, Content_Length=length, Expect="100-continue"))
            self.assertEqual([answer.code for answer in self.wire.answers()], [code])
            self.assertTrue(self.wire.is_closed)

    def test_too_many_requests(self) -> None:
        """What exceeds the requests at once is asked to come again."""
        wire = Wire(self.site, Limits(requests=2))
        others = [Wire(self.site, server=wire.server, clock=wire.clock) for _ in range(2)]
        for other in others:
            other.send(request("GET", "/later"))
        answer = wire.ask("GET", "/")
        self.assertEqual((answer.code, answer.headers["Retry-After"]), (503, "1"))
        self.site.waiting.pop(0).callback(b"")
        self.assertEqual(wire.ask("GET", "/").code, 200)

    def test_too_many_bodies(self) -> None:
        """So is what exceeds the bytes of bodies at once; one body alone may."""
        wire = Wire(self.site, Limits(bodies=50))
        other = Wire(self.site, server=wire.server, clock=wire.clock)
        other.send(request("PUT", "/", Content_Length="60") + b"x" * 45)
        self.assertEqual(wire.ask("PUT", "/", b"x" * 10).code, 503)
        wire.send(request("PUT", "/", Transfer_Encoding="chunked") + b"6\r\n123456")
        self.assertEqual(wire.answers()[0].code, 503)
        other.send(b"x" * 15)
        self.assertEqual(other.answers()[0].code, 200)
        wire.connect()
        self.assertEqual(wire.ask("PUT", "/", b"x" * 10).code, 200)

    def test_too_many_connections(self) -> None:
        """Connections that are too many are closed, and counted."""
        wire = Wire(self.site, Limits(connections=2))
        other = Wire(self.site, server=wire.server, clock=wire.clock)
        self.assertFalse(wire.connect())
        self.assertEqual(wire.server.counters.turned_away, 1)
        other.transport.loseConnection()
        self.assertTrue(wire.connect())


class DeadlineTests(SynchronousTestCase):
    """What takes too long is ended."""

    def setUp(self) -> None:
        self.site = EchoSite(limit=1 << 20)
        self.wire = Wire(self.site)

    def test_idle(self) -> None:
        """A connection on which nothing is asked is closed after a while, without a word."""
        self.wire.turn(119)
        self.wire.ask("GET", "/")
        self.wire.turn(119)
        self.assertFalse(self.wire.is_closed)
        self.wire.turn(3)
        self.assertTrue(self.wire.is_closed)
        self.assertEqual(self.wire.transport.value(), b"")

    def test_slow_head(self) -> None:
        """The head of a request has to be complete in time, however often a bit of it comes."""
        self.wire.ask("GET", "/")
        for byte in request("GET", "/", Header="x" * 100):
            if self.wire.is_closed:
                break
            self.wire.send(bytes([byte]))
            self.wire.turn(1)
        [answer] = self.wire.answers()
        self.assertEqual(answer.code, 408)
        self.assertTrue(self.wire.is_closed)
        self.assertEqual(self.site.handled, [b"/"])
        self.assertEqual(self.wire.server.counters.timeouts, 1)

    def test_slow_body(self) -> None:
        """A body has to come in at a rate; one that does may take its time."""
        self.wire.send(request("PUT", "/", Content_Length=str(1 << 20)))
        for _ in range(128):
            self.wire.send(bytes(1 << 13))
            self.wire.turn(1)
        self.assertEqual(self.wire.answers()[0].code, 200)
        self.wire.send(request("PUT", "/", Content_Length=str(1 << 20)))
        for _ in range(100):
            if self.wire.is_closed:
                break
            self.wire.send(bytes(1 << 8))
            self.wire.turn(1)
        self.assertEqual(self.wire.answers()[0].code, 408)
        self.assertTrue(self.wire.is_closed)
        self.assertEqual((self.wire.server.held, len(self.wire.server.active)), (0, 0))

    def test_work_takes_what_it_takes(self) -> None:
        """As long as a request is worked on, its connection isn't ended."""
        self.wire.send(request("GET", "/later"))
        self.wire.turn(1000)
        self.site.waiting.pop().callback(b"x")
        self.assertEqual(self.wire.answers()[0].body, b"x")

    def test_nobody_reads(self) -> None:
        """An answer that nobody takes ends the connection."""
        self.wire.transport.stuck = True
        self.wire.send(request("GET", f"/size/{2 * PIECE}"))
        self.wire.turn(119)
        self.assertFalse(self.wire.transport.aborted)
        self.wire.turn(3)
        self.assertTrue(self.wire.transport.aborted)
        self.assertEqual(len(self.wire.server.active), 0)

    def test_stuck_while_closing(self) -> None:
        """So does one that is being closed, and whose end nobody takes."""
        self.wire.transport.loseConnection = lambda: None  # type: ignore[method-assign]
        self.wire.ask("GET", "/", Connection="close")
        self.wire.turn(4)
        self.assertFalse(self.wire.transport.aborted)
        self.wire.turn(3)
        self.assertTrue(self.wire.transport.aborted)


class DrainTests(SynchronousTestCase):
    """Stopping."""

    def setUp(self) -> None:
        self.site = EchoSite()
        self.wire = Wire(self.site)

    def test_drain(self) -> None:
        """Running requests finish, idle connections are closed, new ones not accepted."""
        idle = Wire(self.site, server=self.wire.server, clock=self.wire.clock)
        self.wire.send(request("GET", "/later") + request("GET", "/next"))
        done = Deferred.fromCoroutine(self.wire.server.drain())
        self.assertTrue(idle.is_closed)
        self.assertFalse(idle.connect())
        self.assertNoResult(done)
        self.site.waiting.pop().callback(b"last")
        self.assertEqual(self.wire.answers()[0].body, b"last")
        self.assertTrue(self.wire.is_closed)
        self.successResultOf(done)
        self.assertNotIn(b"/next", self.site.handled)
        self.assertEqual(self.wire.clock.getDelayedCalls(), [])

    def test_grace(self) -> None:
        """They aren't waited for without end."""
        self.wire.send(request("GET", "/later"))
        done = Deferred.fromCoroutine(self.wire.server.drain())
        self.wire.turn(31)
        self.successResultOf(done)
        self.assertEqual(self.site.canceled, 1)


class CounterTests(SynchronousTestCase):
    """What is counted."""

    def test_counts(self) -> None:
        """Requests by method and status, invented methods under one name, and bytes."""
        wire = Wire(EchoSite())
        wire.ask("GET", "/")
        wire.ask("PUT", "/", b"abc")
        for method in ("FOO", "BAR", "BAR"):
            wire.ask(method, "/refused")
        counters = wire.server.counters
        self.assertEqual(
            counters.requests, {(b"GET", 200): 1, (b"PUT", 200): 1, (b"other", 400): 3}
        )
        self.assertGreater(counters.received, 150)
        self.assertGreater(counters.sent, 300)

    def test_access_log(self) -> None:
        """Each request is told to the log once, with its status and the length of the body."""
        told: list[tuple[bytes, int, int]] = []
        wire = Wire(EchoSite(), access_log=lambda one: told.append((one.uri, one.code, one.sent)))
        wire.ask("GET", "/size/7?query")
        wire.ask("HEAD", "/size/7")
        wire.send(b"nonsense\r\n\r\n")
        self.assertEqual(told[:2], [(b"/size/7?query", 200, 7), (b"/size/7", 200, 0)])
        self.assertEqual([code for _, code, _ in told[2:]], [400])
        self.assertTrue(re.fullmatch(rb"", told[2][0]))
