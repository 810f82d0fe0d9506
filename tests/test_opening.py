# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""From locations to stores."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer_only

from desync.chunking.digests import SHA256
from desync.errors import StoreError, UsageError
from desync.interfaces import IBatch, IChunkSource
from desync.options import StoreOptions
from desync.stores import opening
from desync.stores.cache import Cache
from desync.stores.failover import Failover
from desync.stores.local import LocalStore
from desync.stores.local_files import LocalFiles
from desync.stores.memory import MemoryStore
from desync.stores.opening import local_source, local_target, open_source, open_target
from desync.stores.retry import Retry
from desync.stores.route import Route
from desync.testing.batch_contract import ids_of
from desync.testing.samples import sample_chunks
from desync.testing.sinks import CollectingSink
from desync.testing.stores import ScriptedStore

if TYPE_CHECKING:
    from desync.chunking.digests import Digest
    from desync.stores.location import Location


def defaults(location: str) -> StoreOptions:
    """Configure all stores alike."""
    return StoreOptions()


class LocalTests(SynchronousTestCase):
    """Stores that need no reactor."""

    def directory(self) -> str:
        path: str = os.path.abspath(self.mktemp())
        os.mkdir(path)
        return path

    def test_source(self) -> None:
        """Local directories are opened in their order, each with its own options."""
        paths = [self.directory(), self.directory()]

        def options(location: str) -> StoreOptions:
            return StoreOptions(uncompressed=location == paths[0], skip_verify=True)

        found = local_source(paths, options, SHA256)
        assert found is not None
        self.assertEqual([files.path for files in found], paths)
        self.assertEqual([files.form.extension for files in found], ["", ".cacnk"])
        self.assertTrue(all(files.skip_verify and files.digest is SHA256 for files in found))

    def test_not_plain(self) -> None:
        """With a cache, a failover group or a URL among them, the other way is needed."""
        path = self.directory()
        self.assertIsNone(local_source([path], defaults, cache=path))
        self.assertIsNone(local_source([path, f"{path}|{path}"], defaults))
        self.assertIsNone(local_source([path, "http://host/"], defaults))
        self.assertIsNone(local_target("sftp://host/dir", defaults))

    def test_target(self) -> None:
        """A target is one directory; a bar in its name is part of it."""
        path = self.directory() + "/a|b"
        os.mkdir(path)
        found = local_target(path, lambda _: StoreOptions(compression_level=19))
        assert found is not None
        self.assertEqual((found.path, found.level), (path, 19))

    def test_unusable(self) -> None:
        """A store that isn't there, or is a file, is refused at once, with its name."""
        path = self.directory()
        file = os.path.join(path, "file")
        with open(file, "wb"):
            pass
        for location, why in (
            (os.path.join(path, "absent"), "No such file or directory"),
            (file, "not a directory"),
        ):
            for open_it in (
                lambda location=location: local_source([location], defaults),
                lambda location=location: local_target(location, defaults),
            ):
                error = self.assertRaises(StoreError, open_it)
                self.assertEqual(str(error), f"{location}: {why}")

    def test_refused(self) -> None:
        """No store, an empty one, an encrypted one and a malformed location are refused."""
        path = self.directory()
        self.assertRaises(UsageError, local_source, [], defaults)
        self.assertRaises(UsageError, local_source, [""], defaults)
        self.assertRaises(UsageError, local_target, "/tmp/100%", defaults)
        self.assertRaises(UsageError, local_target, path, lambda _: StoreOptions(encryption=True))

    def test_no_twisted(self) -> None:
        """Opening local stores and reading from them imports no Twisted."""
        chunk = sample_chunks(1)[0]
        path = self.directory()
        LocalFiles(path).put_chunk(chunk)
        program = (
            "import sys\n"
            "from desync.options import StoreOptions\n"
            "from desync.stores.opening import local_source\n"
            "found = local_source([sys.argv[1]], lambda _: StoreOptions())\n"
            "found[0].get(bytes.fromhex(sys.argv[2]))\n"
            "heavy = {'twisted', 'zope', 'attr', 'dataclasses', 'click'}\n"
            "print(sorted(heavy.intersection(sys.modules)))\n"
        )
        arguments = [sys.executable, "-c", program, path, chunk.chunk_id.hex()]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
        self.assertEqual((done.stdout, done.stderr), ("[]\n", ""))


