# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What a chunk server answers, over stores in memory and in directories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from desync.errors import ChunkInvalid, StoreError
from desync.formats.chunk import Chunk
from desync.formats.stored import Compressed, Plain
from desync.interfaces import IChunkSource
from desync.services import near_files as near_files_module
from desync.services.chunk_paths import parse_chunk_path
from desync.services.chunk_site import ChunkSite
from desync.services.counters import Counters
from desync.services.exchange import Refused
from desync.services.metering import Troubles
from desync.services.near_files import near_files
from desync.stores.cache import Cache
from desync.stores.local import LocalStore
from desync.stores.local_files import LocalFiles
from desync.stores.memory import MemoryStore
from desync.stores.reloading import Reloading
from desync.stores.route import Route
from desync.stores.single_flight import SingleFlight
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.stores import ScriptedStore
from desync.testing.threads import InlineThreads
from tests.server_wire import Answer, Wire, request


def path_of(chunk: Chunk, extension: str = ".cacnk") -> str:
    """Give the path of a chunk on a server."""
    text = chunk.chunk_id.hex()
    return f"/{text[:4]}/{text}{extension}"


def stored(chunk: Chunk) -> bytes:
    """Give a chunk's compressed form."""
    return Compressed().encode(chunk.plain)


class Case(SynchronousTestCase):
    """A server over some store, and what to ask it."""

    def setUp(self) -> None:
        self.chunk = sample_chunk()

    def serve(self, store: IChunkSource, **more: Any) -> Wire:
        self.store = Reloading(store)
        self.counters, self.troubles = Counters(), Troubles(lambda: 0)
        site = ChunkSite(
            self.store,
            SingleFlight(self.store),
            InlineThreads(),
            self.counters,
            self.troubles,
            **more,
        )
        return Wire(site, counters=self.counters)

    def local(self, name: str = "store", **more: Any) -> LocalFiles:
        path = Path(self.mktemp()).absolute() / name
        path.mkdir(parents=True)
        return LocalFiles(str(path), **more)

    def assert_said(self, answer: Answer, code: int, text: str) -> None:
        self.assertEqual((answer.code, answer.body.decode()), (code, text))


class PathTests(SynchronousTestCase):
    """Which paths name a chunk."""

    text = "0123456789abcdef" * 4

    def test_good(self) -> None:
        """The path of the reference, in the form that is served; upper case all through."""
        for text in (self.text, self.text.upper()):
            for extension in (b".cacnk", b""):
                path = f"/{text[:4]}/{text}".encode() + extension
                self.assertEqual(parse_chunk_path(path, extension).hex(), self.text)

    def test_bad(self) -> None:
        """Anything else is refused, with a reason."""
        text = self.text
        for path, extension, reason in (
            ("", ".cacnk", "invalid chunk extension"),
            ("/", ".cacnk", "invalid chunk extension"),
            (f"/{text[:4]}/{text}", ".cacnk", "invalid chunk extension"),
            (f"/{text[:4]}/{text}.cacnk", "", "this server expects '<chunkid>'"),
            (f"/{text[:4]}/{text}.xz", ".cacnk", "invalid chunk extension"),
            (f"/x/{text[:4]}/{text}.cacnk", ".cacnk", "expected format"),
            (f"/{text[:4]}//{text}.cacnk", ".cacnk", "expected format"),
            (f"{text[:4]}/{text}.cacnk", ".cacnk", "expected format"),
            (f"/{text[1:5]}/{text}.cacnk", ".cacnk", "expected format"),
            (f"/{text[:4]}/../{text[:4]}/{text}.cacnk", ".cacnk", "expected format"),
            (f"/ABCD/{text}.cacnk", ".cacnk", "expected format"),
            (f"/{text}.cacnk", ".cacnk", "expected format"),
            (f"/{text[:4]}/{text[:-1]}.cacnk", ".cacnk", "not of right size"),
            (f"/{text[:4]}/{text}0.cacnk", ".cacnk", "not of right size"),
            ("/abc/abc.cacnk", ".cacnk", "not of right size"),
            (f"/{text[:4]}/{text[:-1]}g.cacnk", ".cacnk", "decode"),
            (f"/{text[:4]}/{text[:-2]} 0.cacnk", ".cacnk", "decode"),
            (f"/{text[:4]}/{text[:-3]}%30.cacnk", ".cacnk", "decode"),
            ("//etc/passwd", "", "expected format"),
        ):
            refused = self.assertRaises(
                Refused, parse_chunk_path, path.encode(), extension.encode()
            )
            self.assertEqual(refused.code, 400)
            self.assertIn(reason, refused.text, path)


