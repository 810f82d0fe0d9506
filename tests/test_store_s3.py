# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Stores in S3, as moto imitates it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from desync.chunking.digests import SHA512_256
from desync.formats.stored import chunk_name
from desync.options import StoreOptions
from desync.stores.location import parse_location
from desync.stores.s3 import open_s3, open_s3_indexes
from desync.testing.batch_contract import BatchContract
from desync.testing.contract import RemoverContract, SourceContract, StoreContract, TargetContract
from desync.testing.index_contract import IndexTargetContract

from .object_peers import moto

if TYPE_CHECKING:
    from desync.stores.object_chunks import ObjectChunkStore
    from desync.stores.object_indexes import ObjectIndexStore


class InBucket(StoreContract):
    """A store in a bucket of its own, with a prefix that has to be escaped."""

    finds_other_form = False
    prefix = "some where/ünd+so/"

    def make_store(self) -> ObjectChunkStore:
        self.service = moto()
        self.bucket = self.service.new_bucket()
        location = parse_location(
            f"s3+http://{self.service.netloc}/{self.bucket}/some%20where/%C3%BCnd+so"
        )
        options = StoreOptions(
            s3=self.service.credentials,
            uncompressed=not self.extension,
            any_form=self.finds_other_form,
        )
        return open_s3(location, options, SHA512_256, reactor)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        key = self.prefix + chunk_name(chunk_id, extension)
        self.service.put(self.bucket, key, stored)


class S3ContractTests(
    InBucket, SourceContract, TargetContract, RemoverContract, BatchContract, TestCase
):
    """The contract of chunk stores."""

    renews = False

    def pass_time(self, seconds: float) -> None:
        self.service.older(seconds)


class S3UncompressedContractTests(InBucket, SourceContract, TestCase):
    """The same with chunks that aren't compressed, and reading either form."""

    extension = ""
    finds_other_form = True


class S3IndexContractTests(IndexTargetContract, TestCase):
    """The contract of index stores."""

    def make_store(self) -> ObjectIndexStore:
        self.service = moto()
        self.bucket = self.service.new_bucket()
        location = parse_location(f"s3+http://{self.service.netloc}/{self.bucket}/prefix")
        options = StoreOptions(s3=self.service.credentials)
        return open_s3_indexes(location, options, SHA512_256, reactor)

    def plant(self, name: str, data: bytes) -> None:
        self.service.put(self.bucket, f"prefix/{name}", data)
