# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Stores in S3 when things go wrong: see :mod:`tests.fake_s3`."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SkipTest, TestCase
from twisted.web.server import Site

from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import ChunkInvalid, ChunkMissing, StoreError, StoreRefused
from desync.formats.stored import Compressed, chunk_name
from desync.interfaces import IBatch, IChunkRemover
from desync.operations.make import Made, make
from desync.operations.upload import ChunkUploads
from desync.options import S3Credentials, StoreOptions
from desync.progress import Progress
from desync.stores.location import parse_location
from desync.stores.opening import open_target
from desync.stores.s3 import open_s3_indexes
from desync.testing.batch_contract import ids_of
from desync.testing.index_contract import sample_index
from desync.testing.samples import sample_chunk
from desync.testing.sinks import CollectingSink, listed_ids
from desync.workers.pool import Pool
from desync.workers.reactor import ReactorPool

from .fake_s3 import FakeS3, fail, good, hang, redirect, reset, say, truncate

reactor: Any = default_reactor


class BadLuckCase(TestCase):
    """A service, and a store in it as commands open it."""

    timeout = 60

    def setUp(self) -> None:
        self.service = FakeS3()
        port = self.service.listen(reactor)
        self.addCleanup(port.stopListening)
        self.host = f"127.0.0.1:{port.getHost().port}"
        self.chunk = sample_chunk()
        self.store = self.open()

    def open(self, **options: Any) -> Any:
        """Open a store that waits milliseconds where others wait seconds."""
        options.setdefault("s3", S3Credentials("key", "secret"))
        options.setdefault("error_retry_base_interval", 1_000_000)
        chosen = StoreOptions(**options)
        store: Any = open_target(f"s3+http://{self.host}/bucket/p", lambda _: chosen, reactor)
        self.addCleanup(store.close)
        return store

    def hold(self, *chunks: Any) -> None:
        """Let the service have chunks."""
        for chunk in chunks:
            stored = chunk.copy().stored_as(Compressed())
            self.service.objects["p/" + chunk_name(chunk.chunk_id, ".cacnk")] = stored

    async def fails(self, error: type[Exception], operation: Any, *parts: str) -> str:
        """Make sure that an operation fails in one line."""
        try:
            result = await operation
        except error as found:
            for part in parts:
                self.assertIn(part, str(found))
            self.assertNotIn("\n", str(found))
            return str(found)
        raise self.failureException(f"it gave {result!r}")


