# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``twistd desync-pull`` as a process of its own, with a real ssh that knows it."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .command_line import process_environ
from .server_process import PATIENCE, twistd, wait_until
from .ssh_server import client_program, make_key


class PullServer:
    """
    Starts the server.

    :param folder: for keys and its files.
    :param exports: of the users file.
    :param users: of the users file, without keys; all have the same one.
    :param arguments: further ones of the command.
    :param environ: what is different in its environment.
    :ivar program: the ``ssh`` that knows it as ``server``, and logs in as the first user.
    """

    def __init__(
        self,
        folder: Path,
        exports: dict[str, Any],
        users: dict[str, Any],
        *arguments: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.key = make_key(folder / "client")
        self.users_file = folder / "users.json"
        self.configure(exports, users)
        self.process = subprocess.Popen(
            [
                *(*twistd(), "desync-pull"),
                *("--listen", "127.0.0.1:0", "--users", str(self.users_file)),
                *("--host-key", str(folder / "host"), *arguments),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=process_environ(**(environ or {})),
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            wait_until(
                lambda: self._port() is not None or self.process.poll() is not None, "a server"
            )
            port = self._port()
            if port is None:
                raise AssertionError(f"the server ended: {self.said}")
            self.port = port
            made = subprocess.run(
                ["ssh-keygen", "-y", "-f", str(folder / "host")],
                capture_output=True,
                check=True,
                timeout=60,
            )
            user = next(iter(users))
            self.program = client_program(folder, port, user, made.stdout.decode().strip())
        except BaseException:
            self.stop()
            raise

    def configure(self, exports: dict[str, Any], users: dict[str, Any]) -> None:
        """Write the users file."""
        with_keys = {name: {"keys": [self.key], **more} for name, more in users.items()}
        self.users_file.write_text(json.dumps({"exports": exports, "users": with_keys}))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line.decode("utf-8", "backslashreplace"))

    def _port(self) -> int | None:
        found = re.search(r"listening on ssh://\S+:(\d+)", self.said)
        return None if found is None else int(found[1])

    @property
    def said(self) -> str:
        """What it has logged so far."""
        return "".join(self._lines)

    def logged(self, pattern: str) -> list[str]:
        """Give the lines of its log that have something."""
        return [line for line in self._lines if re.search(pattern, line)]

    def count_logged(self, pattern: str, least: int = 1) -> int:
        """
        Count the lines of its log that have something.

        A client may be gone before the line about it is there, so some are waited for.
        """
        wait_until(lambda: len(self.logged(pattern)) >= least, f"{pattern} in the log")
        return len(self.logged(pattern))

    def stop(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self._reader.join(PATIENCE)
            assert self.process.stderr is not None
            self.process.stderr.close()
