# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Checking chunks that came over a network: many at once, for use in threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from desync.errors import ChunkInvalid
from desync.formats.chunk import Chunk
from desync.formats.ids import ID_SIZE
from desync.formats.stored import MAX_CHUNK_SIZE, Compressed, Malformed, form_named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from desync.chunking.digests import Digest
    from desync.formats.stored import StoredForm

#: The most bytes that come of chunks that are decoded at once: 64 of the usual largest size.
_TOGETHER: Final = 16 << 20


class Received(NamedTuple):
    """
    A chunk as it came.

    :ivar stored: its bytes.
    :ivar extension: of the form that they should be in.
    """

    chunk_id: bytes
    stored: bytes
    extension: str


class Codec:
    """
    Decodes, verifies and encodes chunks; each thread with forms of its own, for those can't be
    shared.

    :param location: the store's, for errors.
    :param skip_verify: take chunks as they come.
    :param level: zstd's, for what is encoded.
    """

    def __init__(self, location: str, digest: Digest, *, skip_verify: bool, level: int) -> None:
        self._location = location
        self._digest = digest
        self._skip_verify = skip_verify
        self._level = level
        self._of_thread = threading.local()

    def _form(self, extension: str) -> StoredForm:
        forms: dict[str, StoredForm] | None = getattr(self._of_thread, "forms", None)
        if forms is None:
            forms = self._of_thread.forms = {}
        if extension not in forms:
            forms[extension] = form_named(extension, self._level)
        return forms[extension]

    def check(
        self, received: Sequence[Received]
    ) -> tuple[list[Chunk], list[tuple[bytes, ChunkInvalid]]]:
        """
        Turn what was received into chunks. Blocks.

        :returns: the chunks that are what their ids say; the ids of the others, and why.
        """
        chunks: list[Chunk] = []
        failed: list[tuple[bytes, ChunkInvalid]] = []
        if self._skip_verify:
            for one in received:
                form = form_named(one.extension)
                chunks.append(Chunk(one.chunk_id, stored=one.stored, form=form))
            return chunks, failed
        decoded: list[tuple[Received, bytes | memoryview]] = []
        together = self._decode_together(received)
        if together is not None:
            decoded += zip(received, together, strict=True)
        else:
            for one in received:
                try:
                    found = self._form(one.extension).decode(one.stored, MAX_CHUNK_SIZE)
                except Malformed as error:
                    failed.append((one.chunk_id, self._invalid(one.chunk_id, str(error))))
                else:
                    decoded.append((one, found))
        digests = self._digest.ids_of_buffers([plain for _, plain in decoded])
        for position, (one, plain) in enumerate(decoded):
            found = digests[position * ID_SIZE : (position + 1) * ID_SIZE]
            if found == one.chunk_id:
                form = form_named(one.extension)
                chunks.append(Chunk(one.chunk_id, plain, one.stored, form, verified=True))
            else:
                why = f"its {self._digest.name} is {found.hex()}"
                failed.append((one.chunk_id, self._invalid(one.chunk_id, why)))
        return chunks, failed

    def _decode_together(self, received: Sequence[Received]) -> list[memoryview] | None:
        """Decode chunks at once, if that is worth it and they are all as they should be."""
        if len(received) < 2:
            return None
        form = self._form(received[0].extension)
        if not isinstance(form, Compressed) or any(
            one.extension != form.extension for one in received
        ):
            return None
        return form.decode_many([one.stored for one in received], _TOGETHER)

    def check_one(self, received: Received) -> Chunk:
        """
        Turn what was received into a chunk. Blocks.

        :raises ChunkInvalid: if it isn't what its id says.
        """
        chunks, failed = self.check([received])
        if failed:
            raise failed[0][1]
        return chunks[0]

    def encode(self, chunk: Chunk, extension: str) -> bytes:
        """
        Give a chunk's stored form, verified. Blocks.

        :raises ChunkInvalid: if it isn't what its id says.
        """
        chunk.verify(self._digest)
        return chunk.stored_as(self._form(extension))

    def _invalid(self, chunk_id: bytes, why: str) -> ChunkInvalid:
        return ChunkInvalid(chunk_id, why, self._location)
