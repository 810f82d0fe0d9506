# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync verify`` and ``desync verify-index``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from . import bad_chunks, bad_indexes
from .command_case import SIZES, CommandCase, as_nobody, sample
from .command_line import desync, desync_process


class VerifyTests(CommandCase):
    """A store with some chunks."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(200_000)
        self.sample_store(self.data)
        self.arguments = ("-s", self.path("store"))
        self.count = len(list(self.files().all_files()))

    def chunk(self, position: int = 5) -> tuple[bytes, bytes]:
        """Give the id and the plain bytes of one of the chunks."""
        start, length, chunk_id = list(self.index("a.caibx"))[position]
        return chunk_id, self.data[start : start + length]

    def test_good(self) -> None:
        """A good store is worth one line on stderr, and none where nothing is to be said."""
        outcome = desync("verify", *self.arguments)
        self.assertEqual(outcome, (0, b"", f"{self.count} chunks checked, 0 invalid\n"))
        self.assertEqual(self.run_command("verify", "--quiet", *self.arguments).out, b"")

    def test_process(self) -> None:
        """It works as a process, with workers of its own."""
        self.run_command("make", "-m", "1:1:1", *self.arguments, self.path("b"), self.path("a"))
        outcome = desync_process("verify", "-n2", *self.arguments)
        self.assertEqual((outcome.code, outcome.out), (0, b""))
        count = len(list(self.files().all_files()))
        self.assertEqual(outcome.err, f"{count} chunks checked, 0 invalid\n")

    def test_empty(self) -> None:
        """A store without chunks is good."""
        outcome = desync("verify", "-s", self.store("empty"))
        self.assertEqual(outcome, (0, b"", "0 chunks checked, 0 invalid\n"))

    def test_bad_chunks(self) -> None:
        """Each bad chunk is a line on stdout with what is wrong with it, and the exit code is 1."""
        chunk_id, plain = self.chunk()
        for what, spoil in bad_chunks.BAD.items():
            if what == "a bomb":
                continue  # without its size known it's decoded up to 128 MiB: once, below
            self.files().put(chunk_id, spoil(plain))
            outcome = desync("verify", *self.arguments)
            self.assertEqual(outcome.code, 1, what)
            begin = f"{self.path('store')}: chunk {chunk_id.hex()} is invalid: "
            self.assertTrue(outcome.text.startswith(begin), (what, outcome.text))
            self.assertEqual(outcome.text.count("\n"), 1)
            self.assertEqual(outcome.err, f"{self.count} chunks checked, 1 invalid, 0 removed\n")
            self.assertTrue(os.path.exists(self.files().path_of(chunk_id)))

    def test_repair(self) -> None:
        """Repair removes what is bad, says so, and that's it."""
        (first, plain), (second, _) = self.chunk(3), self.chunk(7)
        self.files().put(first, bad_chunks.BAD["a bomb"](plain))
        self.files().put(second, b"")
        outcome = desync("verify", "--repair", *self.arguments)
        self.assertEqual(outcome.code, 0)
        lines = sorted(outcome.text.splitlines())
        self.assertEqual(len(lines), 2)
        for line, chunk_id in zip(lines, sorted([first, second]), strict=True):
            self.assertIn(chunk_id.hex(), line)
            self.assertTrue(line.endswith(": removed"), line)
            self.assertFalse(self.files().has(chunk_id))
        self.assertEqual(outcome.err, f"{self.count} chunks checked, 2 invalid, 2 removed\n")
        again = desync("verify", "-r", *self.arguments)
        self.assertEqual(again, (0, b"", f"{self.count - 2} chunks checked, 0 invalid\n"))

    def small_store(self) -> tuple[str, str]:
        """Make a store so small that no workers are needed, and give the arguments for it."""
        path = self.write("b", sample(20_000))
        arguments = ("-s", self.store("small"))
        self.run_command("make", "-m", "4:4:4", *arguments, self.path("b.caibx"), path)
        self.run_command("verify", "--quiet", *arguments)
        return arguments

    def test_no_repair(self) -> None:
        """What can't be removed is said, and the exit code is 1."""
        arguments = self.small_store()
        chunk_id = self.index("b.caibx").id(0)
        self.files("small").put(chunk_id, b"bad")
        os.chmod(self.path("small"), 0o777)
        outcome = as_nobody(lambda: desync("verify", "-r", *arguments))
        self.assertEqual(outcome.code, 1)
        self.assertIn(chunk_id.hex(), outcome.text)
        self.assertTrue(outcome.text.endswith("Permission denied\n"), outcome.text)
        self.assertTrue(self.files("small").has(chunk_id))

    def test_wrong_place(self) -> None:
        """A chunk's file in the wrong subdirectory is bad, as nobody finds it there."""
        chunk_id, _ = self.chunk()
        os.mkdir(self.path("store/zzzz"))
        path = self.files().path_of(chunk_id)
        os.rename(path, self.path(f"store/zzzz/{os.path.basename(path)}"))
        outcome = desync("verify", *self.arguments)
        self.assertEqual(outcome.code, 1)
        self.assertIn("wrong place", outcome.text)

    def test_terminal(self) -> None:
        """What a folder is called can't do anything to a terminal."""
        chunk_id, _ = self.chunk()
        os.mkdir(self.path("store/\x1b[2J"))
        path = self.files().path_of(chunk_id)
        os.rename(path, self.path(f"store/\x1b[2J/{os.path.basename(path)}"))
        outcome = desync("verify", *self.arguments)
        self.assertNotIn("\x1b", outcome.text)
        self.assertIn("\\x1b[2J", outcome.text)

    def test_other_files(self) -> None:
        """Files that aren't chunks in the store's form are let be."""
        folder = Path(next(self.files().all_files()).path).parent
        for name in (".tmp-cacnk.1", "README", "ab" * 32, "AB" * 32 + ".cacnk", "ab.cacnk"):
            (folder / name).write_bytes(b"something")
        outcome = desync("verify", "-r", *self.arguments)
        self.assertEqual(outcome, (0, b"", f"{self.count} chunks checked, 0 invalid\n"))
        self.assertTrue((folder / "README").exists())

    def test_skip_verify(self) -> None:
        """Even a store that is configured to be trusted is checked where that is asked for."""
        chunk_id, _ = self.chunk()
        self.files().put(chunk_id, b"bad")
        options = json.dumps({"store-options": {self.path("store"): {"skip-verify": True}}})
        config = self.write("config", options.encode())
        self.assertEqual(desync("verify", "--config", config, *self.arguments).code, 1)

    def test_refusals(self) -> None:
        """Stores and concurrency that make no sense are refused."""
        for args, why in (
            ((), "no store provided"),
            (("-s", self.path("nothing")), f"{self.path('nothing')}: No such file or directory"),
            (("-s", self.path("a")), f"{self.path('a')}: not a directory"),
            (
                ("-s", "http://u:secret@host/x"),
                "host/x' does not support verifying",
            ),
            (("-n0", *self.arguments), "--concurrency must be at least 1"),
        ):
            self.assert_error(desync("verify", *args), why)

    def test_permissions(self) -> None:
        """What can't be read is an error, not a bad chunk."""
        arguments = self.small_store()
        self.assertEqual(as_nobody(lambda: desync("verify", *arguments)).code, 0)
        file = next(self.files("small").all_files())
        os.chmod(file.path, 0)
        outcome = as_nobody(lambda: desync("verify", *arguments))
        self.assert_error(outcome, self.path("small"), file.path, "Permission denied")
        os.chmod(self.path("small"), 0)
        outcome = as_nobody(lambda: desync("verify", *arguments))
        self.assert_error(outcome, self.path("small"), "Permission denied")


