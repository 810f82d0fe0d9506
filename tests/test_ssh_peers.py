# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The casync protocol through a real ssh and sshd: casync, Go desync and our commands, with casync and
our commands at the other end.
"""

from __future__ import annotations

import os
import subprocess
from unittest import SkipTest

from .command_case import CommandCase, sample
from .command_line import Outcome, command, process_environ
from .peers import peer
from .ssh_server import REMOTE_DESYNC, SshServer


class SshCase(CommandCase):
    """A test case with an sshd, an image and a tree."""

    def setUp(self) -> None:
        super().setUp()
        self.casync_program = peer("casync")
        keys = self.folder / "keys"
        keys.mkdir(mode=0o700)
        self.server = SshServer(keys)
        self.addCleanup(self.server.stop)
        self.data = sample(3 << 20)
        self.blob = self.write("blob", self.data)

    def run_program(
        self, *words: str, remote: str = "casync", code: int = 0, **environ: str
    ) -> Outcome:
        """Run a program that uses ssh."""
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
            cwd=self.folder,
            env=process_environ(
                CASYNC_SSH_PATH=self.server.program, CASYNC_REMOTE_PATH=remote, **environ
            ),
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))
        self.assertEqual(outcome.code, code, (words, outcome.err))
        return outcome

    def casync(self, *words: str, remote: str = REMOTE_DESYNC, code: int = 0) -> Outcome:
        """Run casync, with our command on the server unless said otherwise."""
        return self.run_program(
            "timeout", "100", self.casync_program, *words, remote=remote, code=code
        )

    def desync(self, *words: str, remote: str = REMOTE_DESYNC, code: int = 0) -> Outcome:
        """Run our command, with our command on the server unless said otherwise."""
        return self.run_program(*command(*words), remote=remote, code=code)

    def make_served(self) -> None:
        """Make a store and an index of the image to be served."""
        os.mkdir(self.path("default.castr"))
        self.run_command("make", "-s", self.path("default.castr"), self.path("v1.caibx"), self.blob)

    def make_tree(self) -> str:
        """Make a small tree."""
        tree = self.folder / "tree"
        (tree / "sub").mkdir(parents=True)
        (tree / "sub" / "large").write_bytes(self.data[: 1 << 20])
        (tree / "small").write_bytes(b"small")
        return str(tree)

    def check_tree(self, name: str) -> None:
        """Make sure that a tree is a copy of the one that was made."""
        subprocess.run(["diff", "-r", self.path("tree"), self.path(name)], check=True, timeout=60)


class PullTests(SshCase):
    """``desync pull`` behind sshd."""

    def test_casync_blob(self) -> None:
        """casync rebuilds an image whose index and store are here, and one whose index it has."""
        self.make_served()
        self.casync("extract", f"server:{self.folder}/v1.caibx", "out1")
        self.assertEqual(self.read("out1"), self.data)
        self.casync("extract", f"--store=server:{self.folder}/default.castr", "v1.caibx", "out2")
        self.assertEqual(self.read("out2"), self.data)

    def test_casync_tree(self) -> None:
        """casync lists and unpacks an archive that is here, as one file and as chunks."""
        tree = self.make_tree()
        self.casync("make", "t.catar", tree)
        self.casync("make", "--store=default.castr", "t.caidx", tree)
        for number, name in enumerate(("t.catar", "t.caidx")):
            listed = self.casync("list", f"server:{self.folder}/{name}")
            self.assertIn(b"sub/large", listed.out)
            self.casync("extract", f"server:{self.folder}/{name}", f"out{number}")
            self.check_tree(f"out{number}")

    def test_casync_told(self) -> None:
        """casync is told that an index isn't there, or a chunk."""
        self.make_served()
        outcome = self.casync("extract", f"server:{self.folder}/no.caibx", "out", code=1)
        self.assertIn("No such file or directory", outcome.err)
        chunk = next((self.folder / "default.castr").glob("*/*.cacnk"))
        chunk.unlink()
        outcome = self.casync("extract", f"server:{self.folder}/v1.caibx", "out", code=1)
        self.assertIn("No such file or directory", outcome.err)

    def test_go_desync(self) -> None:
        """Go desync rebuilds an image from a store that is here."""
        program = os.environ.get("GO_DESYNC")
        if not program:
            raise SkipTest("GO_DESYNC names no binary")
        self.make_served()
        self.run_program(
            program,
            *("extract", "-n", "2", "-s", f"ssh://server{self.folder}/default.castr"),
            *("v1.caibx", "out"),
            remote=REMOTE_DESYNC,
        )
        self.assertEqual(self.read("out"), self.data)


class PushTests(SshCase):
    """``desync push`` behind sshd."""

    def test_casync_blob(self) -> None:
        """casync pushes an image here; once more, and only the index travels."""
        (self.folder / "there").mkdir()
        for name in ("v1.caibx", "v2.caibx"):
            self.casync("make", f"server:{self.folder}/there/{name}", self.blob)
            index = self.path(f"there/{name}")
            store = self.path("there/default.castr")
            self.assertEqual(self.run_command("cat", "-s", store, index).out, self.data)
        self.assertEqual(
            sorted(os.listdir(self.path("there"))), ["default.castr", "v1.caibx", "v2.caibx"]
        )

    def test_casync_tree(self) -> None:
        """casync pushes a tree here, as one archive and as chunks."""
        tree = self.make_tree()
        (self.folder / "there").mkdir()
        for number, name in enumerate(("t.catar", "t.caidx")):
            self.casync("make", f"server:{self.folder}/there/{name}", tree)
            self.casync("extract", f"there/{name}", f"out{number}")
            self.check_tree(f"out{number}")

    def test_casync_index_only(self) -> None:
        """casync pushes an index alone, which its own server can't take."""
        (self.folder / "there").mkdir()
        self.casync("make", "--store=here.castr", f"server:{self.folder}/there/v1.caibx", self.blob)
        self.assertEqual(
            self.run_command("cat", "-s", self.path("here.castr"), self.path("there/v1.caibx")).out,
            self.data,
        )


