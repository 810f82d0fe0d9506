# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync inspect-chunks``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from desync.errors import UsageError

from .command import argument, command, flag, store_flags
from .indexes import read_index
from .invocation import Invocation
from .storing import check_not_same

if TYPE_CHECKING:
    from desync.formats.index import Index
    from desync.stores.local_files import LocalFiles


@command(
    "inspect-chunks",
    examples=[
        "desync inspect-chunks file.caibx",
        "desync inspect-chunks -s /path/to/store file.caibx chunks.json",
    ],
)
@argument("index")
@argument("output", required=False)
@flag("--store", "-s", help="local store that tells how large the chunks are compressed")
@store_flags
def inspect_chunks(
    invocation: Invocation, index: str, output: str | None, store: str | None
) -> None:
    """
    Print the chunks of an index as JSON: ids and sizes, in the order of the blob.

    A chunk that occurs several times is printed as often. "-" reads the index from stdin.
    """
    from desync.formats.chunk_sizes import write_sizes
    from desync.stores.opening import local_target

    if output is not None:
        check_not_same(index, output)
    files = None
    if store:
        files = local_target(store, invocation.store_options, invocation.digest, writing=False)
        if files is None:
            raise UsageError(f"'{invocation.shown_location(store)}' is not a local store")
    parsed = read_index(invocation, index)
    pieces = write_sizes(_sizes(parsed, files))
    if output is None:
        for piece in pieces:
            invocation.out.write(piece.encode("ascii"))
        return
    from desync.replace import replacing

    with replacing(output) as out:
        for piece in pieces:
            out.write(piece.encode("ascii"))


def _sizes(index: Index, files: LocalFiles | None) -> Iterator[tuple[bytes, int, int | None]]:
    # A store whose chunks aren't compressed says nothing that the index doesn't.
    if files is not None and not files.form.extension:
        files = None
    for _, length, chunk_id in index:
        yield chunk_id, length, files.stored_size(chunk_id) if files is not None else None
