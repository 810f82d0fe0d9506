# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Reading many chunks from a local store at once, with as little as possible of the
interpreter in between: threads that do this get in each other's way less.

Only what is as it should be is read here. Everything else is left to
:class:`desync.stores.local_files.LocalFiles`, which knows what to do about it.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

from desync.chunking import kernels
from desync.formats.stored import ZSTD_MAGIC, Plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .local_files import LocalFiles


def read_together(files: LocalFiles, chunk_ids: Sequence[bytes], limit: int) -> list[bytes | None]:
    """
    Read what is stored of some chunks, in the store's form.

    :param limit: the most bytes that one may have.
    :returns: the bytes of each; None for those that need a closer look.
    """
    paths = [os.fsencode(files.path_of(chunk_id)) for chunk_id in chunk_ids]
    return kernels.read_files(paths, limit)


class BatchReader:
    """
    Reads from one store. Not to be shared between threads.

    :param files: the store.
    """

    def __init__(self, files: LocalFiles) -> None:
        self.files = files
        self._decompress: Any = None

    def read(self, chunks: Sequence[tuple[bytes, int]]) -> list[memoryview | None]:
        """
        Read some chunks; their digests aren't checked.

        :param chunks: the id of each, and how many bytes it has.
        :returns: the bytes of each, which share memory; None for those that need a closer look.
        """
        files = self.files
        found: list[memoryview | None] = [None] * len(chunks)
        limit = files.form.stored_limit(max(length for _, length in chunks))
        frames: list[bytes] = []
        places: list[int] = []
        at_hand = read_together(files, [chunk_id for chunk_id, _ in chunks], limit)
        for place, stored in enumerate(at_hand):
            if stored is None:
                continue
            length = chunks[place][1]
            if isinstance(files.form, Plain):
                if len(stored) == length:
                    found[place] = memoryview(stored)
            elif stored[:4] == ZSTD_MAGIC:
                frames.append(stored)
                places.append(place)
        if frames:
            lengths = [chunks[place][1] for place in places]
            for place, plain in zip(places, self._decode(frames, lengths), strict=False):
                found[place] = plain
        return found

    def _decode(self, frames: list[bytes], lengths: list[int]) -> list[memoryview]:
        import zstandard

        if self._decompress is None:
            decompressor = zstandard.ZstdDecompressor()
            self._decompress = getattr(decompressor, "multi_decompress_to_buffer", _no_batches)
        try:
            sizes = struct.pack(f"={len(lengths)}Q", *lengths)
            segments = self._decompress(frames, decompressed_sizes=sizes, threads=1)
            return [memoryview(segments[at]) for at in range(len(segments))]
        except (zstandard.ZstdError, ValueError, TypeError):
            # One of them isn't good. Which one shows when they are looked at one by one.
            return []


def _no_batches(*_: object, **__: object) -> Any:
    # zstandard without its C backend, as with PyPy.
    raise ValueError