class PassingTests(BadLuckCase):
    """What passes if one waits a little."""

    async def test_passing(self) -> None:
        """Whatever breaks off, or answers that it can't just now, is asked again."""
        self.hold(self.chunk)
        for trouble in (
            reset,
            truncate,
            fail(500, "InternalError"),
            fail(503, "SlowDown"),
            fail(502),
            fail(503),
            fail(429),
            fail(400, "RequestTimeout"),
        ):
            self.service.troubles.extend([trouble, trouble])
            self.assertEqual((await self.store.get(self.chunk.chunk_id)).plain, self.chunk.plain)
            self.service.troubles.extend([trouble, trouble])
            self.assertIs(await self.store.has(self.chunk.chunk_id), True)
            self.service.troubles.extend([trouble, trouble])
            await self.store.put(self.chunk)
            self.service.troubles.extend([trouble, trouble])
            self.assertEqual(list(await listed_ids(self.store)), [self.chunk.chunk_id])
            self.assertFalse(self.service.troubles)

    async def test_not_passing(self) -> None:
        """What doesn't pass is told after the attempts that are configured."""
        for trouble, part in (
            (reset, ""),
            (fail(500, "InternalError"), "InternalError, request R"),
            (fail(502), "unexpected answer (status 502, request R"),
        ):
            self.service.requests.clear()
            self.service.always = trouble
            await self.fails(StoreError, self.open(error_retry=2).get(bytes(32)), self.host, part)
            self.assertEqual(len(self.service.requests), 3)
            self.service.requests.clear()
            await self.fails(StoreError, self.open(error_retry=0).get(bytes(32)), self.host, part)
            self.assertEqual(len(self.service.requests), 1)

    async def test_slow_down(self) -> None:
        """A service that asks for patience gets more of it."""
        self.hold(self.chunk)
        self.service.troubles.extend([fail(503, "SlowDown")] * 7)
        await self.store.get(self.chunk.chunk_id)
        self.service.always = fail(503, "SlowDown")
        await self.fails(
            StoreError, self.store.get(self.chunk.chunk_id), "too many requests (SlowDown, request"
        )
        self.service.requests.clear()
        await self.fails(StoreError, self.open(error_retry=0).get(self.chunk.chunk_id))
        self.assertEqual(len(self.service.requests), 1)

    async def test_burst(self) -> None:
        """In a burst of errors nothing is lost of a batch, neither way."""
        chunks = [sample_chunk(number) for number in range(200)]
        troubles = [reset, good, fail(500, "InternalError"), good, fail(503, "SlowDown"), truncate]
        self.service.troubles.extend(troubles * 40)
        store = self.open(error_retry=20)
        for chunk in chunks:
            await store.put(chunk)
        self.service.troubles.extend(troubles * 40)
        sink = CollectingSink()
        await IBatch(store).get_many(ids_of(*chunks), sink)
        self.assertEqual(len(sink.found), 200)

    async def test_no_answer(self) -> None:
        """A service that doesn't answer isn't waited for for ever."""
        self.service.always = hang
        store = self.open(timeout=50_000_000, error_retry=1)
        await self.fails(StoreError, store.get(bytes(32)), "no answer within 0.05 seconds")
        self.assertEqual(len(self.service.requests), 2)

    async def test_spoiled(self) -> None:
        """A chunk that was spoiled on its way is asked for again; one that is bad is told."""
        self.hold(self.chunk)
        self.service.troubles.extend([say(b"rubbish"), say(b"")])
        self.assertEqual((await self.store.get(self.chunk.chunk_id)).plain, self.chunk.plain)
        self.service.always = say(b"rubbish")
        await self.fails(ChunkInvalid, self.store.get(self.chunk.chunk_id), "is invalid", self.host)

    async def test_too_large(self) -> None:
        """An answer without an end isn't read to it."""
        key = "p/" + chunk_name(self.chunk.chunk_id, ".cacnk")
        self.service.objects[key] = bytes(1 << 20)
        from desync.chunking.digests import SHA512_256
        from desync.stores.object_chunks import ObjectChunkStore
        from desync.stores.s3 import open_s3

        options = StoreOptions(s3=S3Credentials("key", "secret"))
        location = parse_location(f"s3+http://{self.host}/bucket/p")
        opened = open_s3(location, options, SHA512_256, reactor)
        self.addCleanup(opened.close)
        store = ObjectChunkStore(opened._bucket, "p/", reactor, limit=1000)
        await self.fails(ChunkInvalid, store.get(self.chunk.chunk_id), "it is too large")
        self.assertIs(await store.has(self.chunk.chunk_id), True)