class VerifyIndexTests(CommandCase):
    """A file and its index."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(100_000)
        self.file = self.write("a", self.data)
        self.run_command("make", "-m", SIZES, self.path("a.caibx"), self.file)
        self.arguments = (self.path("a.caibx"), self.file)

    def test_same(self) -> None:
        """If they agree there is nothing to say."""
        self.assertEqual(self.run_command("verify-index", *self.arguments).out, b"")
        self.assertEqual(desync_process("verify-index", *self.arguments), (0, b"", ""))
        index = self.read("a.caibx")
        self.run_command("verify-index", "-", self.file, stdin=index)

    def test_empty(self) -> None:
        """An empty file agrees with its index."""
        self.run_command("make", self.path("e.caibx"), self.write("e", b""))
        self.run_command("verify-index", self.path("e.caibx"), self.path("e"))

    def test_workers(self) -> None:
        """Several processes find a single bit, wherever it is."""
        data = bytearray(sample(9 << 20))
        self.write("a", bytes(data))
        self.run_command("make", self.path("a.caibx"), self.file)
        self.run_command("verify-index", *self.arguments)
        for place in (0, 5_000_000, len(data) - 1):
            data[place] ^= 1
            self.write("a", bytes(data))
            outcome = desync("verify-index", *self.arguments)
            index = self.index("a.caibx")
            position = index.position_of(place)
            where = f"its bytes {index.start(position)} to {index.end(position)}"
            self.assert_error(outcome, self.file, where, index.id(position).hex())
            data[place] ^= 1

    def test_other_size(self) -> None:
        """A file of another size is refused before it is read."""
        for data in (self.data[:-1], self.data + b"x", b""):
            self.write("a", data)
            outcome = desync("verify-index", *self.arguments)
            why = f"index size (100000) does not match file size ({len(data)})"
            self.assert_error(outcome, self.file, why)

    def test_refusals(self) -> None:
        """What can't be read or makes no sense is named."""
        index, file = self.arguments
        for args, why in (
            ((index, self.path("nothing")), f"{self.path('nothing')}: No such file or directory"),
            ((self.path("nothing"), file), f"{self.path('nothing')}: No such file or directory"),
            ((index, str(self.folder)), "it is a directory"),
            (("-n0", index, file), "--concurrency must be at least 1"),
            (("--digest=sha256", index, file), f"{index}: index file uses SHA512-256"),
        ):
            self.assert_error(desync("verify-index", *args), why)
        good = self.read("a.caibx")
        for spoil, why in bad_indexes.BAD.values():
            bad = self.write("bad.caibx", spoil(good))
            self.assert_error(desync("verify-index", bad, file), bad, why)

    def test_shrinking(self) -> None:
        """A file that shrinks meanwhile doesn't agree."""
        self.meddle(on_start=lambda: os.truncate(self.file, 50_000))
        self.assert_error(desync("verify-index", *self.arguments), self.file)
