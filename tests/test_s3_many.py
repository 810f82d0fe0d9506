# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Buckets of very many chunks."""

from __future__ import annotations

import os
import subprocess
import sys

from desync.chunking.digests import SHA512_256
from desync.chunking.sizes import ChunkSizes
from desync.formats.index import IndexBuilder

from .command_case import CommandCase
from .command_line import ROOT, command, process_environ
from .endless_bucket import id_of
from .object_peers import endless_bucket

FEW, MANY = 5_000, 500_000
WANTED = 50

MOST = 12 << 20
"""Bytes that many chunks may take more than few: their ids alone are 16 MB."""


class ManyTests(CommandCase):
    """What goes through a bucket takes no more memory if there is more in it."""

    def run_measured(self, *words: str) -> tuple[str, int]:
        """Run a program; give what it said, and the most memory that it had, in bytes."""
        with open(self.path("out"), "wb") as out:
            process = subprocess.Popen(
                words,
                stdout=out,
                stderr=out,
                cwd=ROOT,
                env=process_environ(S3_ACCESS_KEY="key", S3_SECRET_KEY="secret"),
            )
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said = self.read("out").decode()
        self.assertEqual(process.returncode, 0, said)
        return said, usage.ru_maxrss * 1024

    def test_list_and_prune(self) -> None:
        """Listing and pruning go page by page."""
        builder = IndexBuilder(ChunkSizes(1024, 4096, 16384), SHA512_256)
        for number in range(WANTED):
            builder.append(1024, id_of(number))
        index = self.write("a.caibx", builder.finish().to_bytes())
        listing, pruning = [], []
        for count in FEW, MANY:
            service = endless_bucket(count)
            url = f"s3+http://{service.netloc}/bucket"
            said, memory = self.run_measured(sys.executable, "-m", "tests.list_bucket", url)
            self.assertEqual(said, f"{count}\n")
            listing.append(memory)
            said, memory = self.run_measured(*command("prune", "--yes", "-s", url, index))
            self.assertIn(f"{count - WANTED}", said)
            self.assertEqual(service.call("GET", "/removed"), (200, b"%d" % (count - WANTED)))
            pruning.append(memory)
        for few, many in listing, pruning:
            self.assertLess(many - few, MOST)
