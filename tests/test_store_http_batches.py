# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Many chunks in one request: from a chunk server of ours, and retried where a server fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from desync.chunking.digests import SHA256, SHA512_256
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.protocol import ChunkData, Goodbye
from desync.formats.stored import Compressed, chunk_name
from desync.options import StoreOptions
from desync.services.chunk_site import ChunkSite
from desync.services.counters import Counters
from desync.services.metering import Troubles
from desync.services.server import Server
from desync.stores.http import HTTPChunkStore, open_http
from desync.stores.location import parse_location
from desync.stores.memory import MemoryStore
from desync.stores.reloading import Reloading
from desync.stores.retry import retrying
from desync.stores.threads import StoreThreads
from desync.testing.batch_contract import BatchContract, ids_of
from desync.testing.contract import SourceContract, StoreContract, TargetContract
from desync.testing.samples import sample_chunks
from desync.testing.sinks import CollectingSink
from tests.web_server import Peer, ScriptedServer, reactor, response

CHUNKS = "application/vnd.desync.chunks"
IDS = "application/vnd.desync.ids"


class OnChunkServer(StoreContract):
    """A store on a chunk server of ours, which takes many ids at once."""

    renews = False

    def make_store(self) -> HTTPChunkStore:
        self.memory = MemoryStore(extension=self.extension, digest=self.digest, skip_verify=True)
        below = Reloading(self.memory)
        threads = StoreThreads(reactor)
        self.addCleanup(threads.stop)
        site = ChunkSite(
            below,
            below,
            threads,
            Counters(),
            Troubles(lambda: 0),
            extension=self.extension,
            digest=self.digest,
            writable=True,
        )
        self.server: Any = Server(site, reactor)
        self.asked: list[bytes] = []
        admit = site.admit

        def count(exchange: Any) -> None:
            self.asked.append(exchange.method + b" " + exchange.path)
            admit(exchange)

        site.admit = count  # type: ignore[method-assign]
        self.port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(self.stop)
        location = parse_location(f"http://127.0.0.1:{self.port.getHost().port}/")
        options = StoreOptions(uncompressed=not self.extension)
        return open_http(location, options, self.digest, reactor)

    def stop(self) -> Deferred[None]:
        """Stop the server, whose connections the store has closed by now."""

        async def stop() -> None:
            await self.port.stopListening()
            while self.server.connections:
                await deferLater(reactor, 0.01)
            self.server.stopFactory()

        return Deferred.fromCoroutine(stop())

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.memory.plant(chunk_id, stored, extension)

    def bad_forms(self, chunk: Chunk) -> dict[str, bytes]:
        """Leave out no bytes at all, which the server says itself that it doesn't take."""
        bad = super().bad_forms(chunk)
        del bad["nothing"]
        return bad


class ChunkServerTests(OnChunkServer, SourceContract, TargetContract, BatchContract, TestCase):
    """The contracts, on a chunk server of ours."""

    async def test_requests(self) -> None:
        """Many chunks are one request, and so is the question which of them are missing."""
        chunks = sample_chunks(60)
        self.hold(*chunks[:50])
        missing = await self.store.missing(ids_of(*chunks))
        self.assertEqual(missing, ids_of(*chunks[50:]).sorted_unique())
        sink = CollectingSink()
        await self.store.get_many(ids_of(*chunks), sink)
        self.check(sink, chunks[:50])
        self.assertEqual(self.asked, [b"POST /missing", b"POST /chunks"])

    async def test_many_requests(self) -> None:
        """More ids than one request takes are divided."""
        ids = ChunkIds.from_iterable(number.to_bytes(32, "big") for number in range(9000))
        sink = CollectingSink()
        await self.store.get_many(ids, sink)
        self.assertEqual(len(sink.missing), 9000)
        self.assertEqual(await self.store.missing(ids), ids)
        self.assertEqual(set(self.asked), {b"POST /chunks", b"POST /missing"})
        self.assertLess(len(self.asked), 30)


