# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The samples in ``etc/`` are well-formed, for us and for the programs that they are for."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from desync.cli import pflag, table
from desync.cli.chunk_server import chunk_server
from desync.cli.index_server import index_server
from desync.config import Config
from desync.services.pull_exports import read_users_file
from desync.services.twistd_pull import Options
from desync.stores.reloading import read_store_file
from tests.command_line import ROOT
from tests.peers import peer

ETC = ROOT / "etc"
UNITS = sorted((*ETC.rglob("*.service"), *ETC.rglob("*.socket")))


class OwnTests(SynchronousTestCase):
    """What is ours to read."""

    def test_store_files(self) -> None:
        """Store files are store files."""
        for name in ("stores.json", "stores-mirror.json"):
            self.assertTrue(read_store_file(str(ETC / name)).stores, name)

    def test_config(self) -> None:
        """The configuration can be read, and means something for the locations it names."""
        config = Config.load(str(ETC / "config.json"), {})
        self.assertEqual(config.options_for("https://a.example.com/store").error_retry, 5)
        self.assertEqual(config.options_for("/srv/desync/store").compression_level, 9)

    def test_command_lines(self) -> None:
        """The units start commands that there are, with flags that these have."""
        commands = {"chunk-server": chunk_server, "index-server": index_server}
        started = set()
        for unit in UNITS:
            for line in re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE):
                env, program, name, *args = shlex.split(line)
                if program != "desync":
                    continue
                self.assertEqual(env, "/usr/bin/env")
                self.assertIn(name, table.available())
                parsed = pflag.parse(args, pflag.spellings_of(commands[name].flags))
                self.assertEqual(parsed.arguments, [])
                self.assertTrue(parsed.values["listen"][0].startswith("systemd:"))
                started.add(name)
        self.assertEqual(started, set(commands))

    def test_pull(self) -> None:
        """The unit of the SSH server gives it options that it has; its users file is one."""
        unit = (ETC / "systemd" / "desync-pull.service").read_text()
        line = re.search(r"^ExecStart=(.+)$", unit, re.MULTILINE)
        assert line is not None
        words = shlex.split(line[1])
        options = Options()
        options.parseOptions(words[words.index("desync-pull") + 1 :])  # type: ignore[no-untyped-call]
        settings = options.settings()
        self.assertEqual(settings.users, "/etc/desync/pull-users.json")
        self.assertEqual(settings.operator, "127.0.0.1:9482")
        self.assertTrue(read_users_file(str(ETC / "pull-users.json")).exports)

    def test_listed(self) -> None:
        """Each sample is explained beside it."""
        text = (ETC / "README.rst").read_text()
        for path in ETC.rglob("*"):
            if path.is_file() and path.name != "README.rst":
                folder = path.parent.name
                self.assertTrue(f"``{path.name}" in text or f"``{folder}/``" in text, path)


class PeerTests(SynchronousTestCase):
    """What is others' to read."""

    def run_peer(self, *args: str) -> None:
        done = subprocess.run(args, capture_output=True, timeout=60, check=False)
        said = (done.stdout + done.stderr).decode()
        self.assertEqual(done.returncode, 0, said)
        self.assertNotIn("Unknown", said)

    def test_systemd(self) -> None:
        """systemd knows every line of the units, and finds the servers' harmless."""
        analyze = peer("systemd-analyze")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        for unit in UNITS:
            # Programs needn't be installed here.
            text = re.sub(r"(?m)^(Exec\w+=)\S+", r"\1/bin/true", unit.read_text())
            (folder / unit.name).write_text(text)
        self.run_peer(analyze, "verify", "--man=no", *map(str, folder.iterdir()))
        for unit in UNITS:
            if unit.name.endswith("-server.service"):
                self.run_peer(analyze, "security", "--offline=yes", "--threshold=20", str(unit))

    def test_nginx(self) -> None:
        """nginx takes its configuration."""
        nginx = peer("nginx")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        config = folder / "nginx.conf"
        temporary = "".join(
            f"{name}_temp_path {folder / name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(
            f"{user}\npid {folder / 'pid'};\nerror_log stderr;\nevents {{}}\n"
            f"http {{ {temporary} access_log off; include {ETC / 'nginx'}/*.conf; }}\n"
        )
        self.run_peer(nginx, "-t", "-p", str(folder), "-c", str(config))
