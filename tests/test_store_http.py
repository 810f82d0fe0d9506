# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The stores on HTTP servers: what they are held to, and servers that misbehave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkInvalid, ChunkMissing, IndexMissing, StoreError, StoreRefused
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.stored import chunk_name, form_named
from desync.interfaces import IChunkRemover
from desync.options import StoreOptions
from desync.stores.http import HTTPChunkStore, open_http, open_http_indexes
from desync.stores.location import parse_location
from desync.testing.batch_contract import BatchContract
from desync.testing.contract import SourceContract, StoreContract, TargetContract
from desync.testing.index_contract import IndexTargetContract, sample_index
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink
from tests.web_server import FileServer, Peer, ScriptedServer, reactor, response


class OnFileServer(StoreContract):
    """A store on a web server that has its files."""

    finds_other_form = False

    def make_store(self) -> HTTPChunkStore:
        self.server = FileServer()
        self.addCleanup(self.server.stop)
        options = StoreOptions(uncompressed=not self.extension, any_form=self.finds_other_form, n=4)
        location = parse_location(self.server.url("/some%20where/store"))
        return open_http(location, options, SHA512_256, reactor)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        name = chunk_name(chunk_id, extension)
        self.server.files[f"/some%20where/store/{name}"] = stored


class HTTPContractTests(OnFileServer, SourceContract, TargetContract, BatchContract, TestCase):
    """The contract of chunk stores."""

    renews = False


class HTTPUncompressedContractTests(OnFileServer, SourceContract, TestCase):
    """The same with chunks that aren't compressed, and reading either form."""

    extension = ""
    finds_other_form = True


class HTTPIndexContractTests(IndexTargetContract, TestCase):
    """The contract of index stores."""

    def make_store(self) -> Any:
        self.server = FileServer()
        self.addCleanup(self.server.stop)
        location = parse_location(self.server.url("/indexes"))
        options = StoreOptions(error_retry=1)
        return open_http_indexes(location, options, SHA512_256, reactor)

    def plant(self, name: str, data: bytes) -> None:
        self.server.files[f"/indexes/{name}"] = data


class Case(TestCase):
    """What tests of single requests have in common."""

    timeout = 60.0

    def setUp(self) -> None:
        self.chunk = sample_chunk()
        form = form_named(".cacnk")
        self.stored = form.encode(self.chunk.plain)
        self.name = chunk_name(self.chunk.chunk_id, ".cacnk")

    def store(self, url: str, **options: Any) -> HTTPChunkStore:
        """Open a store; it is closed after the test."""
        given = StoreOptions(**{"n": 4, **options})
        store = open_http(parse_location(url), given, SHA512_256, reactor)
        self.addCleanup(store.close)
        return store

    def scripted(self, *answers: Any) -> ScriptedServer:
        """Start a server that gives answers, one to each request, the last to all further ones."""
        left = list(answers)

        def script(peer: Peer, head: bytes) -> None:
            answer = left.pop(0) if len(left) > 1 else left[0]
            if callable(answer):
                answer(peer, head)
            else:
                peer.say(answer)

        server = ScriptedServer(script)
        self.addCleanup(server.stop)
        return server

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something to become true."""
        while not condition():
            await deferLater(reactor, 0.01)

    async def why(self, error: type[Exception], waiting: Deferred[Any]) -> str:
        """Make sure that something fails, and give the error's text."""
        try:
            result = await waiting
        except error as found:
            return str(found)
        raise AssertionError(f"{error.__name__} expected, but it returned {result!r}")