class ChunkServerUncompressedTests(
    OnChunkServer, SourceContract, TargetContract, BatchContract, TestCase
):
    """The same with chunks as they are, and the other digest."""

    extension = ""
    digest = SHA256


class FailingTests(TestCase):
    """Servers that fail in the middle of an answer with many chunks."""

    timeout = 60.0

    long_head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {CHUNKS}\r\nContent-Length: 99999999\r\n\r\n".encode()
    )

    def setUp(self) -> None:
        self.chunks = sample_chunks(12)
        self.stored = {c.chunk_id: Compressed().encode(c.plain) for c in self.chunks}
        self.ids = ids_of(*self.chunks)
        self.singles = 0

    def frames(self, *chunks: Chunk) -> bytes:
        """Write down chunks as they are sent."""
        return b"".join(ChunkData(c.chunk_id, self.stored[c.chunk_id]).encode() for c in chunks)

    def start(self, *answers: bytes | Callable[[Peer], object]) -> ScriptedServer:
        """Start a server with answers to the first requests for many; then it answers all."""
        left = list(answers)
        names = {f"/{chunk_name(i, '.cacnk')}".encode(): s for i, s in self.stored.items()}

        def script(peer: Peer, head: bytes) -> None:
            if head.startswith(b"POST"):
                wanted = [chunk for chunk in self.chunks if chunk.chunk_id in peer.body]
                frames = self.frames(*wanted) + Goodbye().encode()
                whole = response("200 OK", frames, Content_Type=CHUNKS)
                answer = left.pop(0) if left else whole
                if callable(answer):
                    answer(peer)
                else:
                    peer.say(answer)
                return
            self.singles += 1
            stored = names.get(head.split()[1])
            peer.say(response("404 No") if stored is None else response("200 OK", stored))

        server = ScriptedServer(script)
        self.addCleanup(server.stop)
        return server

    async def fetch(
        self, server: ScriptedServer, attempts: int = 1, timeout: int = 0
    ) -> CollectingSink:
        """Ask for all chunks, so many times at most."""
        options = StoreOptions(n=2, timeout=timeout)
        store = open_http(parse_location(server.url()), options, SHA512_256, reactor)
        self.addCleanup(store.close)
        layer: Any = retrying(store, reactor, attempts, 0.01)
        sink = CollectingSink()
        await layer.get_many(self.ids, sink)
        self.assertEqual(sink.violations, [])
        for chunk in self.chunks:
            if chunk.chunk_id in sink.found:
                self.assertEqual(sink.found[chunk.chunk_id].plain, chunk.plain)
        return sink

    async def test_stalled(self) -> None:
        """A server that stops in the middle is given up after the time for a request."""
        begin = self.long_head + self.frames(*self.chunks[:6])
        server = self.start(lambda peer: peer.say(begin))
        sink = await self.fetch(server, timeout=500_000_000)
        self.assertEqual((len(sink.found), len(sink.errors)), (6, 6))
        self.assertIn("0.5 seconds", str(next(iter(sink.errors.values()))))

    async def test_reset(self) -> None:
        """A connection that is reset in the middle fails what hasn't come; then it is had."""

        def answer(peer: Peer) -> None:
            peer.say(self.long_head + self.frames(*self.chunks[:6]))
            reactor.callLater(0.1, peer.reset)

        sink = await self.fetch(self.start(answer), 2)
        self.assertEqual((len(sink.found), len(sink.errors)), (12, 0))
        self.assertEqual(self.singles, 0)

    async def test_not_now(self) -> None:
        """A server at its limits is asked again, and for many at once again."""
        for status in "503 Busy", "429 Slowly", "500 Oh":
            sink = await self.fetch(self.start(response(status)), 2)
            self.assertEqual((len(sink.found), self.singles), (12, 0))
