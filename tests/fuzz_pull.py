# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Fuzzing of ``twistd desync-pull`` over real connections::

    python -m tests.fuzz_pull SECONDS [SEED]

Sessions go through OpenSSH's client, with commands and conversations that are right to begin with
and then spoiled, and that end anywhere; others send what isn't SSH; others log in and send packets
that make no sense. A good session has to be served rightly all the while. At the end the log must
have no traceback, the store good chunks only, and each index all of its chunks.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from desync.chunking.digests import SHA512_256
from desync.errors import DesyncError
from desync.formats import protocol as p
from desync.formats.ids import ChunkIds
from desync.formats.index import Index
from desync.stores.local_files import LocalFiles

from .casync_fuzz import CHUNKS, INDEX, Fuzz
from .command_line import ROOT, process_environ
from .pull_server import PullServer
from .server_process import wait_until

#: Of how many things in turn a good session follows.
_CHECK_EVERY = 40

#: The most memory that the server may ever have had, in kB.
MOST_MEMORY = 400_000

COMMANDS = (
    "casync pull - - os/x.caibx os",
    "casync pull - - - os",
    "casync pull - os/a.catar - -",
    "casync push - - os/y.caibx os",
    "casync push - - os/z.caidx os",
    "casync push - - os/w.caibx -",
    "casync push - os/b.catar - -",
)


