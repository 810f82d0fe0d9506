# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Chunk ids, one and many.

An id is the digest of a chunk's plain bytes: 32 bytes, written as 64 hexadecimal digits. An index
of a large disk has millions, so sets of ids are packed: :class:`ChunkIds` is a view on a buffer,
and no object exists for an id until someone looks at it.
"""

from __future__ import annotations

from binascii import unhexlify
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from struct import iter_unpack
from typing import overload

from desync.chunking import kernels
from desync.errors import UsageError

ID_SIZE = 32
"""Length of a chunk id in bytes."""

_BLOCK = 4096  # ids of either side that a merge holds as objects at a time


class InvalidId(UsageError, ValueError):
    """A text that should be a chunk id and isn't."""


def parse_id(text: str | bytes) -> bytes:
    """
    Read one chunk id.

    :param text: 64 hexadecimal digits, of either case, and nothing else.
    :returns: the id, 32 bytes.
    :raises InvalidId: for anything else; it is both a ``UsageError`` and a ``ValueError``.
    """
    if len(text) == 2 * ID_SIZE:
        try:
            return unhexlify(text)
        except ValueError:
            pass
    raise InvalidId(f"not a chunk id: {_shown(text)}")


def _shown(text: str | bytes) -> str:
    """Quote what a user or a peer wrote, briefly and without control characters."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def read_id_lines(source: str | bytes | Iterable[str | bytes], where: str = "") -> ChunkIds:
    """
    Read a text file of chunk ids: one per line, surrounding blanks ignored, empty lines skipped.

    :param source: the whole text, or its lines (an open file gives them).
    :param where: the file's name as shown to the user.
    :returns: the ids in the file's order, duplicates kept.
    :raises InvalidId: naming the file and the line that isn't an id.
    """
    lines = source.splitlines() if isinstance(source, (str, bytes)) else source
    packed = bytearray()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text:
            try:
                packed += parse_id(text)
            except InvalidId as error:
                raise InvalidId(f"{where or 'chunk ids'}: line {number}: {error}") from None
    return ChunkIds.from_bytes(packed)


class ChunkIds(Sequence[bytes]):
    """
    An immutable sequence of chunk ids over a buffer that holds them at equal distances.

    Slices, and an index's ids, are views: they copy nothing and keep the buffer alive. Whoever gave
    the buffer must not change it afterwards.

    :param buffer: where the ids are.
    :param offset: where in it the first id begins, in bytes.
    :param stride: bytes from one id's beginning to the next one's, at least 32.
    :param count: how many there are.
    :param is_sorted: the caller knows that each id is greater than the one before it.
    """

    __slots__ = ("_buffer", "_count", "_offset", "_stride", "is_sorted")

    def __init__(
        self,
        buffer: bytes | bytearray | memoryview,
        offset: int = 0,
        stride: int = ID_SIZE,
        count: int = 0,
        is_sorted: bool = False,
    ) -> None:
        if offset < 0 or stride < ID_SIZE or count < 0:
            raise ValueError("ids can't lie like that in a buffer")
        if count and offset + (count - 1) * stride + ID_SIZE > len(buffer):
            raise ValueError(f"the buffer is too short for {count} ids")
        # Of bytes, slices are cheapest; of anything else the ids must not be changed through us.
        self._buffer = buffer if isinstance(buffer, bytes) else memoryview(buffer).toreadonly()
        self._offset = offset
        self._stride = stride
        self._count = count
        self.is_sorted = is_sorted or count < 2

    @classmethod
    def from_bytes(
        cls, packed: bytes | bytearray | memoryview, is_sorted: bool = False
    ) -> ChunkIds:
        """
        Take ids that lie one after the other, without copying them.

        :raises ValueError: if the length isn't a multiple of 32.
        """
        count, rest = divmod(len(packed), ID_SIZE)
        if rest:
            raise ValueError(f"{len(packed)} bytes are no whole number of chunk ids")
        return cls(packed, 0, ID_SIZE, count, is_sorted)

    @classmethod
    def from_iterable(cls, ids: Iterable[bytes]) -> ChunkIds:
        """
        Pack ids, in their order.

        :raises ValueError: if one isn't 32 bytes long.
        """
        packed = bytearray()
        for chunk_id in ids:
            if len(chunk_id) != ID_SIZE:
                raise ValueError(f"a chunk id has 32 bytes, not {len(chunk_id)}")
            packed += chunk_id
        return cls.from_bytes(packed)

    @property
    def layout(self) -> tuple[bytes | memoryview, int, int, int]:
        """What the kernels ask for: the buffer, the first id's offset, the stride, the count."""
        return self._buffer, self._offset, self._stride, self._count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, position: int) -> bytes: ...

    @overload
    def __getitem__(self, position: slice) -> ChunkIds: ...

    def __getitem__(self, position: int | slice) -> bytes | ChunkIds:
        if isinstance(position, slice):
            return self._slice(*position.indices(self._count))
        if position < 0:
            position += self._count
        if not 0 <= position < self._count:
            raise IndexError("no such chunk id")
        begin = self._offset + position * self._stride
        return bytes(self._buffer[begin : begin + ID_SIZE])

    def _slice(self, start: int, stop: int, step: int) -> ChunkIds:
        count = len(range(start, stop, step))
        if step < 0:
            return self.from_iterable(self[i] for i in range(start, stop, step))
        return ChunkIds(
            self._buffer,
            self._offset + start * self._stride,
            self._stride * step,
            count,
            self.is_sorted,
        )

    def __iter__(self) -> Iterator[bytes]:
        if not self._count:
            return
        begin = self._offset
        last = begin + (self._count - 1) * self._stride
        gap = self._stride - ID_SIZE
        view = memoryview(self._buffer)[begin:last]
        for (chunk_id,) in iter_unpack(f"{ID_SIZE}s{gap}x", view):
            yield chunk_id
        # Apart, because nothing needs to follow the last id in the buffer.
        yield bytes(self._buffer[last : last + ID_SIZE])

    def __contains__(self, chunk_id: object) -> bool:
        if not isinstance(chunk_id, bytes):
            return False
        try:
            self.index(chunk_id)
        except ValueError:
            return False
        return True

    def index(self, value: bytes, start: int = 0, stop: int | None = None) -> int:
        """
        Say where an id is first; quickly, if the ids are sorted.

        :raises ValueError: if it isn't there.
        """
        start, stop, _ = slice(start, stop).indices(self._count)
        if self.is_sorted:
            position = bisect_left(self, value, start, max(start, stop))
            if position < stop and self[position] == value:
                return position
        else:
            for position, mine in enumerate(self[start:stop], start):
                if mine == value:
                    return position
        raise ValueError("no such chunk id here")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChunkIds):
            return NotImplemented
        return self._count == other._count and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # hashing millions of ids would be a mistake

    def __repr__(self) -> str:
        return f"<{self._count} chunk ids{', sorted' if self.is_sorted else ''}>"

    def to_bytes(self) -> bytes:
        """
        Give the ids one after the other, 32 bytes each.

        A copy, unless they are a whole ``bytes`` already.
        """
        if self._stride == ID_SIZE:
            return bytes(self._buffer[self._offset : self._offset + self._count * ID_SIZE])
        return b"".join(self)

    def sorted_unique(self) -> ChunkIds:
        """Give each different id once, ascending: what set algebra and fast look-up need."""
        if self.is_sorted:
            return self
        order = kernels.sort_ids(self._buffer, self._offset, self._stride, self._count)
        packed = kernels.unique_ids(self._buffer, self._offset, self._stride, self._count, order)
        return ChunkIds.from_bytes(packed, is_sorted=True)

    def union(self, other: ChunkIds) -> ChunkIds:
        """Give the ids that are in either; both must be sorted."""
        merged = bytearray()
        for mine, theirs in _aligned_blocks(self, other):
            known = set(mine)
            # Two ascending runs: sorting them is one merge.
            merged += b"".join(sorted(mine + [i for i in theirs if i not in known]))
        return ChunkIds.from_bytes(merged, is_sorted=True)

    def difference(self, other: ChunkIds) -> ChunkIds:
        """Give the ids that are here but not in the other; both must be sorted."""
        left = bytearray()
        for mine, theirs in _aligned_blocks(self, other):
            unwanted = set(theirs)
            left += b"".join([i for i in mine if i not in unwanted])
        return ChunkIds.from_bytes(left, is_sorted=True)

    def intersection(self, other: ChunkIds) -> ChunkIds:
        """Give the ids that are in both; both must be sorted."""
        common = bytearray()
        for mine, theirs in _aligned_blocks(self, other):
            wanted = set(theirs)
            common += b"".join([i for i in mine if i in wanted])
        return ChunkIds.from_bytes(common, is_sorted=True)

    def count_common(self, other: ChunkIds) -> int:
        """Count the ids that are in both; both must be sorted."""
        return sum(
            len(set(theirs).intersection(mine)) for mine, theirs in _aligned_blocks(self, other)
        )


def _aligned_blocks(left: ChunkIds, right: ChunkIds) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """
    Walk through two sorted sequences together, a bounded number of ids at a time.

    Whatever id is in both comes in the same pair of lists, so each pair can be dealt with by
    itself, at the speed of built-in sets.
    """
    if not (left.is_sorted and right.is_sorted):
        raise ValueError("only sorted ids can be merged: call sorted_unique() first")
    i = j = 0
    while i < len(left) and j < len(right):
        i_end = min(i + _BLOCK, len(left))
        j_end = min(j + _BLOCK, len(right))
        left_last, right_last = left[i_end - 1], right[j_end - 1]
        if left_last <= right_last:
            j_end = bisect_right(right, left_last, j, j_end)
        else:
            i_end = bisect_right(left, right_last, i, i_end)
        yield list(left[i:i_end]), list(right[j:j_end])
        i, j = i_end, j_end
    for begin in range(i, len(left), _BLOCK):
        yield list(left[begin : begin + _BLOCK]), []
    for begin in range(j, len(right), _BLOCK):
        yield [], list(right[begin : begin + _BLOCK])
