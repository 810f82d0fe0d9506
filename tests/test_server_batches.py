# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Many chunks in one request to a chunk server."""

from __future__ import annotations

import os
from typing import Any

from desync.errors import ChunkInvalid, StoreError
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.protocol import ChunkData, Goodbye, Message, MessageReader, Missing
from desync.formats.stored import Compressed
from desync.services import near_files as near_files_module
from desync.services.chunk_batches import MOST_IDS
from desync.stores.cache import Cache
from desync.stores.local import LocalStore
from desync.stores.memory import MemoryStore
from desync.testing.batch_contract import ids_of
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.stores import ScriptedStore
from desync.testing.threads import InlineThreads
from tests.server_wire import Answer, Wire, request
from tests.test_server_chunks import Case, path_of

IDS = "application/vnd.desync.ids"
CHUNKS = "application/vnd.desync.chunks"


class BatchCase(Case):
    """A server, some chunks, and requests for them."""

    def setUp(self) -> None:
        super().setUp()
        self.chunks = sample_chunks(6)

    def post(self, wire: Wire, what: str, ids: bytes) -> Answer:
        return wire.ask("POST", f"/{what}", ids, Content_Type=IDS)

    def messages(self, answer: Answer) -> list[Message]:
        self.assertEqual((answer.code, answer.headers["Content-Type"]), (200, CHUNKS))
        reader = MessageReader()
        messages = reader.feed(answer.body)
        self.assertFalse(reader.pending)
        return messages

    def local_store(self, **more: Any) -> LocalStore:
        self.files = self.local(**more)
        return LocalStore(self.files, None, InlineThreads())  # type: ignore[arg-type]


