# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Running the desync command in tests, in this process or in one of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from desync.cli.main import main
from desync.cli.streams import Streams

ROOT = Path(__file__).resolve().parent.parent
NO_HOME = {"HOME": "/nonexistent"}
"""An environment in which there's no configuration."""


class Outcome(NamedTuple):
    """
    What a run of the command came to.

    :param code: the exit code.
    :param out: what it wrote to stdout.
    :param err: what it wrote to stderr.
    """

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """What it wrote to stdout, as text."""
        return self.out.decode("utf-8", "surrogateescape")


def desync(*args: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None) -> Outcome:
    """
    Run the command in this process, without its dealing with signals.

    :param environ: its environment, without a configuration if None.
    """
    out, err = io.BytesIO(), io.StringIO()
    streams = Streams(io.BytesIO(stdin), out, err)
    environ = NO_HOME if environ is None else environ
    code = main(args, standalone=False, streams=streams, environ=environ)
    return Outcome(code, out.getvalue(), err.getvalue())


def command(*args: str) -> list[str]:
    """Give what starts the command as a process of its own."""
    return [sys.executable, "-m", "desync", *args]


def process_environ(**more: str) -> dict[str, str]:
    """Give the environment for such a process: this one's, without a configuration."""
    return {**os.environ, **NO_HOME, "PYTHONPATH": str(ROOT), **more}


def desync_process(
    *args: str | bytes, stdin: bytes = b"", environ: Mapping[str, str] | None = None
) -> Outcome:
    """
    Run the command in a process of its own, and wait for it.

    :param environ: what's different in its environment from this process's.
    """
    done = subprocess.run(
        [*map(os.fsencode, command()), *map(os.fsencode, args)],
        input=stdin,
        capture_output=True,
        env=process_environ(**(environ or {})),
        timeout=60,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr.decode())
