# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Index files that other programs made, and what the real casync says of ours.

The environment variable DESYNC_CONFORMANCE_DATA names the folder that holds Go desync's files.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from desync.chunking.digests import SHA256, SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.errors import InvalidIndex, WrongDigest
from desync.formats.flags import blob_flags, catar_flags
from desync.formats.index import Index, IndexBuilder, IndexSizes

from .peers import peer


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


class CasyncIndexTests(SynchronousTestCase):
    """Our reader and writer against the real casync."""

    def setUp(self) -> None:
        """Find casync, or skip."""
        self.casync = peer("casync")
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.store = self.folder / "store.castr"

    def run_casync(self, *arguments: str | Path) -> bool:
        """Run casync and say whether it succeeded."""
        result = subprocess.run(
            [self.casync, *map(str, arguments), f"--store={self.store}"],
            capture_output=True,
            timeout=60,
        )
        return result.returncode == 0

    def make(self, size: int, *options: str) -> bytes:
        """Let casync make the index of a file."""
        data = random.Random(size).randbytes(size)
        blob, path = self.folder / "blob", self.folder / "blob.caibx"
        blob.write_bytes(data)
        self.assertTrue(self.run_casync("make", *options, path, blob))
        return path.read_bytes()

    def test_same_bytes(self) -> None:
        """What casync writes is read, and written again byte for byte."""
        for size in (0, 1, 48, 16384, 65536, 262145, 1 << 20):
            for digest, word in ((SHA512_256, 0xB << 60), (SHA256, 0x9 << 60)):
                with self.subTest(size=size, digest=digest.name):
                    data = self.make(size, f"--digest={digest.name}")
                    index = Index.parse(data, digest=digest)
                    self.assertEqual((size, word), (index.size, index.flags))
                    self.assertEqual(ChunkSizes.DEFAULT, index.sizes)
                    self.assertEqual(data, index.to_bytes())

    def test_archive(self) -> None:
        """The index of a directory carries the flags that its archive begins with."""
        tree, path, archive = (self.folder / name for name in ("tree", "x.caidx", "x.catar"))
        (tree / "sub").mkdir(parents=True)
        (tree / "sub" / "file").write_bytes(bytes(1000))
        for features in ("unix", "fat", "xattrs", "2sec-time", "permissions"):
            with self.subTest(features=features):
                self.assertTrue(self.run_casync("make", f"--with={features}", path, tree))
                self.assertTrue(self.run_casync("make", f"--with={features}", archive, tree))
                data = path.read_bytes()
                index = Index.parse(data)
                self.assertEqual(hex(catar_flags(archive.read_bytes())), hex(index.flags))
                self.assertEqual(data, index.to_bytes())

    def test_ours_is_read(self) -> None:
        """casync rebuilds a file by an index that we wrote, with Go desync's flag word."""
        for digest in (SHA512_256, SHA256):
            index = Index.parse(self.make(1 << 20, f"--digest={digest.name}"))
            builder = IndexBuilder(IndexSizes(1, 1, 128 << 20), digest)
            builder.append_items(index.table)
            path, out = self.folder / "ours.caibx", self.folder / f"out-{digest.name}"
            path.write_bytes(builder.finish(1 << 20).to_bytes())
            self.assertTrue(self.run_casync("extract", "--seed-output=no", path, out))
            self.assertEqual((self.folder / "blob").read_bytes(), out.read_bytes())

    def test_same_refusals(self) -> None:
        """casync takes a changed index if, and only if, we do."""
        good = self.make(400000)
        index = Index.parse(good)
        items = 64 + 40 * (len(index) - 1)
        tail = items + 40
        most = 128 << 20
        changes: list[tuple[bool, dict[int, int]]] = [
            (True, {}),
            (False, {0: 47}),
            (False, {8: 1}),
            (False, {48: 2**64 - 2}),
            (False, {56: 1}),
            (False, {16: 2**64 - 1}),
            (False, {16: index.flags | 1 << 40}),
            (False, {16: index.flags | 0x3}),
            (False, {16: index.flags | 0x100000}),
            (False, {16: index.flags | 0x8000000}),
            (False, {24: 0}),
            (False, {24: 65537}),
            (False, {32: 262145}),
            (False, {40: most + 1}),
            (True, {40: most}),
            (True, {24: 1, 32: 1}),
            (True, {24: 65536}),
            (False, {24: 1, 32: 1, 40: max(length for _, length, _ in index) - 1}),
            (False, {items: index.start(len(index) - 1)}),
            (False, {items: 1}),
            (False, {items: 0}),
            (False, {tail: index.size + 1}),
            (False, {tail + 8: 1}),
            (False, {tail + 16: 47}),
            (False, {tail + 24: 2**64 - 1}),
            (False, {tail + 32: 0}),
        ]
        variants = []
        for fine, words in changes:
            data = bytearray(good)
            for offset, value in words.items():
                struct.pack_into("<Q", data, offset, value)
            variants.append((fine, bytes(data)))
        variants += [(False, good + more) for more in (b"\0", bytes(40), good)]
        variants += [(False, good[:size]) for size in (1, 47, 48, 63, 64, 65, tail, tail + 39)]
        path = self.folder / "changed.caibx"
        for number, (fine, changed) in enumerate(variants):
            with self.subTest(number=number):
                path.write_bytes(changed)
                out = self.folder / f"changed-{number}"
                self.assertEqual(fine, self.run_casync("extract", path, out))
                try:
                    Index.parse(changed)
                except InvalidIndex:
                    self.assertFalse(fine)
                else:
                    self.assertTrue(fine)