class GetManyTests(BatchCase):
    """``POST chunks``."""

    def test_chunks(self) -> None:
        """Each id is answered once, with the chunk or that it is missing; then comes the end."""
        wire = self.serve(MemoryStore(self.chunks[:4]))
        ids = ids_of(*self.chunks, self.chunks[0], self.chunks[5]).to_bytes()
        *messages, end = self.messages(self.post(wire, "chunks", ids))
        self.assertEqual(end, Goodbye())
        found = {m.chunk_id: m for m in messages if isinstance(m, ChunkData)}
        absent = [m.chunk_id for m in messages if isinstance(m, Missing)]
        self.assertEqual(len(messages), 6)
        self.assertEqual(set(absent), set(ids_of(*self.chunks[4:])))
        for chunk in self.chunks[:4]:
            message = found[chunk.chunk_id]
            self.assertTrue(message.compressed)
            self.assertEqual(Compressed().decode(message.data, 1 << 20), chunk.plain)
        self.assertEqual(wire.ask("GET", path_of(self.chunks[0])).code, 200)

    def test_uncompressed(self) -> None:
        """A server of uncompressed chunks sends these so."""
        wire = self.serve(MemoryStore(self.chunks), extension="")
        answer = self.post(wire, "chunks", self.chunks[0].chunk_id)
        expected = ChunkData(self.chunks[0].chunk_id, self.chunks[0].plain, False)
        self.assertEqual(self.messages(answer), [expected, Goodbye()])

    def test_files(self) -> None:
        """Files come as they are, read at once or not, those that are missing as such."""
        store = self.local_store(skip_verify=True)
        for number, chunk in enumerate(self.chunks[:5]):
            self.files.put(chunk.chunk_id, b"stored %d" % number)
        for flag in (near_files_module._NO_WAIT, None):
            self.patch(near_files_module, "_NO_WAIT", flag)
            wire = self.serve(store)
            ids = ids_of(*self.chunks).to_bytes()
            messages = self.messages(self.post(wire, "chunks", ids))
            data = sorted(m.data for m in messages if isinstance(m, ChunkData))
            self.assertEqual(data, [b"stored %d" % number for number in range(5)])
            self.assertIn(Missing(self.chunks[5].chunk_id), messages)

    def test_cache(self) -> None:
        """What the cache lacks comes from upstream, in one request, and is in the cache then."""
        upstream = ScriptedStore(MemoryStore(self.chunks))
        wire = self.serve(Cache(upstream, self.local_store(skip_verify=True)))
        self.files.put_chunk(self.chunks[0])
        for times in (1, 1):
            messages = self.messages(self.post(wire, "chunks", ids_of(*self.chunks).to_bytes()))
            self.assertEqual(sum(isinstance(m, ChunkData) for m in messages), 6)
            self.assertEqual([name for name, _ in upstream.calls], ["get_many"] * times)

    def test_failures(self) -> None:
        """Chunks that can't be had get no frame; the operator learns why."""
        inner = ScriptedStore(MemoryStore(self.chunks))
        ids = [chunk.chunk_id for chunk in self.chunks]
        inner.failing = {
            ids[1]: [ChunkInvalid(ids[1], "wrong", "/secret")],
            ids[2]: [StoreError("/secret", "Permission denied")],
        }
        wire = self.serve(inner)
        answer = self.post(wire, "chunks", ids_of(*self.chunks).to_bytes())
        messages = self.messages(answer)
        self.assertEqual(messages[-1], Goodbye())
        answered = {m.chunk_id for m in messages if isinstance(m, ChunkData)}
        self.assertEqual(answered, {*ids} - {ids[1], ids[2]})
        self.assertEqual(len(self.troubles.latest()), 2)
        self.assertNotIn(b"secret", answer.body)

    def test_store_breaks(self) -> None:
        """If the store breaks off, what it had handed over and an end come, and nothing more."""
        inner = ScriptedStore(MemoryStore(self.chunks))
        inner.fail_next(StoreError("up", "reset"), after=2)
        wire = self.serve(inner)
        messages = self.messages(self.post(wire, "chunks", ids_of(*self.chunks).to_bytes()))
        self.assertEqual((len(messages), messages[-1]), (3, Goodbye()))

    def ask_stuck(self, chunks: list[Chunk]) -> Wire:
        """Put files of chunks there, and ask for them as a client that doesn't read."""
        store = self.local_store(skip_verify=True)
        for chunk in chunks:
            self.files.put(chunk.chunk_id, chunk.plain)
        wire = self.serve(store)
        wire.transport.stuck = True
        wire.send(request("POST", "/chunks", ids_of(*chunks).to_bytes(), Content_Type=IDS))
        return wire

    def test_pauses(self) -> None:
        """A client that doesn't read isn't sent more than a little."""
        chunks = [sample_chunk(number, 300_000) for number in range(10)]
        wire = self.ask_stuck(chunks)
        self.assertLess(len(wire.transport.value()), 1_000_000)
        self.assertEqual(len(wire.server.active), 1)
        wire.transport.drain()
        [answer] = wire.answers()
        self.assertEqual(len(self.messages(answer)), 11)

    def test_little_by_little(self) -> None:
        """One that takes little at a time is sent all of it, though nothing is held for it."""
        chunks = [sample_chunk(number, 300_000) for number in range(10)]
        wire = self.ask_stuck(chunks)
        sent = 0
        while wire.server.active:
            now = len(wire.transport.value())
            self.assertTrue(0 < now - sent < 100_000, now - sent)
            sent = now
            wire.connection.resumeProducing()
        self.assertEqual(wire.server.room.held, 0)
        [answer] = wire.answers()
        found = {each.chunk_id: each.data for each in self.messages(answer)[:-1]}  # type: ignore[union-attr]
        self.assertEqual(found, {chunk.chunk_id: chunk.plain for chunk in chunks})

    def test_file_changes(self) -> None:
        """If a file is another one by the time that the rest of it is sent, that breaks off."""
        store = self.local_store(skip_verify=True)
        chunk = sample_chunk(1, 300_000)
        self.files.put(chunk.chunk_id, chunk.plain)
        for change in (self.replace, os.unlink):
            wire = self.serve(store)
            wire.transport.stuck = True
            wire.send(request("POST", "/chunks", ids_of(chunk).to_bytes(), Content_Type=IDS))
            wire.connection.resumeProducing()
            change(self.files.path_of(chunk.chunk_id))
            wire.transport.drain()
            self.assertTrue(wire.transport.aborted)
            self.assertEqual(len(wire.server.active), 0)

    def replace(self, path: str) -> None:
        """Put another file in the place of one."""
        with open(path + ".new", "wb") as file:
            file.write(bytes(400_000))
        os.replace(path + ".new", path)

    def test_client_leaves(self) -> None:
        """The transfer ends when the client leaves."""
        inner = ScriptedStore(MemoryStore(self.chunks))
        inner.hold()
        wire = self.serve(inner)
        wire.send(request("POST", "/chunks", ids_of(*self.chunks).to_bytes(), Content_Type=IDS))
        wire.transport.loseConnection()
        self.assertEqual(inner.canceled, ["get_many"])
        self.assertEqual(len(wire.server.active), 0)


