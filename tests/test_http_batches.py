# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Many chunks in one request: what the client makes of the answers, good and bad."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkInvalid, StoreError
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.protocol import ChunkData, Goodbye, IndexEnd, Missing
from desync.formats.stored import chunk_name, form_named
from desync.options import StoreOptions
from desync.stores import http_batches
from desync.stores.http import HTTPChunkStore, open_http
from desync.stores.location import parse_location
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink
from tests.web_server import Peer, ScriptedServer, reactor, response


def ids_of(chunks: list[Chunk]) -> ChunkIds:
    """Pack the ids of chunks."""
    return ChunkIds.from_iterable(chunk.chunk_id for chunk in chunks)


def _always(answer: bytes, ids: list[bytes]) -> bytes:
    return answer


class BatchServer:
    """
    A server that answers requests for many chunks, and for single ones.

    :param answer: makes the body of the answer from the chunks' ids; None to hang up.
    :ivar asked: the ids of each request for many.
    """

    def __init__(self, chunks: list[Chunk], answer: Callable[[list[bytes]], bytes | None]) -> None:
        form = form_named(".cacnk")
        self.stored = {chunk.chunk_id: form.encode(chunk.plain) for chunk in chunks}
        self.answer = answer
        self.asked: list[list[bytes]] = []
        self.singles: list[str] = []
        self.server = ScriptedServer(self.script)

    def script(self, peer: Peer, head: bytes) -> None:
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
        if method != "POST":
            self.singles.append(path)
            for chunk_id, stored in self.stored.items():
                if path == f"/{chunk_name(chunk_id, '.cacnk')}":
                    peer.say(response("200 OK", stored))
                    return
            peer.say(response("404 Not Found"))
            return
        body = peer.body
        asked = [body[at : at + 32] for at in range(0, len(body), 32)]
        self.asked.append(asked)
        answer = self.answer(asked)
        if answer is None:
            peer.hang_up()
            return
        kind = "chunks" if path == "/chunks" else "ids"
        peer.say(response("200 OK", answer, Content_Type=f"application/vnd.desync.{kind}"))

    def frames(self, ids: list[bytes]) -> bytes:
        """Answer as a good server does, without the goodbye."""
        return b"".join(
            ChunkData(each, self.stored[each]).encode()
            if each in self.stored
            else Missing(each).encode()
            for each in ids
        )


class Case(TestCase):
    """A server, and a store on it."""

    timeout = 60.0

    def setUp(self) -> None:
        self.chunks = sample_chunks(30)
        self.sink = CollectingSink()

    def store(
        self, answer: Callable[[list[bytes]], bytes | None], chunks: list[Chunk] | None = None
    ) -> HTTPChunkStore:
        held = self.chunks if chunks is None else chunks
        self.server = BatchServer(held, answer)
        self.addCleanup(self.server.server.stop)
        location = parse_location(self.server.server.url())
        store = open_http(location, StoreOptions(n=4), SHA512_256, reactor)
        self.addCleanup(store.close)
        return store

    def good(self, ids: list[bytes]) -> bytes:
        return self.server.frames(ids) + Goodbye().encode()

    async def fails(self, waiting: Deferred[Any]) -> str:
        """Make sure that something fails as a store does, and give the error's text."""
        try:
            await waiting
        except StoreError as error:
            return str(error)
        raise AssertionError("it didn't fail")


