# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Writing over SSH: our commands push to casync and to our own server, through a real sshd."""

from __future__ import annotations

import os
import re
import subprocess

from .ssh_server import REMOTE_DESYNC
from .test_ssh_peers import SshCase

REMOTES = {"casync": "casync", "ours": REMOTE_DESYNC}


class PushTests(SshCase):
    """Chunks and indexes go to a store at the other end of ssh."""

    def check(self, place: str, index: str) -> None:
        """Make sure that a store has the image of an index."""
        found = self.run_command("cat", "-s", self.path(f"{place}/store"), self.path(index))
        self.assertEqual(found.out, self.data)

    def make_place(self, name: str) -> str:
        """Make an empty store, and give its location."""
        os.makedirs(self.path(f"{name}/store"))
        return f"ssh://server{self.folder}/{name}"

    def test_make(self) -> None:
        """
        make stores the chunks there with the index, which is left there alone; or the index here,
        and one there under a name that nothing has.
        """
        for name, remote in REMOTES.items():
            there = self.make_place(name)
            made = self.desync(
                "make", "-s", f"{there}/store", f"{there}/v1.caibx", "blob", remote=remote
            )
            self.assertEqual(made.err, "")
            self.assertEqual(sorted(os.listdir(self.path(name))), ["store", "v1.caibx"])
            self.check(name, f"{name}/v1.caibx")
            self.desync("list-chunks", f"{there}/v1.caibx", remote=remote)
            for _ in range(2):
                made = self.desync(
                    "make", "-s", f"{there}/store", f"{name}.caibx", "blob", remote=remote
                )
                self.check(name, f"{name}.caibx")
                [left] = re.findall(f"ssh://server({self.folder}\\S+) is left there", made.err)
                self.check(name, left)
            self.assertEqual(len(os.listdir(self.path(name))), 4)

    def test_make_elsewhere(self) -> None:
        """An index that goes to another machine than the chunks goes there on its own."""
        there = self.make_place("there")
        other = there.replace("ssh://server", "ssh://localhost")
        config = self.server.folder / "ssh_config"
        config.write_text(config.read_text().replace("Host server", "Host server localhost"))
        made = self.desync("make", "-s", f"{there}/store", f"{other}/v1.caibx", "blob")
        self.assertIn("is left there", made.err)
        self.check("there", "there/v1.caibx")
        self.assertEqual(len(os.listdir(self.path("there"))), 3)

    def test_tar(self) -> None:
        """tar -i stores a tree's chunks and its index there, or the index here."""
        tree = self.make_tree()
        for name, remote in REMOTES.items():
            there = self.make_place(name)
            for index in (f"{there}/t.caidx", f"{name}.caidx"):
                self.desync("tar", "-i", "-s", f"{there}/store", index, tree, remote=remote)
            self.assertEqual(len(os.listdir(self.path(name))), 3)
            for number, index in enumerate((f"{name}/t.caidx", f"{name}.caidx")):
                out = f"{name}{number}"
                os.mkdir(self.path(out))
                self.run_command(
                    *("untar", "-i", "-s", self.path(f"{name}/store")),
                    *(self.path(index), self.path(out)),
                )
                self.check_tree(out)
            self.casync("list", f"{name}/t.caidx", f"--store={name}/store")

    def test_tar_stream(self) -> None:
        """A tar file is packed likewise; what can be read only once is refused."""
        tree = self.make_tree()
        subprocess.run(["tar", "-C", tree, "-cf", self.path("t.tar"), "."], check=True, timeout=60)
        there = self.make_place("there")
        words = ("tar", "-i", "--input-format", "tar", "-s", f"{there}/store", f"{there}/t.caidx")
        self.desync(*words, "t.tar")
        os.mkdir(self.path("out"))
        self.run_command(
            *("untar", "-i", "-s", self.path("there/store")),
            *(self.path("there/t.caidx"), self.path("out")),
        )
        self.check_tree("out")
        refused = self.desync(*words, "-", code=1)
        self.assertIn("has to be a file", refused.err)

    def test_tar_changes(self) -> None:
        """A tree that changes before its chunks are sent leaves no index."""
        tree = self.make_tree()
        there = self.make_place("there")
        large = f"{tree}/sub/large"
        remote = self.write(
            "remote", f'#!/bin/sh\necho changed >> {large}\nexec {REMOTE_DESYNC} "$@"\n'.encode()
        )
        os.chmod(remote, 0o755)
        words = ("tar", "-i", "-s", f"{there}/store", f"{there}/t.caidx", tree)
        outcome = self.desync(*words, remote=str(remote), code=1)
        self.assertRegex(outcome.err, "Error: .*tree.* changed")
        self.assertEqual(os.listdir(self.path("there")), ["store"])

    def test_chop_and_cache(self) -> None:
        """chop and cache store what an index names."""
        self.make_served()
        for name, remote in REMOTES.items():
            there = self.make_place(name)
            self.desync("chop", "-s", f"{there}/store", "v1.caibx", "blob", remote=remote)
            self.check(name, "v1.caibx")
            again = self.make_place(f"{name}2")
            self.desync(
                *("cache", "-s", "default.castr", "-c", f"{again}/store", "v1.caibx"),
                remote=remote,
            )
            self.check(f"{name}2", "v1.caibx")

    def test_not_believed(self) -> None:
        """A server that says goodbye without having stored anything isn't believed."""
        there = self.make_place("there")
        liar = self.write(
            "liar",
            b"import os, struct, sys, time\n"
            b"words = sys.argv\n"
            b"push = 'push' in words\n"
            b"flags = 0xa if push else 1\n"
            b"os.write(1, struct.pack('<3Q', 24, 0x3c71d0948ca5fbee, flags))\n"
            b"time.sleep(0.5)\n"
            b"if push:\n"
            b"    os.write(1, struct.pack('<2Q', 16, 0xad205dbf1a3686c3))\n"
            b"else:\n"
            b"    sys.stdin.buffer.read(24)\n"
            b"    while len(request := sys.stdin.buffer.read(56)) == 56:\n"
            b"        missing = struct.pack('<2Q', 48, 0xd010f9fac82b7b6c)\n"
            b"        os.write(1, missing + request[24:])\n"
            b"time.sleep(1)\n",
        )
        outcome = self.desync(
            *("make", "-s", f"{there}/store", "v1.caibx", "blob"), remote=f"python3 {liar}", code=1
        )
        self.assertRegex(outcome.err, "^Error: ssh://server/.*said goodbye, but doesn't have")
        self.assertFalse((self.folder / "v1.caibx").exists())

    def test_changed(self) -> None:
        """A file that isn't what its index says is not pushed."""
        self.make_served()
        there = self.make_place("there")
        self.write("blob", self.data[:-1] + b"x")
        outcome = self.desync("chop", "-s", f"{there}/store", "v1.caibx", "blob", code=1)
        self.assertIn("Error: ", outcome.err)
        self.assertEqual(os.listdir(self.path("there")), ["store"])
