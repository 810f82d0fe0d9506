# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Servers of ours as processes of their own, for tests that talk to them over a network."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.command_line import command, process_environ

PATIENCE = 60.0
"""Seconds in which whatever is waited for has to happen; nothing takes nearly as long."""


_TWISTD = "import os; os.dup2(2, 1); from twisted.scripts.twistd import run; run()"


def twistd() -> list[str]:
    """Give what runs ``twistd`` in the foreground, with all that it says on stderr."""
    return [sys.executable, "-c", _TWISTD, "--nodaemon", "--pidfile="]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that happens elsewhere."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain for {what}")
        time.sleep(0.02)


def free_port(host: str = "127.0.0.1") -> int:
    """Find a port of this machine where nobody listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether somebody listens at a port of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        return probe.connect_ex((host, port)) == 0


class ServerProcess:
    """
    A process that says on stderr where it listens.

    :param args: of ``desync``, without ``-l``: it listens on a port of its own.
    :param environ: what is different in its environment.
    :param listen: where it is told to listen; None for nothing more than what `args` say.
    :param program: what is run in the place of ``desync``.
    :ivar urls: where it listens.
    """

    def __init__(
        self,
        *args: str,
        environ: Mapping[str, str] | None = None,
        listen: str | None = "127.0.0.1:0",
        program: list[str] | None = None,
        **more: Any,
    ) -> None:
        where = [] if listen is None else ["-l", listen]
        self.process = subprocess.Popen(
            [*(program or command()), *args, *where],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=process_environ(**(environ or {})),
            **more,
        )
        self._said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            wait_until(lambda: bool(self.urls) or self.process.poll() is not None, "a server")
            if not self.urls:
                self._reader.join(PATIENCE)
                raise AssertionError(f"the server ended: {self.said}")
        except BaseException:
            self.kill()
            raise

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._said.append(line.decode("utf-8", "backslashreplace"))

    @property
    def said(self) -> str:
        """What it has said on stderr so far."""
        return "".join(self._said)

    @property
    def urls(self) -> list[str]:
        """Where it says that it listens."""
        return re.findall(r"listening on ((?:https?://|unix:)\S+)", self.said)

    @property
    def url(self) -> str:
        """The first of these."""
        return self.urls[0]

    @property
    def port(self) -> int:
        """The port of that."""
        found = re.search(r":(\d+)/$", self.url)
        assert found is not None, self.url
        return int(found[1])

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and give its exit code."""
        if self.process.poll() is None:
            self.send_signal(number)
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._reader.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def kill(self) -> None:
        """End it at once, whatever it does; once more is fine."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(PATIENCE)
        if self.process.stderr is not None:
            self.process.stderr.close()
