# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Stores in Google Cloud Storage: an emulator of it, and a stricter one of ours."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.internet import reactor as default_reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkMissing, StoreError, StoreRefused, UsageError
from desync.formats.stored import chunk_name
from desync.interfaces import IBatch
from desync.options import StoreOptions
from desync.stores.attempts import Attempts
from desync.stores.gcs import GCSBucket, open_gcs, open_gcs_indexes
from desync.stores.gcs_tokens import GoogleTokens
from desync.stores.location import parse_location
from desync.stores.object_chunks import ObjectChunkStore
from desync.stores.object_requests import Requests
from desync.stores.threads import StoreThreads
from desync.testing.batch_contract import BatchContract, ids_of
from desync.testing.contract import RemoverContract, SourceContract, TargetContract
from desync.testing.index_contract import IndexTargetContract
from desync.testing.samples import sample_chunk
from desync.testing.sinks import CollectingSink, listed_ids

from .command_case import SIZES, CommandCase, sample
from .command_line import Outcome, desync_process, process_environ
from .fake_gcs import FakeGCS, service_account
from .object_peers import gcs_emulator

if TYPE_CHECKING:
    from desync.formats.chunk import Chunk
    from desync.stores.object_indexes import ObjectIndexStore

reactor: Any = default_reactor
_FAST = StoreOptions(error_retry_base_interval=1_000_000)


class Emulated(TestCase):
    """A bucket of the emulator's."""

    def use_emulator(self) -> None:
        """Let stores be there."""
        self.netloc, self.bucket = gcs_emulator()
        self.patch(os, "environ", {**os.environ, "STORAGE_EMULATOR_HOST": self.netloc})

    def put_object(self, key: str, body: bytes) -> None:
        """Write an object."""
        host, _, port = self.netloc.partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        path = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={quote(key, safe='')}"
        connection.request("POST", path, body, {"Content-Type": "application/zstd"})
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()


class GCSContractTests(SourceContract, TargetContract, Emulated, TestCase):
    """The contract of chunk stores, with the emulator."""

    finds_other_form = False

    def make_store(self) -> ObjectChunkStore:
        self.use_emulator()
        self.prefix = f"{self.id()}/a b+c"
        location = parse_location(f"gs://{self.bucket}/{quote(self.prefix)}")
        return open_gcs(location, StoreOptions(), SHA512_256, reactor)

    def bad_forms(self, chunk: Chunk) -> dict[str, bytes]:
        forms = super().bad_forms(chunk)
        del forms["nothing"]  # the emulator can't take that
        return forms

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.put_object(f"{self.prefix}/{chunk_name(chunk_id, extension)}", stored)


class GCSManyContractTests(
    SourceContract, TargetContract, RemoverContract, BatchContract, TestCase
):
    """The contract of chunk stores, with ours, which is faster and lists as the service does."""

    finds_other_form = False
    renews = False

    def make_store(self) -> ObjectChunkStore:
        self.service = FakeGCS()
        self.service.tokens.add("")
        port = self.service.listen(reactor)
        self.addCleanup(port.stopListening)
        host = f"127.0.0.1:{port.getHost().port}"
        self.patch(os, "environ", {**os.environ, "STORAGE_EMULATOR_HOST": host})
        location = parse_location("gs://bucket/some/where")
        return open_gcs(location, StoreOptions(), SHA512_256, reactor)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.service.objects["some/where/" + chunk_name(chunk_id, extension)] = (stored, 1)

    def pass_time(self, seconds: float) -> None:
        pass  # everything there is old


class GCSIndexContractTests(IndexTargetContract, Emulated, TestCase):
    """The contract of index stores."""

    def make_store(self) -> ObjectIndexStore:
        self.use_emulator()
        location = parse_location(f"gs://{self.bucket}/{self.id()}")
        return open_gcs_indexes(location, StoreOptions(), SHA512_256, reactor)

    def plant(self, name: str, data: bytes) -> None:
        # The emulator can't take nothing.
        self.put_object(f"{self.id()}/{name}", data or b"?")


