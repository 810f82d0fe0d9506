# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync info`` and ``desync inspect-chunks``."""

from __future__ import annotations

import io
import json
import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from desync.errors import FileError
from desync.formats import chunk_sizes
from desync.formats.chunk_sizes import KnownSizes, read_sizes, write_sizes

from . import bad_indexes
from .command_case import CommandCase, as_nobody, sample
from .command_line import desync, desync_process


class InfoTests(CommandCase):
    """A file with chunks that repeat themselves, in a store."""

    def setUp(self) -> None:
        super().setUp()
        self.data = sample(200_000)
        self.sample_store(self.data)
        self.index_path = self.path("a.caibx")
        self.lengths = {i: length for _, length, i in self.index("a.caibx")}

    def info(self, *args: str, **more: Any) -> dict[str, int]:
        """Give the figures."""
        found = json.loads(self.run_command("info", *args, self.index_path, **more).out)
        assert isinstance(found, dict)
        return found

    def test_alone(self) -> None:
        """Without a store the figures are about the index, under Go desync's names."""
        unique = sum(self.lengths.values())
        self.assertLess(unique, 200_000)
        self.assertEqual(
            list(self.info().items()),
            [
                ("total", len(self.index("a.caibx"))),
                ("unique", len(self.lengths)),
                ("in-store", 0),
                ("in-seed", 0),
                ("in-cache", 0),
                ("not-in-seed-nor-cache", len(self.lengths)),
                ("size", 200_000),
                ("dedup-size-not-in-seed", unique),
                ("dedup-size-not-in-seed-nor-cache", unique),
                ("dedup-size-not-in-seed-nor-cache-compressed", 0),
                ("chunk-size-min", 1024),
                ("chunk-size-avg", 4096),
                ("chunk-size-max", 16384),
            ],
        )

    def test_plain(self) -> None:
        """For people there are lines, in the words of Go desync."""
        self.run_command("make", self.path("b.caibx"), self.write("b", b"data"))
        for flags in (("-f", "plain"), ("--format=plain",)):
            out = self.run_command("info", *flags, self.path("b.caibx")).text
            self.assertEqual(
                out,
                "Blob size: 4\n"
                "Size of deduplicated chunks not in seed: 4\n"
                "Size of deduplicated chunks not in seed nor cache: 4\n"
                "Total chunks: 1\n"
                "Unique chunks: 1\n"
                "Chunks in store: 0\n"
                "Chunks in seed: 0\n"
                "Chunks in cache: 0\n"
                "Chunks not in seed nor cache: 1\n"
                "Compressed chunks not in seed nor cache: 0\n"
                "Chunk size min: 16384\n"
                "Chunk size avg: 65536\n"
                "Chunk size max: 262144\n",
            )

    def test_stores_seeds_and_cache(self) -> None:
        """Chunks are counted where they are; what is in a seed or the cache needn't be fetched."""
        ids = sorted(self.lengths)
        cached, stored = set(ids[::3]), set(ids[::2])
        self.store("cache")
        self.store("other")
        for name, some in (("cache", cached), ("other", stored)):
            for chunk_id in some:
                self.files(name).put(chunk_id, b"it isn't looked into")
        seeds: tuple[str, ...] = ()
        for name in "bc":
            self.write(name, self.data[:60_000] if name == "b" else self.data[150_000:])
            self.run_command("make", "-m", "1:4:16", self.path(f"{name}.caibx"), self.path(name))
            seeds += ("--seed", self.path(f"{name}.caibx"))
        seeded = {i for name in "bc" for i in self.index(f"{name}.caibx").ids} & set(ids)
        found = self.info("-s", self.path("other"), "-c", self.path("cache"), *seeds)
        needed = set(ids) - seeded - cached
        self.assertTrue(0 < len(needed) < len(ids) and seeded - cached and cached - seeded)
        self.assertEqual(found["in-store"], len(stored))
        self.assertEqual(found["in-seed"], len(seeded))
        self.assertEqual(found["in-cache"], len(cached))
        self.assertEqual(found["not-in-seed-nor-cache"], len(needed))
        size = sum(self.lengths[i] for i in needed)
        self.assertEqual(found["dedup-size-not-in-seed-nor-cache"], size)
        size = sum(self.lengths[i] for i in set(ids) - seeded)
        self.assertEqual(found["dedup-size-not-in-seed"], size)
        both = self.info("-s", self.path("other"), "-s", self.path("cache"))
        self.assertEqual(both["in-store"], len(stored | cached))

    def test_compressed_sizes(self) -> None:
        """What inspect-chunks wrote tells how much has to be fetched, if all of that is known."""
        known = self.path("sizes.json")
        self.run_command("inspect-chunks", "-s", self.path("store"), self.index_path, known)
        name = "dedup-size-not-in-seed-nor-cache-compressed"
        total = sum(os.stat(file.path).st_size for file in self.files().all_files())
        self.assertEqual(self.info("--chunks-info", known)[name], total)
        entries = json.loads(self.read("sizes.json"))
        chunk_id = bytes.fromhex(entries[0]["id"])
        self.store("cache")
        self.files("cache").put(chunk_id, b"x")
        rest = total - os.stat(self.files().path_of(chunk_id)).st_size
        flags = ("-c", self.path("cache"), "--chunks-info")
        self.assertEqual(self.info(*flags, known)[name], rest)
        without = [entry for entry in entries if entry["id"] != entries[0]["id"]]
        self.write("sizes.json", json.dumps(without).encode())
        self.assertEqual(self.info("--chunks-info", known)[name], 0)
        self.assertEqual(self.info(*flags, known)[name], rest)
        without.append({"id": entries[0]["id"], "uncompressed_size": len(self.data)})
        self.write("sizes.json", json.dumps(without).encode())
        self.assertEqual(self.info(*flags, known)[name], rest)
        outcome = desync("info", "--chunks-info", known, self.index_path)
        self.assert_error(outcome, known, "unexpected size for the chunk", entries[0]["id"])

    def test_process(self) -> None:
        """It works as a process, with the index from stdin."""
        outcome = desync_process("info", "-", stdin=self.read("a.caibx"))
        self.assertEqual((outcome.code, outcome.err), (0, ""))
        self.assertEqual(json.loads(outcome.out), self.info())

    def test_a_store_that_cannot_tell(self) -> None:
        """Chunks that can't be looked at aren't counted, which is said once."""
        wanted = self.info("-s", self.path("store"))["in-store"] - 2
        for chunk_id in sorted(self.lengths)[:2]:
            os.chmod(os.path.dirname(self.files().path_of(chunk_id)), 0)
        outcome = as_nobody(lambda: desync("info", "-s", self.path("store"), self.index_path))
        self.assertEqual(outcome.code, 0)
        self.assertEqual(json.loads(outcome.out)["in-store"], wanted)
        self.assertEqual(outcome.err.count("Permission denied: it is not counted\n"), 1)

    def test_refusals(self) -> None:
        """What makes no sense or can't be read is named."""
        nothing, index = self.path("nothing"), self.index_path
        for args, why in (
            ((nothing,), f"{nothing}: No such file or directory"),
            (("-s", nothing, index), f"{nothing}: No such file or directory"),
            (("-s", self.path("a"), index), f"{self.path('a')}: not a directory"),
            (("-c", nothing, index), f"{nothing}: No such file or directory"),
            (("--seed", nothing, index), f"{nothing}: No such file or directory"),
            (("--seed", self.path("a"), index), f"{self.path('a')}: not an index file"),
            (("--chunks-info", nothing, index), f"{nothing}: No such file or directory"),
            (("--chunks-info", index, index), f"{index}: not a list of chunks"),
            (("-f", "yaml", index), 'unsupported output format "yaml"'),
            (("-n0", index), "--concurrency must be at least 1"),
            (("--digest=sha256", index), f"{index}: index file uses SHA512-256"),
        ):
            self.assert_error(desync("info", *args), why)
        good = self.read("a.caibx")
        for spoil, why in bad_indexes.BAD.values():
            bad = self.write("bad.caibx", spoil(good))
            self.assert_error(desync("info", bad), bad, why)
            self.assert_error(desync("info", "--seed", bad, index), bad, why)


