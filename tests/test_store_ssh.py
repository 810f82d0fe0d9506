# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The store over the casync protocol, against our own server and against bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from desync.chunking.digests import SHA512_256
from desync.errors import ChunkInvalid, StoreError, UsageError
from desync.formats import protocol as p
from desync.formats.ids import ChunkIds
from desync.formats.protocol_session import Service, Session
from desync.options import StoreOptions
from desync.services.casync_offer import Offer
from desync.services.casync_pull import PullSession
from desync.stores.casync_source import ChunkSession
from desync.stores.casync_wire import SessionProtocol
from desync.stores.location import parse_location
from desync.stores.memory import MemoryStore
from desync.stores.ssh import SshStore, open_ssh
from desync.stores.ssh_command import SshTarget
from desync.testing.batch_contract import BatchContract, ids_of
from desync.testing.contract import SourceContract
from desync.testing.samples import sample_chunk, sample_chunks
from desync.testing.sinks import CollectingSink
from desync.testing.threads import InlineThreads

from .casync_link import End, connect

if TYPE_CHECKING:
    from desync.formats.chunk import Chunk
    from desync.formats.protocol import Message


def the_reactor() -> Any:
    """Give the reactor that trial runs."""
    from twisted.internet import reactor

    return reactor


class ContractTests(SourceContract, BatchContract, TestCase):
    """The store in front of our server, which reads from memory."""

    finds_other_form = False
    sessions = 2

    def make_store(self) -> SshStore:
        self.far = MemoryStore(skip_verify=True)

        def begin(session: ChunkSession) -> None:
            server = PullSession(Offer(source=self.far), InlineThreads(), lambda ended: None)
            connect(the_reactor(), session, server)

        return SshStore("ssh://far/store", begin, SHA512_256, InlineThreads(), self.sessions)

    def plant(self, chunk_id: bytes, stored: bytes, extension: str) -> None:
        # The protocol can't tell the forms apart: what the server has it hands out.
        if extension == self.extension:
            self.far.plant(chunk_id, stored, extension)

    def bad_forms(self, chunk: Chunk) -> dict[str, bytes]:
        bad = super().bad_forms(chunk)
        del bad["nothing"]  # which can't be sent
        return bad


class OneSessionTests(ContractTests):
    """The store with one session."""

    sessions = 1


class Scripted(SessionProtocol):
    """A server that answers as a test says."""

    def __init__(self, answer: Any) -> None:
        super().__init__(Session(Service.READABLE_STORE))
        self.requests: list[bytes] = []
        self._answer = answer

    def hear(self, message: Message) -> None:
        if isinstance(message, p.Request):
            self.requests += list(message.ids)
        self._answer(self, message)

    def ended(self) -> None:
        pass


