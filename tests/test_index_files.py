# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Index files read and written directly."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.digests import SHA256, SHA512_256
from desync.errors import IndexMissing, InvalidIndex, StoreError, WrongDigest
from desync.stores.index_files import (
    InvalidIndexName,
    check_index_name,
    read_index,
    write_index,
)
from desync.testing.index_contract import sample_index


class IndexFileTests(SynchronousTestCase):
    """Reading and writing an index."""

    def setUp(self) -> None:
        self.directory: str = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)
        self.path = os.path.join(self.directory, "os.caibx")

    def test_round_trip(self) -> None:
        """What was written is read, whatever its size."""
        for count in 0, 1, 1000, 30_000:
            index = sample_index(count)
            write_index(self.path, index, sync="none")
            self.assertEqual(read_index(self.path).to_bytes(), index.to_bytes())
        self.assertEqual(os.listdir(self.directory), ["os.caibx"])

    def test_pipe(self) -> None:
        """An index may come through a pipe, in pieces."""
        data = sample_index(5000).to_bytes()
        os.mkfifo(self.path)

        def write() -> None:
            with open(self.path, "wb", buffering=0) as file:
                for begin in range(0, len(data), 777):
                    file.write(data[begin : begin + 777])

        writer = threading.Thread(target=write)
        writer.start()
        found = read_index(self.path)
        writer.join()
        self.assertEqual(found.to_bytes(), data)

    def test_growing(self) -> None:
        """A file that has become longer since its size was read is read to its end."""
        write_index(self.path, sample_index(10))
        short = os.stat(self.path)
        write_index(self.path, sample_index(900))
        self.patch(os, "fstat", lambda descriptor: short)
        self.assertEqual(len(read_index(self.path)), 900)

    def test_missing(self) -> None:
        """An index that isn't there is missing, by the name that the caller gives it."""
        error = self.assertRaises(IndexMissing, read_index, self.path, shown="shown")
        self.assertEqual(str(error), "shown: No such file or directory")

    def test_unreadable(self) -> None:
        """What can't be read is an error that names it."""
        error = self.assertRaises(StoreError, read_index, self.directory)
        self.assertEqual(str(error), f"{self.directory}: Is a directory")

    def test_not_an_index(self) -> None:
        """What doesn't begin as an index isn't read on, even if it has no end."""
        for path in "/dev/zero", "/dev/null", __file__:
            error = self.assertRaises(InvalidIndex, read_index, path)
            self.assertTrue(str(error).startswith(f"{path}: not an index file"), str(error))

    def test_digest(self) -> None:
        """An index made with another digest is refused."""
        write_index(self.path, sample_index())
        read_index(self.path, SHA512_256)
        self.assertRaises(WrongDigest, read_index, self.path, SHA256)

    def test_unwritable(self) -> None:
        """What can't be written is an error that names it."""
        path = os.path.join(self.path, "absent")
        error = self.assertRaises(StoreError, write_index, path, sample_index())
        self.assertEqual(str(error), f"{path}: No such file or directory")

    def test_standard_streams(self) -> None:
        """A dash is standard input for reading and standard output for writing."""
        program = (
            "from desync.stores.index_files import read_index, write_index\n"
            "write_index('-', read_index('-'))\n"
        )
        data = sample_index(100).to_bytes()
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            input=data,
            capture_output=True,
        )
        self.assertEqual((done.stdout, done.stderr), (data, b""))

    def test_names(self) -> None:
        """A name is one path component that leads nowhere else and can be shown."""
        for name in "os.caibx", ".hidden", "..x", "x..", "sp ace", "ünï", "\udcff":
            self.assertEqual(check_index_name(name), name)
        for name in "", ".", "..", "....", "a/b", "/", "a\\b", "a\0", "a\n", "\x9b", "\ud800":
            error = self.assertRaises(InvalidIndexName, check_index_name, name)
            self.assertTrue(str(error).isascii())
            self.assertTrue(str(error).isprintable())
