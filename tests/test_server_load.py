# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Servers under those who mean no good, or have slow connections; see :mod:`tests.fuzz_server`."""

from __future__ import annotations

import os
import re
import socket
import ssl
from typing import Any

from twisted.trial.unittest import SkipTest

from desync.chunking.digests import SHA512_256
from desync.formats.chunk import Chunk
from desync.formats.protocol import ChunkData, MessageReader
from desync.stores.local_files import LocalFiles
from tests.authority import Authority
from tests.fuzz_server import ChunkFuzz, IndexFuzz, fuzz
from tests.server_process import ServerProcess, wait_until
from tests.test_server_process import Case

CLIENTS = 1000
THOUSANDS = 3000
LARGEST_SET = 200 << 20


def batch_request(chunks: list[Chunk]) -> bytes:
    """Ask for some chunks at once."""
    ids = b"".join(chunk.chunk_id for chunk in chunks)
    return (
        b"POST /chunks HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.desync.ids\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(ids), ids)
    )


def read_body(answers: Any) -> bytes:
    """Read an answer, and give its body."""
    status = answers.readline()
    assert status == b"HTTP/1.1 200 OK\r\n", status
    length = 0
    while (line := answers.readline()) != b"\r\n":
        if line.startswith(b"Content-Length: "):
            length = int(line[16:])
    if length:
        body: bytes = answers.read(length)
        return body
    body = b""
    while size := int(answers.readline(), 16):
        body += answers.read(size)
        answers.readline()
    answers.readline()
    return body


class FuzzTests(Case):
    """Random requests."""

    def test_fuzz(self) -> None:
        """For a short while the server withstands them."""
        for kind in (ChunkFuzz, IndexFuzz):
            with self.subTest(kind=kind.__name__):
                self.assertGreater(fuzz(kind, 3, 20_261_126), 10)


