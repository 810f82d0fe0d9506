# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Chunks with their sizes as JSON: what ``desync inspect-chunks`` writes and ``desync info
--chunks-info`` reads.

The format is Go desync's: a list of objects with ``id``, ``uncompressed_size`` and, where it is
known, ``compressed_size``; an empty list is written ``null``. Both ways the text goes by in pieces,
because that of a large index is several times as large as the index.
"""

from __future__ import annotations

import re
import struct
from array import array
from typing import TYPE_CHECKING, Final

from desync.chunking import kernels
from desync.errors import FileError

from .ids import ID_SIZE, ChunkIds, InvalidId, parse_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, TextIO

_STEP: Final = 1 << 16
#: Characters that one object may have.
_LONGEST: Final = 1 << 16
_BATCH: Final = 512
_RECORD: Final = struct.Struct("<32sQQ")
_LARGEST: Final = (1 << 63) - 1
_BLANKS: Final = re.compile(r"[ \t\r\n]*")


def write_sizes(chunks: Iterable[tuple[bytes, int, int | None]]) -> Iterator[str]:
    """
    Write chunks with their sizes, in their order.

    :param chunks: of each its id, its length in bytes, and how many it takes in a store, which is
        left out where it is None or 0.
    :returns: the text in pieces, with a newline at its end.
    """
    pieces: list[str] = []
    separator = "["
    for chunk_id, size, stored in chunks:
        text = f'{separator}\n  {{\n    "id": "{chunk_id.hex()}",\n    "uncompressed_size": {size}'
        if stored:
            text += f',\n    "compressed_size": {stored}'
        pieces.append(text + "\n  }")
        separator = ","
        if len(pieces) >= _BATCH:
            yield "".join(pieces)
            pieces.clear()
    yield "".join(pieces) + ("null\n" if separator == "[" else "\n]\n")


class KnownSizes:
    """
    Sizes of chunks, looked up in ascending order of ids: one buffer, no object per chunk.

    :param records: id, length, and stored size or 0, packed as :func:`read_sizes` does; of several
        with the same id the last counts.
    """

    def __init__(self, records: bytes | bytearray) -> None:
        self._records = records
        count = len(records) // _RECORD.size
        self._ids = ChunkIds(records, 0, _RECORD.size, count)
        self._order = array("I", kernels.sort_ids(*self._ids.layout))
        self._next = 0

    def find(self, chunk_id: bytes) -> tuple[int, int] | None:
        """
        Give a chunk's length and its stored size, in bytes; the latter is 0 if it isn't known.

        :param chunk_id: greater than the one that was asked for before.
        """
        found = None
        while self._next < len(self._order):
            record = _RECORD.unpack_from(self._records, self._order[self._next] * _RECORD.size)
            if record[0] > chunk_id:
                break
            self._next += 1
            if record[0] == chunk_id:
                found = record[1], record[2]
        return found


def read_sizes(file: TextIO, where: str) -> KnownSizes:
    """
    Read what :func:`write_sizes` wrote, or Go desync.

    :param where: the file's name as shown to the user.
    :raises FileError: if it is something else.
    """
    records = bytearray()
    try:
        for number, found in enumerate(_objects(file), 1):
            records += _record(found, number)
    except (ValueError, InvalidId) as error:
        raise FileError(where, str(error)) from None
    return KnownSizes(records)


def _record(found: Any, number: int) -> bytes:
    if not isinstance(found, dict):
        raise ValueError(f"entry {number} isn't an object")
    # As Go reads JSON: a key matches in any case.
    fields = {key.lower(): value for key, value in found.items()}
    chunk_id = fields.get("id")
    if not isinstance(chunk_id, str):
        raise ValueError(f"entry {number} has no chunk id")
    sizes = []
    for name in "uncompressed_size", "compressed_size":
        size = fields.get(name) or 0
        if type(size) is not int or not 0 <= size <= _LARGEST:
            raise ValueError(f"entry {number}: {name} isn't a size")
        sizes.append(size)
    packed_id = parse_id(chunk_id)
    assert len(packed_id) == ID_SIZE
    return _RECORD.pack(packed_id, *sizes)


def _objects(file: TextIO) -> Iterator[Any]:
    """Read the elements of a list one after the other, without ever holding all of its text."""
    import json

    decode = json.JSONDecoder().raw_decode
    text = file.read(_STEP)
    at = _BLANKS.match(text).end()  # type: ignore[union-attr]  # it always matches
    if text.startswith("null", at):
        _check_end(text[at + 4 :], file)
        return
    if not text.startswith("[", at):
        raise ValueError("not a list of chunks with their sizes")
    at += 1
    count = 0
    while True:
        at = _BLANKS.match(text, at).end()  # type: ignore[union-attr]
        if not count and text.startswith("]", at):
            break
        try:
            found, end = decode(text, at)
        except (ValueError, RecursionError):
            end = len(text)
        end = _BLANKS.match(text, end).end()  # type: ignore[union-attr]
        following = text[end : end + 1]
        if not following:
            # It goes on beyond what has been read, or isn't JSON at all.
            more = file.read(_STEP)
            if not more or len(text) - at > _LONGEST:
                raise ValueError(f"entry {count + 1} can't be read, or the list has no end")
            text, at = text[at:] + more, 0
            continue
        if following not in ",]":
            raise ValueError(f"entry {count + 1} is followed by {following!a}")
        count += 1
        yield found
        at = end + 1
        if following == "]":
            at = end
            break
    _check_end(text[at + 1 :], file)


def _check_end(text: str, file: TextIO) -> None:
    if (text + file.read(_STEP)).strip():
        raise ValueError("something follows the list")