class ToldApartTests(BadLuckCase):
    """What asking again doesn't help."""

    async def test_missing(self) -> None:
        """A missing chunk is an answer."""
        await self.fails(ChunkMissing, self.store.get(bytes(32)))
        self.assertEqual(len(self.service.requests), 1)

    async def test_bucket_vanishes(self) -> None:
        """A bucket that vanishes is named; when it is back, everything goes on."""
        chunks = [sample_chunk(number) for number in range(30)]
        self.hold(*chunks)
        self.service.troubles.extend([good] * 10)

        def vanish(service: FakeS3, request: Any) -> None:
            service.is_there = False

        self.service.always = vanish
        sink = CollectingSink()
        await IBatch(self.store).get_many(ids_of(*chunks), sink)
        self.assertEqual(len(sink.found) + len(sink.errors), 30)
        self.assertEqual(len(sink.found), 10)
        for error in sink.errors.values():
            self.assertIsInstance(error, StoreRefused)
            self.assertIn("bucket 'bucket' does not exist (request R", str(error))
        for operation in (
            self.open().has(bytes(32)),
            self.store.put(self.chunk),
            listed_ids(self.store),
            IBatch(self.open()).missing(ids_of(self.chunk)),
            IChunkRemover(self.store).prune(ids_of(), 0),
        ):
            await self.fails(StoreRefused, operation, "bucket 'bucket' does not exist")
        self.service.always, self.service.is_there = None, True
        sink = CollectingSink()
        await IBatch(self.store).get_many(ids_of(*chunks), sink)
        self.assertEqual(len(sink.found), 30)

    async def test_denied(self) -> None:
        """Who isn't allowed to is told so, also where the answer has no room for it."""
        self.service.always = fail(403, "AccessDenied")
        for operation in self.store.get(bytes(32)), self.store.has(bytes(32)):
            await self.fails(StoreRefused, operation, "access denied (AccessDenied, request R")
        self.assertEqual(len(self.service.requests), 3)

    async def test_not_s3(self) -> None:
        """A web server that isn't S3 has no chunks missing."""
        self.service.always = say(b"<html>404 Not Found</html>", 404)
        error = "unexpected answer (status 404"
        await self.fails(StoreRefused, self.store.get(bytes(32)), error)

    async def test_nonsense(self) -> None:
        """Listings and results that make no sense are told, with the request."""
        endless = (
            b"<ListBucketResult><IsTruncated>true</IsTruncated>"
            b"<NextContinuationToken>x</NextContinuationToken></ListBucketResult>"
        )
        for body, why in (
            (b"", "its answer can't be understood: it is no XML (request R"),
            (b"<a/>", "it is a a, not a listing"),
            (b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "its XML has declarations"),
            (endless, "its listing doesn't go on"),
        ):
            self.service.always = say(body)
            await self.fails(StoreError, listed_ids(self.open(error_retry=0)), why)

    async def test_not_removed(self) -> None:
        """What couldn't be removed for a moment is removed again; what can't be is told."""
        self.hold(self.chunk)
        key = "p/" + chunk_name(self.chunk.chunk_id, ".cacnk")

        def refuse(code: str) -> bytes:
            text = f"<Error><Key>{key}</Key><Code>{code}</Code><Message>m</Message></Error>"
            return f"<DeleteResult>{text}</DeleteResult>".encode()

        self.service.troubles.extend([good, say(refuse("InternalError"))])
        outcome = await IChunkRemover(self.store).prune(ids_of(), 0)
        self.assertEqual((outcome.removed, self.service.objects), (1, {}))
        self.hold(self.chunk)
        self.service.troubles.extend([good, say(refuse("AccessDenied"))])
        running = IChunkRemover(self.store).prune(ids_of(), 0)
        why = "1 objects could not be removed: access denied (AccessDenied"
        await self.fails(StoreError, running, why)