class InspectChunksTests(CommandCase):
    """An index and its store."""

    def setUp(self) -> None:
        super().setUp()
        self.sample_store(sample(200_000))
        self.index_path = self.path("a.caibx")

    def test_alone(self) -> None:
        """Every chunk is printed with its length, repeated ones as often as they are there."""
        outcome = self.run_command("inspect-chunks", self.index_path)
        wanted = [
            {"id": i.hex(), "uncompressed_size": length} for _, length, i in self.index("a.caibx")
        ]
        self.assertEqual(json.loads(outcome.out), wanted)
        self.assertEqual(outcome.text, json.dumps(wanted, indent=2) + "\n")

    def test_store(self) -> None:
        """With a store the size there is added, where the chunk is there."""
        missing = self.index("a.caibx").id(3)
        os.unlink(self.files().path_of(missing))
        out = self.run_command("inspect-chunks", "-s", self.path("store"), self.index_path).out
        for entry in json.loads(out):
            chunk_id = bytes.fromhex(entry["id"])
            size = self.files().stored_size(chunk_id)
            self.assertEqual(entry.get("compressed_size"), size)
            self.assertEqual(size is None, chunk_id == missing)

    def test_uncompressed_store(self) -> None:
        """A store that isn't compressed has nothing to add."""
        options = json.dumps({"store-options": {self.path("store"): {"uncompressed": True}}})
        config = self.write("config", options.encode())
        flags = ("--config", config, "-s", self.path("store"))
        with_store = self.run_command("inspect-chunks", *flags, self.index_path)
        self.assertEqual(with_store, self.run_command("inspect-chunks", self.index_path))

    def test_output(self) -> None:
        """A file gets what stdout would, as a whole or not at all."""
        self.write("out", b"old")
        bad = self.write("bad.caibx", self.read("a.caibx")[:-1])
        self.assert_error(desync("inspect-chunks", bad, self.path("out")), bad)
        self.assertEqual(self.read("out"), b"old")
        out = self.run_command("inspect-chunks", self.index_path).out
        self.run_command("inspect-chunks", self.index_path, self.path("out"))
        self.assertEqual(self.read("out"), out)
        self.assertEqual(self.leftovers(), [])

    def test_empty(self) -> None:
        """An index without chunks is printed as Go prints no list."""
        self.run_command("make", self.path("e.caibx"), self.write("e", b""))
        outcome = self.run_command("inspect-chunks", self.path("e.caibx"))
        self.assertEqual(outcome.out, b"null\n")

    def test_stdin(self) -> None:
        """A dash reads the index from stdin."""
        outcome = self.run_command("inspect-chunks", "-", stdin=self.read("a.caibx"))
        self.assertEqual(outcome, self.run_command("inspect-chunks", self.index_path))

    def test_refusals(self) -> None:
        """What makes no sense is named."""
        nothing, index = self.path("nothing"), self.index_path
        for args, why in (
            ((nothing,), f"{nothing}: No such file or directory"),
            (("-s", nothing, index), f"{nothing}: No such file or directory"),
            (("-s", "http://host/", index), "'http://host/' is not a local store"),
            (("-n0", index), "--concurrency must be at least 1"),
            ((index, index), "input and output filenames match"),
            ((index, self.path("nothing/out")), "nothing/out: No such file or directory"),
        ):
            self.assert_error(desync("inspect-chunks", *args), why)


