# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A real sshd on a port of its own, with throw-away keys, and a real ssh that knows it."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

from .command_line import ROOT
from .peers import peer

#: What a client has run on the server in the place of casync.
REMOTE_DESYNC = f"env PYTHONPATH={shlex.quote(str(ROOT))} {sys.executable} -m desync"


def make_key(path: Path) -> str:
    """Make a key pair, and give its public half."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)],
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    return path.with_suffix(".pub").read_text().strip()


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def client_program(folder: Path, port: int, user: str, host_key: str, more: str = "") -> str:
    """
    Write an ``ssh`` that knows the host ``server`` and nothing of this machine's configuration.

    :param folder: with the key ``client`` in it.
    :param host_key: the server's public key.
    :param more: further lines of the configuration.
    """
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (folder / "ssh_config").write_text(
        f"Host server\n  HostName 127.0.0.1\n  Port {port}\n  User {user}\n"
        f"  IdentityFile {folder}/client\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
        f"  StrictHostKeyChecking yes\n  BatchMode yes\n  LogLevel ERROR\n  ConnectTimeout 30\n"
        f"{more}"
    )
    program = folder / "ssh"
    program.write_text(f'#!/bin/sh\nexec {peer("ssh")} -F {folder}/ssh_config "$@"\n')
    program.chmod(0o755)
    return str(program)


class SshServer:
    """
    Starts sshd.

    :param folder: for keys and configuration.
    :ivar program: the ``ssh`` that knows it as ``server``.
    """

    def __init__(self, folder: Path) -> None:
        sshd = peer("sshd")
        peer("ssh")
        self.folder = folder
        host_key = make_key(folder / "host")
        (folder / "authorized_keys").write_text(make_key(folder / "client") + "\n")
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", exist_ok=True)
        for _ in range(5):
            self.port = free_port()
            (folder / "sshd_config").write_text(
                f"ListenAddress 127.0.0.1:{self.port}\nHostKey {folder}/host\n"
                f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
                "PidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n"
                "MaxStartups 100\nSubsystem sftp internal-sftp\n"
            )
            self._log = open(folder / "sshd.log", "ab")  # noqa: SIM115
            self.process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
            )
            if self._comes_up():
                break
            self.stop()
        else:
            raise AssertionError((folder / "sshd.log").read_text())
        self.program = client_program(folder, self.port, getpass.getuser(), host_key)

    def _comes_up(self) -> bool:
        end = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
            except OSError:
                time.sleep(0.02)
            else:
                return True
        return False

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)
        self._log.close()