class SlowClientTests(Case):
    """Many clients that don't do much."""

    def setUp(self) -> None:
        super().setUp()
        self.open: list[socket.socket] = []
        self.addCleanup(self.close_all)

    def close_all(self) -> None:
        for client in self.open:
            client.close()

    def resident(self, server: ServerProcess) -> int:
        """Give the memory of a server, in bytes."""
        try:
            with open(f"/proc/{server.process.pid}/status") as file:
                found = re.search(r"VmHWM:\s+(\d+) kB", file.read())
        except OSError:
            found = None
        if found is None:
            raise SkipTest("the system doesn't say how much memory a process has")
        return int(found[1]) << 10

    def connect(self, server: ServerProcess, data: bytes) -> None:
        client = socket.socket()
        self.open.append(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(60)
        client.connect(("127.0.0.1", server.port))
        client.sendall(data)

    def allow(self, clients: int = CLIENTS) -> None:
        try:
            import resource
        except ImportError:
            raise SkipTest("no limits to raise") from None
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = clients + 200
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise SkipTest(f"no more than {hard} open files are allowed")
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    def large_chunks(self) -> tuple[str, list[Chunk]]:
        """Make a store of a few large chunks."""
        store = self.store("large")
        files = LocalFiles(store)
        chunks = [Chunk.of(os.urandom(256 << 10), SHA512_256) for _ in range(8)]
        for chunk in chunks:
            files.put_chunk(chunk)
        return store, chunks

    def check_readers(self, *flags: str, batches: bool = False) -> None:
        """Have a thousand ask for a lot of large chunks and read nothing."""
        self.allow()
        store, chunks = self.large_chunks()
        server = self.server("chunk-server", "-s", store, "--max-requests", "5000", *flags)
        batch = batch_request(chunks)
        for number in range(CLIENTS):
            path = self.path_of(chunks[number % 8].chunk_id)
            single = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()
            self.connect(server, (batch if batches else single) * 5)
        if flags:
            # The others are in its way, but not for ever: they leave.
            self.close_all()
        for chunk in chunks:
            code, _ = self.fetch(server.port, self.path_of(chunk.chunk_id))
            self.assertEqual(code, 200)
        self.assertLess(self.resident(server), LARGEST_SET)
        self.close_all()
        self.assertEqual(server.stop(), 0)

    def test_little_by_little(self) -> None:
        """Who reads little at a time gets every byte, whether it asks for one or for many."""
        store, chunks = self.large_chunks()
        self.write_certificate()
        for flags in (), ("--cert", self.certificate, "--key", self.key):
            server = self.server("chunk-server", "-s", store, *flags)
            # More than the kernel takes for a connection.
            asked = chunks * 4
            paths = [self.path_of(chunk.chunk_id).encode() for chunk in asked]
            self.connect(server, b"")
            client = self.open[-1]
            if flags:
                context = ssl.create_default_context(cafile=self.authority)
                client = context.wrap_socket(client, server_hostname="127.0.0.1")
                self.open.append(client)
            client.sendall(b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths))
            client.sendall(batch_request(chunks))
            with client.makefile("rb", 1000) as answers:
                for path in paths:
                    stored = (self.folder / "large" / path[1:].decode()).read_bytes()
                    self.assertEqual(read_body(answers), stored)
                frames = MessageReader().feed(read_body(answers))
            self.assertEqual(
                {each.chunk_id for each in frames if isinstance(each, ChunkData)},
                {chunk.chunk_id for chunk in chunks},
            )
            for each in frames[:-1]:
                assert isinstance(each, ChunkData)
                file = self.folder / "large" / self.path_of(each.chunk_id)[1:]
                self.assertEqual(each.data, file.read_bytes())
            self.assertEqual(server.stop(), 0)

    def write_certificate(self) -> None:
        authority = Authority(self.folder)
        self.authority = authority.path
        self.certificate, self.key = authority.issue("server")

    def test_slow_readers(self) -> None:
        """A thousand that ask for large chunks again and again and read nothing take 200 MiB."""
        self.check_readers()

    def test_slow_readers_of_many(self) -> None:
        """So do a thousand that ask for many at once."""
        self.check_readers(batches=True)

    def test_slow_readers_of_verified(self) -> None:
        """So they do if the server has the chunks in memory, because it verifies them."""
        self.check_readers("--skip-verify-read=false")

    def test_slow_readers_of_many_verified(self) -> None:
        """The same at once."""
        self.check_readers("--skip-verify-read=false", batches=True)

    def test_slow_writers(self) -> None:
        """So do a thousand that announce an upload and don't send it; others still can."""
        self.allow()
        self.store("new")
        server = self.server("chunk-server", "-w", "-s", self.path("new"))
        path = self.path_of(bytes(32)).encode()
        head = b"PUT %b HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" % path
        for _ in range(CLIENTS - 1):
            self.connect(server, head + bytes(50_000))
        chunk_id = min(self.chunks)
        stored = (self.folder / "store" / self.path_of(chunk_id)[1:]).read_bytes()
        code, _ = self.fetch(server.port, self.path_of(chunk_id), "PUT", body=stored)
        self.assertEqual(code, 200)
        self.assertLess(self.resident(server), LARGEST_SET)
        self.assertEqual([f.chunk_id for f in self.files("new").all_files()], [chunk_id])
        # Otherwise they would be waited for.
        self.close_all()
        self.assertEqual(server.stop(), 0)

    def test_thousands(self) -> None:
        """Thousands of connections that come at once are all served, and none is in the way."""
        self.allow(THOUSANDS)
        server = self.server("chunk-server", "-s", self.path("store"))
        [chunk_id, *_] = self.chunks
        stored = (self.folder / "store" / self.path_of(chunk_id)[1:]).read_bytes()
        for _ in range(THOUSANDS):
            self.connect(server, b"")
        ask = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % self.path_of(chunk_id).encode()
        for client in self.open:
            client.sendall(ask)
        for client in self.open:
            with client.makefile("rb") as answer:
                self.assertEqual(answer.readline(), b"HTTP/1.1 200 OK\r\n")
                while answer.readline() != b"\r\n":
                    pass
                self.assertEqual(answer.read(len(stored)), stored)
        self.assertLess(self.resident(server), LARGEST_SET)
        self.close_all()
        self.assert_serves(server.port)
        self.assertEqual(server.stop(), 0)

    def test_too_many(self) -> None:
        """Connections that are too many are closed at once, and the others go on."""
        server = self.server("chunk-server", "-s", self.path("store"), "--max-connections", "50")
        for _ in range(60):
            self.connect(server, b"")

        def closed() -> int:
            count = 0
            for client in self.open:
                client.setblocking(False)
                try:
                    count += client.recv(1) == b""
                except BlockingIOError:
                    pass
                except OSError:
                    count += 1
            return count

        wait_until(lambda: closed() == 10, "the end of ten connections")
        self.close_all()
        self.assert_serves(server.port)
        self.assertEqual(server.stop(), 0)
