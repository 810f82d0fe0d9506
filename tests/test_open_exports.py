# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of :mod:`desync.services.open_exports`."""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.digests import SHA512_256
from desync.errors import DesyncError
from desync.formats.protocol_session import Service
from desync.options import StoreOptions
from desync.services.casync_offer import Offer, parse_command
from desync.services.counters import Counters
from desync.services.open_exports import Exports, Opener
from desync.services.pull_exports import NotNamed, ReadOnly
from desync.testing.threads import InlineThreads

from .test_pull_exports import KEY


class ExportsTests(SynchronousTestCase):
    """What a command is given."""

    def setUp(self) -> None:
        self.folder = os.path.abspath(self.mktemp())
        os.mkdir(self.folder)
        for name in ("os", "os/default.castr", "more", "other"):
            os.mkdir(os.path.join(self.folder, name))
        threads: Any = InlineThreads()
        clock: Any = Clock()
        self.opener = Opener(clock, threads, lambda _: StoreOptions(), SHA512_256, Counters())
        self.users: dict[str, Any] = {
            "alice": {"keys": [KEY], "write": ["os"], "read": ["more"]},
            "bob": {"keys": [KEY], "read": ["os"]},
        }
        self.exports: dict[str, Any] = {
            "os": {"stores": [self.path("os/default.castr")], "indexes": self.path("os")},
            "more": {"stores": [self.path("more"), "https://u:secret@localhost:1/store"]},
            "files": {"indexes": self.path("other")},
        }

    def path(self, name: str) -> str:
        """Name something in the folder."""
        return os.path.join(self.folder, name)

    def open(self) -> Exports:
        """Open it all."""
        path = self.path("users.json")
        with open(path, "w") as file:
            json.dump({"exports": self.exports, "users": self.users}, file)
        exports = Exports(path, self.opener)
        self.addCleanup(exports.close)
        return exports

    def offer(self, user: str, command: str) -> Offer:
        """Say what a user is given for a command."""
        return self.open().offer(user, parse_command(f"casync {command}"))

    def test_given(self) -> None:
        """Commands get what they name: stores, indexes, archives, to read or to write."""
        pull = Service.READABLE_STORE | Service.READABLE_INDEX
        push = Service.WRITABLE_STORE | Service.WRITABLE_INDEX
        for user, command, flags in (
            ("alice", "pull - - os/x.caibx os", pull),
            ("alice", "push - - os/x.caibx /os/default.castr", push),
            ("alice", "push - os/x.catar - -", Service.WRITABLE_ARCHIVE),
            ("bob", "pull - os/x.catar - -", Service.READABLE_ARCHIVE),
            ("bob", "pull - - os/x.caidx -", Service.READABLE_INDEX),
            ("bob", "pull - - - os os", Service.READABLE_STORE),
            ("alice", "pull - - - os more", Service.READABLE_STORE),
        ):
            self.assertEqual(self.offer(user, command).flags, flags, command)

    def test_refused(self) -> None:
        """And nothing else, whoever they are."""
        os.symlink("/etc/passwd", self.path("os/link.catar"))
        for user, command, kind in (
            ("bob", "push - - os/x.caibx os", ReadOnly),
            ("bob", "pull - - - more", PermissionError),
            ("bob", "pull - - os/x.caibx more", PermissionError),
            ("alice", "pull - - - files", PermissionError),
            ("alice", "pull - - - nothing", PermissionError),
            ("carol", "pull - - - os", PermissionError),
            ("alice", "pull - os/link.catar - -", NotNamed),
            ("alice", "pull - - os os", NotNamed),
            ("alice", "pull - - - os/x.caibx", NotNamed),
            ("alice", "pull - - more/x.caibx -", NotNamed),
            ("alice", "pull - os/x.caibx - -", NotNamed),
        ):
            with self.assertRaises(kind):
                self.offer(user, command)

    def test_about(self) -> None:
        """What an operator is told holds no secret."""
        about = self.open().about()
        self.assertEqual(about["users"], "2")
        self.assertIn(self.path("os"), about["export os"])
        self.assertIn("https://", about["export more"])
        self.assertNotIn("secret", str(about))

    def test_cannot_open(self) -> None:
        """An export whose indexes aren't there is named by the error."""
        self.exports["files"]["indexes"] = self.path("no")
        self.assertRaisesRegex(DesyncError, "files", self.open)
