# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Chunks from local stores: read from the first store that has them, checked many at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import ChunkInvalid, ChunkMissing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from desync.chunking.digests import Digest
    from desync.stores.local_files import LocalFiles


def read_from(stores: Sequence[LocalFiles], chunk_id: bytes, size: int) -> tuple[bytes, LocalFiles]:
    """
    Read a chunk's plain bytes from the first store that has it. The length is checked, the digest
    is not.

    :returns: the bytes, and the store that had them.
    :raises ChunkMissing: if no store has it.
    :raises ChunkInvalid, StoreError: from the first store that didn't just lack it.
    """
    for store in stores:
        try:
            return store.read_plain(chunk_id, size), store
        except ChunkMissing:
            if len(stores) == 1:
                raise
    raise ChunkMissing(chunk_id)


def verify(
    digest: Digest,
    buffers: Sequence[bytes],
    ids: bytes,
    which: Sequence[tuple[int, LocalFiles]],
) -> None:
    """
    Check chunks against their ids, all at once.

    :param ids: packed, in the order of the buffers.
    :param which: the positions to check, and the store that each came from.
    :raises ChunkInvalid: for the first that isn't what its id says.
    """
    if len(which) == len(buffers):
        found = digest.ids_of_buffers(buffers)
        if found == ids:
            return
    else:
        found = digest.ids_of_buffers([buffers[position] for position, _ in which])
    for number, (position, store) in enumerate(which):
        chunk_id = ids[32 * position : 32 * position + 32]
        actual = found[32 * number : 32 * number + 32]
        if actual != chunk_id:
            raise ChunkInvalid(chunk_id, f"its {digest.name} is {actual.hex()}", store.location)
