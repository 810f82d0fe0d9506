# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync list``."""

from __future__ import annotations

from typing import Any

from .archives import Archive, archive_flags, read_events
from .command import argument, command, store_flags
from .invocation import Invocation
from .packing import packing_flags


@command(
    "list",
    examples=[
        "desync list archive.catar",
        "desync list -i -s /path/to/store archive.caidx",
    ],
)
@argument("archive")
@archive_flags
@packing_flags
@store_flags
def list(invocation: Invocation, archive: str, **flags: Any) -> None:
    """
    Print the types, permissions and paths in an archive, an index or a directory.

    Names are escaped as in mtree format. Of a directory everything is printed that casync would
    pack, unless --with or --without say otherwise. "-" reads an archive from stdin.
    """
    from desync.formats.listing import ListLines

    source = Archive(invocation, archive, flags, as_casync=True)
    read_events(source, ListLines(invocation.out.write).take)
