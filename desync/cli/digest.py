# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync digest``."""

from __future__ import annotations

from typing import Any

from .archives import Archive, archive_flags
from .command import argument, command, store_flags
from .invocation import Invocation
from .packing import packing_flags


@command(
    "digest",
    examples=[
        "desync digest archive.catar",
        "desync digest -i -s /path/to/store archive.caidx",
        "desync digest --with best /path/to/dir",
    ],
)
@argument("source")
@archive_flags
@packing_flags
@store_flags
def digest(invocation: Invocation, source: str, **flags: Any) -> None:
    """
    Print the digest of an archive, a file, what an index describes, or a directory.

    A directory has the digest of the archive that "desync tar --with all" makes of it, unless
    --with or --without say otherwise. An archive says itself which algorithm it goes with; for
    everything else --digest does. "-" reads from stdin.
    """
    from desync.chunking.digests import SHA256, SHA512_256
    from desync.formats import flags as feature

    archive = Archive(invocation, source, flags, as_casync=True)
    begin = bytearray()
    hashes = {each: each.new() for each in (SHA512_256, SHA256)}
    chosen = None

    def write(data: memoryview) -> None:
        nonlocal chosen
        if chosen is None and len(begin) < feature.ENTRY_SIZE:
            # Which algorithm it is can't be told before the first record is there.
            begin.extend(data[: feature.ENTRY_SIZE - len(begin)])
            if len(begin) == feature.ENTRY_SIZE:
                chosen = _algorithm(begin)
        for each, hashed in hashes.items():
            if chosen is None or each is chosen:
                hashed.update(data)

    def _algorithm(first: bytearray) -> Any:
        word = feature.catar_flags(first)
        if archive.is_directory or not word:
            return invocation.digest
        return SHA512_256 if word & feature.SHA512_256 else SHA256

    archive.read(write)
    invocation.print(hashes[chosen or invocation.digest].hexdigest())