class OpenTests(TestCase):
    """Stores of any kind, for use under a reactor."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.chunks = sample_chunks(20)
        self.paths = []
        for number in range(3):
            path = os.path.abspath(self.mktemp())
            os.mkdir(path)
            self.paths.append(path)
            for chunk in self.chunks[number::3]:
                LocalFiles(path).put_chunk(chunk)
        self.opened: list[Location] = []
        self.patch(opening, "REMOTE_OPENERS", {"sftp": f"{__name__}:open_memory"})
        self.remote = ScriptedStore(MemoryStore(self.chunks, location="sftp://host/bucket"))
        remotes.append(self.remote)
        self.addCleanup(remotes.clear)

    async def fetch(self, store: IChunkSource) -> int:
        sink = CollectingSink()
        await IBatch(store).get_many(ids_of(*self.chunks), sink)
        self.assertEqual(sink.violations, [])
        return len(sink.found)

    async def test_layers(self) -> None:
        """Several stores make a route, bars a failover group, and a cache lies over all."""
        cache = os.path.abspath(self.mktemp())
        os.mkdir(cache)
        locations = [self.paths[0], f"{self.paths[1]}|{self.paths[2]}"]
        store = open_source(locations, defaults, self.reactor, cache=cache)
        self.assertIsInstance(store, Cache)
        self.assertEqual(
            store.location,
            f"{self.paths[0]}, {self.paths[1]}|{self.paths[2]} with cache {cache}",
        )
        self.assertEqual(await self.fetch(store), 14)
        await store.close()
        cached = open_source([cache], defaults, self.reactor)
        self.assertIsInstance(cached, LocalStore)
        self.assertEqual(await self.fetch(cached), 14)
        await cached.close()

    async def test_no_needless_layers(self) -> None:
        """One store is itself, and a group alone needs no route."""
        for locations, kind in (
            ([self.paths[0]], LocalStore),
            (["|".join(self.paths)], Failover),
            (self.paths, Route),
        ):
            store = open_source(locations, defaults, self.reactor)
            self.assertIsInstance(store, kind)
            await store.close()

    async def test_repair(self) -> None:
        """Whether the cache is repaired can be chosen."""
        bad = self.chunks[0]
        LocalFiles(self.paths[1]).put(bad.chunk_id, b"rubbish")
        for repair, found in (False, 6), (True, 7):
            store = open_source(
                self.paths[:1],
                defaults,
                self.reactor,
                cache=self.paths[1],
                cache_repair=repair,
            )
            sink = CollectingSink()
            await IBatch(store).get_many(ids_of(*self.chunks[::3]), sink)
            self.assertEqual(len(sink.found), found)
            await store.close()

    async def test_remote(self) -> None:
        """A scheme that is known is opened by its module, with its options."""
        store = open_source(["SFTP://host/bucket"], defaults, self.reactor)
        self.assertIs(store, self.remote)
        self.assertEqual(await self.fetch(store), 20)
        await store.close()

    def test_retries(self) -> None:
        """Over HTTP error-retry counts attempts, over S3 retries; the interval is in ns."""
        opening.REMOTE_OPENERS.update(
            dict.fromkeys(("http", "s3+https"), f"{__name__}:open_memory")
        )
        clock: Any = Clock()
        options = StoreOptions(error_retry=2, error_retry_base_interval=10**9)
        for location, attempts in ("http://host", 2), ("s3+https://host/bucket", 3):
            self.remote.calls.clear()
            self.remote.fail_next(*[StoreError("far", "down")] * attempts)
            store = open_source([location], lambda _: options, clock)
            self.assertIsInstance(store, Retry)
            running = store.get(self.chunks[0].chunk_id)
            clock.pump([0.9, 0.1, 1.9, 0.1])
            self.failureResultOf(running, StoreError)
            self.assertEqual(len(self.remote.calls), attempts)

    def test_unsupported(self) -> None:
        """A scheme that has no opener yet is refused by name, its secrets masked."""
        for open_it in (
            lambda: open_source(["https://user:secret@host/"], defaults, self.reactor),
            lambda: open_target("https://user:secret@host/", defaults, self.reactor),
        ):
            error = self.assertRaises(UsageError, open_it)
            self.assertIn("stores over https are not supported by this version", str(error))
            self.assertNotIn("secret", str(error))

    async def test_target(self) -> None:
        """A target can be written to."""
        store = open_target(self.paths[0], defaults, self.reactor)
        await store.put(self.chunks[1])
        self.assertTrue(LocalFiles(self.paths[0]).has(self.chunks[1].chunk_id))
        await store.close()

    def test_read_only(self) -> None:
        """A store that can't be written to is no target and no cache, and is closed again."""
        remotes[0] = self.remote = ReadOnly(MemoryStore())
        error = self.assertRaises(
            UsageError, open_target, "sftp://host/bucket", defaults, self.reactor
        )
        self.assertEqual(str(error), "store 'sftp://host/bucket' does not support writing")
        self.assertEqual(self.remote.closed, 1)
        self.assertRaises(
            UsageError, open_source, self.paths, defaults, self.reactor, cache="sftp://host/bucket"
        )

    def test_closed_on_error(self) -> None:
        """If one store can't be opened, those that were are closed."""
        locations = ["sftp://host/bucket", "/does/not/exist"]
        self.assertRaises(StoreError, open_source, locations, defaults, self.reactor)
        self.assertEqual(self.remote.closed, 1)

    def test_nothing(self) -> None:
        """No store is refused."""
        self.assertRaises(UsageError, open_source, [], defaults, self.reactor)


@implementer_only(IChunkSource, IBatch)
class ReadOnly(ScriptedStore):
    """A store that can't be written to."""


#: What the opener of these tests opens.
remotes: list[ScriptedStore] = []


def open_memory(
    location: Location, options: StoreOptions, digest: Digest, reactor: Any
) -> ScriptedStore:
    """Open the store of a test."""
    return remotes[0]
