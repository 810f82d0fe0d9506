# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What commands on local files import: neither Twisted nor anything else that takes long to start.

Measured by what is loaded when the process ends, not by the clock.
"""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.command_line import process_environ

_RECORD = """
import os, sys

def leave(code, leave=os._exit, modules=sys.modules):
    with open(os.environ["LOADED"], "w") as record:
        record.write("\\n".join(sorted(modules)))
    leave(code)

os._exit = leave
"""

_COMMAND = f"{_RECORD}\nfrom desync.cli.main import main\nmain(sys.argv[1:])\n"


SLOW = ("twisted", "zope", "attr", "attrs", "treq", "klein", "OpenSSL", "cryptography", "botocore")
"""Packages that no command on local files needs; Twisted's Deferred alone takes 0.2 s."""


class StartupTests(SynchronousTestCase):
    """Each test runs commands, as processes of their own, on a small file and its store."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.path("store"))
        with open(self.path("file"), "wb") as file:
            # More than a worker's share, so that the pool is started.
            file.write(os.urandom(300_000) + bytes(20 << 20))

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def loaded(self, *args: str) -> set[str]:
        """Run a command, and give the names of the modules that it had loaded in the end."""
        record = self.path("loaded")
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, *args],
            env=process_environ(LOADED=record),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(record, encoding="utf-8") as names:
            return set(names.read().split("\n"))

    def assert_light(self, modules: set[str], command: str) -> None:
        self.assertIn("desync.cli.main", modules)
        heavy = sorted(name for name in modules if name.partition(".")[0] in SLOW)
        self.assertEqual(heavy, [], f"{command} loads {len(heavy)} modules that it doesn't need")

    def test_local_commands(self) -> None:
        """No command on local stores, files and indexes loads Twisted."""
        for args in (
            ("make", "-s", "store", "file.caibx", "file"),
            ("make", "other.caibx", "file"),
            ("extract", "-s", "store", "file.caibx", "rebuilt"),
            ("list-chunks", "file.caibx"),
            ("verify", "-s", "store"),
            ("verify-index", "file.caibx", "file"),
            ("chop", "-s", "store", "file.caibx", "file"),
            ("cat", "-s", "store", "file.caibx", "streamed"),
            ("info", "file.caibx"),
            ("prune", "-y", "-s", "store", "file.caibx"),
            ("config",),
        ):
            self.assert_light(self.loaded(*args), " ".join(args))

    def test_help(self) -> None:
        """Neither help nor version load Twisted, nor what compresses chunks."""
        for args in (("--help",), ("--version",), ("make", "--help"), ()):
            modules = self.loaded(*args)
            self.assert_light(modules, " ".join(args))
            self.assertNotIn("zstandard", modules)

    def test_list_chunks(self) -> None:
        """Printing the ids of an index loads nothing that is for chunks' content or for workers."""
        self.loaded("make", "file.caibx", "file")
        modules = self.loaded("list-chunks", "file.caibx")
        for name in ("zstandard", "desync.workers.pool", "tqdm", "json"):
            self.assertNotIn(name, modules)

    def test_worker(self) -> None:
        """A worker process loads neither Twisted nor the command line, whatever its job."""
        jobs = os.path.join(os.path.dirname(sys.modules["desync"].__file__ or ""), "jobs")
        names = sorted(name[:-3] for name in os.listdir(jobs) if name.endswith(".py"))
        self.assertIn("cut", names)
        code = (
            "import sys; sys.path[:] = %r\nimport desync.workers.program, %s\nprint(*sys.modules)"
        )
        modules = ", ".join(f"desync.jobs.{name}" for name in names if name != "__init__")
        printed = subprocess.run(
            [sys.executable, "-I", "-S", "-c", code % (sys.path, modules)],
            env=process_environ(),
            capture_output=True,
            timeout=60,
            check=True,
        ).stdout.decode()
        loaded = {name.partition(".")[0] for name in printed.split()}
        self.assertEqual(loaded.intersection((*SLOW, "click", "tqdm", "json")), set())
        self.assertNotIn("desync.cli", printed.split())
