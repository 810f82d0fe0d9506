# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync chunk``."""

from __future__ import annotations

import os
import subprocess

from desync.chunking.buzhash import cut_length
from desync.chunking.digests import SHA256, SHA512_256
from desync.chunking.sizes import ChunkSizes

from .command_case import SIZES, CommandCase, sample
from .command_line import command, desync, process_environ


class ChunkTests(CommandCase):
    """What it prints."""

    def expected(self, data: bytes, start: int = 0) -> list[str]:
        """Cut as the readable rule says."""
        lines = []
        while start < len(data):
            length = cut_length(data[start : start + 16384], ChunkSizes(1024, 4096, 16384))
            chunk_id = SHA512_256.id_of(data[start : start + length])
            lines.append(f"{start}\t{length}\t{chunk_id.hex()}")
            start += length
        return lines

    def test_lines(self) -> None:
        """Start, length and id of each chunk are a line, in the order of the file."""
        data = sample(200_000)
        path = self.write("a", data)
        outcome = self.run_command("chunk", "-m", SIZES, path)
        self.assertEqual(outcome.text.splitlines(), self.expected(data))
        self.assertEqual(os.listdir(self.folder), ["a"])

    def test_start(self) -> None:
        """Cutting begins afresh at the start; beyond the end there is nothing."""
        data = sample(100_000)
        path = self.write("a", data)
        for start in (0, 1, 50_000, 99_999, 100_000, 100_001, 1 << 40):
            outcome = self.run_command("chunk", f"-S{start}", "-m", SIZES, path)
            self.assertEqual(outcome.text.splitlines(), self.expected(data, start), start)

    def test_workers(self) -> None:
        """A file that several processes cut gives the chunks of its index."""
        path = self.write("a", sample(19 << 20))
        lines = self.run_command("chunk", path).text.splitlines()
        self.run_command("make", self.path("a.caibx"), path)
        index = self.index("a.caibx")
        self.assertEqual(lines, [f"{start}\t{size}\t{i.hex()}" for start, size, i in index])

    def test_digest(self) -> None:
        """The ids are of the digest that was asked for."""
        path = self.write("a", b"data")
        outcome = self.run_command("chunk", "--digest=sha256", path)
        self.assertEqual(outcome.text, f"0\t4\t{SHA256.id_of(b'data').hex()}\n")

    def test_empty(self) -> None:
        """An empty file has no chunks."""
        self.assertEqual(self.run_command("chunk", self.write("a", b"")).out, b"")

    def test_refusals(self) -> None:
        """Sizes, starts, concurrency and files that make no sense are refused."""
        path = self.write("a", b"data")
        for args, why in (
            (("-m", "64:16:256", path), "chunk sizes out of order"),
            (("-m", "0:16:256", path), "must be over 48"),
            (("-S", "-1", path), "--start"),
            (("-n0", path), "--concurrency must be at least 1"),
            ((self.path("nothing"),), self.path("nothing")),
            ((str(self.folder),), "it is a directory"),
        ):
            self.assert_error(desync("chunk", *args), why)

    def test_terminal(self) -> None:
        """Where the lines go to a terminal no progress is mixed with them."""
        path = self.write("a", b"data")
        leader, follower = os.openpty()
        self.addCleanup(os.close, leader)
        done = subprocess.run(
            command("chunk", "--progress=lines", path),
            stdout=follower,
            stderr=subprocess.PIPE,
            env=process_environ(),
            timeout=60,
            check=True,
        )
        os.close(follower)
        self.assertEqual(done.stderr, b"")
        self.assertTrue(os.read(leader, 1000).startswith(b"0\t4\t"))
        self.assertIn("100.00%", desync("chunk", "--progress=lines", path).err)

    def test_shrinking(self) -> None:
        """A file that shrinks meanwhile is an error; what was printed before is right."""
        path = self.write("a", b"")
        os.truncate(path, 50 << 20)
        self.meddle(on_change=lambda tracker: os.truncate(path, 1 << 20))
        outcome = desync("chunk", path)
        self.assert_error(outcome, path, "while it was being read", out=outcome.out)
        lines = outcome.text.splitlines()
        self.assertTrue(all(line.split("\t")[1] == "262144" for line in lines))
        self.assertTrue(0 < len(lines) < 200)
