# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The server of a push, with a client that says what a test has it say."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.formats import protocol as p
from desync.formats.chunk import Chunk
from desync.formats.index import ITEM_SIZE, TABLE_START, Index, IndexBuilder
from desync.services.casync_offer import Offer
from desync.services.casync_push import PushSession
from desync.stores.memory import MemoryIndexStore, MemoryStore
from desync.testing.samples import sample_chunk
from desync.testing.threads import InlineThreads, ManualThreads

from .casync_link import connect

PUSH = 0xE00


def index_of(chunks: list[Chunk]) -> Index:
    """Make an index of chunks."""
    builder = IndexBuilder(ChunkSizes(1, 1 << 20, 1 << 21), SHA512_256)
    for chunk in chunks:
        builder.append(len(chunk.plain), chunk.chunk_id)
    return builder.finish()


class Client(Protocol):
    """Says what it is told to, and remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self._reader = p.MessageReader()

    def dataReceived(self, data: bytes) -> None:  # noqa: N802
        self.heard += self._reader.feed(data)

    def asked(self) -> list[bytes]:
        """Give the ids that it was asked for, in that order."""
        return [
            each for message in self.heard if isinstance(message, p.Request) for each in message.ids
        ]


class PushCase(SynchronousTestCase):
    """A test case with a server and a client."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.target = MemoryStore()
        self.indexes = MemoryIndexStore()
        self.ends = 0
        self.begin()

    def begin(self, flags: int = PUSH) -> None:
        """Begin a session."""
        offer = Offer(target=self.target, index_target=self.indexes, index_name="x.caibx")
        self.server = PushSession(offer, InlineThreads(), self.ended)
        self.client = Client()
        _, self.end = connect(self.clock, self.server, self.client)
        self.say(p.Hello(flags))

    def ended(self, session: PushSession) -> None:
        """Count the ends of a session."""
        self.ends += 1

    def say(self, *messages: p.Message) -> None:
        """Say something, and let everything happen that comes of it."""
        for message in messages:
            self.end.write(message.encode())
            self.settle()

    def settle(self) -> None:
        """Let everything happen."""
        for _ in range(100):
            self.clock.advance(0.001)

    def answer(self, *chunks: Chunk) -> None:
        """Send chunks."""
        self.say(*(p.ChunkData(each.chunk_id, each.plain, compressed=False) for each in chunks))


