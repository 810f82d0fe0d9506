# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Random requests over real sockets against a chunk server that takes chunks, and then against an
index server that takes indexes, half of the time each.

    python -m tests.fuzz_server SECONDS [SEED]

Most requests are good ones with something wrong: bytes changed, left out, repeated or cut off,
lengths that lie, heads that never end, connections that break off. After each the server has to
answer a good request rightly, and in the end its store may hold only what is right. Exit code 1 and
the seed if not.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import sys
import tempfile
import time
from pathlib import Path

from desync.chunking.digests import SHA512_256
from desync.errors import DesyncError
from desync.formats.chunk import Chunk
from desync.formats.index import Index
from desync.formats.stored import Compressed
from desync.stores.local_files import LocalFiles
from desync.testing.index_contract import sample_index
from tests.server_process import ServerProcess

_STATUSES = {100, 200, 400, 401, 404, 405, 408, 411, 413, 415, 500, 503}

_METHODS = (b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"TRACE", b"get", b"\x00")

_HEADERS = (
    b"Host: x",
    b"Connection: close",
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
    b"Expect: nonsense",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: identity",
    b"Content-Length: 0",
    b"Content-Length: 18446744073709551616",
    b"Content-Length: -1",
    b"Content-Type: application/vnd.desync.ids",
    b"Range: bytes=0-1",
    b"If-None-Match: *",
    b"Accept-Encoding: gzip",
    b"Authorization: Basic eDp5",
    b" folded",
    b": empty",
    b"X: " + b"y" * 5000,
    b"\xff\xfe: \x00",
)


class Fuzz:
    """
    A run against some server.

    :param seed: of everything that is random.
    :ivar requests: how many were made.
    """

    server: ServerProcess

    def __init__(self, seed: int, folder: str) -> None:
        self.random = random.Random(seed)
        self.requests = 0
        self._store = os.path.join(folder, "store")
        os.mkdir(self._store)

    def _some_path(self) -> bytes:
        """Give the path of something that is there."""
        raise NotImplementedError

    def _good(self) -> bytes:
        """Make a good request."""
        raise NotImplementedError

    def check_body(self, body: bytes) -> bool:
        """Tell whether it is what is at the path of something that is there."""
        raise NotImplementedError

    def check_left(self) -> None:
        """Look at what the server leaves."""
        raise NotImplementedError

    def put(self, path: bytes, body: bytes) -> bytes:
        """Make an upload, in one of the two ways to say how long it is."""
        begin = b"PUT %b HTTP/1.1\r\nHost: x\r\n" % path
        if self.random.random() < 0.5:
            return b"%bContent-Length: %d\r\n\r\n%b" % (begin, len(body), body)
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        return b"%bTransfer-Encoding: chunked\r\n\r\n%b" % (begin, chunked)

    def _made_up(self) -> bytes:
        rand = self.random
        path = rand.choice((b"/", b"*", b"http://x/y", b"/..", b"/chunks", self._some_path()))
        version = rand.choice((b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"", b"\xff"))
        headers = rand.choices(_HEADERS, k=rand.randrange(6))
        body = rand.randbytes(rand.choice((0, 0, 1, 32, 3000)))
        if rand.random() < 0.3:
            headers.append(b"Content-Length: %d" % rand.choice((len(body), 10, 10**6, 10**12)))
        return b"\r\n".join(
            [b" ".join((rand.choice(_METHODS), path, version)), *headers, b"", body]
        )

    def _damaged(self, data: bytes) -> bytes:
        rand = self.random
        changed = bytearray(data)
        for _ in range(rand.choice((1, 1, 2, 8))):
            at = rand.randrange(len(changed) or 1)
            match rand.randrange(5):
                case 0:
                    changed[at : at + 1] = rand.randbytes(1)
                case 1:
                    del changed[at : at + rand.randrange(1, 40)]
                case 2:
                    changed[at:at] = rand.choice((b"\r\n", b"\n", b"\x00", b" ", b"\r\n\r\n"))
                case 3:
                    changed[at:at] = changed[at : at + rand.randrange(1, 200)]
                case 4:
                    del changed[at:]
        return bytes(changed)

    def once(self) -> None:
        """Make one bad connection, and then see whether the server is as it was."""
        rand = self.random
        data = b"".join(
            self._damaged(self._good()) if rand.random() < 0.7 else self._made_up()
            for _ in range(rand.choice((1, 1, 2, 5)))
        )
        answer = b""
        # The server may end the connection before all is sent.
        with contextlib.suppress(OSError), self._connect() as connection:
            while data:
                step = rand.choice((1, 7, 100, 100_000))
                connection.sendall(data[:step])
                data = data[step:]
            if rand.random() < 0.7:
                connection.shutdown(socket.SHUT_WR)
                answer = _read_all(connection)
        self._check(answer)
        self.requests += 1
        self.check_good()

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=20)

    def _check(self, answer: bytes) -> None:
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
        if answer and (status is None or int(status[1]) not in _STATUSES):
            raise AssertionError(f"answered {answer[:100]!r}")
        if b"Traceback" in answer or self._store.encode() in answer:
            raise AssertionError(f"told too much: {answer[:300]!r}")

    def check_good(self) -> None:
        """Make sure that a good request is answered rightly."""
        with self._connect() as connection:
            connection.sendall(b"GET %b HTTP/1.1\r\nConnection: close\r\n\r\n" % self._some_path())
            answer = _read_all(connection)
        body = answer.partition(b"\r\n\r\n")[2]
        if not answer.startswith(b"HTTP/1.1 200 ") or not self.check_body(body):
            raise AssertionError(f"a good request was answered {answer[:200]!r}")

    def finish(self) -> None:
        """End the server, and look at what it leaves."""
        code = self.server.stop()
        said = [line for line in self.server.said.splitlines() if "listening on" not in line]
        if code or said:
            raise AssertionError(f"exit code {code}, and said: {said[:5]}")
        self.check_left()


