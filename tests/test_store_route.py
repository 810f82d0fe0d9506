# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The layer over stores that are asked in turn."""

from __future__ import annotations

import os

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.errors import ChunkInvalid, ChunkMissing, StoreError, UsageError
from desync.formats.ids import ChunkIds
from desync.interfaces import ILocalFiles
from desync.stores.local import LocalStore
from desync.stores.local_files import LocalFiles
from desync.stores.memory import MemoryStore
from desync.stores.route import Route
from desync.testing.batch_contract import BatchContract, ids_of
from desync.testing.contract import SourceContract
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink
from desync.testing.stores import ScriptedStore
from desync.testing.threads import InlineThreads


class ContractTests(SourceContract, BatchContract, TestCase):
    """A route over three stores, among which the chunks are scattered."""

    def make_store(self) -> Route:
        self.members = [MemoryStore(location=name) for name in "abc"]
        return Route(self.members)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.members[chunk_id[0] % 3].plant(chunk_id, stored, extension)


class RouteTests(SynchronousTestCase):
    """What a route does beyond the contract."""

    def setUp(self) -> None:
        self.chunks = sample_chunks(6)
        self.first = ScriptedStore(MemoryStore(self.chunks[:3], location="first"))
        self.second = ScriptedStore(MemoryStore(self.chunks[2:5], location="second"))
        self.route = Route([self.first, self.second])

    def test_order(self) -> None:
        """The second store is asked only for what the first doesn't have."""
        for chunk in self.chunks[:5]:
            found = self.successResultOf(self.route.get(chunk.chunk_id))
            self.assertEqual(found.plain, chunk.plain)
        self.assertEqual(len(self.first.calls), 5)
        asked = [ids[0] for _, ids in self.second.calls]
        self.assertEqual(asked, list(ids_of(*self.chunks[3:5])))

    def test_order_of_batches(self) -> None:
        """Of many chunks the second store is asked only for those that the first doesn't have."""
        sink = CollectingSink()
        self.successResultOf(self.route.get_many(ids_of(*self.chunks), sink))
        self.assertEqual(self.second.calls, [("get_many", sorted(ids_of(*self.chunks[3:])))])
        self.assertEqual(sink.missing, list(ids_of(self.chunks[5])))
        self.assertEqual(len(sink.found), 5)

    def test_all_found(self) -> None:
        """Where the first store has everything, no other is asked."""
        sink = CollectingSink()
        self.successResultOf(self.route.get_many(ids_of(*self.chunks[:3]), sink))
        self.successResultOf(self.route.missing(ids_of(*self.chunks[:3])))
        self.successResultOf(self.route.has(self.chunks[0].chunk_id))
        self.assertEqual(self.second.calls, [])

    def test_missing_names_all(self) -> None:
        """A chunk that no store has is missing from all of them."""
        error = self.failureResultOf(self.route.get(self.chunks[5].chunk_id), ChunkMissing).value
        self.assertTrue(str(error).startswith("first, second: chunk "), str(error))

    def test_error_stops(self) -> None:
        """An error of a store isn't a chunk that is missing: no other store is asked."""
        for operation in (
            lambda: self.route.get(self.chunks[3].chunk_id),
            lambda: self.route.has(self.chunks[3].chunk_id),
            lambda: self.route.missing(ids_of(*self.chunks)),
        ):
            self.first.fail_next(StoreError("first", "it is broken"))
            error = self.failureResultOf(operation(), StoreError).value
            self.assertEqual(str(error), "first: it is broken")
        self.assertEqual(self.second.calls, [])

    def test_error_stops_in_batch(self) -> None:
        """Of many chunks, those that a store failed with aren't asked for elsewhere."""
        broken, bad = self.chunks[2:4]
        self.first.failing = {
            broken.chunk_id: [StoreError("first", "it is broken")],
            bad.chunk_id: [ChunkInvalid(bad.chunk_id, "rotten")],
        }
        sink = CollectingSink()
        self.successResultOf(self.route.get_many(ids_of(*self.chunks[:5]), sink))
        self.assertEqual(str(sink.errors[broken.chunk_id]), "first: it is broken")
        # An error that doesn't say where it happened is given the store's name.
        self.assertTrue(str(sink.errors[bad.chunk_id]).startswith("first: chunk "))
        self.assertEqual(self.second.calls, [("get_many", [self.chunks[4].chunk_id])])

    def test_failing_transfer(self) -> None:
        """If a whole transfer fails, so do the chunks that had no answer."""
        self.first.fail_next(StoreError("first", "it is broken"), after=2)
        sink = CollectingSink()
        self.successResultOf(self.route.get_many(ids_of(*self.chunks[:3]), sink))
        ids = sorted(ids_of(*self.chunks[:3]))
        self.assertEqual((sorted(sink.found), list(sink.errors)), (ids[:2], ids[2:]))

    def test_cancel(self) -> None:
        """Cancelling cancels what the store in turn is doing."""
        self.second.hold()
        getting = self.route.get(self.chunks[3].chunk_id)
        transfer = self.route.get_many(ids_of(*self.chunks[3:]), CollectingSink())
        self.assertEqual(self.second.waiting, 2)
        for running in getting, transfer:
            running.cancel()
            self.failureResultOf(running, CancelledError)
        self.assertEqual(self.second.canceled, ["get", "get_many"])

    def test_many_blocks(self) -> None:
        """More ids than are dealt with at a time are dealt with all the same."""
        some = [sample_chunk(number, 20) for number in range(9000)]
        store = MemoryStore(some[::2])
        sink = CollectingSink()
        route = Route([store, MemoryStore(some[1::4])])
        self.successResultOf(route.get_many(ids_of(*some), sink))
        self.assertEqual((len(sink.found), len(sink.missing)), (6750, 2250))
        self.assertEqual(sink.violations, [])

    def test_refused(self) -> None:
        """A store that can't be asked for many chunks at a time is refused, and so is no store."""
        self.assertRaises(TypeError, Route, [self.first, object()])
        self.assertRaises(UsageError, Route, [])

    def test_close(self) -> None:
        """Closing closes all stores."""
        self.successResultOf(self.route.close())
        self.assertEqual((self.first.closed, self.second.closed), (1, 1))

    def test_local(self) -> None:
        """A route over local stores is local: it gives their directories, in order."""
        stores = []
        for _ in range(2):
            path = self.mktemp()
            os.mkdir(path)
            stores.append(LocalStore(LocalFiles(path), None, InlineThreads()))  # type: ignore[arg-type]
        route = Route(stores)
        self.assertTrue(ILocalFiles.providedBy(route))
        expected = tuple(files for store in stores for files in store.local_files())
        self.assertEqual(route.local_files(), expected)
        self.assertEqual(Route([route, stores[0]]).local_files(), (*expected, expected[0]))

    def test_not_local(self) -> None:
        """A route isn't local if only some of its stores are."""
        self.assertFalse(ILocalFiles.providedBy(self.route))
        self.assertEqual(len(self.successResultOf(self.route.missing(ChunkIds(b"")))), 0)
