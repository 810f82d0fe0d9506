# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Random requests over real sockets against a chunk server that takes chunks.

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
from desync.formats.chunk import Chunk
from desync.formats.stored import Compressed
from desync.stores.local_files import LocalFiles
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
    One run.

    :param seed: of everything that is random.
    :ivar requests: how many were made.
    """

    def __init__(self, seed: int, folder: str) -> None:
        self.random = random.Random(seed)
        self.requests = 0
        self._store = os.path.join(folder, "store")
        os.mkdir(self._store)
        self.files = LocalFiles(self._store)
        self._chunks = [Chunk.of(self.random.randbytes(2000), SHA512_256) for _ in range(4)]
        for chunk in self._chunks[:3]:
            self.files.put_chunk(chunk)
        self.server = ServerProcess("chunk-server", "-w", "-s", self._store)

    def _path(self, chunk: Chunk) -> bytes:
        text = chunk.chunk_id.hex()
        return f"/{text[:4]}/{text}.cacnk".encode()

    def _good(self) -> bytes:
        chunk = self.random.choice(self._chunks)
        kind = self.random.randrange(5)
        if kind == 0:
            return b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % self._path(chunk)
        if kind == 1:
            return b"HEAD %b HTTP/1.1\r\nHost: x\r\n\r\n" % self._path(chunk)
        if kind == 2:
            body = Compressed().encode(chunk.plain)
            return b"PUT %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
                *(self._path(chunk), len(body), body),
            )
        if kind == 3:
            body = Compressed().encode(chunk.plain)
            return (
                b"PUT %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"%x\r\n%b\r\n0\r\n\r\n" % (self._path(chunk), len(body), body)
            )
        ids = b"".join(chunk.chunk_id for chunk in self._chunks)
        what = self.random.choice((b"chunks", b"missing"))
        return (
            b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.desync.ids\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (what, len(ids), ids)
        )

    def _made_up(self) -> bytes:
        rand = self.random
        path = rand.choice(
            (b"/", b"*", b"http://x/y", b"/..", b"/chunks", self._path(self._chunks[0]))
        )
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
            connection.sendall(
                b"GET %b HTTP/1.1\r\nConnection: close\r\n\r\n" % self._path(self._chunks[0])
            )
            answer = _read_all(connection)
        body = answer.partition(b"\r\n\r\n")[2]
        if not answer.startswith(b"HTTP/1.1 200 ") or Compressed().decode(body, 1 << 20) != (
            self._chunks[0].plain
        ):
            raise AssertionError(f"a good request was answered {answer[:200]!r}")

    def finish(self) -> None:
        """End the server, and look at what it leaves."""
        code = self.server.stop()
        said = [line for line in self.server.said.splitlines() if "listening on" not in line]
        if code or said:
            raise AssertionError(f"exit code {code}, and said: {said[:5]}")
        wanted = {chunk.chunk_id for chunk in self._chunks}
        for file in self.files.all_files():
            if file.chunk_id not in wanted:
                raise AssertionError(f"{file.path} was stored")
            self.files.get(file.chunk_id)
        stray = [p for p in Path(self._store).rglob("*") if p.is_file() and len(p.name) != 70]
        if stray:
            raise AssertionError(f"left behind: {stray}")


def _read_all(connection: socket.socket) -> bytes:
    pieces: list[bytes] = []
    while True:
        data = connection.recv(1 << 16)
        if not data:
            return b"".join(pieces)
        pieces.append(data)


def fuzz(seconds: float, seed: int) -> int:
    """
    Fuzz for a while.

    :returns: how many connections were made.
    :raises AssertionError: if the server did something that it shouldn't.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Fuzz(seed, folder)
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
    try:
        count = fuzz(seconds, seed)
    except (AssertionError, OSError) as error:
        print(f"seed {seed}: {error}")
        return 1
    print(f"seed {seed}: {count} connections, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
