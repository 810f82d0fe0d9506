# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Stores in a real S3 service: Ceph's radosgw."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SkipTest, TestCase

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkMissing, StoreError, StoreRefused
from desync.formats.stored import chunk_name
from desync.interfaces import IBatch
from desync.options import S3Credentials, StoreOptions
from desync.stores.concurrently import concurrently
from desync.stores.location import parse_location
from desync.stores.opening import open_target
from desync.stores.s3 import open_s3, open_s3_indexes
from desync.testing.batch_contract import BatchContract, ids_of
from desync.testing.contract import RemoverContract, SourceContract, TargetContract
from desync.testing.index_contract import IndexTargetContract, sample_index
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import listed_ids

from .command_case import SIZES, CommandCase, sample
from .command_line import desync_process
from .object_peers import radosgw

reactor: Any = default_reactor

if TYPE_CHECKING:
    from desync.stores.object_chunks import ObjectChunkStore
    from desync.stores.object_indexes import ObjectIndexStore
    from desync.stores.objects import Page

ODD_PREFIXES = (
    "a//b/",
    "a b+c/",
    "ünï/ço∂é/",
    "100%/~(1)!*'/",
    "a&b=c/d?e#f/",
    "a/./b/../c/",
    "$@:;,/[{}]^|/",
)
"""Prefixes whose escaping services and signatures have to agree about."""


class RadosgwContractTests(
    SourceContract, TargetContract, RemoverContract, BatchContract, TestCase
):
    """The contract of chunk stores."""

    finds_other_form = False
    renews = False

    def make_store(self) -> ObjectChunkStore:
        self.service = radosgw()
        self.bucket = self.service.new_bucket()
        location = parse_location(f"s3+http://{self.service.netloc}/{self.bucket}/store")
        store = open_s3(location, StoreOptions(s3=self.service.credentials), SHA512_256, reactor)
        self.later = 0.0
        bucket = store._bucket
        list_page = bucket.list_page

        def list_later(prefix: str, token: str) -> Deferred[Page]:
            def change(page: Page) -> Page:
                self.assertIsNotNone(page.now)
                return page._replace(now=(page.now or 0) + self.later)

            return list_page(prefix, token).addCallback(change)

        self.patch(bucket, "list_page", list_later)
        return store

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.service.put(self.bucket, "store/" + chunk_name(chunk_id, extension), stored)

    def pass_time(self, seconds: float) -> None:
        self.later += seconds


class RadosgwIndexContractTests(IndexTargetContract, TestCase):
    """The contract of index stores."""

    def make_store(self) -> ObjectIndexStore:
        self.service = radosgw()
        self.bucket = self.service.new_bucket()
        location = parse_location(f"s3+http://{self.service.netloc}/{self.bucket}/a/b")
        options = StoreOptions(s3=self.service.credentials)
        return open_s3_indexes(location, options, SHA512_256, reactor)

    def plant(self, name: str, data: bytes) -> None:
        self.service.put(self.bucket, f"a/b/{name}", data)