class ReadingTests(Case):
    """GET and HEAD."""

    def test_get(self) -> None:
        """A chunk comes in the stored form, byte for byte; a query means nothing."""
        inner = MemoryStore()
        data = Compressed(19).encode(self.chunk.plain)
        inner.plant(self.chunk.chunk_id, data)
        wire = self.serve(inner)
        for path in (path_of(self.chunk), path_of(self.chunk) + "?a=b"):
            answer = wire.ask("GET", path)
            self.assertEqual((answer.code, answer.body), (200, data))
            self.assertEqual(answer.headers["Content-Type"], "application/octet-stream")

    def test_converted(self) -> None:
        """A chunk that is stored in the other form is converted."""
        wire = self.serve(MemoryStore([self.chunk]), extension="")
        self.assertEqual(wire.ask("GET", path_of(self.chunk, "")).body, self.chunk.plain)
        wire = self.serve(MemoryStore([self.chunk], extension=""))
        answer = wire.ask("GET", path_of(self.chunk))
        self.assertEqual(Compressed().decode(answer.body, 1 << 20), self.chunk.plain)

    def test_head(self) -> None:
        """HEAD tells whether a chunk is there."""
        wire = self.serve(MemoryStore([self.chunk]))
        self.assertEqual(wire.ask("HEAD", path_of(self.chunk)).code, 200)
        self.assertEqual(wire.ask("HEAD", path_of(sample_chunk(1))).code, 404)

    def test_missing(self) -> None:
        """A chunk that isn't there is answered with 404, which is no trouble."""
        wire = self.serve(MemoryStore())
        name = self.chunk.chunk_id.hex()
        self.assert_said(wire.ask("GET", path_of(self.chunk)), 404, f"chunk {name} not found")
        self.assertEqual(self.troubles.latest(), [])

    def test_methods(self) -> None:
        """Other methods are refused."""
        wire = self.serve(MemoryStore([self.chunk]))
        for method in ("POST", "DELETE", "PATCH", "OPTIONS", "get", "PROPFIND"):
            answer = wire.ask(method, path_of(self.chunk), b"")
            self.assert_said(answer, 405, "only GET, PUT and HEAD are supported")

    def test_path_before_method(self) -> None:
        """The path is looked at before the method."""
        wire = self.serve(MemoryStore())
        for method in ("GET", "HEAD", "PUT", "DELETE"):
            self.assertEqual(wire.ask(method, "/nothing.cacnk").code, 400)

    def test_failure(self) -> None:
        """What goes wrong upstream is told to the operator, and not to the peer."""
        inner = ScriptedStore(MemoryStore([self.chunk], location="https://user:pw@up/stream/"))
        inner.fail_next(
            StoreError("https://user:pw@up/stream/", "status 503"),
            ChunkInvalid(self.chunk.chunk_id, "wrong", "/var/lib/store"),
            StoreError("/var/lib/store", "Permission denied"),
        )
        wire = self.serve(inner)
        for method in ("GET", "GET"):
            self.assert_said(wire.ask(method, path_of(self.chunk)), 500, "internal server error\n")
        self.assertEqual(wire.ask("HEAD", path_of(self.chunk)).code, 500)
        lines = [trouble.what for trouble in self.troubles.latest()]
        self.assertEqual(len(lines), 3)
        self.assertIn("failed to retrieve chunk", lines[2])
        self.assertNotIn("pw", lines[2])
        self.assertEqual(self.counters.verification_failures, 1)
        self.assertEqual(wire.ask("GET", path_of(self.chunk)).code, 200)

    def test_single_flight(self) -> None:
        """What many ask for at once is fetched once, and each gets it, or its 404."""
        inner = ScriptedStore(MemoryStore([self.chunk]))
        first = self.serve(inner)
        wires = [first] + [
            Wire(first.server.site, server=first.server, clock=first.clock) for _ in range(4)
        ]
        for chunk, code in ((self.chunk, 200), (sample_chunk(9), 404)):
            inner.hold()
            for wire in wires:
                wire.send(request("GET", path_of(chunk)))
            self.assertEqual(inner.waiting, 1)
            wires[-1].transport.loseConnection()
            wires[-1].connect()
            inner.release()
            for wire in wires[:-1]:
                self.assertEqual([answer.code for answer in wire.answers()], [code])

    def test_reload(self) -> None:
        """What another store has is served as soon as it has taken the first one's place."""
        wire = self.serve(Route([MemoryStore()]))
        self.assertEqual(wire.ask("GET", path_of(self.chunk)).code, 404)
        files = self.local(skip_verify=True)
        files.put_chunk(self.chunk)
        self.store.replace(LocalStore(files, None, InlineThreads()))  # type: ignore[arg-type]
        self.assertEqual(wire.ask("GET", path_of(self.chunk)).code, 200)