class MissingTests(BatchCase):
    """``POST missing``."""

    def test_missing(self) -> None:
        """The ids that the store lacks come back, sorted, each once."""
        wire = self.serve(MemoryStore(self.chunks[:2]))
        answer = self.post(wire, "missing", ids_of(*self.chunks, *self.chunks).to_bytes())
        self.assertEqual((answer.code, answer.headers["Content-Type"]), (200, IDS))
        self.assertEqual(answer.body, b"".join(sorted(ids_of(*self.chunks[2:]))))
        self.assertEqual(self.post(wire, "missing", self.chunks[0].chunk_id).body, b"")

    def test_renews(self) -> None:
        """On a server that takes chunks, those that are there become young."""
        store = self.local_store()
        self.files.put_chunk(self.chunks[0])
        path = self.files.path_of(self.chunks[0].chunk_id)
        os.utime(path, (1000, 1000))
        wire = self.serve(store, writable=True)
        answer = self.post(wire, "missing", ids_of(*self.chunks[:2]).to_bytes())
        self.assertEqual(answer.body, self.chunks[1].chunk_id)
        self.assertGreater(os.stat(path).st_mtime, 1000)

    def test_failure(self) -> None:
        """A store that can't tell is 500."""
        inner = ScriptedStore(MemoryStore())
        inner.fail_next(StoreError("/secret", "broken"))
        answer = self.post(self.serve(inner), "missing", bytes(32))
        self.assert_said(answer, 500, "internal server error\n")


class BadBatchTests(BatchCase):
    """What is no request for many chunks."""

    def test_bad(self) -> None:
        """It is answered as the protocol says, on both paths."""
        inner = ScriptedStore(MemoryStore())
        wire = self.serve(inner)
        for path in ("/chunks", "/missing"):
            for method, body, kind, code in (
                ("POST", b"", IDS, 400),
                ("POST", bytes(31), IDS, 400),
                ("POST", bytes(33), IDS, 400),
                ("POST", bytes(32), "text/plain", 415),
                ("POST", bytes(32), "", 415),
                ("PUT", bytes(32), IDS, 405),
                ("GET", None, IDS, 405),
                ("POST", bytes(32 * MOST_IDS + 32), IDS, 413),
            ):
                if wire.is_closed:
                    wire.connect()
                answer = wire.ask(method, path, body, Content_Type=kind)
                self.assertEqual(answer.code, code, (method, path, kind))
            wire.connect()
            wire.send(request("POST", path, Transfer_Encoding="chunked", Content_Type=IDS))
            self.assertEqual(wire.answers()[0].code, 411)
            wire.connect()
        self.assertEqual(inner.calls, [])
        answer = wire.ask("POST", "/chunks", bytes(32), Content_Type=f"{IDS}; a=b")
        self.assertEqual(answer.code, 200)

    def test_most(self) -> None:
        """As many ids as may be in one request are answered."""
        wire = self.serve(MemoryStore(self.chunks))
        many = b"".join(number.to_bytes(32, "big") for number in range(MOST_IDS))
        self.assertEqual(len(self.messages(self.post(wire, "chunks", many))), MOST_IDS + 1)
        found = ChunkIds.from_bytes(self.post(wire, "missing", many).body)
        self.assertEqual(len(found), MOST_IDS)

    def test_authorization(self) -> None:
        """It is the same as for single chunks."""
        site = self.serve(MemoryStore(self.chunks)).server.site
        wire = Wire(site, authorization="Bearer abc")
        for path in ("/chunks", "/missing"):
            self.assertEqual(wire.ask("POST", path, bytes(32), Content_Type=IDS).code, 401)
            answer = wire.ask("POST", path, bytes(32), Content_Type=IDS, Authorization="Bearer abc")
            self.assertEqual(answer.code, 200)
