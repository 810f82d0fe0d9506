# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Commands on files that Go desync made.

The environment variable DESYNC_CONFORMANCE_DATA names the folder that holds them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from twisted.trial.unittest import SkipTest

from desync.formats import catar
from desync.formats.catar_decoder import CatarDecoder
from desync.formats.catar_encoder import CatarEncoder
from desync.formats.index import Index
from desync.stores.local_files import LocalFiles

from .command_case import CommandCase
from .command_line import desync


class GoFilesTests(CommandCase):
    """Go desync's blobs, and the indexes and stores that it made of them."""

    def setUp(self) -> None:
        super().setUp()
        folder = os.environ.get("DESYNC_CONFORMANCE_DATA")
        if not folder:
            raise SkipTest("DESYNC_CONFORMANCE_DATA doesn't name the folder of Go desync's files")
        self.go = Path(folder)

    def given(self, name: str) -> str:
        """Name one of Go desync's files."""
        path = self.go / name
        self.assertTrue(path.exists(), path)
        return str(path)

    def test_make(self) -> None:
        """The index that we make of a blob is Go desync's, byte for byte; so are the chunks."""
        for name in ("blob1", "blob2"):
            theirs = Index.parse(Path(self.given(f"{name}.caibx")).read_bytes())
            sizes = ":".join(str(size // 1024) for size in theirs.sizes)
            arguments = ("-s", self.store(name), self.path("i"), self.given(name))
            self.run_command("make", "-m", sizes, *arguments)
            self.assertEqual(self.read("i"), Path(self.given(f"{name}.caibx")).read_bytes())
            files = LocalFiles(self.given(f"{name}.store"))
            ids = {file.chunk_id for file in files.all_files()}
            self.assertEqual({file.chunk_id for file in self.files(name).all_files()}, ids)
            for chunk_id in ids:
                self.assertEqual(files.get(chunk_id).plain, self.files(name).get(chunk_id).plain)

    def test_archives(self) -> None:
        """Go desync's archives are read, and written again byte for byte from what they say."""
        for name in ("complex", "flat", "flatdir", "nested"):
            data = Path(self.given(f"{name}.catar")).read_bytes()
            decoder = CatarDecoder(name)
            events = decoder.feed(data)
            decoder.finish()
            encoder = CatarEncoder(decoder.flags, as_go=decoder.flags == catar.GO_FLAGS)
            self.assertEqual(b"".join(encoder.encode(event) for event in events), data)
            out = self.run_command("list", self.given(f"{name}.catar")).out
            self.assertEqual(out.count(b"\n"), sum(hasattr(event, "name") for event in events))

    def test_other_sizes(self) -> None:
        """The input of Go desync's own chunker test is cut as it says."""
        path = self.given("chunker.input")
        theirs = self.given("chunker.index")
        self.run_command("make", self.path("i"), path)
        self.assertEqual(self.read("i"), Path(theirs).read_bytes())

    def test_extract(self) -> None:
        """Its stores and indexes give its blobs."""
        for name in ("blob1", "blob2"):
            arguments = ("-s", self.given(f"{name}.store"), self.given(f"{name}.caibx"))
            self.run_command("extract", *arguments, self.path("out"))
            blob = Path(self.given(name)).read_bytes()
            self.assertEqual(self.read("out"), blob)
            self.assertEqual(self.run_command("cat", *arguments).out, blob)

    def test_verify(self) -> None:
        """Its stores are good."""
        for name in ("blob1", "blob2"):
            outcome = desync("verify", "-s", self.given(f"{name}.store"))
            self.assertEqual(outcome, (0, b"", "131 chunks checked, 0 invalid\n"))

    def test_verify_index(self) -> None:
        """Its blobs are what their indexes say, but for the one that was damaged."""
        for name in ("blob1", "blob2"):
            self.run_command("verify-index", self.given(f"{name}.caibx"), self.given(name))
        bad = self.given("blob2_corrupted")
        self.assert_error(desync("verify-index", self.given("blob2_corrupted.caibx"), bad), bad)
        # Its size tells already; made as long as it should be, its content does.
        size = self.index_size("blob2_corrupted.caibx")
        data = Path(bad).read_bytes()
        padded = self.write("padded", data + bytes(size - len(data)))
        outcome = desync("verify-index", self.given("blob2_corrupted.caibx"), padded)
        self.assert_error(outcome, padded, "are not chunk")

    def index_size(self, name: str) -> int:
        """Give the size of what an index describes."""
        found = json.loads(self.run_command("info", self.given(name)).out)["size"]
        assert isinstance(found, int)
        return found

    def test_info(self) -> None:
        """The figures are those that Go desync shows of the same files."""
        index, store = self.given("blob1.caibx"), self.given("blob1.store")
        arguments = ("-s", store, "--seed", self.given("blob2.caibx"), index)
        found = json.loads(self.run_command("info", *arguments).out)
        self.assertEqual(found["total"], 161)
        self.assertEqual(found["unique"], 131)
        self.assertEqual(found["size"], 2097152)
        self.assertEqual(found["in-store"], 131)
        self.assertEqual(found["in-seed"], 124)
        self.assertEqual(found["dedup-size-not-in-seed"], 80029)
        found = json.loads(self.run_command("info", index).out)
        self.assertEqual(found["dedup-size-not-in-seed"], 1114112)

    def test_every_index(self) -> None:
        """Every index is read; what isn't one is refused by name."""
        indexes = [path for path in self.go.iterdir() if path.suffix in (".caibx", ".index")]
        self.assertGreaterEqual(len(indexes), 5)
        for path in indexes:
            lines = self.run_command("list-chunks", str(path)).text.splitlines()
            self.assertEqual(len(lines), (path.stat().st_size - 104) // 40)
            self.run_command("info", str(path))
            inspected = json.loads(self.run_command("inspect-chunks", str(path)).out)
            self.assertEqual([entry["id"] for entry in inspected], lines)
        for name in ("flat.catar", "blob1", "complex.gnu-tar"):
            path = Path(self.given(name))
            self.assert_error(desync("info", str(path)), str(path), "not an index")