class NearTests(Case):
    """Files that are read at once."""

    def local_store(self, **more: Any) -> LocalStore:
        self.files = self.local(**more)
        return LocalStore(self.files, None, InlineThreads())  # type: ignore[arg-type]

    def test_same_answers(self) -> None:
        """A file is served whether it could be read at once or not, and as it is."""
        store = self.local_store(skip_verify=True)
        self.files.put(self.chunk.chunk_id, b"whatever it is")
        for flag in (near_files_module._NO_WAIT, None, -1):
            self.patch(near_files_module, "_NO_WAIT", flag)
            wire = self.serve(store)
            self.assertEqual(wire.ask("GET", path_of(self.chunk)).body, b"whatever it is")
            self.assertEqual(wire.ask("GET", path_of(sample_chunk(1))).code, 404)

    def test_other_form(self) -> None:
        """A chunk that is there in the other form only is found."""
        store = self.local_store(skip_verify=True)
        self.files.put_chunk(self.chunk)
        wire = self.serve(store, extension="")
        self.assertEqual(wire.ask("GET", path_of(self.chunk, "")).body, self.chunk.plain)

    def test_which(self) -> None:
        """Only files that needn't be verified or converted are read so; of a cache, its own."""
        if near_files_module._NO_WAIT is None:
            self.skipTest("no such reads on this system")
        threads: Any = InlineThreads()
        self.assertIsNone(near_files(self.local_store(), ".cacnk", threads))
        self.assertIsNone(near_files(self.local_store(skip_verify=True), "", threads))
        self.assertIsNone(near_files(MemoryStore(), ".cacnk", threads))
        self.assertIsNotNone(near_files(self.local_store(skip_verify=True), ".cacnk", threads))
        cache = self.local_store(skip_verify=True)
        found = near_files(Cache(MemoryStore(), cache), ".cacnk", threads)
        assert found is not None
        self.assertTrue(found.is_cache)

    def test_odd_files(self) -> None:
        """What isn't a chunk's file is no chunk: an empty one, a directory, a pipe, a huge one."""
        store = self.local_store(skip_verify=True)
        path = Path(self.files.path_of(self.chunk.chunk_id))
        path.parent.mkdir()
        wire = self.serve(store)
        path.touch()
        self.assertEqual(wire.ask("GET", path_of(self.chunk)).code, 500)
        self.assertEqual(wire.ask("HEAD", path_of(self.chunk)).code, 404)
        path.unlink()
        path.mkdir()
        self.assertEqual(wire.ask("GET", path_of(self.chunk)).code, 500)
        path.rmdir()
        os.mkfifo(path)
        self.assertEqual(wire.ask("GET", path_of(self.chunk)).code, 500)
        path.unlink()
        with path.open("wb") as file:
            file.truncate(200 << 20)
        self.assertEqual(wire.ask("GET", path_of(self.chunk)).code, 500)
        with path.open("wb") as file:
            file.truncate(3 << 20)
        self.assertEqual(len(wire.ask("GET", path_of(self.chunk)).body), 3 << 20)

    def test_cache(self) -> None:
        """What a cache has comes from there, its age renewed; what it lacks is put there."""
        store = self.local_store(skip_verify=True)
        chunks = sample_chunks(2)
        upstream = ScriptedStore(MemoryStore(chunks))
        wire = self.serve(Cache(upstream, store))
        path = self.files.path_of(chunks[0].chunk_id)
        for asked in (1, 1):
            self.assertEqual(wire.ask("GET", path_of(chunks[0])).code, 200)
            self.assertEqual(len(upstream.calls), asked)
        os.utime(path, (1000, 1000))
        self.assertEqual(wire.ask("GET", path_of(chunks[0])).body, Path(path).read_bytes())
        if near_files_module._NO_WAIT is not None:
            self.assertGreater(os.stat(path).st_mtime, 1000)
            self.assertEqual(self.counters.cache_hits, 2)