class RequestTests(Case):
    """What is sent, and what the answers mean."""

    async def test_request(self) -> None:
        """A request says who asks and nothing that is compressed on the way is accepted."""
        server = self.scripted(response("200 OK", self.stored))
        store = self.store(server.url("/s"))
        chunk = await store.get(self.chunk.chunk_id)
        self.assertEqual(chunk.plain, self.chunk.plain)
        lines = server.requests[0].decode().split("\r\n")
        self.assertEqual(lines[0], f"GET /s/{self.name} HTTP/1.1")
        names = {line.split(":")[0] for line in lines[1:]}
        self.assertEqual(names, {"Host", "User-Agent"})

    async def test_credentials(self) -> None:
        """Authorization and cookie are sent as configured; a user in the URL is Basic otherwise."""
        server = FileServer()
        self.addCleanup(server.stop)
        url = server.url("/").replace("//", "//us%20er:p%40ss@", 1)
        await self.store(url, http_cookie="a=b; c=d").has(self.chunk.chunk_id)
        self.assertEqual(server.headers["authorization"], "Basic dXMgZXI6cEBzcw==")
        self.assertEqual(server.headers["cookie"], "a=b; c=d")
        await self.store(url, http_auth="Bearer x").has(self.chunk.chunk_id)
        self.assertEqual(server.headers["authorization"], "Bearer x")

    async def test_no_line_breaks(self) -> None:
        """A configured value can't add a header."""
        for option in ("http_auth", "http_cookie"):
            with self.assertRaises(StoreError) as caught:
                self.store("http://127.0.0.1:1/", **{option: "x\r\nEvil: yes"})
            self.assertNotIn("Evil", str(caught.exception))

    async def test_statuses(self) -> None:
        """Only 404 means missing; other statuses are in the error, and it says whether to retry."""
        for status, error in (
            ("404 Not Found", ChunkMissing),
            ("403 Forbidden", StoreRefused),
            ("429 Slow Down", StoreError),
            ("500 Oops", StoreError),
        ):
            server = self.scripted(response(status, b"whatever"))
            store = self.store(server.url())
            why = await self.why(error, store.get(self.chunk.chunk_id))
            if error is not ChunkMissing:
                self.assertIn(f"unexpected status code {status[:3]}", why)
            if status[0] == "5" or status[:3] == "429":
                waiting = store.get(self.chunk.chunk_id)
                try:
                    await waiting
                except StoreError as found:
                    self.assertNotIsInstance(found, StoreRefused)

    async def test_head(self) -> None:
        """Whether a chunk is there is asked without its bytes, and the connection stays."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        server = self.scripted(head, response("404 Not Found"), head)
        store = self.store(server.url(), n=1)
        ids = [chunk.chunk_id for chunk in sample_chunks(3)]
        self.assertEqual([await store.has(each) for each in ids], [True, False, True])
        self.assertEqual(len(server.peers), 1)

    async def test_put(self) -> None:
        """200, 201 and 204 are good answers to an upload; another one's words are in the error."""
        for status in ("200 OK", "201 Created", "204 No Content"):
            bare = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
            if status.startswith("204"):
                bare = b"HTTP/1.1 204 No Content\r\n\r\n"
            await self.store(self.scripted(bare).url()).put(self.chunk)
        server = self.scripted(response("400 Bad Request", b"not enabled\n<here>"))
        why = await self.why(StoreError, self.store(server.url()).put(self.chunk))
        self.assertIn("status code 400", why)
        self.assertIn("not enabled <here>", why)
        self.assertNotIn("\n", why)

    async def test_forms_of_bodies(self) -> None:
        """Bodies come with a length, in pieces, or end with the connection; after a 100 too."""
        body = self.stored
        pieces = b"".join(b"%x\r\n%s\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"

        def to_the_end(peer: Peer, head: bytes) -> None:
            peer.say(b"HTTP/1.0 200 OK\r\n\r\n" + body)
            peer.hang_up()

        continued = b"HTTP/1.1 100 Continue\r\n\r\n" + response("200 OK", body)
        server = self.scripted(chunked, continued, to_the_end, response("200 OK", body))
        store = self.store(server.url(), n=1)
        for _ in range(4):
            chunk = await store.get(self.chunk.chunk_id)
            self.assertEqual(chunk.plain, self.chunk.plain)
        self.assertEqual(len(server.peers), 2)

    async def test_redirects(self) -> None:
        """Redirects are followed, without credentials to another server, but not for ever."""
        files = FileServer()
        self.addCleanup(files.stop)
        files.files["/else/where"] = self.stored
        server = self.scripted(
            response("302 Found", Location="/again?x=1"),
            response("307 Temporary Redirect", Location=files.url("/else/where", "localhost")),
        )
        store = self.store(server.url(), http_auth="Bearer secret")
        self.assertEqual((await store.get(self.chunk.chunk_id)).plain, self.chunk.plain)
        self.assertIn(b"GET /again?x=1 ", server.requests[1])
        self.assertIn(b"secret", server.requests[1])
        self.assertNotIn("authorization", files.headers)
        store = self.store(self.scripted(response("301 Moved", Location="/x")).url())
        why = await self.why(StoreRefused, store.get(self.chunk.chunk_id))
        self.assertIn("redirected more than 10 times", why)
        for nowhere in ("ftp://x/", "http://[", "http://:80/"):
            store = self.store(self.scripted(response("301 Moved", Location=nowhere)).url())
            await self.why(StoreRefused, store.get(self.chunk.chunk_id))

    async def test_connections(self) -> None:
        """There are as many connections as configured, and they are used again."""
        files = FileServer()
        self.addCleanup(files.stop)
        chunks = sample_chunks(40)
        form = form_named(".cacnk")
        for chunk in chunks:
            path = f"/{chunk_name(chunk.chunk_id, '.cacnk')}"
            files.files[path] = form.encode(chunk.plain)
        store = self.store(files.url(), n=3)
        got = await gatherResults([store.get(chunk.chunk_id) for chunk in chunks])
        self.assertEqual([one.plain for one in got], [one.plain for one in chunks])
        self.assertEqual(files.connections, 3)

    async def test_not_removable(self) -> None:
        """Nothing can be listed or removed over HTTP, and the store doesn't pretend."""
        self.assertFalse(IChunkRemover.providedBy(self.store("http://127.0.0.1:1/")))

    async def test_index(self) -> None:
        """An index is asked for again when the server failed, but not when it isn't there."""
        index = sample_index()
        server = self.scripted(
            response("500 Oops"), response("200 OK", index.to_bytes()), response("404 Not Found")
        )
        options = StoreOptions(error_retry=2, error_retry_base_interval=1)
        store = open_http_indexes(parse_location(server.url()), options, SHA512_256, reactor)
        self.addCleanup(store.close)
        found = await store.get_index("a b.caibx")
        self.assertEqual(found.to_bytes(), index.to_bytes())
        self.assertIn(b"GET /a%20b.caibx ", server.requests[1])
        await self.why(IndexMissing, store.get_index("x"))
        self.assertEqual(len(server.requests), 3)


class BadServerTests(Case):
    """Servers that fail on the way: one clear line, and nothing that hangs."""

    async def test_nobody_there(self) -> None:
        """A server that isn't there is said not to be."""
        server = FileServer()
        url = server.url()
        await server.stop()
        why = await self.why(StoreError, self.store(url).get(self.chunk.chunk_id))
        self.assertIn("Connection refused", why)
        why = await self.why(StoreError, self.store("http://x.invalid/").has(self.chunk.chunk_id))
        self.assertIn("no such host", why)

    async def test_cut_short(self) -> None:
        """A body that ends too soon, or a connection that breaks, is a failure of the store."""
        whole = response("200 OK", self.stored)
        for cut in (0, 5, 40, len(whole) - 1):
            for end in (Peer.hang_up, Peer.reset):

                def script(peer: Peer, head: bytes, cut: int = cut, end: Any = end) -> None:
                    peer.say(whole[:cut])
                    reactor.callLater(0.01, end, peer)

                store = self.store(self.scripted(script).url())
                why = await self.why(StoreError, store.get(self.chunk.chunk_id))
                self.assertIn("closed", why)

    async def test_let_go(self) -> None:
        """A kept connection that the server lets go just then is no failure."""
        good = response("200 OK", self.stored)
        server = self.scripted(good, lambda peer, head: peer.hang_up(), good)
        store = self.store(server.url(), n=1)
        for _ in range(2):
            self.assertEqual((await store.get(self.chunk.chunk_id)).plain, self.chunk.plain)
        self.assertEqual((len(server.peers), len(server.requests)), (2, 3))

    async def test_not_http(self) -> None:
        """What isn't HTTP, or has a head without end, is said to be so."""
        for said in (b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000):
            store = self.store(self.scripted(said).url(), error_retry=1)
            why = await self.why(StoreError, store.get(self.chunk.chunk_id))
            self.assertRegex(why, "not an HTTP response|too large|closed")

    async def test_stalled(self) -> None:
        """A server that says nothing more is given up after the time that is configured."""
        for said in (b"", b"HTTP/1.1 200 OK\r\n", response("200 OK", self.stored)[:-1]):
            store = self.store(self.scripted(said).url(), timeout=200_000_000)
            why = await self.why(StoreError, store.get(self.chunk.chunk_id))
            self.assertIn("no answer within 0.2 seconds", why)

    async def test_trickle(self) -> None:
        """One that goes on byte by byte for longer than that is given up too."""

        def script(peer: Peer, head: bytes) -> None:
            def more(left: bytes) -> None:
                self.trickling = bool(left) and not server.lost
                if self.trickling:
                    peer.say(left[:1])
                    reactor.callLater(0.02, more, left[1:])

            more(response("200 OK", self.stored))

        server = self.scripted(script)
        store = self.store(server.url(), timeout=300_000_000)
        why = await self.why(StoreError, store.get(self.chunk.chunk_id))
        self.assertIn("no answer within 0.3 seconds", why)
        await self.until(lambda: server.lost == 1)
        await self.until(lambda: not self.trickling)

    async def test_too_large(self) -> None:
        """A body is refused as soon as it is larger than any chunk, not after it has come."""

        def script(peer: Peer, head: bytes) -> None:
            peer.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

            def more() -> None:
                if not server.lost:
                    peer.say(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
                    reactor.callLater(0, more)

            more()

        server = self.scripted(script)
        store = self.store(server.url(), uncompressed=True)
        store._limit = 3 << 20
        await self.why(ChunkInvalid, store.get(self.chunk.chunk_id))
        await self.until(lambda: server.lost == 1)

    async def test_another_chunk(self) -> None:
        """Bytes that aren't the chunk are refused."""
        other = form_named(".cacnk").encode(b"something else")
        store = self.store(self.scripted(response("200 OK", other)).url())
        await self.why(ChunkInvalid, store.get(self.chunk.chunk_id))

    async def test_unasked(self) -> None:
        """What a server sends unasked is not taken for the next answer."""
        good = response("200 OK", self.stored)
        server = self.scripted(good + response("404 Not Found"), good)
        store = self.store(server.url(), n=1)
        for _ in range(2):
            self.assertEqual((await store.get(self.chunk.chunk_id)).plain, self.chunk.plain)
        self.assertEqual(len(server.peers), 2)

    async def test_cancel(self) -> None:
        """Cancelling ends the request, and others go on."""
        server = self.scripted(lambda peer, head: None, response("200 OK", self.stored))
        store = self.store(server.url(), n=1)
        first = store.get(self.chunk.chunk_id)
        second = store.get(self.chunk.chunk_id)
        reactor.callLater(0.05, first.cancel)
        await self.why(CancelledError, first)
        self.assertEqual((await second).plain, self.chunk.plain)

    async def test_close(self) -> None:
        """Closing ends what is under way, and what waits for its turn."""
        server = self.scripted(lambda peer, head: None)
        store = self.store(server.url(), n=1)
        waiting = [store.get(self.chunk.chunk_id) for _ in range(2)]
        for each in waiting:
            each.addErrback(lambda failure: failure)
        reactor.callLater(0.05, store.close)
        for each in waiting:
            try:
                await each
            except (StoreError, CancelledError):
                pass
            else:
                self.fail("it wasn't ended")


class BatchFallbackTests(Case):
    """Servers that know only the plain paths."""

    async def test_silent(self) -> None:
        """Whatever a server answers to a request for many, it is asked for each alone then."""
        chunks = sample_chunks(20)
        ids = ChunkIds.from_bytes(b"".join(chunk.chunk_id for chunk in chunks))
        for answer in (
            response("405 Method Not Allowed"),
            response("404 Not Found"),
            response("403 Forbidden"),
            response("501 Not Implemented"),
            response("200 OK", b"<html>welcome", Content_Type="text/html"),
            response("302 Found", Location="/login"),
        ):
            server = self.serving(chunks, answer)
            store = self.store(server.url())
            sink = CollectingSink()
            await store.get_many(ids, sink)
            self.assertEqual(sorted(sink.found), sorted(ids))
            self.assertEqual(len(await store.missing(ids)), 0)
            posts = [head for head in server.requests if head.startswith(b"POST")]
            self.assertEqual(len(posts), 1)

    async def test_failing(self) -> None:
        """A server that is failing isn't taken for one that doesn't offer it."""
        chunks = sample_chunks(3)
        ids = ChunkIds.from_bytes(b"".join(chunk.chunk_id for chunk in chunks))
        server = self.serving(chunks, response("503 Service Unavailable"))
        store = self.store(server.url())
        sink = CollectingSink()
        await store.get_many(ids, sink)
        self.assertEqual(sorted(sink.errors), sorted(ids))
        await self.why(StoreError, store.missing(ids))

    def serving(self, chunks: list[Chunk], to_post: bytes) -> ScriptedServer:
        """Start a server with chunks that answers every POST alike."""
        form = form_named(".cacnk")
        bodies = {
            f"/{chunk_name(chunk.chunk_id, '.cacnk')}": form.encode(chunk.plain) for chunk in chunks
        }

        def script(peer: Peer, head: bytes) -> None:
            method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
            if method == "POST":
                peer.say(to_post)
            elif method == "HEAD":
                peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            else:
                peer.say(response("200 OK", bodies[path]))

        server = ScriptedServer(script)
        self.addCleanup(server.stop)
        return server
