# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Store files, and the store whose parts are replaced while it is used."""

from __future__ import annotations

import json
import os
import signal

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.errors import StoreError, UsageError
from desync.interfaces import IChunkSource, IChunkTarget
from desync.stores.memory import MemoryStore
from desync.stores.reloading import (
    Reloading,
    StoreFile,
    StoreFileReader,
    on_hangup,
    read_store_file,
)
from desync.stores.route import Route
from desync.testing.batch_contract import BatchContract
from desync.testing.contract import SourceContract, TargetContract
from desync.testing.samples import sample_chunks
from desync.testing.stores import ScriptedStore


class ContractTests(SourceContract, TargetContract, BatchContract, TestCase):
    """A store in memory that took another one's place."""

    def make_store(self) -> Reloading:
        self.inner = MemoryStore()
        store = Reloading(MemoryStore())
        store.replace(self.inner)
        return store

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        self.inner.plant(chunk_id, stored, extension)


class ReloadingTests(SynchronousTestCase):
    """What happens to operations and to stores when one replaces another."""

    def setUp(self) -> None:
        self.chunks = sample_chunks(2)
        self.old = ScriptedStore(MemoryStore(self.chunks[:1], location="old"))
        self.new = ScriptedStore(MemoryStore(self.chunks[1:], location="new"))
        self.store = Reloading(self.old)

    def test_running_operations_finish(self) -> None:
        """What runs ends on the old store, which is closed then and not before."""
        self.old.hold()
        getting = self.store.get(self.chunks[0].chunk_id)
        looking = self.store.has(self.chunks[0].chunk_id)
        self.store.replace(self.new)
        self.assertEqual(self.store.location, "new")
        found = self.successResultOf(self.store.get(self.chunks[1].chunk_id))
        self.assertEqual(found.plain, self.chunks[1].plain)
        self.assertEqual(self.old.closed, 0)
        self.old.release(1)
        self.assertEqual(self.successResultOf(getting).plain, self.chunks[0].plain)
        self.assertEqual(self.old.closed, 0)
        self.old.release()
        self.assertTrue(self.successResultOf(looking))
        self.assertEqual((self.old.closed, self.new.closed), (1, 0))

    def test_idle_store_is_closed(self) -> None:
        """A store that nobody uses is closed as soon as another takes its place."""
        self.store.replace(self.new)
        self.assertEqual(self.old.closed, 1)

    def test_failed_operation(self) -> None:
        """Operations that fail, or are refused at once, keep no store open."""
        self.old.fail_next(StoreError("old", "broken"))
        self.failureResultOf(self.store.get(self.chunks[0].chunk_id), StoreError)
        store = Reloading(MemoryStore())
        self.assertRaises(ValueError, store.get, b"short")
        self.store.replace(self.new)
        self.assertEqual(self.old.closed, 1)

    def test_canceled_operation(self) -> None:
        """So do operations that are canceled."""
        self.old.hold()
        running = self.store.get(self.chunks[0].chunk_id)
        self.store.replace(self.new)
        running.cancel()
        self.failureResultOf(running)
        self.assertEqual(self.old.closed, 1)

    def test_close_waits(self) -> None:
        """Closing closes all, those included that took leave but have work to do."""
        self.old.hold()
        running = self.store.has(self.chunks[0].chunk_id)
        self.store.replace(self.new)
        closing = self.store.close()
        self.assertEqual(self.new.closed, 1)
        self.assertNoResult(closing)
        self.old.release()
        self.successResultOf(running)
        self.successResultOf(closing)
        self.assertEqual(self.old.closed, 1)

    def test_writable_stays_writable(self) -> None:
        """What is written to can't be replaced by what is only read; others don't pretend."""
        readable = Route([MemoryStore()])
        error = self.assertRaises(UsageError, self.store.replace, readable)
        self.assertEqual(
            str(error), "a writable store can only be updated with another writable one"
        )
        self.assertEqual(self.store.location, "old")
        self.assertTrue(IChunkTarget.providedBy(self.store))
        self.assertFalse(IChunkTarget.providedBy(Reloading(readable)))
        self.assertTrue(IChunkSource.providedBy(Reloading(readable)))


