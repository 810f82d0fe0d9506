# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The stores over SFTP, with the real sftp-server at the other end of their pipes."""

from __future__ import annotations

import os
import stat
import sys
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import TestCase

from desync.chunking.digests import SHA256, SHA512_256
from desync.errors import ChunkInvalid, StoreError
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.formats.stored import chunk_name
from desync.stores.sftp import SftpIndexStore, SftpStore
from desync.stores.sftp_client import Link, SftpFiles
from desync.stores.ssh_command import PipedProcess, spawn
from desync.testing.batch_contract import BatchContract, RenewerContract, ids_of
from desync.testing.contract import RemoverContract, SourceContract, TargetContract
from desync.testing.index_contract import IndexTargetContract, sample_index
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink, listed_ids
from desync.testing.threads import InlineThreads

from .peers import peer

_PLACES = (
    "/usr/lib/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
)


def the_reactor() -> Any:
    """Give the reactor that trial runs."""
    from twisted.internet import reactor

    return reactor


def sftp_server() -> str:
    """Find the program, which comes with sshd."""
    peer("sshd")
    for place in _PLACES:
        if os.path.exists(place):
            return place
    raise SkipTest("sftp-server: not where it is looked for")


def files_over(*command: str, n: int = 2) -> SftpFiles:
    """Give the files that a program serves."""

    def start(link: Any) -> PipedProcess:
        return spawn(the_reactor(), list(command), link, "sftp://far/store")

    return SftpFiles("sftp://far/store", start, n)


class CompressedTests(
    SourceContract, TargetContract, BatchContract, RenewerContract, RemoverContract, TestCase
):
    """A store whose chunks are compressed."""

    def make_store(self) -> SftpStore:
        self.path = os.path.abspath(self.mktemp())
        os.mkdir(self.path)
        self.addCleanup(self.check_left)
        return SftpStore(
            files_over(sftp_server()),
            self.path,
            InlineThreads(),
            self.digest,
            extension=self.extension,
        )

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        path = os.path.join(self.path, chunk_name(chunk_id, extension))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(stored)

    def pass_time(self, seconds: float) -> None:
        for directory, _, names in os.walk(self.path):
            for name in names:
                path = os.path.join(directory, name)
                then = os.stat(path).st_mtime - seconds
                os.utime(path, (then, then))

    def check_left(self) -> None:
        """Make sure that nothing but chunks is left in the store."""
        for _, _, names in os.walk(self.path):
            for name in names:
                self.assertRegex(name, r"^[0-9a-f]{64}(\.cacnk)?$")


class UncompressedTests(CompressedTests):
    """A store whose chunks are as they are, with the other digest."""

    extension = ""
    digest = SHA256


class IndexTests(IndexTargetContract, TestCase):
    """A store of indexes."""

    def make_store(self) -> SftpIndexStore:
        self.path = os.path.abspath(self.mktemp())
        os.mkdir(self.path)
        return SftpIndexStore(files_over(sftp_server(), n=1), self.path, InlineThreads())

    def plant(self, name: str, data: bytes) -> None:
        with open(os.path.join(self.path, name), "wb") as file:
            file.write(data)


