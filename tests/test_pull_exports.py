# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What clients of ``twistd desync-pull`` may ask for, and how it is named."""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.errors import DesyncError, UsageError
from desync.services.casync_offer import Asked, parse_command
from desync.services.pull_exports import (
    NotNamed,
    confined,
    parse_users,
    read_users_file,
    resolve,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDY2Nfn5XC2dr7E0lqdMUGTH9hx4vK8YHkwCEHVqVXvR"


class CommandTests(SynchronousTestCase):
    """The commands of clients."""

    def test_taken(self) -> None:
        """What casync and Go desync send is understood."""
        for command, expected in (
            ("casync pull - - /os/v1.caibx /os/default.castr", ("/os/v1.caibx", "")),
            ("casync pull - - - os", ("", "")),
            ("casync pull - /os/t.catar - -", ("", "/os/t.catar")),
            ("casync --log-level=7 --rate-limit-bps=1000 pull - - os/v1.caibx -", None),
            ("env X=1 /usr/bin/casync pull - - os/v1.caibx -", ("os/v1.caibx", "")),
            ("casync pull - - - '/path/to/store'", ("", "")),
            ("casync pull '' '' \"os/a'b.caibx\" ''", ("os/a'b.caibx", "")),
            ("casync pull - - it's.caibx store", ("it's.caibx", "")),
        ):
            asked = parse_command(command)
            self.assertEqual(asked.verb, "pull")
            if expected is not None:
                self.assertEqual((asked.index_path, asked.archive_path), expected)
        self.assertEqual(
            parse_command("casync pull - - - a b - c"), Asked("pull", "", "", ("a", "b", "c"))
        )
        self.assertEqual(
            parse_command("x push - - i.caibx s"), Asked("push", "", "i.caibx", ("s",))
        )

    def test_refused(self) -> None:
        """Anything else is refused: other commands, too few words, what can't go together."""
        for command in (
            "",
            "ls",
            "sh -c 'casync'",
            "casync",
            "casync pull",
            "casync pull - - -",
            "casync pull - - - -",
            "casync pull base - - store",
            "casync push - - i.caibx s more",
            "casync pull - a.catar i.caibx -",
            "casync pull - - - s\nrm -rf /",
            "casync pull - - - " + "x" * 20000,
        ):
            self.assertRaises(UsageError, parse_command, command)

    @given(st.text(max_size=80))
    def test_any(self, command: str) -> None:
        """Whatever the command is, it is understood or refused."""
        try:
            parse_command(command)
            parse_command(f"casync pull - - - {command}")
        except UsageError:
            pass


class NameTests(SynchronousTestCase):
    """The names in a client's command."""

    def test_taken(self) -> None:
        """An export's store and files have names, with a slash before them or without."""
        for path, expected in (
            ("os", ("os", "")),
            ("/os", ("os", "")),
            ("/os/", ("os", "")),
            ("os/default.castr", ("os", "")),
            ("/os/v1.caibx", ("os", "v1.caibx")),
            ("os/t.caidx", ("os", "t.caidx")),
            ("os/t.catar", ("os", "t.catar")),
        ):
            self.assertEqual(resolve(path), expected)

    def test_refused(self) -> None:
        """No spelling leads anywhere else."""
        for path in (
            "",
            "/",
            "//os",
            ".",
            "..",
            "../os",
            "os/..",
            "os/../x.caibx",
            "os/./v1.caibx",
            "os//v1.caibx",
            "os/sub/v1.caibx",
            "os/.v1.caibx",
            "os/v1.caibx/..",
            "os/passwd",
            "os/..\\v1.caibx",
            "os/v1.caibx\0",
            "os/\x1b.caibx",
            "-os",
            "~/v1.caibx",
            "$HOME",
            "os/default.castr/0000",
        ):
            self.assertRaises(NotNamed, resolve, path)

    @given(st.text(st.sampled_from("os/.\\~-\0 \ncaibx"), max_size=20))
    def test_any(self, path: str) -> None:
        """Whatever the path is, it names a file of an export by one plain name, or nothing."""
        try:
            named = resolve(path)
        except NotNamed:
            return
        self.assertNotIn("/", named.file)
        self.assertFalse(named.file.startswith("."))

    def test_links(self) -> None:
        """A link isn't followed out of a directory."""
        folder = self.mktemp()
        os.mkdir(folder)
        os.symlink("/etc/passwd", os.path.join(folder, "x.caibx"))
        self.assertRaises(FileNotFoundError, confined, folder, "x.caibx")
        self.assertEqual(confined(folder, "y.caibx"), os.path.join(folder, "y.caibx"))


class UsersFileTests(SynchronousTestCase):
    """The file of users and exports."""

    def test_taken(self) -> None:
        """A file says what there is and who may use it; options before keys mean nothing."""
        users = parse_users(
            {
                "exports": {"os": {"stores": ["/s"], "indexes": "/i"}, "web": {"stores": ["/w"]}},
                "users": {
                    "alice": {"keys": [KEY, f'restrict,command="x y" {KEY} a@b'], "read": ["os"]},
                    "bob": {"keys": [KEY], "write": ["web"]},
                },
            }
        )
        self.assertEqual(users.exports["os"].indexes, "/i")
        self.assertEqual(len(users.users["alice"].keys), 2)
        self.assertEqual(users.users["alice"].write, frozenset())
        self.assertEqual(users.users["bob"].read, frozenset({"web"}))

    def test_refused(self) -> None:
        """What can't be is refused in one line that says where."""
        good: dict[str, Any] = {"exports": {"os": {"stores": ["/s"]}}}
        for bad, why in (
            ([], "must be an object"),
            ({"user": {}}, "unknown field 'user'"),
            ({"exports": []}, '"exports" must be an object'),
            ({"exports": {"../x": {}}}, "invalid name"),
            ({"exports": {"os": {}}}, "neither stores nor indexes"),
            ({"exports": {"os": {"stores": "/s"}}}, "list of texts"),
            ({"exports": {"os": {"stores": [1]}}}, "list of texts"),
            ({"exports": {"os": {"stores": ["/s"], "indexes": 1}}}, "must be a text"),
            ({**good, "users": {"a": {}}}, "has no keys"),
            ({**good, "users": {"a": {"keys": ["ssh-rsa x"]}}}, "not a public key"),
            ({**good, "users": {"a": {"keys": [KEY[:60]]}}}, "not a public key"),
            ({**good, "users": {"a": {"keys": [KEY], "read": ["no"]}}}, "which there isn't"),
            (
                {
                    "exports": {"os": {"stores": ["/a", "/b"]}},
                    "users": {"a": {"keys": [KEY], "write": ["os"]}},
                },
                "several stores",
            ),
        ):
            with self.assertRaisesRegex(UsageError, why):
                parse_users(bad)

    def test_file(self) -> None:
        """A file that isn't there, or isn't JSON, is named."""
        path = self.mktemp()
        self.assertRaisesRegex(DesyncError, path, read_users_file, path)
        with open(path, "w") as file:
            file.write("{,}")
        self.assertRaisesRegex(UsageError, f"{path}: not JSON", read_users_file, path)
        with open(path, "w") as file:
            json.dump({"exports": {"a": {}}}, file)
        self.assertRaisesRegex(UsageError, f'{path}: export "a"', read_users_file, path)