class AnswerTests(Case):
    """Answers, and what comes of them."""

    async def test_many(self) -> None:
        """Chunks come in requests of a bounded number of ids; those that are missing are told."""
        self.patch(http_batches, "_IDS", 8)
        store = self.store(self.good, self.chunks[:25])
        await store.get_many(ids_of(self.chunks), self.sink)
        self.assertEqual(self.sink.violations, [])
        self.assertEqual(set(self.sink.found), set(ids_of(self.chunks[:25])))
        self.assertEqual(set(self.sink.missing), set(ids_of(self.chunks[25:])))
        self.assertTrue(all(chunk.verified for chunk in self.sink.found.values()))
        self.assertEqual(sorted(map(len, self.server.asked)), [6, 8, 8, 8])
        self.assertEqual(self.server.singles, [])

    async def test_missing(self) -> None:
        """Which chunks a server lacks is one request too."""
        lacking = sorted(ids_of(self.chunks[:7]))
        store = self.store(lambda ids: b"".join(lacking))
        self.assertEqual(list(await store.missing(ids_of(self.chunks))), lacking)
        self.assertEqual(len(self.server.asked), 1)

    async def test_left_out(self) -> None:
        """What the answer leaves out is asked for alone, which says what is wrong with it."""
        store = self.store(lambda ids: self.server.frames(ids[:-2]) + Goodbye().encode())
        await store.get_many(ids_of(self.chunks), self.sink)
        self.assertEqual(set(self.sink.found), set(ids_of(self.chunks)))
        self.assertEqual(len(self.server.singles), 2)

    async def test_too_much_at_the_end(self) -> None:
        """A connection whose reading was stopped when the answer ended can be used again."""
        self.patch(http_batches, "_FULL", 0)
        self.patch(http_batches, "_ROOM", 1)
        self.patch(http_batches, "_IDS", 4)
        self.patch(http_batches, "_WIDTH", 1)
        store = self.store(self.good)
        await store.get_many(ids_of(self.chunks), self.sink)
        self.assertEqual(set(self.sink.found), set(ids_of(self.chunks)))
        self.assertEqual(len(self.server.server.peers), 1)

    async def test_back_pressure(self) -> None:
        """While the sink is busy no more is read than there is room for."""
        self.patch(http_batches, "_FULL", 1 << 20)
        self.patch(http_batches, "_ROOM", 1 << 19)
        self.patch(http_batches, "_CHECKED_COUNT", 4)
        chunks = [sample_chunk(number, 200_000) for number in range(100)]
        store = self.store(self.good, chunks)
        held: list[Deferred[None]] = []

        def busy(batch: Any) -> Deferred[None]:
            held.append(Deferred())
            reactor.callLater(0.01, held[-1].callback, None)
            return held[-1]

        sink = CollectingSink(busy)
        await store.get_many(ids_of(chunks), sink)
        self.assertEqual(sink.violations, [])
        self.assertEqual(len(sink.found), 100)

    async def test_cancel(self) -> None:
        """Cancelling breaks the connection off, and nothing reaches the sink afterwards."""
        store = self.store(lambda ids: b"")
        self.server.server.script = lambda peer, head: peer.say(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.desync.chunks\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        transfer = store.get_many(ids_of(self.chunks), self.sink)
        reactor.callLater(0.1, transfer.cancel)
        try:
            await transfer
        except CancelledError:
            pass
        else:
            self.fail("it wasn't canceled")
        self.assertEqual(self.sink.calls, 0)


class BadAnswerTests(Case):
    """Answers that can't be: the chunks that came are good, the others failed."""

    async def check(
        self, answer: Callable[[list[bytes]], bytes | None], why: str, least: int = 0
    ) -> None:
        store = self.store(self.good)
        await store.get_many(ids_of(self.chunks[:2]), CollectingSink())
        self.server.answer = answer
        await store.get_many(ids_of(self.chunks), self.sink)
        self.assertEqual(self.sink.violations, [])
        ended = set(self.sink.found) | set(self.sink.errors) | set(self.sink.missing)
        self.assertEqual(ended, set(ids_of(self.chunks)))
        self.assertGreaterEqual(len(self.sink.found), least)
        self.assertTrue(self.sink.errors)
        for error in self.sink.errors.values():
            self.assertIn(why, str(error))

    async def test_cut_short(self) -> None:
        """An answer without its goodbye was cut short, even where a frame ends."""
        await self.check(lambda ids: self.server.frames(ids[:-3]), "before its goodbye", 27)

    async def test_closed(self) -> None:
        """A connection that is closed instead of an answer."""
        await self.check(lambda ids: None, "closed")

    async def test_garbage(self) -> None:
        """What isn't frames."""
        await self.check(lambda ids: b"<html>" * 100, "unknown type")

    async def test_unasked(self) -> None:
        """A chunk that nobody asked for, one that comes twice, and what isn't a chunk."""
        await self.check(
            lambda ids: self.server.frames(ids[:3] + ids[:1]) + Goodbye().encode(), "second time"
        )
        self.sink = CollectingSink()
        await self.check(lambda ids: Missing(bytes(32)).encode(), "nobody asked for")
        self.sink = CollectingSink()
        await self.check(lambda ids: IndexEnd().encode(), "IndexEnd")
        self.sink = CollectingSink()
        await self.check(
            lambda ids: Goodbye().encode() + self.server.frames(ids[:1]), "after the goodbye"
        )

    async def test_wrong_bytes(self) -> None:
        """A frame whose bytes aren't the chunk: that one is invalid, the others are fine."""
        store = self.store(self.good)
        wrong = self.chunks[3].chunk_id
        self.server.stored[wrong] = self.server.stored[self.chunks[4].chunk_id]
        await store.get_many(ids_of(self.chunks), self.sink)
        self.assertEqual(len(self.sink.found), 29)
        self.assertIsInstance(self.sink.errors[wrong], ChunkInvalid)

    async def test_missing(self) -> None:
        """Answers about presence that can't be."""
        for answer in (bytes(32), bytes(31), bytes(64 * 32)):
            store = self.store(self.good)
            self.server.answer = functools.partial(_always, answer)
            await self.fails(store.missing(ids_of(self.chunks[:5])))