class SessionTests(TestCase):
    """How sessions are used, and what becomes of bad ones."""

    def setUp(self) -> None:
        self.servers: list[Scripted] = []
        self.ends: list[End] = []

    def store(self, answer: Any, n: int = 1) -> SshStore:
        """Make a store whose servers answer with a function."""

        def begin(session: ChunkSession) -> None:
            self.servers.append(Scripted(answer))
            self.ends.append(connect(the_reactor(), session, self.servers[-1])[1])

        store = SshStore("ssh://far/store", begin, SHA512_256, InlineThreads(), n)
        self.addCleanup(store.close)
        return store

    def good(self, *chunks: Chunk) -> Any:
        """Give an answer with these chunks, plain."""
        held = {chunk.chunk_id: chunk.plain for chunk in chunks}

        def answer(server: Scripted, message: Message) -> None:
            if isinstance(message, p.Request):
                for chunk_id in message.ids:
                    server.say(p.ChunkData(chunk_id, held[chunk_id], compressed=False))

        return answer

    async def test_not_asked_twice(self) -> None:
        """No session is asked for a chunk twice: casync wouldn't answer."""
        chunk = sample_chunk()
        store = self.store(self.good(chunk))
        for _ in range(3):
            self.assertEqual((await store.get(chunk.chunk_id)).plain, chunk.plain)
        self.assertEqual([len(server.requests) for server in self.servers], [1, 1, 1])
        sink = CollectingSink()
        await store.get_many(ids_of(chunk), sink)
        self.assertEqual(list(sink.found), [chunk.chunk_id])

    async def test_pipelined(self) -> None:
        """One session is asked for many chunks before any has come."""
        chunks = sample_chunks(100)
        store = self.store(lambda server, message: None)
        running = store.get_many(ids_of(*chunks), CollectingSink())
        while not self.servers or len(self.servers[0].requests) < 100:
            await deferLater(the_reactor(), 0)
        running.cancel()
        running.addErrback(lambda _: None)

    async def test_first_of_request(self) -> None:
        """A server that answers the first chunk of a request, as Go desync's, is asked for all."""
        chunks = sample_chunks(100)
        held = {chunk.chunk_id: chunk.plain for chunk in chunks}

        def answer(server: Scripted, message: Message) -> None:
            if isinstance(message, p.Request):
                first = message.ids[0]
                server.say(p.ChunkData(first, held[first], compressed=False))

        sink = CollectingSink()
        await self.store(answer).get_many(ids_of(*chunks), sink).addTimeout(30, the_reactor())
        self.assertEqual(sorted(sink.found), sorted(held))

    async def fails(self, answer: Any, why: str) -> None:
        """Make sure that a single operation and a batch fail as they should."""
        chunks = sample_chunks(5)
        store = self.store(answer, 2)
        with self.assertRaisesRegex((StoreError, ChunkInvalid), why):
            await store.get(chunks[0].chunk_id)
        sink = CollectingSink()
        await store.get_many(ids_of(*chunks), sink)
        self.assertEqual(sorted(sink.errors), sorted(ids_of(*chunks)))
        for error in sink.errors.values():
            self.assertRegex(str(error), why)

    async def test_lost(self) -> None:
        """A server that leaves fails what it was asked for."""
        await self.fails(lambda server, message: server.finish(), "ended before all was said")

    async def test_goodbye(self) -> None:
        """A server that says goodbye before all is answered fails it too."""
        await self.fails(
            lambda server, message: server.say(p.Goodbye()), "the server ended the session"
        )

    async def test_abort(self) -> None:
        """What a server gives as the reason for giving up is shown."""

        def answer(server: Scripted, message: Message) -> None:
            if isinstance(message, p.Request) and not server.session.over:
                server.say(p.Abort(2, "no store"))

        await self.fails(answer, "^ssh://far/store: the server gave up: no store$")

    async def test_garbage(self) -> None:
        """What isn't the protocol, a greeting of the shell say, is an error with a reason."""

        def answer(server: Scripted, message: Message) -> None:
            self.ends[-1].write(b"Welcome to this machine\n")

        await self.fails(answer, "casync protocol: a message of the unknown type")

    async def test_unasked(self) -> None:
        """A chunk that wasn't asked for ends the session."""

        def answer(server: Scripted, message: Message) -> None:
            if isinstance(message, p.Request):
                self.ends[-1].write(p.ChunkData(bytes(32), b"x").encode())

        await self.fails(answer, "which nobody asked for")

    async def test_wrong_chunk(self) -> None:
        """A wrong chunk under an id that was asked for is invalid, and the session goes on."""

        def answer(server: Scripted, message: Message) -> None:
            if isinstance(message, p.Request):
                for chunk_id in message.ids:
                    server.say(p.ChunkData(chunk_id, b"wrong", compressed=False))

        await self.fails(answer, "is invalid: its sha512-256 is")

    async def test_no_offer(self) -> None:
        """A server without a store to read is refused."""
        session = ChunkSession("far", lambda session: None)
        end = connect(the_reactor(), session, _Silent())[1]
        end.write(p.Hello(int(Service.READABLE_INDEX)).encode())
        waiting: Deferred[Any] = Deferred()
        session.ask([bytes(32)], lambda messages, lost, why: waiting.errback(why or Exception()))
        with self.assertRaisesRegex(StoreError, "doesn't offer to pull chunks"):
            await waiting

    async def test_silent(self) -> None:
        """A server that greets and then says nothing is given up after a while."""
        clock = Clock()
        session = ChunkSession("far", lambda session: None)
        end = connect(the_reactor(), session, _Silent())[1]
        session.watch(clock, 60)
        waiting: Deferred[Any] = Deferred()
        session.ask([bytes(32)], lambda messages, lost, why: waiting.errback(why or Exception()))
        clock.advance(60)
        clock.advance(60)
        self.assertNoResult(waiting)
        end.write(p.Hello(int(Service.READABLE_STORE)).encode())
        await deferLater(the_reactor(), 0.01)
        clock.advance(60)
        self.assertNoResult(waiting)
        clock.advance(60)
        self.failureResultOf(waiting, StoreError)
        self.assertEqual(clock.getDelayedCalls(), [])

    async def test_close_under_way(self) -> None:
        """Closing fails what is under way, and nothing begins afterwards."""
        store = self.store(lambda server, message: None)
        waiting = store.get(bytes(32))
        while not self.servers or not self.servers[0].requests:
            await deferLater(the_reactor(), 0)
        await store.close()
        with self.assertRaises(StoreError):
            await waiting
        with self.assertRaises(StoreError):
            await store.get(bytes(32))

    async def test_replaced(self) -> None:
        """A session that broke is replaced by the next operation."""
        chunk = sample_chunk()
        good = self.good(chunk)

        def answer(server: Scripted, message: Message) -> None:
            if len(self.servers) == 1:
                server.finish()
            else:
                good(server, message)

        store = self.store(answer)
        with self.assertRaises(StoreError):
            await store.get(chunk.chunk_id)
        self.assertEqual((await store.get(chunk.chunk_id)).plain, chunk.plain)

    async def test_many_at_once(self) -> None:
        """Single operations share sessions."""
        chunks = sample_chunks(50)
        store = self.store(self.good(*chunks), 3)
        found = await gatherResults([store.get(chunk.chunk_id) for chunk in chunks])
        self.assertEqual([one.plain for one in found], [chunk.plain for chunk in chunks])
        self.assertEqual(len(self.servers), 3)


