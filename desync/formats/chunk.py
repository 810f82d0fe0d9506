# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A chunk on its way: its id and its bytes, in the form they were obtained in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import ChunkInvalid
from desync.formats.stored import MAX_CHUNK_SIZE, Malformed

if TYPE_CHECKING:
    from desync.chunking.digests import Digest
    from desync.formats.stored import StoredForm


class Chunk:
    """
    One chunk, which carries the form it came in and converts once, on demand.

    What came compressed and goes into a compressed store is never compressed again, and decompressed only to be verified.
    Bytes are immutable; the object may be handed to several readers.

    :ivar chunk_id: 32 bytes.
    :ivar verified: whether the plain bytes are known to have that id.
    """

    __slots__ = ("_form", "_limit", "_plain", "_stored", "chunk_id", "verified")

    def __init__(
        self,
        chunk_id: bytes,
        plain: bytes | None = None,
        stored: bytes | None = None,
        form: StoredForm | None = None,
        *,
        verified: bool = False,
        limit: int = MAX_CHUNK_SIZE,
    ) -> None:
        if plain is None and (stored is None or form is None):
            raise ValueError("a chunk needs its plain bytes, or its stored bytes and their form")
        self.chunk_id = chunk_id
        self._plain = plain
        self._stored = stored
        self._form = form
        self._limit = limit
        self.verified = verified

    @classmethod
    def of(cls, plain: bytes, digest: Digest) -> Chunk:
        """Make the chunk that these bytes are: the id is computed, so it is verified."""
        return cls(digest.id_of(plain), plain, verified=True)

    @property
    def plain(self) -> bytes:
        """
        The chunk's bytes.

        :raises ChunkInvalid: if the stored form can't be decoded.
        """
        if self._plain is None:
            assert self._stored is not None and self._form is not None
            try:
                self._plain = self._form.decode(self._stored, self._limit)
            except Malformed as error:
                raise ChunkInvalid(self.chunk_id, str(error)) from None
        return self._plain

    def stored_as(self, form: StoredForm) -> bytes:
        """
        Give the chunk's stored form; the bytes it came in if that is their form.

        :raises ChunkInvalid: if it has to be converted and can't be decoded.
        """
        if self._stored is None or self._form != form:
            self._stored, self._form = form.encode(self.plain), form
        return self._stored

    def verify(self, digest: Digest, size: int | None = None) -> None:
        """
        Make sure that the bytes are what the id says; done once.

        :param size: how many bytes they must be, where known (in bytes).
        :raises ChunkInvalid: if they are not, or can't be decoded.
        """
        plain = self.plain
        if size is not None and len(plain) != size:
            raise ChunkInvalid(
                self.chunk_id, f"unexpected size: {len(plain)} instead of {size} bytes"
            )
        if self.verified:
            return
        if not plain:
            raise ChunkInvalid(self.chunk_id, "it holds no data")
        found = digest.id_of(plain)
        if found != self.chunk_id:
            raise ChunkInvalid(self.chunk_id, f"its {digest.name} is {found.hex()}")
        self.verified = True

    def __repr__(self) -> str:
        return f"<Chunk {self.chunk_id.hex()[:16]} {'verified' if self.verified else 'unverified'}>"