class StoreFileTests(SynchronousTestCase):
    """What store files may say."""

    def written(self, content: str) -> str:
        path: str = self.mktemp()
        with open(path, "w") as file:
            file.write(content)
        return path

    def test_read(self) -> None:
        """Stores in their order, and a cache; names in any case, unknown ones are ignored."""
        for text, stores, cache in (
            ('{"stores": ["http://a/|http://b/", "/c"], "cache": "/d"}', 2, "/d"),
            ('{"Stores": ["/c"], "CACHE": "", "comment": 1}', 1, None),
            ('{"stores": ["/c"], "cache": null}', 1, None),
        ):
            found = read_store_file(self.written(text))
            self.assertEqual((len(found.stores), found.cache), (stores, cache))
        self.assertEqual(found, StoreFile(("/c",)))

    def test_refused(self) -> None:
        """What isn't a store file is refused in one line that names it."""
        for text in ("", "[]", "{", '{"stores": "/c"}', '{"stores": [1]}', "[" * 100_000, "\x00"):
            path = self.written(text)
            error = self.assertRaises(UsageError, read_store_file, path)
            self.assertTrue(str(error).startswith(f"failed to read store-file '{path}': "), error)
            self.assertNotIn("\n", str(error))
        path = self.written(json.dumps({"stores": ["/c"], "cache": ["/d"]}))
        self.assertRaises(UsageError, read_store_file, path)
        path = self.written('{"stores": ["' + "x" * (2 << 20) + '"]}')
        self.assertRaises(UsageError, read_store_file, path)
        self.assertRaises(UsageError, read_store_file, self.mktemp())

    def test_no_store(self) -> None:
        """A file without stores is refused as a command line without them is."""
        for text in ("{}", '{"stores": []}', '{"stores": null, "cache": "/c"}'):
            error = self.assertRaises(UsageError, read_store_file, self.written(text))
            self.assertEqual(str(error), "no store provided")


class StoreFileReaderTests(SynchronousTestCase):
    """Reading the file again."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.said: list[str] = []
        self.opened: list[ScriptedStore] = []
        self.write(["/one"])
        self.store = Reloading(self.stack(read_store_file(self.path)))
        self.reader = StoreFileReader(self.path, self.stack, self.store, self.said.append)

    def write(self, stores: object) -> None:
        with open(self.path, "w") as file:
            json.dump({"stores": stores}, file)

    def stack(self, file: StoreFile) -> IChunkSource:
        if file.stores == ("/gone",):
            raise StoreError("/gone", "No such file or directory")
        inner = ScriptedStore(MemoryStore(location=file.stores[0]))
        self.opened.append(inner)
        return Route([inner]) if file.stores == ("/route",) else inner

    def test_reload(self) -> None:
        """What the file says now is used, and that is said."""
        self.write(["/two"])
        self.assertTrue(self.reader.read_again())
        self.assertEqual(self.store.location, "/two")
        self.assertEqual([store.closed for store in self.opened], [1, 0])
        self.assertEqual(self.said, [f"reloaded {self.path}: /two"])

    def test_invalid(self) -> None:
        """A file that can't be used is said to be so in one line, and changes nothing."""
        for stores in ([], ["/gone"], "nonsense", ["/route"]):
            self.write(stores)
            self.assertFalse(self.reader.read_again())
        os.unlink(self.path)
        self.assertFalse(self.reader.read_again())
        self.assertEqual(self.store.location, "/one")
        self.assertEqual(len(self.said), 5)
        for line in self.said:
            self.assertTrue(line.startswith("failed to reload configuration: "), line)
            self.assertNotIn("\n", line)
        # The one that couldn't take the place of what is written to isn't left open.
        self.assertEqual([store.closed for store in self.opened], [0, 1])


class HangupTests(TestCase):
    """The signal that asks for it."""

    async def test_signal(self) -> None:
        """SIGHUP calls the function in the reactor's time, until that is undone."""
        from twisted.internet import reactor

        called: Deferred[None] = Deferred()
        before = signal.getsignal(signal.SIGHUP)
        undo = on_hangup(reactor, lambda: called.callback(None))  # type: ignore[arg-type]
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            self.assertFalse(called.called)
            await called
        finally:
            undo()
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)

    def test_ignored(self) -> None:
        """A process that was told to ignore it goes on ignoring it."""
        from twisted.internet import reactor

        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            on_hangup(reactor, self.fail)()  # type: ignore[arg-type]
            self.assertEqual(signal.getsignal(signal.SIGHUP), signal.SIG_IGN)
        finally:
            signal.signal(signal.SIGHUP, before)
