# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A chunk on its way: its id and its bytes, in the form they were obtained in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desync.errors import ChunkInvalid
from desync.formats.stored import MAX_CHUNK_SIZE, Malformed, form_named

if TYPE_CHECKING:
    from desync.chunking.digests import Digest
    from desync.formats.stored import StoredForm


class Chunk:
    """
    One chunk, which carries the form it came in and converts once, on demand.

    What came compressed and goes into a compressed store is never compressed again, and
    decompressed only to be verified. Bytes are immutable, and a verified chunk may be handed to
    several readers and threads. One that isn't verified is decoded with a codec of its own, which
    is not for two threads at once: :meth:`copy` it.

    :ivar chunk_id: 32 bytes.
    :ivar verified: whether the plain bytes are known to have that id.
    """

    __slots__ = ("_held", "_limit", "_plain", "chunk_id", "verified")

    def __init__(
        self,
        chunk_id: bytes,
        plain: bytes | memoryview | None = None,
        stored: bytes | None = None,
        form: StoredForm | None = None,
        *,
        verified: bool = False,
        limit: int = MAX_CHUNK_SIZE,
    ) -> None:
        # What is stored and its form in one attribute: a thread that converts the chunk sets both
        # at once, under the eyes of others.
        self._held = None if stored is None or form is None else (stored, form)
        if plain is None and self._held is None:
            raise ValueError("a chunk needs its plain bytes, or its stored bytes and their form")
        self.chunk_id = chunk_id
        self._plain = plain
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
        plain = self.view
        if not isinstance(plain, bytes):
            plain = self._plain = bytes(plain)
        return plain

    @property
    def view(self) -> bytes | memoryview:
        """
        The chunk's bytes where they are: perhaps in memory that it shares with others, for whoever
        only passes them on, and soon. See :attr:`plain`.
        """
        if self._plain is None:
            assert self._held is not None
            stored, form = self._held
            try:
                self._plain = form.decode(stored, self._limit)
            except Malformed as error:
                raise ChunkInvalid(self.chunk_id, str(error)) from None
        return self._plain

    def stored_as(self, form: StoredForm) -> bytes:
        """
        Give the chunk's stored form; the bytes it came in if that is their form.

        :raises ChunkInvalid: if it has to be converted and can't be decoded.
        """
        held = self._held
        if held is None:
            held = self._held = (form.encode(self.plain), form)
        # What came in another form keeps it: whoever wants that next needn't have it made again.
        return held[0] if held[1] == form else form.encode(self.plain)

    def held_as(self, form: StoredForm) -> bytes | None:
        """Give the bytes that the chunk came in if they are in a form; None if not."""
        held = self._held
        return held[0] if held is not None and held[1] == form else None

    def copy(self) -> Chunk:
        """Make another one with the same bytes, which a thread may use while others use this."""
        stored, form = self._held or (None, None)
        return Chunk(
            self.chunk_id,
            self._plain,
            stored,
            form and form_named(form.extension),
            verified=self.verified,
            limit=self._limit,
        )

    @property
    def stored_size(self) -> int:
        """
        The size in bytes of the form that it was last stored in or came in; its own if in none.
        """
        return len(self.plain) if self._held is None else len(self._held[0])

    def verify(self, digest: Digest, size: int | None = None) -> None:
        """
        Make sure that the bytes are what the id says; done once.

        :param size: how many bytes they must be, where known (in bytes).
        :raises ChunkInvalid: if they are not, or can't be decoded.
        """
        if self.verified and size is None:
            return
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