class MoreTests(TestCase):
    """What the stores do beyond the contract."""

    def setUp(self) -> None:
        self.path = os.path.abspath(self.mktemp())
        os.mkdir(self.path)

    def store(self, *command: str, n: int = 2) -> SftpStore:
        """Give a store of the directory."""
        files = files_over(*(command or (sftp_server(),)), n=n)
        store = SftpStore(files, self.path, InlineThreads(), SHA512_256)
        self.addCleanup(store.close)
        return store

    async def test_large(self) -> None:
        """A chunk of many requests is written and read whole."""
        chunk = Chunk.of(os.urandom(3_000_001), SHA512_256)
        store = self.store(n=1)
        await store.put(chunk)
        self.assertEqual((await store.get(chunk.chunk_id)).plain, chunk.plain)
        for size in (65535, 65536, 65537, 131072):
            chunk = Chunk.of(os.urandom(size), SHA512_256)
            path = os.path.join(self.path, chunk_name(chunk.chunk_id, ""))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(chunk.plain)
            self.assertEqual((await store.get(chunk.chunk_id)).plain, chunk.plain)

    async def test_modes(self) -> None:
        """Files and directories have the modes that stores on local files have."""
        chunk = sample_chunk()
        self.addCleanup(os.umask, os.umask(0o022))
        await self.store().put(chunk)
        path = os.path.join(self.path, chunk_name(chunk.chunk_id, ".cacnk"))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o644)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode), 0o755)

    async def test_not_there(self) -> None:
        """A store that isn't there is an error, and not an empty one."""
        store = self.store()
        os.rmdir(self.path)
        for operation in (store.get, store.has):
            with self.assertRaisesRegex(StoreError, "^sftp://far/store: .*No such file"):
                await operation(bytes(32))
        with self.assertRaisesRegex(StoreError, "No such file"):
            await listed_ids(store)

    async def test_prune_temporary(self) -> None:
        """What an interrupted writer left is removed when it is old, Go desync's too."""
        store, chunk = self.store(), sample_chunk()
        await store.put(chunk)
        path = os.path.join(self.path, chunk_name(chunk.chunk_id, ".cacnk"))
        for number, age in ((17, 10_000), (18, 0)):
            with open(f"{path}.{number}", "wb"):
                pass
            then = os.stat(path).st_mtime - age
            os.utime(f"{path}.{number}", (then, then))
        keep = ids_of(chunk)
        dry = await store.prune(keep, 600, dry_run=True)
        self.assertEqual(await store.prune(keep, 600), dry)
        self.assertEqual((dry.kept, dry.leftovers), (1, 1))
        self.assertFalse(os.path.exists(f"{path}.17"))
        os.unlink(f"{path}.18")

    async def test_connections(self) -> None:
        """There are no more connections than allowed."""
        started = []
        files = files_over(sftp_server(), n=3)
        start = files._spawn
        files._spawn = lambda link: started.append(link) or start(link)  # type: ignore[func-returns-value]
        store = SftpStore(files, self.path, InlineThreads(), SHA512_256)
        self.addCleanup(store.close)
        chunks = sample_chunks(40)
        await gatherResults([store.put(chunk) for chunk in chunks])
        sink = CollectingSink()
        await store.get_many(ids_of(*chunks), sink)
        self.assertEqual(len(sink.found), 40)
        self.assertEqual(len(started), 3)

    async def test_bad_servers(self) -> None:
        """A program that isn't a server fails what is asked of it, and nothing hangs."""
        for code, why in (
            ("", "the connection was lost"),
            ("import sys; sys.exit(3)", "ended with exit code 3"),
            ("import os; os.write(1, b'Welcome to this machine')", "the connection was lost"),
            ("import os; os.write(1, b'\\0\\xff\\xff\\xff\\2' + bytes(99))", "connection was lost"),
            ("import os; os.write(1, b'\\0\\0\\0\\5e\\0\\0\\0\\7')", "connection was lost"),
        ):
            store = self.store(sys.executable, "-c", code)
            with self.assertRaisesRegex(StoreError, why):
                await store.get(bytes(32))
            sink = CollectingSink()
            await store.get_many(ChunkIds.from_bytes(bytes(32)), sink)
            self.assertIn("sftp://far/store: ", str(sink.errors[bytes(32)]))

    async def test_silent_server(self) -> None:
        """A server that greets and then says nothing is given up, and its process ended."""
        greet = "import os, sys; os.write(1, b'\\0\\0\\0\\5\\2\\0\\0\\0\\3'); sys.stdin.read()"

        def start(link: Link) -> PipedProcess:
            process = spawn(the_reactor(), [sys.executable, "-c", greet], link, "sftp://far/store")
            link.watch(the_reactor(), 0.1)
            return process

        files = SftpFiles("sftp://far/store", start, 1)
        with self.assertRaisesRegex(
            StoreError, r"connection was lost \(no answer for 0\.1 seconds"
        ):
            await files.stat("/store")
        await files.close()
        self.assertTrue(all(process.ended for process in files._processes))

    async def test_lost(self) -> None:
        """A connection that is lost fails what is under way; the next operation has a new one."""
        store, chunk = self.store(n=1), sample_chunk()
        await store.put(chunk)
        waiting = store.get(chunk.chunk_id)
        process = store._files._processes[0]
        process.kill()
        with self.assertRaises(StoreError):
            await waiting
        self.assertEqual((await store.get(chunk.chunk_id)).plain, chunk.plain)

    async def test_too_large(self) -> None:
        """A file that is too large for a chunk isn't read to its end."""
        store, chunk_id = self.store(n=1), bytes(32)
        path = os.path.join(self.path, chunk_name(chunk_id, ".cacnk"))
        os.makedirs(os.path.dirname(path))
        with open(path, "wb") as file:
            file.truncate(1 << 40)
        with self.assertRaisesRegex(ChunkInvalid, "it is too large"):
            await store.get(chunk_id)

    async def test_index_modes(self) -> None:
        """An index that is replaced leaves nothing beside it."""
        store = SftpIndexStore(files_over(sftp_server(), n=1), self.path, InlineThreads())
        self.addCleanup(store.close)
        for number in range(2):
            await store.put_index("a.caibx", sample_index(number + 1))
        self.assertEqual(os.listdir(self.path), ["a.caibx"])


class LinkTests(TestCase):
    """A connection whose server says what it shouldn't, or nothing."""

    def setUp(self) -> None:
        """Connect a link to nothing."""
        self.transport = StringTransport()
        self.link = Link()
        self.link.makeConnection(self.transport)  # type: ignore[no-untyped-call]

    def test_unasked(self) -> None:
        """An answer to nothing ends the connection."""
        self.link.dataReceived(b"\0\0\0\x0de\0\0\0\7\0\0\0\0\0\0\0\0")
        self.assertTrue(self.transport.disconnecting)
        self.failureResultOf(self.link.ready)

    def test_silent(self) -> None:
        """Only a server that owes an answer is given up, after one to two times the patience."""
        clock, link = Clock(), self.link
        link.watch(clock, 60)
        clock.pump([60] * 5)
        self.assertNoResult(link.ready)
        link.dataReceived(b"\0\0\0\5\2\0\0\0\3")
        clock.pump([60] * 5)
        link.getAttrs(b"/a")  # type: ignore[no-untyped-call]
        clock.advance(60)
        link.dataReceived(b"\0\0\0\x09i\0\0\0\0\0\0\0\0")
        waiting: Deferred[Any] = link.getAttrs(b"/b")  # type: ignore[no-untyped-call]
        clock.advance(60)
        clock.advance(59)
        self.assertNoResult(waiting)
        clock.advance(1)
        self.failureResultOf(waiting)
        self.assertTrue(link.is_lost and self.transport.disconnecting)
        self.assertEqual([], clock.getDelayedCalls())

    def test_watch_ends(self) -> None:
        """A connection that is lost isn't watched any more."""
        clock = Clock()
        self.link.watch(clock, 60)
        self.link.connectionLost()
        self.failureResultOf(self.link.ready)
        self.assertEqual([], clock.getDelayedCalls())
