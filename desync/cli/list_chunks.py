# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync list-chunks``."""

from __future__ import annotations

from .command import argument, command, store_flags
from .indexes import read_index
from .invocation import Invocation

_STEP = 4096


@command(
    "list-chunks",
    examples=[
        "desync list-chunks file.caibx",
        "desync list-chunks - < file.caibx | sort -u",
    ],
)
@argument("index")
@store_flags
def list_chunks(invocation: Invocation, index: str) -> None:
    """
    Print the chunk ids in an index, one a line, in the order of the blob.

    A chunk that occurs several times is printed as often. "-" reads the index from stdin.
    """
    ids = read_index(invocation, index).ids
    for start in range(0, len(ids), _STEP):
        some = ids[start : start + _STEP].to_bytes()
        invocation.out.write(some.hex("\n", 32).encode("ascii") + b"\n")
