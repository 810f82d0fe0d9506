# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync cat`` on local stores."""

from __future__ import annotations

import os
import subprocess

from . import bad_chunks, bad_indexes
from .command_case import CommandCase, sample
from .command_line import command, desync, process_environ


class CatTests(CommandCase):
    """A file of 60 kB in a store."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(60_000)
        self.sample_store(self.data)
        self.arguments = ("-s", self.path("store"), self.path("a.caibx"))

    def test_all(self) -> None:
        """The whole file goes to stdout."""
        self.assertEqual(self.run_command("cat", *self.arguments).out, self.data)

    def test_parts(self) -> None:
        """A part is what was asked for, wherever chunks begin and end."""
        ends = [self.index("a.caibx").end(position) for position in (0, 1, 5)]
        for offset in (0, 1, ends[0] - 1, ends[0], ends[0] + 1, ends[2], 59_999, 60_000):
            for length in (0, 1, ends[1] - ends[0], 20_000):
                if offset + length > 60_000:
                    continue
                flags = ("-o", str(offset), f"--length={length}")
                out = self.run_command("cat", *flags, *self.arguments).out
                wanted = self.data[offset : offset + length if length else None]
                self.assertEqual(out, wanted, (offset, length))

    def test_file(self) -> None:
        """Into a file it goes as a whole."""
        self.write("out", b"old")
        self.run_command("cat", "-l", "100", *self.arguments, self.path("out"))
        self.assertEqual(self.read("out"), self.data[:100])
        self.assertEqual(self.leftovers(), [])

    def test_device(self) -> None:
        """What isn't a file is written to as it is."""
        self.run_command("cat", *self.arguments, "/dev/null")
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        with open(writing, "wb"):
            self.run_command("cat", "-l", "5", *self.arguments, f"/dev/fd/{writing}")
        self.assertEqual(os.read(reading, 100), self.data[:5])

    def test_stdin(self) -> None:
        """A dash reads the index from stdin."""
        index = self.read("a.caibx")
        self.assertEqual(
            self.run_command("cat", *self.arguments[:2], "-", stdin=index).out, self.data
        )

    def test_closed_output(self) -> None:
        """A reader that has had enough is no reason to complain."""
        path = self.write("big", sample(5 << 20))
        self.run_command("make", "-s", self.path("store"), self.path("a.caibx"), path)
        with subprocess.Popen(
            command("cat", *self.arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=process_environ(),
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            self.assertEqual(process.stdout.read(1000), self.read("big")[:1000])
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
            self.assertEqual(process.wait(60), 1)

    def test_out_of_range(self) -> None:
        """A part that isn't in the file is refused, and the output left as it was."""
        self.write("out", b"old")
        for flags, why in (
            (("-o", "60001"), "beyond the 60000 bytes"),
            (("-o=-1",), "unable to seek before start of file"),
            (("-l=-1",), "unable to seek before start of file"),
            (("-l", "60001"), "more than the 60000 bytes"),
            (("-o", "59999", "-l", "2"), "more than the 60000 bytes"),
        ):
            for output in ((), (self.path("out"),)):
                self.assert_error(desync("cat", *flags, *self.arguments, *output), why)
        self.assertEqual(self.read("out"), b"old")

    def test_same_file(self) -> None:
        """The output must not be the index."""
        os.symlink("a.caibx", self.path("symbolic"))
        outcome = desync("cat", *self.arguments, self.path("symbolic"))
        self.assert_error(outcome, "input and output filenames match")

    def test_no_store(self) -> None:
        """Without a store there is nothing to stream."""
        self.assert_error(desync("cat", self.path("a.caibx")), "no store provided")

    def test_indexes(self) -> None:
        """An index that can't be one is refused by name."""
        good = self.read("a.caibx")
        for spoil, why in bad_indexes.BAD.values():
            bad = self.write("bad.caibx", spoil(good))
            self.assert_error(desync("cat", *self.arguments[:2], bad), bad, why)

    def test_missing_chunk(self) -> None:
        """A missing chunk ends the stream where it belongs, and leaves a file as it was."""
        index = self.index("a.caibx")
        self.write("out", b"old")
        os.unlink(self.files().path_of(index.id(6)))
        outcome = desync("cat", *self.arguments)
        self.assertTrue(self.data.startswith(outcome.out))
        self.assertLessEqual(len(outcome.out), index.start(6))
        why = f"chunk {index.id(6).hex()} missing from store"
        self.assert_error(outcome, self.path("store"), why, out=outcome.out)
        self.assert_error(desync("cat", *self.arguments, self.path("out")), why)
        self.assertEqual(self.read("out"), b"old")
        out = self.run_command("cat", "-l", str(index.start(6)), *self.arguments).out
        self.assertEqual(out, self.data[: index.start(6)])

    def test_bad_chunks(self) -> None:
        """A chunk that isn't what its name says is never written."""
        start, length, chunk_id = list(self.index("a.caibx"))[2]
        plain = self.data[start : start + length]
        for what, spoil in bad_chunks.BAD.items():
            self.files().put(chunk_id, spoil(plain))
            outcome = desync("cat", *self.arguments)
            self.assertIn(outcome.out, (b"", self.data[:start]), what)
            why = f"chunk {chunk_id.hex()} is invalid"
            self.assert_error(outcome, self.path("store"), why, out=outcome.out)