class EarlyTests(PushCase):
    """Chunks travel while the index still does."""

    def test_before_the_end(self) -> None:
        """What the store lacks is asked for as the index comes in, and stored."""
        chunks = [sample_chunk(number) for number in range(6)]
        self.target.put(chunks[1])
        data = index_of(chunks).to_bytes()
        half = TABLE_START + 3 * ITEM_SIZE + 20
        self.say(p.IndexData(data[:half]))
        self.assertEqual(self.client.asked(), [chunks[0].chunk_id, chunks[2].chunk_id])
        self.answer(chunks[2], chunks[0])
        self.assertTrue(self.successResultOf(self.target.has(chunks[2].chunk_id)))
        self.assertIsNone(self.indexes.stored("x.caibx"))
        self.say(p.IndexData(data[half:]), p.IndexEnd())
        self.answer(chunks[4], chunks[3])
        self.assertNotIn(p.Goodbye(), self.client.heard)
        self.answer(chunks[5])
        self.assertEqual(self.client.heard[-1], p.Goodbye())
        self.assertEqual(self.indexes.stored("x.caibx"), data)
        self.assertEqual((self.ends, self.server.outcome, self.server.chunks), (1, "complete", 5))

    def test_once(self) -> None:
        """A chunk that the index names again and again is asked for once, whenever that is."""
        chunks = [sample_chunk(number) for number in range(3)]
        data = index_of([chunks[0], chunks[0], chunks[1], chunks[0], chunks[2], chunks[1]])
        pieces = data.to_bytes()
        self.say(p.IndexData(pieces[:64]))
        for begin in range(64, len(pieces), 40):
            self.say(p.IndexData(pieces[begin : begin + 40]))
            if begin == 64 + 40 * 2:
                self.answer(chunks[0])
        self.say(p.IndexEnd())
        self.assertEqual(self.client.asked(), [each.chunk_id for each in chunks])
        self.answer(chunks[1], chunks[2])
        self.assertEqual(self.client.heard[-1], p.Goodbye())

    def test_bounded(self) -> None:
        """Of a long index only some chunks are asked for at a time."""
        chunks = [sample_chunk(number, 20) for number in range(2000)]
        index = index_of(chunks)
        self.say(p.IndexData(index.to_bytes()), p.IndexEnd())
        self.assertEqual(len(self.client.asked()), 512)
        self.answer(*chunks[:200])
        self.assertEqual(len(self.client.asked()), 512)
        self.answer(*chunks[200:300])
        self.assertLessEqual(len(self.client.asked()), 812)
        self.assertGreater(len(self.client.asked()), 512)
        for begin in range(300, 2000, 100):
            self.answer(*chunks[begin : begin + 100])
        self.assertEqual(self.client.heard[-1], p.Goodbye())
        self.assertEqual(self.server.chunks, 2000)

    def test_slow_store(self) -> None:
        """While the store looks, what comes in isn't lost, and nothing is asked for twice."""
        looks: list[tuple[Any, Deferred[Any]]] = []
        missing = self.target.missing

        def slow(ids: Any) -> Deferred[Any]:
            waiting: Deferred[Any] = Deferred()
            looks.append((ids, waiting))
            return waiting

        self.patch(self.target, "renew_many", slow)
        self.patch(self.target, "missing", slow)
        chunks = [sample_chunk(number) for number in range(3)]
        data = index_of([*chunks, *chunks]).to_bytes()
        self.say(p.IndexData(data[:110]))
        self.assertEqual(len(looks), 1)
        self.say(p.IndexData(data[110:]), p.IndexEnd())
        self.assertEqual(len(looks), 1)
        while looks:
            ids, waiting = looks.pop()
            waiting.callback(self.successResultOf(missing(ids)))
            self.settle()
        self.assertEqual(self.client.asked(), [each.chunk_id for each in chunks])
        self.answer(*chunks)
        self.assertEqual(self.client.heard[-1], p.Goodbye())