class _Silent(Scripted):
    def __init__(self) -> None:
        super().__init__(None)

    def connectionMade(self) -> None:  # noqa: N802
        pass

    def hear(self, message: Message) -> None:
        pass


class CommandTests(SynchronousTestCase):
    """What is run to reach a server."""

    def target(self, location: str, **environ: str) -> SshTarget:
        """Take apart a location."""
        return SshTarget(parse_location(location), environ)

    def test_commands(self) -> None:
        """The command lines are those of casync's and Go desync's users."""
        for location, environ, expected in (
            ("ssh://h/s", {}, ["ssh", "--", "h", "casync pull - - - '/s'"]),
            (
                "ssh://me:secret@h:22/a%20b'c",
                {"CASYNC_REMOTE_PATH": "env X=1 desync"},
                ["ssh", "-p", "22", "--", "me@h", "env X=1 desync pull - - - '/a b'\\''c'"],
            ),
            (
                "ssh://h/$(id);`id`",
                {"CASYNC_SSH_PATH": "/my/ssh"},
                ["/my/ssh", "--", "h", "casync pull - - - '/$(id);`id`'"],
            ),
        ):
            target = self.target(location, **environ)
            self.assertEqual(target.casync("pull", "-", target.path), expected)
        self.assertEqual(self.target("sftp://u@h/s").sftp(), ["ssh", "-s", "--", "u@h", "sftp"])

    def test_hosts(self) -> None:
        """A host that ssh would take for a flag is refused, however it is written."""
        for location in (
            "ssh://-oProxyCommand=x/s",
            "ssh://-oProxyCommand=x@h/s",
            "ssh://%2DoProxyCommand=x@h/s",
        ):
            with self.assertRaisesRegex(UsageError, "must not begin with '-'"):
                self.target(location)

    def test_encryption(self) -> None:
        """Encrypted chunks don't travel over the protocol."""
        with self.assertRaisesRegex(UsageError, "encryption is not supported"):
            open_ssh(
                parse_location("ssh://h/s"),
                StoreOptions(encryption=True),
                SHA512_256,
                None,  # type: ignore[arg-type]
            )


class ProgramTests(TestCase):
    """Programs that aren't what they should be."""

    async def fails(self, program: str, why: str) -> None:
        """Make sure that a store whose ssh is another program fails."""
        self.patch(__import__("os"), "environ", {"CASYNC_SSH_PATH": program, "PATH": "/bin"})
        store = open_ssh(parse_location("ssh://h/s"), StoreOptions(n=1), SHA512_256, the_reactor())
        self.addCleanup(store.close)
        sink = CollectingSink()
        await store.get_many(ChunkIds.from_bytes(bytes(32)), sink)
        self.assertRegex(str(sink.errors[bytes(32)]), why)

    async def test_not_there(self) -> None:
        """A program that isn't there is an error of one line."""
        await self.fails("/no/such/ssh", "^ssh://h/s: /no/such/ssh: command not found$")

    async def test_fails(self) -> None:
        """A program that fails is named with its exit code."""
        await self.fails("false", "ended with exit code 1")
