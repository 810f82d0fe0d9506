# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Real mounts for tests: the command in a process of its own, and what becomes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from unittest import SkipTest

from desync.mounting.mount import detach, device_of

from .command_line import Outcome, command, process_environ
from .peers import peer

PATIENCE = 60.0
"""Seconds after which a mount that hasn't done what it should has failed."""


def need_fuse() -> None:
    """
    See to it that something can be mounted.

    :raises SkipTest: if it can't.
    """
    if not os.path.exists("/dev/fuse"):
        raise SkipTest("/dev/fuse is missing")
    peer("fusermount")
    peer("libfuse2")


class Mounted:
    """
    A running ``desync mount-index`` or ``mount``, as a context in which its file is there.

    :param arguments: all but the mount point, which follows them.
    :param mountpoint: a folder.
    :param name: of the file.
    :param program: the command.
    :ivar file: its path.
    :ivar process: the command.
    """

    def __init__(
        self, *arguments: str, mountpoint: str, name: str = "a", program: str = "mount-index"
    ) -> None:
        self.mountpoint = mountpoint
        self.file = Path(mountpoint) / name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            command(program, *arguments, mountpoint),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=process_environ(),
        )

    def __enter__(self) -> Mounted:
        try:
            self.wait_until(lambda: device_of(os.path.realpath(self.mountpoint)) is not None)
            self.wait_until(self.file.exists)
        except BaseException:
            self.kill()
            raise
        return self

    def wait_until(self, condition: object, patience: float = PATIENCE) -> None:
        """Wait for something to become true while the command runs."""
        assert callable(condition)
        until = time.monotonic() + patience
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"the mount has ended: {self.said}")
            if time.monotonic() > until:
                raise AssertionError(f"waited in vain: {self.said}")
            time.sleep(0.01)

    @property
    def said(self) -> str:
        """What the command has written to stderr so far."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode()

    @property
    def lines(self) -> list[str]:
        """The lines of that."""
        return self.said.splitlines()

    def end(self, number: int = signal.SIGTERM) -> Outcome:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Outcome:
        """Wait for the end."""
        code = self.process.wait(PATIENCE)
        return Outcome(code, b"", self.said)

    def kill(self) -> None:
        """End the process without its doing anything about it, and unmount."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if device_of(os.path.realpath(self.mountpoint)) is not None:
            detach(os.path.realpath(self.mountpoint))

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
        self.kill()
        self._errors.close()