class WritingTests(Case):
    """PUT."""

    def test_put(self) -> None:
        """A chunk is stored as it came; once more is fine."""
        inner = MemoryStore()
        wire = self.serve(inner, writable=True)
        data = Compressed(1).encode(self.chunk.plain)
        for _ in range(2):
            self.assert_said(wire.ask("PUT", path_of(self.chunk), data), 200, "")
            self.assertEqual(inner.stored(self.chunk.chunk_id), data)
        self.assertEqual(wire.ask("GET", path_of(self.chunk)).body, data)
        self.assertEqual(self.counters.stored, 2)

    def test_forms(self) -> None:
        """The store's form needn't be the one that is served."""
        inner = MemoryStore(extension=".cacnk")
        wire = self.serve(inner, writable=True, extension="")
        self.assertEqual(wire.ask("PUT", path_of(self.chunk, ""), self.chunk.plain).code, 200)
        found = inner.stored(self.chunk.chunk_id)
        self.assertEqual(Compressed().decode(found or b"", 1 << 20), self.chunk.plain)

    def test_not_enabled(self) -> None:
        """Without -w nothing is stored."""
        inner = MemoryStore()
        wire = self.serve(inner)
        answer = wire.ask("PUT", path_of(self.chunk), stored(self.chunk))
        self.assert_said(answer, 400, "writing to upstream chunk store is not enabled\n")
        self.assertIsNone(inner.stored(self.chunk.chunk_id))

    def test_invalid(self) -> None:
        """What isn't the chunk isn't stored: another, none, in the wrong form, broken."""
        inner = MemoryStore(location="in-memory")
        wire = self.serve(inner, writable=True)
        good = stored(self.chunk)
        for data in (
            stored(sample_chunk(1)),
            b"",
            self.chunk.plain,
            good[:-1],
            good + b"x",
            b"\x28\xb5\x2f\xfd",
            b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + b"\x01\x00\x00",
        ):
            answer = wire.ask("PUT", path_of(self.chunk), data)
            self.assertEqual(answer.code, 400)
            self.assertIn(self.chunk.chunk_id.hex(), answer.body.decode())
            self.assertNotIn("in-memory", answer.body.decode())
            self.assertIsNone(inner.stored(self.chunk.chunk_id))
        self.assertEqual(self.counters.verification_failures, 7)
        wire = self.serve(inner, writable=True, extension="")
        self.assertEqual(wire.ask("PUT", path_of(self.chunk, ""), good).code, 400)

    def test_unverified(self) -> None:
        """If told so, the server takes what it gets."""
        inner = MemoryStore()
        wire = self.serve(inner, writable=True, verify=False)
        self.assertEqual(wire.ask("PUT", path_of(self.chunk), b"nonsense").code, 200)
        self.assertEqual(inner.stored(self.chunk.chunk_id), b"nonsense")

    def test_failure(self) -> None:
        """A store that fails is 500, without details."""
        inner = ScriptedStore(MemoryStore(location="/var/lib/store"))
        inner.fail_next(StoreError("/var/lib/store", "No space left on device"))
        wire = self.serve(inner, writable=True)
        answer = wire.ask("PUT", path_of(self.chunk), stored(self.chunk))
        self.assert_said(answer, 500, "internal server error\n")
        self.assertIn("No space left", self.troubles.latest()[0].what)

    def test_bounds(self) -> None:
        """A body that is larger than any chunk isn't read, whatever the path's form."""
        for extension, largest in ((".cacnk", (128 << 20) + (1 << 20) + 1024), ("", 128 << 20)):
            wire = self.serve(MemoryStore(), writable=True, extension=extension)
            wire.send(
                request("PUT", path_of(self.chunk, extension), Content_Length=str(largest + 1))
            )
            self.assertEqual(wire.answers()[0].code, 413)
            wire.connect()
            wire.send(request("PUT", path_of(self.chunk, extension), Content_Length=str(largest)))
            self.assertEqual(wire.answers(), [])

    def test_cut_short(self) -> None:
        """Nothing is stored of an upload that breaks off."""
        inner = ScriptedStore(MemoryStore())
        wire = self.serve(inner, writable=True)
        data = stored(self.chunk)
        wire.send(request("PUT", path_of(self.chunk), Content_Length=str(len(data))) + data[:-1])
        wire.transport.loseConnection()
        self.assertEqual(inner.calls, [])

    def test_presence_is_renewed(self) -> None:
        """On a server that takes chunks, HEAD makes those young that are there."""
        files = self.local()
        files.put_chunk(self.chunk)
        path = files.path_of(self.chunk.chunk_id)
        os.utime(path, (1000, 1000))
        store = LocalStore(files, None, InlineThreads())  # type: ignore[arg-type]
        self.assertEqual(self.serve(store).ask("HEAD", path_of(self.chunk)).code, 200)
        self.assertEqual(os.stat(path).st_mtime, 1000)
        wire = self.serve(store, writable=True)
        self.assertEqual(wire.ask("HEAD", path_of(self.chunk)).code, 200)
        self.assertGreater(os.stat(path).st_mtime, 1000)
        self.assertEqual(wire.ask("HEAD", path_of(sample_chunk(1))).code, 404)

    def test_plain_form(self) -> None:
        """A form is one thing, a chunk's content another: a chunk that is itself a frame."""
        plain = stored(self.chunk)
        frame = Chunk.of(plain, self.local().digest)
        inner = MemoryStore(extension="")
        wire = self.serve(inner, writable=True, extension="")
        self.assertEqual(wire.ask("PUT", path_of(frame, ""), plain).code, 200)
        self.assertEqual(inner.stored(frame.chunk_id), Plain().encode(plain))
