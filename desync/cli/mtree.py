# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync mtree``."""

from __future__ import annotations

from typing import Any

from .archives import Archive, archive_flags, read_events
from .command import argument, command, flag, store_flags
from .flags import choice
from .invocation import Invocation
from .packing import packing_flags


@command(
    "mtree",
    examples=[
        "desync mtree archive.catar",
        "desync mtree -i -s /path/to/store archive.caidx",
        "desync mtree --format casync /path/to/dir",
    ],
)
@argument("archive")
@archive_flags
@flag(
    "--format",
    kind=choice("desync", "casync"),
    default="desync",
    help="whose keywords are used",
)
@packing_flags
@store_flags
def mtree(invocation: Invocation, archive: str, format: str, **flags: Any) -> None:
    """
    Print an archive, an index or a directory in mtree format, with the digests of files.

    Of a directory what "desync tar" would record is printed, and fifos and sockets; with --format
    casync, all that can be recorded, unless --with or --without say otherwise. "-" reads an
    archive from stdin.
    """
    from desync.chunking.digests import SHA256, SHA512_256
    from desync.formats import flags as feature
    from desync.formats.listing import CasyncMtreeLines, MtreeLines

    out = invocation.out
    source = Archive(invocation, archive, flags, as_casync=format == "casync")
    if format == "casync":

        def digest_of(word: int) -> Any:
            return SHA512_256 if word & feature.SHA512_256 else SHA256

        read_events(source, CasyncMtreeLines(out.write, digest_of).take)
        return
    if source.packing is not None:
        source.packing = source.packing._replace(with_fifos=True)
    read_events(source, MtreeLines(out.write, invocation.digest).take)