class PullFuzz:
    """
    A run against one server.

    :param seed: which.
    :param folder: for all files.
    :ivar count: how many things were done.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.count = 0
        self._talk = Fuzz(seed)
        self.served = folder / "srv"
        store = self.served / "default.castr"
        store.mkdir(parents=True)
        self.files = LocalFiles(str(store))
        for chunk in CHUNKS[:8]:
            self.files.put_chunk(chunk)
        (self.served / "x.caibx").write_bytes(INDEX.to_bytes())
        (self.served / "a.catar").write_bytes(b"an archive" * 10_000)
        keys = folder / "keys"
        keys.mkdir(mode=0o700)
        self.server = PullServer(
            keys,
            {"os": {"stores": [str(store)], "indexes": str(self.served)}},
            {"alice": {"write": ["os"]}, "bob": {"read": ["os"]}},
            *("--max-per-address", "1000", "--idle-timeout", "30", "--handshake-timeout", "20"),
        )
        self._masters: dict[str, subprocess.Popen[bytes]] = {}

    def once(self) -> None:
        """Do one thing to the server."""
        choice = self.random.random()
        if choice < 0.8:
            self.session()
        elif choice < 0.97:
            self.no_ssh()
        else:
            self.packets()
        self.count += 1
        if self.count % _CHECK_EVERY == 0:
            self.check_good()

    # What is done

    def _through(self, user: str) -> list[str]:
        """Give an ssh that goes through a connection that is there, or is made now."""
        path = f"{self.folder}/{user}.sock"
        master = self._masters.get(user)
        if master is not None and self.random.random() < 0.02:
            master.kill()
            master.wait()
        if master is None or master.poll() is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            words = [self.server.program, "-M", "-N", "-S", path, "-l", user, "server"]
            self._masters[user] = master = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            wait_until(lambda: os.path.exists(path) or master.poll() is not None, "a connection")
        return [self.server.program, "-S", path, "-l", user, "server"]

    def session(self) -> None:
        """Hold a conversation that was spoiled."""
        command = self.random.choice(COMMANDS)
        if self.random.random() < 0.1:
            command = self._talk.spoil(command.encode()).decode("utf-8", "replace")
            command = command.replace("\0", "").lstrip("-") or "x"
        user = "alice" if self.random.random() < 0.9 else "bob"
        process = subprocess.Popen(
            [*self._through(user), command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                for piece in self._talk.conversation():
                    process.stdin.write(piece)
                    process.stdin.flush()
            if self.random.random() < 0.1:
                return
            out, _ = process.communicate(timeout=120)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        self._check_said(out)

    def _check_said(self, out: bytes) -> None:
        if str(self.folder).encode() in out:
            raise AssertionError(f"told too much: {out[:500]!r}")
        reader = p.MessageReader()
        reader.feed(out)
        if reader.error is not None:
            raise AssertionError(f"the server said what isn't the protocol: {reader.error}")

    def no_ssh(self) -> None:
        """Send what isn't SSH, or only begins so."""
        begin = self.random.choice(
            [b"", b"SSH-2.0-x\r\n", b"SSH-1.5-x\r\n", b"SSH-\r\n", b"\n" * 9]
        )
        data = begin + self.random.randbytes(self.random.choice([0, 5, 100, 5000]))
        if self.random.random() < 0.3:
            packet = bytes([20]) + self.random.randbytes(60)
            data = begin + len(packet).to_bytes(4, "big") + b"\4" + packet
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.server.port), 60) as link,
        ):
            link.sendall(data)
            if self.random.random() < 0.5:
                link.shutdown(socket.SHUT_WR)
                while link.recv(65536):
                    pass

    def packets(self) -> None:
        """Log in and send packets that make no sense."""
        subprocess.run(
            [
                *(sys.executable, "-m", "tests.ssh_packets", str(self.server.port), "alice"),
                *(str(self.folder / "keys" / "client"), str(self.random.randrange(1 << 32)), "5"),
            ],
            check=True,
            timeout=300,
            cwd=ROOT,
            env=process_environ(),
            stderr=subprocess.DEVNULL,
        )

    # What must hold

    def check_good(self) -> None:
        """Make sure that a good session is served rightly."""
        chunk = CHUNKS[1]
        asked = ChunkIds.from_iterable([chunk.chunk_id, bytes(32)])
        said = p.Hello(0x40).encode() + p.Request(asked).encode() + p.Goodbye().encode()
        process = subprocess.Popen(
            [self.server.program, "server", "casync pull - - - os"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        heard: list[Any] = []
        reader = p.MessageReader()
        try:
            process.stdin.write(said[:-16])
            process.stdin.flush()
            while len(heard) < 3 and (data := os.read(process.stdout.fileno(), 1 << 20)):
                heard += reader.feed(data)
            process.communicate(said[-16:], timeout=60)
        finally:
            if process.poll() is None:
                process.kill()
        if len(heard) != 3 or heard[0] != p.Hello(1) or p.Missing(bytes(32)) not in heard:
            raise AssertionError(f"a good session was served {str(heard)[:300]}")

    def finish(self) -> None:
        """End the server, and look at what it leaves."""
        self.check_good()
        for line in Path(f"/proc/{self.server.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM") and int(line.split()[1]) > MOST_MEMORY:
                raise AssertionError(f"the server took too much memory: {line}")
        self.stop()
        bad = self.server.logged("Traceback|Unhandled|internal error")
        if bad:
            raise AssertionError("".join(bad[:5]) + self.server.said[-3000:])
        for file in self.files.all_files():
            self.files.get(file.chunk_id).verify(SHA512_256)
        for path in self.served.rglob("*"):
            if path.name.startswith(".") and not path.is_dir():
                raise AssertionError(f"left behind: {path}")
        for name in ("y.caibx", "z.caidx"):
            path = self.served / name
            if path.exists():
                for chunk_id in Index.parse(path.read_bytes()).ids:
                    self.files.get(chunk_id)

    def stop(self) -> None:
        """End everything."""
        for master in self._masters.values():
            if master.poll() is None:
                master.kill()
            master.wait()
        self.server.stop()


def fuzz(seconds: float, seed: int) -> int:
    """
    Fuzz a server for a while.

    :returns: how many things were done to it.
    :raises AssertionError: if it did something that it shouldn't.
    """
    with tempfile.TemporaryDirectory(prefix="desync-fuzz-") as folder:
        run = PullFuzz(seed, Path(folder))
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                run.once()
            run.finish()
        finally:
            run.stop()
        return run.count


def main(arguments: list[str]) -> int:
    """Run as a program."""
    seconds = float(arguments[0])
    seed = int(arguments[1]) if len(arguments) > 1 else random.randrange(1 << 32)
    try:
        count = fuzz(seconds, seed)
    except (AssertionError, DesyncError, OSError, subprocess.SubprocessError) as error:
        print(f"seed {seed}: {error}")
        return 1
    print(f"seed {seed}: {count} things done, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