class ElsewhereTests(BadLuckCase):
    """Regions, clocks and other places."""

    async def test_region(self) -> None:
        """The region that the service names is used from then on, whatever was asked first."""
        self.hold(self.chunk)
        self.service.region = "eu-south-7"
        for name in "get", "has", "list_ids", "put":
            store = self.open()
            special: dict[str, Any] = {"list_ids": lambda ids: None, "put": self.chunk}
            argument = special.get(name, self.chunk.chunk_id)
            self.service.requests.clear()
            await getattr(store, name)(argument)
            self.assertEqual(len(self.service.requests), 2, name)
            await getattr(store, name)(argument)
            self.assertEqual(len(self.service.requests), 3, name)
        configured = self.open(s3=S3Credentials("key", "secret", region="eu-south-7"))
        self.service.requests.clear()
        await configured.get(self.chunk.chunk_id)
        self.assertEqual(len(self.service.requests), 1)

    async def test_redirect(self) -> None:
        """A redirect is followed and remembered; one in circles isn't for long."""
        other = FakeS3()
        port = other.listen(reactor)
        self.addCleanup(port.stopListening)
        there = f"http://127.0.0.1:{port.getHost().port}/bucket"
        self.service.always = redirect(there)
        await self.store.put(self.chunk)
        self.assertEqual(len(other.objects), 1)
        self.assertIs(await self.store.has(self.chunk.chunk_id), True)
        self.assertEqual(len(self.service.requests), 1)
        other.always = redirect(f"http://{self.host}/bucket")
        await self.fails(StoreRefused, self.open().get(bytes(32)), "TemporaryRedirect")

    async def test_ipv6(self) -> None:
        """The service may have an address of IPv6."""
        site = Site(self.service)
        try:
            port = reactor.listenTCP(0, site, interface="::1")
        except CannotListenError:
            raise SkipTest("no IPv6 here") from None
        self.addCleanup(port.stopListening)
        self.host = f"[::1]:{port.getHost().port}"
        store = self.open()
        await store.put(self.chunk)
        self.assertEqual((await store.get(self.chunk.chunk_id)).plain, self.chunk.plain)

    async def test_clock(self) -> None:
        """A clock that is wrong here or there doesn't matter."""
        self.hold(self.chunk)
        for skew in 4000.0, -4000.0:
            self.service.skew = skew
            await self.store.get(self.chunk.chunk_id)
            self.service.requests.clear()
            await self.store.get(self.chunk.chunk_id)
            self.assertEqual(len(self.service.requests), 1)

    async def test_expired(self) -> None:
        """Keys that expire in the middle of ten thousand chunks are read anew; none is lost."""
        path = Path(self.mktemp())
        path.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = s\n")
        os.chmod(path, 0o600)
        store = self.open(s3=S3Credentials(credentials_file=str(path)))
        chunks = [sample_chunk(number, 20) for number in range(10_000)]
        self.hold(*chunks)

        def expire(service: FakeS3, request: Any) -> None:
            if len(service.requests) == 5000:
                path.write_text("[default]\naws_access_key_id=b\naws_secret_access_key: s\n")
                service.expired.add("a")

        self.service.always = expire
        sink = CollectingSink()
        await IBatch(store).get_many(ids_of(*chunks), sink)
        self.assertEqual(len(sink.found), 10_000)
        self.assertEqual(sink.errors, {})
        self.assertIn("b", {key for _, _, key in self.service.requests})
        self.service.expired.add("b")
        self.service.requests.clear()
        error = "the session token has expired (ExpiredToken"
        await self.fails(StoreRefused, store.get(chunks[0].chunk_id), error)
        self.assertEqual(len(self.service.requests), 1)


