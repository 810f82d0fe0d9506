# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Commands whose stores and indexes are in S3, as moto imitates it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from desync.formats.index import Index
from desync.formats.stored import chunk_name

from . import bad_chunks
from .command_case import SIZES, CommandCase, sample
from .command_line import Outcome, desync_process
from .object_peers import moto


class S3CommandTests(CommandCase):
    """What a user does with a bucket."""

    def setUp(self) -> None:
        super().setUp()
        self.service = moto()
        self.bucket = self.service.new_bucket()
        self.store_url = f"s3+http://{self.service.netloc}/{self.bucket}/a%20store"
        self.index_url = f"s3+http://{self.service.netloc}/{self.bucket}/indexes/v1.caibx"
        self.data = sample(300_000)
        self.file = self.write("v1", self.data)

    def run_s3(self, *args: str, code: int = 0, **environ: str) -> Outcome:
        """Run a command with the user's keys."""
        outcome = desync_process(*args, environ={**self.service.environ, **environ})
        self.assertEqual(outcome.code, code, outcome)
        return outcome

    def make(self, index: str | None = None) -> Index:
        """Store the file, and give its index."""
        self.run_s3("make", "-m", SIZES, "-s", self.store_url, index or self.index_url, self.file)
        data = self.service.get(self.bucket, "indexes/v1.caibx")
        assert data is not None
        return Index.parse(data, "v1.caibx")

    def key(self, chunk_id: bytes) -> str:
        """Name the object of a chunk."""
        return "a store/" + chunk_name(chunk_id, ".cacnk")

    def test_make_and_extract(self) -> None:
        """A file goes into a bucket, index and all, and comes back."""
        index = self.make()
        self.assertEqual(index.size, len(self.data))
        self.run_s3("extract", "-s", self.store_url, self.index_url, self.path("copy"))
        self.assertEqual(self.read("copy"), self.data)
        outcome = self.run_s3("list-chunks", self.index_url)
        self.assertEqual(outcome.text.split(), [chunk_id.hex() for chunk_id in index.ids])
        outcome = self.run_s3("cat", "-s", self.store_url, "-o", "1000", "-l", "9", self.index_url)
        self.assertEqual(outcome.out, self.data[1000:1009])

    def test_other_commands(self) -> None:
        """Whatever else takes a store or an index takes these."""
        index = self.make()
        info = json.loads(self.run_s3("info", "-s", self.store_url, self.index_url).out)
        self.assertEqual((info["total"], info["in-store"]), (len(index), len(set(index.ids))))
        self.run_s3("verify-index", self.index_url, self.file)
        other = self.store_url + "-2"
        self.run_s3("chop", "-s", other, self.index_url, self.file)
        self.run_s3("extract", "-s", other, self.index_url, self.path("copy"))
        self.assertEqual(self.read("copy"), self.data)
        tree = self.folder / "tree"
        tree.mkdir()
        (tree / "a file").write_bytes(self.data)
        (tree / "link").symlink_to("a file")
        caidx = self.index_url.replace(".caibx", ".caidx")
        self.run_s3("tar", "-i", "-s", other, caidx, str(tree))
        os.mkdir(self.path("again"))
        self.run_s3("untar", "-i", "-s", other, caidx, self.path("again"))
        self.assertEqual(self.read("again/a file"), self.data)
        self.assertEqual(os.readlink(self.path("again/link")), "a file")
        listed = self.run_s3("mtree", "-i", "-s", other, caidx)
        self.assertIn("a\\040file", listed.text)

    def test_cache(self) -> None:
        """A bucket can be a cache, and be filled as one."""
        self.sample_store(self.data, "a.caibx")
        store, index = self.path("store"), self.path("a.caibx")
        self.run_s3("extract", "-s", store, "-c", self.store_url, index, self.path("copy"))
        self.assertEqual(self.read("copy"), self.data)
        for chunk_id in self.index("a.caibx").ids:
            self.assertIsNotNone(self.service.get(self.bucket, self.key(chunk_id)))
        other = f"s3+http://{self.service.netloc}/{self.bucket}/other"
        self.run_s3("cache", "-s", self.store_url, "-c", other, index)
        self.run_s3("extract", "-s", other, index, self.path("copy2"))
        self.assertEqual(self.read("copy2"), self.data)

    def test_verify(self) -> None:
        """Every chunk is checked, even if the configuration says otherwise; bad ones can go."""
        index = self.make()
        config = self.write(
            "config", b'{"store-options": {"s3+http://*/*/*": {"skip-verify": true}}}'
        )
        verify = ("verify", "--config", config, "-s", self.store_url, "-b", "1ms")
        outcome = self.run_s3(*verify)
        count = len(set(index.ids))
        self.assertEqual((outcome.out, outcome.err), (b"", f"{count} chunks checked, 0 invalid\n"))
        _, length, chunk_id = list(index)[3]
        bad = bad_chunks.BAD["a bit changed"](self.data[list(index)[3][0] :][:length])
        self.service.put(self.bucket, self.key(chunk_id), bad)
        outcome = self.run_s3(*verify, code=1)
        self.assertIn(chunk_id.hex(), outcome.text)
        self.assertEqual(outcome.text.count("\n"), 1)
        outcome = self.run_s3(*verify, "-r")
        self.assertIn("removed", outcome.text)
        self.assertIsNone(self.service.get(self.bucket, self.key(chunk_id)))

    def test_prune(self) -> None:
        """What no index names is removed once it is old; the index may be in the bucket too."""
        index = self.make()
        other = self.write("v2", sample(100_000, seed=1))
        self.run_s3("make", "-m", SIZES, "-s", self.store_url, self.path("v2.caibx"), other)
        mine = set(self.index("v2.caibx").ids) - set(index.ids)
        outcome = self.run_s3("prune", "-s", self.store_url, "--yes", self.index_url)
        self.assertIn(f"{len(mine)} spared for being young", outcome.err)
        self.service.older(1000)
        outcome = self.run_s3("prune", "-s", self.store_url, "--dry-run", self.index_url)
        self.assertIn(f"{len(mine)} chunks would be removed", outcome.text)
        self.run_s3("prune", "-s", self.store_url, "--yes", self.index_url)
        for chunk_id in mine:
            self.assertIsNone(self.service.get(self.bucket, self.key(chunk_id)))
        self.run_s3("extract", "-s", self.store_url, self.index_url, self.path("copy"))
        self.assertEqual(self.read("copy"), self.data)

    def test_prune_asks(self) -> None:
        """The question says that presence makes no chunk younger here."""
        self.make()
        outcome = desync_process(
            "prune",
            "-s",
            self.store_url,
            self.index_url,
            stdin=b"n\n",
            environ=self.service.environ,
        )
        self.assertEqual(outcome.code, 0)
        self.assertIn("makes it no younger", outcome.text)

    def test_refusals(self) -> None:
        """What goes wrong is said in one line, with the cause and the request."""
        self.make()
        host = f"s3+http://{self.service.netloc}"
        extract = ("extract", "-b", "1ms")
        target = self.path("copy")
        for args, environ, parts in (
            ((self.store_url, f"{host}/{self.bucket}/none.caibx"), {}, ("none.caibx", "no such")),
            ((f"{host}/nowhere", self.index_url), {}, ("bucket 'nowhere' does not exist",)),
            ((f"{host}/{self.bucket}", self.index_url), {}, ("missing from store",)),
            ((self.store_url, self.index_url), {"S3_SECRET_KEY": "x"}, ("secret key", "request")),
            ((self.store_url, self.index_url), {"S3_ACCESS_KEY": "x"}, ("access key", "request")),
            ((f"{host}", self.index_url), {}, ("expected bucket name in path of 's3+http'",)),
            ((f"{host}/b?lookup=x", self.index_url), {}, ('unknown S3 bucket lookup type: "x"',)),
        ):
            outcome = self.run_s3(*extract, "-s", *args, target, code=1, **environ)
            self.assert_error(outcome, *parts)
            self.assertFalse(os.path.exists(target))

    def test_unreachable(self) -> None:
        """A service that isn't there is asked again, and then named."""
        index = self.sample_store(self.data) and self.path("a.caibx")
        outcome = self.run_s3(
            "extract", "-b", "1ms", "-s", "s3+http://127.0.0.1:1/b", index, self.path("c"), code=1
        )
        self.assert_error(outcome, "s3+http://127.0.0.1:1/b: ", "refused")

    def test_start_up(self) -> None:
        """Nothing of this is imported by a command that doesn't need it."""
        program = (
            "import sys, desync.cli.main, desync.stores.opening\n"
            "print({'botocore', 'google', 'twisted', 'OpenSSL'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        self.assertEqual(done.stdout, b"set()\n")