class StrictTests(TestCase):
    """A service that asks for tokens, by a service account."""

    timeout = 60

    def setUp(self) -> None:
        self.service = FakeGCS()
        port = self.service.listen(reactor)
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}"
        path = Path(self.mktemp()).absolute()
        path.write_text(service_account(f"{self.url}/token"))
        environ = {**os.environ, "GOOGLE_APPLICATION_CREDENTIALS": str(path)}
        self.patch(os, "environ", environ)
        self.store = self.open()

    def open(self, options: StoreOptions = _FAST, bucket: str = "bucket") -> ObjectChunkStore:
        """Open a store in its bucket."""
        threads = StoreThreads(reactor, 1)
        location = f"gs://{bucket}/p"
        opened = GCSBucket(
            self.url,
            bucket,
            location,
            Requests(location, options, reactor, {}),
            GoogleTokens(location, threads),
            Attempts(reactor, options),
            4,
            threads,
        )
        store = ObjectChunkStore(opened, "p/", reactor)
        self.addCleanup(store.close)
        return store

    async def fails(self, error: type[Exception], operation: Any, *parts: str) -> None:
        """Make sure that an operation fails in one line."""
        try:
            result = await operation
        except error as found:
            for part in parts:
                self.assertIn(part, str(found))
            self.assertNotIn("\n", str(found))
            return
        raise self.failureException(f"it gave {result!r}")

    async def test_token(self) -> None:
        """One token is asked for, and used until it is nearly over."""
        chunks = [sample_chunk(number) for number in range(20)]
        for chunk in chunks:
            await self.store.put(chunk)
        sink = CollectingSink()
        await IBatch(self.store).get_many(ids_of(*chunks), sink)
        self.assertEqual((len(sink.found), self.service.given), (20, 1))
        self.service.lifetime = 60  # google-auth takes it for over
        store = self.open()
        await store.has(chunks[0].chunk_id)
        await store.has(chunks[0].chunk_id)
        self.assertEqual(self.service.given, 3)

    async def test_refused_token(self) -> None:
        """A token that isn't good any more in the middle is replaced once, and nothing is lost."""
        chunks = [sample_chunk(number) for number in range(200)]
        for chunk in chunks:
            await self.store.put(chunk)
        self.service.requests.clear()

        def forget(service: FakeGCS, request: Any) -> None:
            service.tokens.clear()

        self.service.troubles.extend([None] * 100 + [forget])
        sink = CollectingSink()
        await IBatch(self.store).get_many(ids_of(*chunks), sink)
        self.assertEqual((len(sink.found), sink.errors, self.service.given), (200, {}, 2))

        def refuse(service: FakeGCS, request: Any) -> bytes:
            return service.error(request, 401, "Invalid Credentials")

        self.service.troubles.extend([refuse] * 2)
        why = "access denied: Invalid Credentials (status 401, request U"
        await self.fails(StoreRefused, self.store.get(bytes(32)), why)
        self.assertEqual(self.service.given, 3)

    async def test_bad_credentials(self) -> None:
        """Credentials that aren't any good are told in one line."""
        path = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
        await self.fails(ChunkMissing, self.open().get(bytes(32)))
        path.write_text(service_account(f"{self.url}/token", "somebody@else"))
        await self.fails(StoreError, self.open().get(bytes(32)), "no credentials: ")
        path.write_text("rubbish")
        await self.fails(StoreError, self.open().get(bytes(32)), "no credentials: ", str(path))
        path.unlink()
        await self.fails(StoreError, self.open().get(bytes(32)), "no credentials: ", str(path))

    async def test_told_apart(self) -> None:
        """A missing chunk, a missing bucket and a refusal are different things."""
        await self.fails(ChunkMissing, self.store.get(bytes(32)))
        for name in "get", "has":
            operation = getattr(self.open(bucket="nowhere"), name)(bytes(32))
            await self.fails(StoreRefused, operation, "bucket 'nowhere' does not exist (request U")
        self.service.is_there = False
        for operation in (
            self.store.put(sample_chunk()),
            listed_ids(self.open()),
            self.open().prune(ids_of(), 0),
        ):
            await self.fails(StoreRefused, operation, "bucket", "does not exist")
        self.service.is_there = True

        def forbid(service: FakeGCS, request: Any) -> bytes:
            return service.error(request, 403, "No access.")

        self.service.troubles.append(forbid)
        await self.fails(StoreRefused, self.store.get(bytes(32)), "access denied: No access.")

    async def test_passing(self) -> None:
        """Errors that pass are waited for."""
        chunk = sample_chunk()
        for status in 500, 503, 429, 502:

            def fail(service: FakeGCS, request: Any, status: int = status) -> bytes:
                return service.error(request, status, "Try again.")

            for operation in (
                lambda: self.store.put(chunk),
                lambda: self.store.get(chunk.chunk_id),
                lambda: self.store.has(chunk.chunk_id),
                lambda: listed_ids(self.store),
            ):
                self.service.troubles.extend([fail, fail])
                await operation()
                self.assertFalse(self.service.troubles)
        self.service.troubles.extend([fail] * 4)
        await self.fails(StoreError, self.store.get(chunk.chunk_id), "Try again. (status 502")

    async def test_pages(self) -> None:
        """A listing is read page by page, and pruned."""
        self.service.page = 300
        for number in range(2500):
            chunk_id = number.to_bytes(4, "big") * 8
            self.service.objects["p/" + chunk_name(chunk_id, ".cacnk")] = (b"x", number)
        ids = await listed_ids(self.store)
        self.assertEqual(len(ids), 2500)
        outcome = await self.store.prune(ids[:100], 600)
        self.assertEqual((outcome.kept, outcome.removed), (100, 2400))
        self.assertEqual(len(self.service.objects), 100)

    async def test_written_anew(self) -> None:
        """What was written anew since it was listed isn't removed: somebody needs it."""
        chunk = sample_chunk()
        await self.store.put(chunk)

        def rewrite(service: FakeGCS, request: Any) -> None:
            for name, (body, generation) in service.objects.items():
                service.objects[name] = (body, generation + 1)

        self.service.troubles.extend([None, rewrite])
        await self.store.prune(ids_of(), 0)
        self.assertIs(await self.store.has(chunk.chunk_id), True)
        await self.store.prune(ids_of(), 0)
        self.assertIs(await self.store.has(chunk.chunk_id), False)

    async def test_nonsense(self) -> None:
        """A listing that makes no sense is told."""
        for body in b"", b"[]", b'{"items": 3}', b'{"items": [{}]}', b'{"nextPageToken": 1}':

            def say(service: FakeGCS, request: Any, body: bytes = body) -> bytes:
                return body or b" "

            self.service.troubles.append(say)
            await self.fails(StoreError, listed_ids(self.store), "can't be understood (request U")