class ChunkFuzz(Fuzz):
    """A run against a chunk server."""

    def __init__(self, seed: int, folder: str) -> None:
        super().__init__(seed, folder)
        self.files = LocalFiles(self._store)
        self._chunks = [Chunk.of(self.random.randbytes(2000), SHA512_256) for _ in range(4)]
        for chunk in self._chunks[:3]:
            self.files.put_chunk(chunk)
        self.server = ServerProcess("chunk-server", "-w", "-s", self._store)

    def _path(self, chunk: Chunk) -> bytes:
        text = chunk.chunk_id.hex()
        return f"/{text[:4]}/{text}.cacnk".encode()

    def _some_path(self) -> bytes:
        return self._path(self._chunks[0])

    def _good(self) -> bytes:
        chunk = self.random.choice(self._chunks)
        kind = self.random.randrange(5)
        if kind < 2:
            method = (b"GET", b"HEAD")[kind]
            return b"%b %b HTTP/1.1\r\nHost: x\r\n\r\n" % (method, self._path(chunk))
        if kind < 4:
            return self.put(self._path(chunk), Compressed().encode(chunk.plain))
        ids = b"".join(chunk.chunk_id for chunk in self._chunks)
        what = self.random.choice((b"chunks", b"missing"))
        return (
            b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.desync.ids\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (what, len(ids), ids)
        )

    def check_body(self, body: bytes) -> bool:
        """See :meth:`Fuzz.check_body`."""
        return Compressed().decode(body, 1 << 20) == self._chunks[0].plain

    def check_left(self) -> None:
        """Make sure that the store has good chunks and nothing else."""
        wanted = {chunk.chunk_id for chunk in self._chunks}
        for file in self.files.all_files():
            if file.chunk_id not in wanted:
                raise AssertionError(f"{file.path} was stored")
            self.files.get(file.chunk_id)
        stray = [p for p in Path(self._store).rglob("*") if p.is_file() and len(p.name) != 70]
        if stray:
            raise AssertionError(f"left behind: {stray}")


class IndexFuzz(Fuzz):
    """A run against an index server."""

    def __init__(self, seed: int, folder: str) -> None:
        super().__init__(seed, folder)
        self._indexes = [sample_index(number).to_bytes() for number in range(1, 4)]
        # Nobody writes to the first one, whose content has to stay.
        for name in ("kept.caibx", "a.caibx"):
            Path(self._store, name).write_bytes(self._indexes[0])
        self.server = ServerProcess("index-server", "-w", "-s", self._store)

    def _some_path(self) -> bytes:
        return b"/kept.caibx"

    def _good(self) -> bytes:
        kind = self.random.randrange(4)
        if kind < 2:
            method = (b"GET", b"HEAD")[kind]
            path = self.random.choice((b"/kept.caibx", b"/a.caibx", b"/missing.caibx"))
            return b"%b %b HTTP/1.1\r\nHost: x\r\n\r\n" % (method, path)
        path = self.random.choice((b"/a.caibx", b"/b.caibx", b"/c.caidx"))
        return self.put(path, self.random.choice(self._indexes))

    def check_body(self, body: bytes) -> bool:
        """See :meth:`Fuzz.check_body`."""
        return body == self._indexes[0]

    def check_left(self) -> None:
        """Make sure that everything is an index, under a possible name in the folder itself."""
        for path in Path(self._store).rglob("*"):
            if path.is_dir() or path.name.startswith("."):
                raise AssertionError(f"left behind: {path}")
            Index.parse(path.read_bytes())


def _read_all(connection: socket.socket) -> bytes:
    pieces: list[bytes] = []
    while True:
        data = connection.recv(1 << 16)
        if not data:
            return b"".join(pieces)
        pieces.append(data)


def fuzz(kind: type[Fuzz], seconds: float, seed: int) -> int:
    """
    Fuzz a kind of server for a while.

    :returns: how many connections were made.
    :raises AssertionError: if the server did something that it shouldn't.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = kind(seed, folder)
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                run.once()
            run.finish()
        finally:
            run.server.kill()
        return run.requests


def main(arguments: list[str]) -> int:
    """Run as a program."""
    seconds = float(arguments[0])
    seed = int(arguments[1]) if len(arguments) > 1 else random.randrange(2**32)
    for kind in (ChunkFuzz, IndexFuzz):
        try:
            count = fuzz(kind, seconds / 2, seed)
        except (AssertionError, DesyncError, OSError) as error:
            print(f"{kind.__name__}, seed {seed}: {error}")
            return 1
        print(f"{kind.__name__}, seed {seed}: {count} connections, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
