# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync pull``."""

from __future__ import annotations

from .command import argument, casync_flags, command
from .invocation import Invocation
from .stdio_session import run_session


@command(
    "pull",
    examples=["desync pull - - - /path/to/store"],
)
@argument("base")
@argument("archive")
@argument("index")
@argument("stores", nargs=-1, required=True, metavar="<store>")
@casync_flags
def pull(
    invocation: Invocation, base: str, archive: str, index: str, stores: tuple[str, ...]
) -> None:
    """
    Serve chunks, and an index or an archive, over the casync protocol on stdin and stdout.

    It takes casync's place on a server: a client that sets CASYNC_REMOTE_PATH=desync runs it over
    SSH, with its own words. "-" is what isn't given; several stores are asked in turn.
    """
    run_session(invocation, ["pull", base, archive, index, *stores])
