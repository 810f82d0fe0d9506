# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Reading parts of an archive that is kept nowhere: it is made once more, and only what is asked for
is read from the files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import ChunkInvalid, FileError
from desync.formats.chunk import Chunk

from .content import PieceReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from desync.chunking.digests import Digest

    from .content import Piece


class ArchiveReader:
    """
    Reads chunks of an archive, best in its order: going back begins it anew.

    :param pieces: makes the archive, the same each time unless the tree changes.
    :param name: of the tree, for messages.
    """

    def __init__(self, pieces: Callable[[], Iterable[Piece]], digest: Digest, name: str) -> None:
        self._pieces = pieces
        self._digest = digest
        self._name = name
        self._reader: PieceReader | None = None
        self._at = 0

    def read_chunk(self, start: int, length: int, chunk_id: bytes) -> Chunk:
        """
        Read a chunk. Blocks.

        :param start: where it is in the archive, in bytes.
        :raises FileError: if the archive has another one there by now, or can't be read.
        """
        if self._reader is None or start < self._at:
            self.close()
            self._reader, self._at = PieceReader(self._pieces()), 0
        buffer = bytearray(length)
        self._at += self._reader.skip(start - self._at)
        self._at += self._reader.read_into(memoryview(buffer))
        chunk = Chunk(chunk_id, bytes(buffer))
        try:
            chunk.verify(self._digest)
        except ChunkInvalid:
            raise FileError(self._name, "it changed while it was being packed") from None
        return chunk

    def close(self) -> None:
        """Close what is open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