class ChunkSizesTests(SynchronousTestCase):
    """The text that one of them writes and the other reads."""

    def read(self, text: str) -> KnownSizes:
        """Read a text."""
        return read_sizes(io.StringIO(text), "sizes.json")

    def test_round_trip(self) -> None:
        """What is written is read again, however it falls into pieces."""
        chunks = [(bytes([n % 251]) * 31 + bytes([n // 251]), n + 1, 2 * n) for n in range(3000)]
        text = "".join(write_sizes(chunks))
        for step in (1 << 16, 1000, 7, 1):
            self.patch(chunk_sizes, "_STEP", step)
            known = self.read(text)
            for chunk_id, size, stored in sorted(chunks):
                self.assertEqual(known.find(chunk_id), (size, stored))

    def test_other_forms(self) -> None:
        """JSON that is written otherwise is read as Go reads it."""
        key = "ab" * 32
        for text, wanted in (
            ("null", None),
            (" null \n", None),
            ("[]", None),
            (" [ ] ", None),
            (f'[{{"id":"{key}","uncompressed_size":5}}]', (5, 0)),
            (f'\n[ {{"ID" : "{key.upper()}", "Compressed_Size": 7, "x": [{{}}]}} ]\n', (0, 7)),
            (f'[{{"id":"{key}","compressed_size":1}},{{"id":"{key}"}}]', (0, 0)),
        ):
            self.assertEqual(self.read(text).find(bytes([0xAB]) * 32), wanted, text)

    def test_ids_that_are_not_there(self) -> None:
        """Ids between those that are known aren't found, and the known ones still are."""
        text = "".join(write_sizes([(bytes([n]) * 32, n, None) for n in (9, 3, 5)]))
        known = self.read(text)
        found = [known.find(bytes([n]) * 32) for n in range(11)]
        self.assertEqual(
            [pair and pair[0] for pair in found], [None] * 3 + [3, None, 5] + [None] * 3 + [9, None]
        )

    def test_refusals(self) -> None:
        """Anything else is refused in one line that names the file."""
        key = "ab" * 32
        for text, why in (
            ("", "not a list"),
            ("{}", "not a list"),
            ("nullx", "something follows"),
            ("[] x", "something follows"),
            ("[", "has no end"),
            (f'[{{"id":"{key}"}}', "has no end"),
            (f'[{{"id":"{key}"}},', "has no end"),
            (f'[{{"id":"{key}"}},]', "entry 2"),
            (f'[{{"id":"{key}"}} {{}}]', "entry 1 is followed by '{'"),
            ("[1]", "entry 1 isn't an object"),
            ("[{}]", "entry 1 has no chunk id"),
            ('[{"id":"abc"}]', "not a chunk id"),
            (f'[{{"id":"{key}","uncompressed_size":-1}}]', "uncompressed_size isn't a size"),
            (f'[{{"id":"{key}","compressed_size":1.5}}]', "compressed_size isn't a size"),
            (f'[{{"id":"{key}","compressed_size":true}}]', "compressed_size isn't a size"),
            (f'[{{"id":"{key}","compressed_size":{1 << 64}}}]', "compressed_size isn't a size"),
            ("[" * 100_000, "entry 1"),
            ("[" + "x" * 300_000, "entry 1"),
        ):
            error = self.assertRaises(FileError, self.read, text)
            self.assertTrue(str(error).startswith("sizes.json: "), error)
            self.assertIn(why, str(error), text[:80])
            self.assertEqual(len(str(error).splitlines()), 1)