class MakeTests(BadLuckCase):
    """Storing a file while things go wrong."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(os.urandom(3 << 20))
        self.pool = ReactorPool(Pool(2), reactor)
        self.addCleanup(self.pool.close)

    async def make(self) -> Made:
        """Store the file, and give its index."""
        uploads = ChunkUploads(self.open(error_retry=2), 8, Compressed())
        sizes = ChunkSizes(1024, 4096, 16384)
        return await make(self.path, sizes, SHA512_256, self.pool, Progress(), uploads)

    def count(self, method: str) -> int:
        """Count the requests there were of a kind."""
        return sum(each == method for each, _, _ in self.service.requests)

    async def test_troubles(self) -> None:
        """What passes costs only time: all chunks are there, whole."""
        chance = random.Random(1)
        troubles = [reset, fail(500), fail(503, "SlowDown"), fail(500, "InternalError")]

        def now_and_then(service: FakeS3, request: Any) -> object:
            # Never the same request twice.
            what = (request.method, request.path)
            if what in hit or chance.random() > 0.05:
                return None
            hit.add(what)
            return chance.choice(troubles)(service, request)

        hit: set[tuple[bytes, bytes]] = set()
        self.service.always = now_and_then
        made = await self.make()
        self.assertGreater(len(hit), 10)
        self.assertEqual(made.stored, len(self.service.objects))
        for chunk_id in made.index.ids:
            stored = self.service.objects["p/" + chunk_name(chunk_id, ".cacnk")]
            self.assertEqual(SHA512_256.id_of(Compressed().decode(stored, 1 << 20)), chunk_id)

    async def test_second_run(self) -> None:
        """What stays ends it with one line; the next one sends only what isn't there."""

        def gone(service: FakeS3, request: Any) -> object:
            if self.count("PUT") > 100:
                service.is_there = False
            return None

        self.service.always = gone
        await self.fails(StoreRefused, self.make(), "bucket 'bucket' does not exist")
        there = len(self.service.objects)
        self.assertGreaterEqual(there, 90)
        self.service.always = None
        self.service.is_there = True
        self.service.requests.clear()
        made = await self.make()
        # What was under way when the first one gave up may have arrived since.
        self.assertIn(made.produced - there - made.stored, range(9))
        self.assertIn(self.count("PUT") - made.stored, range(9))
        self.assertEqual(len(self.service.objects), made.produced)


class ManyTests(BadLuckCase):
    """Listings of many pages."""

    async def test_prune(self) -> None:
        """A prune removes a thousand chunks at a time while it lists, and counts all."""
        self.service.page = 700
        for number in range(5000):
            chunk_id = number.to_bytes(4, "big") * 8
            self.service.objects["p/" + chunk_name(chunk_id, ".cacnk")] = b"x"
        self.service.objects.update({"p/index.caibx": b"i", "p/0000/other": b"o", "q": b""})
        self.service.troubles.extend([good, reset, good, good, fail(503, "SlowDown"), good, reset])
        ids = await listed_ids(self.store)
        self.assertEqual(len(ids), 5000)
        self.service.requests.clear()
        self.service.troubles.extend([good, reset, good, good, fail(503, "SlowDown"), good, reset])
        outcome = await IChunkRemover(self.store).prune(ids[:100], 600)
        self.assertEqual((outcome.kept, outcome.removed), (100, 4900))
        self.assertEqual(len(self.service.objects), 103)
        self.assertEqual(self.service.removals, [1000, 1000, 1000, 1000, 900])

    async def test_prune_interrupted(self) -> None:
        """A prune that fails in the middle is completed by the next one."""
        self.service.page = 500
        for number in range(3000):
            chunk_id = number.to_bytes(4, "big") * 8
            self.service.objects["p/" + chunk_name(chunk_id, ".cacnk")] = b"x"
        self.service.troubles.extend([good] * 5)
        self.service.always = fail(403, "AccessDenied")
        await self.fails(StoreError, IChunkRemover(self.store).prune(ids_of(), 0), "denied")
        self.service.always = None
        left = len(self.service.objects)
        self.assertLess(0, left)
        outcome = await IChunkRemover(self.store).prune(ids_of(), 0)
        self.assertEqual((outcome.removed, self.service.objects), (left, {}))


class IndexTests(BadLuckCase):
    """Indexes have the same luck."""

    async def test_passing(self) -> None:
        """What passes is asked again, for an index too."""
        location = parse_location(f"s3+http://{self.host}/bucket/i")
        options = StoreOptions(
            s3=S3Credentials("key", "secret"), error_retry_base_interval=1_000_000
        )
        from desync.chunking.digests import SHA512_256

        store = open_s3_indexes(location, options, SHA512_256, reactor)
        self.addCleanup(store.close)
        self.service.troubles.extend([reset, fail(500), fail(503, "SlowDown")])
        await store.put_index("a.caibx", sample_index())
        self.service.troubles.extend([truncate, reset, fail(500)])
        self.assertEqual(len(await store.get_index("a.caibx")), 3)
