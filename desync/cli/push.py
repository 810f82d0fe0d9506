# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync push``."""

from __future__ import annotations

from .command import argument, casync_flags, command
from .invocation import Invocation
from .stdio_session import run_session


@command(
    "push",
    examples=["desync push - - /path/to/file.caibx /path/to/store"],
)
@argument("base")
@argument("archive")
@argument("index")
@argument("store")
@casync_flags
def push(invocation: Invocation, base: str, archive: str, index: str, store: str) -> None:
    """
    Take an index with its chunks, or an archive, over the casync protocol on stdin and stdout.

    It takes casync's place on a server: a client that sets CASYNC_REMOTE_PATH=desync runs it over
    SSH, with its own words. Chunks are verified before they are stored; the index takes its place
    when all of its chunks are there. "-" is what isn't given.
    """
    run_session(invocation, ["push", base, archive, index, store])