class BadClientTests(PushCase):
    """Clients that do what they shouldn't."""

    def refused(self, code: int, outcome: str) -> None:
        """Make sure that the session has ended with an error number, and left nothing."""
        self.assertIsInstance(self.client.heard[-1], p.Abort)
        self.assertEqual(self.client.heard[-1].code, code)
        self.assertEqual((self.ends, self.server.outcome), (1, outcome))
        self.assertIsNone(self.indexes.stored("x.caibx"))

    def test_no_index(self) -> None:
        """What can't become an index is refused at once, before any more of it is read."""
        self.say(p.IndexData(b"GET / HTTP/1.1\r\n" * 4))
        self.refused(p.EBADMSG, "wrong")

    def test_bad_item(self) -> None:
        """So is an index with a chunk that can't be, before its end."""
        data = bytearray(index_of([sample_chunk(0), sample_chunk(1)]).to_bytes())
        data[TABLE_START + ITEM_SIZE] = 0xFF
        data[TABLE_START + ITEM_SIZE + 7] = 0xFF
        self.say(p.IndexData(bytes(data)))
        self.refused(p.EBADMSG, "wrong")

    def test_truncated_index(self) -> None:
        """An index that ends too early is refused at its end."""
        self.target.put(sample_chunk(0))
        self.say(p.IndexData(index_of([sample_chunk(0)]).to_bytes()[:-1]), p.IndexEnd())
        self.refused(p.EBADMSG, "wrong")

    def test_missing(self) -> None:
        """A client that lacks a chunk of its own index gets no index installed."""
        self.say(p.IndexData(index_of([sample_chunk(0)]).to_bytes()))
        self.say(p.Missing(sample_chunk(0).chunk_id))
        self.refused(p.ENOENT, "missing")

    def test_wrong_chunk(self) -> None:
        """A wrong chunk under an id isn't stored, nor is anything after it."""
        chunk, other = sample_chunk(0), sample_chunk(1)
        self.say(p.IndexData(index_of([chunk, other]).to_bytes()), p.IndexEnd())
        self.say(p.ChunkData(chunk.chunk_id, other.plain, compressed=False))
        self.refused(p.EBADMSG, "wrong")
        self.assertEqual(self.server.invalid, 1)
        self.answer(other)
        for each in (chunk, other):
            self.assertFalse(self.successResultOf(self.target.has(each.chunk_id)))

    def test_never_asked_for(self) -> None:
        """A chunk that nobody asked for, or one a second time, ends the session."""
        self.answer(sample_chunk(0))
        self.refused(p.EBADMSG, "wrong")
        self.ends = 0
        self.begin()
        self.say(p.IndexData(index_of([sample_chunk(0), sample_chunk(1)]).to_bytes()))
        self.answer(sample_chunk(0), sample_chunk(0))
        self.refused(p.EBADMSG, "wrong")

    def test_index_alone(self) -> None:
        """An index that comes alone for a store takes its place only if the store has it all."""
        data = index_of([sample_chunk(0)]).to_bytes()
        self.begin(0x400)
        self.say(p.IndexData(data), p.IndexEnd())
        self.refused(p.ENOENT, "missing")
        self.target.put(sample_chunk(0))
        self.begin(0x400)
        self.say(p.IndexData(data), p.IndexEnd())
        self.assertEqual(self.client.heard[-1], p.Goodbye())
        self.assertEqual(self.indexes.stored("x.caibx"), data)

    def test_archive_under_way(self) -> None:
        """An archive of which only a part comes leaves nothing, once the session has settled."""
        self.end.loseConnection()
        self.settle()
        folder = self.mktemp()
        os.mkdir(folder)
        for said in ([], [p.ArchiveData(b"begun")]):
            offer = Offer(archive_target=os.path.join(folder, "x.catar"))
            self.server = PushSession(offer, InlineThreads(), self.ended)
            _, self.end = connect(self.clock, self.server, Client())
            self.say(p.Hello(0x1000), *said)
            self.assertEqual(len(os.listdir(folder)), 1)
            self.end.loseConnection()
            self.settle()
            self.successResultOf(Deferred.fromCoroutine(self.server.settled()))
            self.assertEqual(os.listdir(folder), [])

    def test_archive_barely_begun(self) -> None:
        """A client that leaves while its archive's file is being made leaves nothing either."""
        folder = self.mktemp()
        os.mkdir(folder)
        threads = ManualThreads()
        offer = Offer(archive_target=os.path.join(folder, "x.catar"))
        self.server = PushSession(offer, threads, self.ended)
        _, self.end = connect(self.clock, self.server, Client())
        self.say(p.Hello(0x1000))
        self.end.loseConnection()
        self.settle()
        settled = Deferred.fromCoroutine(self.server.settled())
        self.assertNoResult(settled)
        while threads.waiting:
            threads.advance()
        self.successResultOf(settled)
        self.assertEqual(os.listdir(folder), [])

    def test_leaves(self) -> None:
        """A client that leaves while chunks are owed leaves what was stored, and no index."""
        chunks = [sample_chunk(0), sample_chunk(1)]
        self.say(p.IndexData(index_of(chunks).to_bytes()), p.IndexEnd())
        self.answer(chunks[0])
        self.end.loseConnection()
        self.settle()
        self.assertEqual((self.ends, self.server.outcome), (1, "left"))
        self.assertIsNone(self.indexes.stored("x.caibx"))
        self.assertTrue(self.successResultOf(self.target.has(chunks[0].chunk_id)))

    def test_gives_up(self) -> None:
        """One that says that it gives up is believed."""
        self.say(p.IndexData(index_of([sample_chunk(0)]).to_bytes()), p.Abort(5, "disk"))
        self.assertEqual((self.ends, self.server.outcome), (1, "gave up"))