class StoreTests(SshCase):
    """Our store at the other end of ssh."""

    def test_extract(self) -> None:
        """An image is rebuilt from casync's server and from ours, with one session and several."""
        self.make_served()
        store = f"ssh://server{self.folder}/default.castr"
        for number, remote in enumerate(("casync", REMOTE_DESYNC)):
            for n in ("1", "3"):
                out = self.path(f"out{number}{n}")
                self.desync("extract", "-n", n, "-s", store, "v1.caibx", out, remote=remote)
                self.assertEqual(self.read(out), self.data)

    def test_cat_and_cache(self) -> None:
        """Single chunks and copies of a store work too."""
        self.make_served()
        store = f"ssh://server{self.folder}/default.castr"
        found = self.desync("cat", "-s", store, "v1.caibx", remote="casync")
        self.assertEqual(found.out, self.data)
        os.mkdir(self.path("copy"))
        self.desync("cache", "-s", store, "-c", "copy", "v1.caibx")
        self.run_command("extract", "-s", self.path("copy"), self.path("v1.caibx"), self.path("o"))
        self.assertEqual(self.read("o"), self.data)

    def test_proxy_command(self) -> None:
        """The user's ssh configuration holds: a server is reached through a ProxyCommand."""
        self.make_served()
        config = self.folder / "keys" / "ssh_config"
        with open(config, "a") as file:
            file.write(f"  ProxyCommand {self.server.folder}/proxy %h %p\n")
        proxy = self.server.folder / "proxy"
        proxy.write_text(
            "#!/usr/bin/env python3\n"
            "import os, select, socket, sys\n"
            f"open({str(self.folder / 'proxied')!r}, 'w').close()\n"
            "link = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
            "while True:\n"
            "    for one in select.select([0, link], [], [])[0]:\n"
            "        data = os.read(0, 65536) if one == 0 else link.recv(65536)\n"
            "        if not data:\n"
            "            sys.exit()\n"
            "        os.write(1, data) if one is link else link.sendall(data)\n"
        )
        proxy.chmod(0o755)
        store = f"ssh://server{self.folder}/default.castr"
        self.desync("extract", "-n", "1", "-s", store, "v1.caibx", "out", remote="casync")
        self.assertEqual(self.read("out"), self.data)
        self.assertTrue((self.folder / "proxied").exists())

    def test_go_desync(self) -> None:
        """Go desync's server serves one session and several; what is wrong with it is shown."""
        program = os.environ.get("GO_DESYNC")
        if not program:
            raise SkipTest("GO_DESYNC names no binary")
        self.make_served()
        store = f"ssh://server{self.folder}/default.castr"
        for n in ("1", "3", "10"):
            self.desync("extract", "-n", n, "-s", store, "v1.caibx", f"out{n}", remote=program)
            self.assertEqual(self.read(f"out{n}"), self.data)
        found = self.desync("cat", "-s", store, "v1.caibx", remote=program)
        self.assertEqual(found.out, self.data)
        chunk = next((self.folder / "default.castr").glob("*/*.cacnk"))
        chunk.unlink()
        outcome = self.desync("extract", "-s", store, "v1.caibx", "out", remote=program, code=1)
        self.assertIn(chunk.stem, outcome.err)
        self.assertFalse((self.folder / "out").exists())
        outcome = self.desync(
            "extract", "-s", f"{store}/none", "v1.caibx", "out", remote=program, code=1
        )
        self.assertRegex(outcome.err, r"Error: ssh://server/.*")

    def test_jump_host(self) -> None:
        """A server is reached through another machine, as the user's ssh configuration says."""
        self.make_served()
        keys = self.folder / "keys"
        hosts = (keys / "ssh_config").read_text()
        # The first value that ssh finds for a host is the one that holds.
        (keys / "ssh_config").write_text(
            f"Host server\n  ProxyJump jump\n{hosts.replace('Host server', 'Host server jump')}"
        )
        store = f"ssh://server{self.folder}/default.castr"
        self.desync("extract", "-n", "1", "-s", store, "v1.caibx", "out", remote="casync")
        self.assertEqual(self.read("out"), self.data)
        log = keys / "sshd.log"
        self.assertEqual(log.read_text().count("Accepted publickey"), 2)
        self.desync("extract", "-n", "3", "-s", store, "v1.caibx", "out3")
        self.assertEqual(self.read("out3"), self.data)
        with open(keys / "ssh_config", "a") as file:
            file.write("Host gone\n  ProxyJump nowhere.invalid\n")
        outcome = self.desync(
            *("extract", "-s", store.replace("server", "gone"), "v1.caibx", "none"), code=1
        )
        self.assertRegex(outcome.err, r"Error: ssh://gone/.*: .*exit code 255")
        self.assertFalse((self.folder / "none").exists())

    def test_refused(self) -> None:
        """What goes wrong at the other end is one line here, and nothing is left."""
        self.make_served()
        store = f"ssh://server{self.folder}/default.castr"
        outcome = self.desync("extract", "-s", store, "v1.caibx", "out", remote="false", code=1)
        self.assertRegex(outcome.err, r"^Error: ssh://server/.*: .*exit code")
        self.assertFalse((self.folder / "out").exists())
        outcome = self.desync("extract", "-s", f"{store}/none", "v1.caibx", "out", code=1)
        self.assertIn("the server gave up", outcome.err)
