# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Index files that Go desync made.

The environment variable DESYNC_CONFORMANCE_DATA names the folder that holds them.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from desync.chunking.digests import SHA256, SHA512_256
from desync.errors import WrongDigest
from desync.formats.flags import blob_flags, catar_flags
from desync.formats.index import Index, IndexBuilder


class GoIndexTests(SynchronousTestCase):
    """Our reader and writer against Go desync's files."""

    def setUp(self) -> None:
        """Find the files, or skip."""
        folder = os.environ.get("DESYNC_CONFORMANCE_DATA")
        if not folder:
            raise SkipTest("DESYNC_CONFORMANCE_DATA doesn't name the folder of Go desync's files")
        self.folder = Path(folder)
        suffixes = (".caibx", ".caidx", ".index")
        self.paths = [p for p in sorted(self.folder.rglob("*")) if p.suffix in suffixes]
        self.assertTrue(self.paths, f"no index files in {folder}")

    def test_same_bytes(self) -> None:
        """Each file is read, and written again byte for byte."""
        for path in self.paths:
            with self.subTest(path=path.name):
                data = path.read_bytes()
                index = Index.parse(data, path.name, SHA512_256)
                self.assertEqual((len(data) - 104) // 40, len(index))
                self.assertEqual(data, index.to_bytes())

    def test_built_alike(self) -> None:
        """What we build of the same chunks, with our own flag word, is the same file."""
        for path in self.paths:
            with self.subTest(path=path.name):
                data = path.read_bytes()
                index = Index.parse(data, path.name)
                builder = IndexBuilder(index.sizes, SHA512_256)
                for _, length, chunk_id in index:
                    builder.append(length, chunk_id)
                self.assertEqual(data, builder.finish(index.size).to_bytes())

    def test_ids_of_content(self) -> None:
        """The chunks that an index names are those of its file, except for the corrupted one."""
        found = {}
        for path in self.paths:
            content = path.with_name("chunker.input" if path.suffix == ".index" else path.stem)
            if content.exists():
                blob = content.read_bytes()
                index = Index.parse(path.read_bytes(), path.name)
                found[path.name] = len(blob) == index.size and all(
                    SHA512_256.id_of(blob[start : start + length]) == chunk_id
                    for start, length, chunk_id in index
                )
        expected = {name: "corrupted" not in name for name in found}
        self.assertEqual(expected, found)
        self.assertIn("blob2_corrupted.caibx", found)

    def test_unique(self) -> None:
        """Blob 1 has 161 chunks in 2 MiB, 131 of them different, 1114112 bytes long together."""
        index = Index.parse((self.folder / "blob1.caibx").read_bytes())
        unique = index.ids.sorted_unique()
        lengths = {chunk_id: length for _, length, chunk_id in index}
        self.assertEqual((161, 131), (len(index), len(unique)))
        self.assertEqual((2097152, 1114112), (index.size, sum(lengths[i] for i in unique)))

    def test_in_store(self) -> None:
        """The store beside an index has just the chunks that the index names."""
        for name in ("blob1", "blob2"):
            names = (self.folder / f"{name}.store").glob("*/*.cacnk")
            stored = sorted(bytes.fromhex(path.stem) for path in names)
            index = Index.parse((self.folder / f"{name}.caibx").read_bytes())
            self.assertEqual(stored, list(index.ids.sorted_unique()))

    def test_other_digest(self) -> None:
        """Under SHA-256 they are refused."""
        for path in self.paths:
            data = path.read_bytes()
            error = self.assertRaises(WrongDigest, Index.parse, data, path.name, SHA256)
            self.assertEqual(f"{path.name}: index file uses SHA512-256", str(error))

    def test_archives(self) -> None:
        """The flags at the start of an archive are recognized."""
        for path in sorted(self.folder.glob("*.catar")):
            with self.subTest(path=path.name):
                word = catar_flags(path.read_bytes()[:64])
                self.assertNotEqual(0, word)
                self.assertEqual(word, blob_flags(SHA512_256, path.read_bytes()) & word)