class GCSCommandTests(CommandCase):
    """What a user does with a bucket."""

    def setUp(self) -> None:
        super().setUp()
        netloc, bucket = gcs_emulator()
        self.environ = {"STORAGE_EMULATOR_HOST": f"http://{netloc}"}
        self.url = f"gs://{bucket}/{os.path.basename(self.folder)}"

    def run_gcs(self, *args: str, code: int = 0) -> Outcome:
        """Run a command on the emulator."""
        outcome = desync_process(*args, environ=self.environ)
        self.assertEqual(outcome.code, code, outcome)
        return outcome

    def test_round(self) -> None:
        """A file goes into a bucket with its index, is found there, checked, and comes back."""
        data = sample(300_000)
        path, index = self.write("v1", data), f"{self.url}/indexes/v1.caibx"
        self.run_gcs("make", "-m", SIZES, "-s", self.url, index, path)
        self.run_gcs("extract", "-s", self.url, index, self.path("copy"))
        self.assertEqual(self.read("copy"), data)
        self.assertIn("0 invalid", self.run_gcs("verify", "-s", self.url).err)
        self.run_gcs("prune", "-s", self.url, "--yes", "--min-age", "0", index)
        found = json.loads(self.run_gcs("info", "-s", self.url, index).text)
        self.assertEqual(found["in-store"], found["unique"])
        outcome = self.run_gcs("extract", "-s", "gs://nowhere/x", index, self.path("c"), code=1)
        self.assert_error(outcome, "bucket 'nowhere' does not exist")


class MetadataTests(SynchronousTestCase):
    """The tokens of Google's machines."""

    def test_metadata_server(self) -> None:
        """The metadata server is asked where nothing else says who one is."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Metadata)
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        host = f"127.0.0.1:{server.server_port}"
        program = (
            "from desync.stores.gcs_tokens import _refresh\n"
            "credentials = _refresh(None, 'gs://b')\n"
            "print(credentials.token, credentials.valid)"
        )
        environ = process_environ(GCE_METADATA_HOST=host, GCE_METADATA_IP=host)
        environ.pop("GOOGLE_APPLICATION_CREDENTIALS", None)
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environ,
            capture_output=True,
            timeout=60,
            check=True,
        )
        self.assertEqual(done.stdout, b"from-metadata True\n", done.stderr)


class _Metadata(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer: Any = {}
        if "/token" in self.path:
            answer = {"access_token": "from-metadata", "expires_in": 3600, "token_type": "Bearer"}
        elif "service-accounts" in self.path:
            answer = {"email": "x@y", "scopes": [], "aliases": ["default"]}
        elif "project-id" in self.path:
            answer = "project"
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class LocationTests(SynchronousTestCase):
    """Locations of buckets."""

    def test_refusals(self) -> None:
        """What can't be a bucket is refused."""
        for text in "gs://a:80/x", "gs://a%2Fb/x":
            self.assertRaises(
                UsageError,
                lambda text=text: open_gcs(
                    parse_location(text), StoreOptions(), SHA512_256, reactor
                ),
            )