class RadosgwTests(TestCase):
    """What only a service that is strict can tell."""

    timeout = 120

    def setUp(self) -> None:
        self.service = radosgw()
        self.bucket = self.service.new_bucket()

    def open(self, prefix: str = "", bucket: str = "", **options: Any) -> Any:
        """Open a store as commands do."""
        from urllib.parse import quote

        options.setdefault("s3", self.service.credentials)
        options.setdefault("error_retry_base_interval", 1_000_000)
        url = f"s3+http://{self.service.netloc}/{bucket or self.bucket}/{quote(prefix, safe='/')}"
        store: Any = open_target(url, lambda _: StoreOptions(**options), reactor)
        self.addCleanup(store.close)
        return store

    async def test_odd_keys(self) -> None:
        """Keys are escaped as the service and its signatures understand them."""
        chunks = sample_chunks(3)
        for prefix in ODD_PREFIXES:
            store = self.open(prefix)
            for chunk in chunks:
                await store.put(chunk)
            key = prefix + chunk_name(chunks[0].chunk_id, ".cacnk")
            self.assertIsNotNone(self.service.get(self.bucket, key), prefix)
            self.assertEqual(list(await listed_ids(store)), sorted(ids_of(*chunks)), prefix)
            await store.remove(chunks[0].chunk_id)
            self.assertIs(await store.has(chunks[0].chunk_id), False)
            outcome = await store.prune(ids_of(chunks[1]), 0)
            self.assertEqual((outcome.kept, outcome.removed), (1, 1), prefix)

    async def test_paging(self) -> None:
        """2,500 chunks are listed in pages, looked for, and pruned in batches."""
        store = self.open("many", n=32)
        chunks = [sample_chunk(number, 20) for number in range(2500)]
        await concurrently((self.put(store, chunk) for chunk in chunks), 64)
        self.assertEqual(list(await listed_ids(store)), sorted(ids_of(*chunks)))
        absent = [sample_chunk(number, 21) for number in range(100)]
        missing = await IBatch(store).missing(ids_of(*absent, *chunks[:200]))
        self.assertEqual(list(missing), sorted(ids_of(*absent)))
        keep = ids_of(*sorted(chunks[::25], key=lambda chunk: chunk.chunk_id))
        outcome = await store.prune(keep, 0, dry_run=True)
        self.assertEqual((outcome.kept, outcome.removed), (100, 2400))
        self.assertEqual((await store.prune(keep, 600)).spared, 2400)
        self.assertEqual(await store.prune(keep, 0), outcome)
        self.assertEqual(await listed_ids(store), keep)

    async def put(self, store: Any, chunk: Any) -> None:
        await store.put(chunk)

    async def test_refusals(self) -> None:
        """What is wrong is told apart, with the name of the request, and not tried again."""
        chunk_id = bytes(32)
        wrong = S3Credentials("mykey", "wrong")
        nobody = S3Credentials("nobody", "mysecret")
        for store, why in (
            (self.open(s3=wrong), "the secret key is wrong"),
            (self.open(s3=nobody), "the access key is unknown"),
            (self.open(bucket="nowhere"), "bucket 'nowhere' does not exist"),
        ):
            for operation in store.get, store.has:
                error = await self.failing(operation(chunk_id))
                self.assertIsInstance(error, StoreRefused)
                self.assertIn(why, str(error))
                self.assertIn("request tx", str(error))
        error = await self.failing(self.open().get(chunk_id))
        self.assertIsInstance(error, ChunkMissing)

    async def test_wrong_checksum(self) -> None:
        """A body that changed on its way isn't stored."""
        location = parse_location(f"s3+http://{self.service.netloc}/{self.bucket}")
        options = StoreOptions(s3=self.service.credentials, error_retry=0)
        store = open_s3(location, options, SHA512_256, reactor)
        self.addCleanup(store.close)
        bucket = store._bucket
        error = await self.failing(bucket.put("key", b"spoiled", "x/y", bucket.checksum(b"body")))
        self.assertIsInstance(error, StoreError)
        self.assertIn("SHA256", str(error))
        self.assertIsNone(self.service.get(self.bucket, "key"))

    async def test_index_names(self) -> None:
        """Indexes may be called what they like, too."""
        for prefix in ODD_PREFIXES[:2]:
            from urllib.parse import quote

            url = f"s3+http://{self.service.netloc}/{self.bucket}/{quote(prefix)}"
            options = StoreOptions(s3=self.service.credentials)
            store = open_s3_indexes(parse_location(url), options, SHA512_256, reactor)
            self.addCleanup(store.close)
            for name in "a+b.caibx", "100% (1).caibx", "ü?#.caibx":
                await store.put_index(name, sample_index())
                self.assertIsNotNone(self.service.get(self.bucket, prefix + name))
                await store.get_index(name)

    async def test_many_connections(self) -> None:
        """Far more operations than connections may be asked for at once."""
        store = self.open("burst", n=8)
        chunks = [sample_chunk(number, 30) for number in range(500)]
        await gatherResults([store.put(chunk) for chunk in chunks])
        found = await gatherResults([store.get(chunk.chunk_id) for chunk in chunks])
        self.assertEqual([one.plain for one in found], [chunk.plain for chunk in chunks])

    async def failing(self, operation: Any) -> Exception:
        """Wait for an operation to fail."""
        try:
            await operation
        except Exception as error:
            return error
        raise self.failureException("it succeeded")


class GoDesyncTests(CommandCase):
    """Go desync, where GO_DESYNC names it, on the same bucket."""

    def setUp(self) -> None:
        super().setUp()
        self.program = os.environ.get("GO_DESYNC", "")
        if not self.program:
            raise SkipTest("GO_DESYNC names no program")
        self.service = radosgw()
        self.url = f"s3+http://{self.service.netloc}/{self.service.new_bucket()}/some/store"
        self.data = sample(300_000)
        self.file = self.write("v1", self.data)

    def go(self, *args: str) -> None:
        """Run Go desync."""
        environ = {**os.environ, **self.service.environ, "HOME": self.path("")}
        subprocess.run([self.program, *args], env=environ, check=True, timeout=60)

    def ours(self, *args: str) -> None:
        """Run ours."""
        outcome = desync_process(*args, environ=self.service.environ)
        self.assertEqual(outcome.code, 0, outcome)

    def test_both_ways(self) -> None:
        """Each reads what the other wrote, chunks and index."""
        for writer, reader in (self.ours, self.go), (self.go, self.ours):
            store = f"{self.url}-{writer.__name__}"
            index = f"{store}/v1.caibx"
            writer("make", "-m", SIZES, "-s", store, index, self.file)
            reader("extract", "-s", store, index, self.path("copy"))
            self.assertEqual(self.read("copy"), self.data)
            os.unlink(self.path("copy"))
            reader("prune", "--yes", "-s", store, index)
            writer("extract", "-s", store, index, self.path("copy"))
            os.unlink(self.path("copy"))
