# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
An index of 16 million chunks, that of 1 TiB of data: what it takes to open and to use.

:mod:`tests.large_index` does the work, in processes of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import desync
from desync.chunking import kernels

from . import large_index

CHUNKS = 1 << 24
SIZE = 104 + 40 * CHUNKS
SLACK = 16 << 20
"""Bytes of memory that an index may take beside what grows with it."""


def skip_unless_possible(folder: str) -> None:
    """Skip where the machine is too small, or would take minutes."""
    chosen = os.environ.get(kernels.ENVIRONMENT_VARIABLE)
    if kernels.available() == ("portable",) or chosen == "portable":
        raise SkipTest("sorting 16 million ids needs the native kernels")
    if shutil.disk_usage(folder).free < 2 * SIZE:
        raise SkipTest(f"an index of {SIZE >> 20} MiB needs more free space on disk")
    try:
        memory = Path("/proc/meminfo").read_text()
    except OSError:
        raise SkipTest("/proc doesn't tell how much memory is used") from None
    available = next(
        int(line.split()[1]) * 1024
        for line in memory.splitlines()
        if line.startswith("MemAvailable:")
    )
    if available < 4 * SIZE:
        raise SkipTest(f"an index of {SIZE >> 20} MiB needs more free memory")


def run(*arguments: str) -> Any:
    """Run :mod:`tests.large_index` and give what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.large_index", *arguments],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(desync.__file__).parents[1])},
    )
    return json.loads(result.stdout)


class LargeIndexTests(SynchronousTestCase):
    """Memory stays within what the size of the file explains."""

    def test_sixteen_million_chunks(self) -> None:
        """
        An index is made within a quarter more than its size, opened and walked through within its
        size, and its ids are sorted, compared and merged within three times its size. So are what
        list-chunks, info, prune and the plan of an extract do with it.
        """
        folder = self.mktemp()
        os.makedirs(folder)
        self.addCleanup(shutil.rmtree, folder)
        skip_unless_possible(folder)
        path = os.path.join(os.path.abspath(folder), "large.caibx")

        written = run("write", path, str(CHUNKS))
        self.assertEqual(SIZE, written["size"])

        report = run("use", path)
        blocks = CHUNKS // large_index.BLOCK
        unique = (blocks - blocks // large_index.REPEATED + 1) * large_index.BLOCK
        half, third, common = (-(-unique // part) for part in (2, 3, 6))
        self.assertEqual(
            {
                "chunks": CHUNKS,
                "size": 1 << 40,
                "middle": CHUNKS // 2,
                "walked": CHUNKS,
                "written": SIZE,
                "unique": unique,
                "contains first": True,
                "common": common,
                "difference": half - common,
                "union": half + third - common,
            },
            report["found"],
        )

        peaks = {step: numbers["peak"] for step, numbers in report["steps"].items()}
        start = peaks["start"]
        self.assertLess(written["peak"] - start, SIZE * 5 // 4 + SLACK)
        for step in ("read", "open", "walk", "write"):
            self.assertLess(peaks[step] - start, SIZE + SLACK, step)
        for step in ("sort", "count common", "difference", "union"):
            self.assertLess(peaks[step] - start, 3 * SIZE, step)

        lengths = {"fetched": unique, "copied": CHUNKS - unique, "null": 0}
        expected: dict[str, dict[str, object]] = {
            "plan": {
                **{f"{kind}_chunks": count for kind, count in lengths.items()},
                **{f"{kind}_bytes": count * large_index.CHUNK for kind, count in lengths.items()},
            },
            "info": {"total": CHUNKS, "unique": unique, "size": 1 << 40},
            "prune": {"keep": unique, "removed": 0},
            "list": {"written": 65 * CHUNKS},
        }
        for operation, wanted in expected.items():
            report = run("operation", path, operation)
            found = {name: report["found"][name] for name in wanted}
            self.assertEqual(found, wanted, operation)
            self.assertLess(report["peak"] - start, 3 * SIZE, operation)
