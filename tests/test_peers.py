# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Which real programs a test run met is recorded truthfully."""

from __future__ import annotations

import contextlib
import io
import os
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests import peers


class PeersTests(SynchronousTestCase):
    """Each test has a record of its own and a PATH with one program, ``present``."""

    def setUp(self) -> None:
        folder = self.mktemp()
        os.makedirs(folder)
        self.program = os.path.join(os.path.abspath(folder), "present")
        with open(self.program, "w", encoding="utf-8") as script:
            script.write("#!/bin/sh\necho present, version 3.14-rc1 of today\n")
        os.chmod(self.program, 0o755)
        self.log = os.path.join(folder, "log")
        with open(self.log, "w", encoding="utf-8"):
            pass
        self.patch(os, "environ", {**os.environ, "PATH": folder, "DESYNC_TEST_PEERS_LOG": self.log})
        self.patch(
            peers,
            "PEERS",
            {
                "present": peers.Peer("present", "present-tools"),
                "absent": peers.Peer("surely-not-a-program", "absent-tools"),
            },
        )
        peers.version.cache_clear()
        self.addCleanup(peers.version.cache_clear)

    def program_output(self, *arguments: str) -> tuple[int, str]:
        """The exit code of the module run as a program, and what it prints."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = peers.main(list(arguments))
        return code, printed.getvalue()

    def test_met(self) -> None:
        """An installed peer is found, and recorded with its version."""
        self.assertEqual(os.path.abspath(peers.peer("present")), self.program)
        self.assertEqual(self.program_output("report", self.log), (0, "met present 3.14-rc1\n"))

    def test_skipped(self) -> None:
        """A missing peer skips the test, names its package, and fails the report."""
        skipped = self.assertRaises(SkipTest, peers.peer, "absent")
        self.assertEqual(str(skipped), "absent: not installed (package absent-tools)")
        self.assertEqual(
            self.program_output("report", self.log),
            (1, "skipped absent: not installed (package absent-tools)\n"),
        )

    def test_each_line_once(self) -> None:
        """However many tests ask for a peer, the report has it once."""
        peers.peer("present")
        peers.peer("present")
        self.assertEqual(self.program_output("report", self.log), (0, "met present 3.14-rc1\n"))

    def test_no_record(self) -> None:
        """Without a record to write to a peer is found all the same."""
        del os.environ["DESYNC_TEST_PEERS_LOG"]
        self.assertEqual(os.path.abspath(peers.peer("present")), self.program)

    def test_packages(self) -> None:
        """Only the packages of missing peers are named for installing."""
        self.assertEqual(self.program_output("packages"), (0, "absent-tools\n"))

    def test_library(self) -> None:
        """A library can be a peer too; it has no version to be asked for."""
        self.patch(
            peers,
            "PEERS",
            {
                "c": peers.Peer("c", "libc6", is_library=True),
                "absent": peers.Peer("surely-no-library", "absent-library", is_library=True),
            },
        )
        self.patch(os, "environ", {**os.environ, "PATH": os.defpath})
        self.assertIn("libc", peers.peer("c"))
        self.assertRaises(SkipTest, peers.peer, "absent")
        self.assertEqual(
            self.program_output("report", self.log),
            (1, "met c\nskipped absent: not installed (package absent-library)\n"),
        )
