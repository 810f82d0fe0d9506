# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Index files (``.caibx``, ``.caidx``): which chunks a stream is made of.

The format is casync's: a header of 48 bytes, the header of the table (16 bytes), an item of 40
bytes for each chunk (where it ends in the stream, and its id), a tail of 40 bytes. All integers are
unsigned, 64 bits, little-endian. The suffix alone says whether the stream is a blob or an archive.

In memory an index is its file: one buffer, with views on it. No object per chunk is kept, so that
an index of millions of chunks opens as fast as it is read, and takes the memory of its file.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from desync.chunking import kernels
from desync.chunking.digests import SHA256, SHA512_256
from desync.errors import InvalidIndex, WrongDigest

from . import flags as feature
from .ids import ID_SIZE, ChunkIds

if TYPE_CHECKING:
    from typing import Protocol

    from desync.chunking.digests import Digest

    class HasSizes(Protocol):
        """Chunk sizes in bytes, such as :class:`desync.chunking.sizes.ChunkSizes`."""

        @property
        def min(self) -> int: ...
        @property
        def avg(self) -> int: ...
        @property
        def max(self) -> int: ...


INDEX_TYPE = 0x96824D9C7B129FF9
TABLE_TYPE = 0xE75B9E112F17417D
TAIL_MARKER = 0x4B4F050E5549ECD1

HEADER_SIZE = 48
"""Length in bytes of the first record."""

TABLE_START = 64
"""Where in the file the first item is."""

ITEM_SIZE = 40
"""Length in bytes of an item of the table, and of its tail."""

EMPTY_SIZE = TABLE_START + ITEM_SIZE
"""Length in bytes of the index of an empty stream: no index is shorter."""

CHUNK_SIZE_LIMIT = 128 << 20
"""No reader takes an index that allows larger chunks, in bytes. casync's limit."""

_UNKNOWN_SIZE = (1 << 64) - 1  # what a table says: its writer doesn't know it when it begins
_START = struct.Struct("<8Q")
_END = struct.Struct("<Q")
_ITEM = struct.Struct("<Q32s")
_TAIL = struct.Struct("<5Q")


class IndexSizes(NamedTuple):
    """
    The chunk sizes that an index names, in bytes: what its chunks were cut with.

    Not necessarily what this package would cut with: a reader takes any from 1 byte to 128 MiB.
    """

    min: int
    avg: int
    max: int


class Index:
    """
    The chunks of a stream, in its order.

    :param flags: the feature flag word (:mod:`desync.formats.flags`).
    :param sizes: what the chunks were cut with.
    :param table: the items, 40 bytes each. They are not looked at: :meth:`parse` and
        :meth:`IndexBuilder.finish` do that.
    """

    __slots__ = ("_count", "_table", "flags", "sizes")

    def __init__(
        self, flags: int, sizes: IndexSizes, table: bytes | bytearray | memoryview
    ) -> None:
        self.flags = flags
        self.sizes = sizes
        self._table = memoryview(table).toreadonly()
        self._count, rest = divmod(len(table), ITEM_SIZE)
        if rest:
            raise ValueError("the table of an index is a whole number of items")

    @classmethod
    def parse(
        cls,
        data: bytes | bytearray | memoryview,
        where: str = "",
        digest: Digest | None = None,
    ) -> Index:
        """
        Read an index file. The buffer is kept, not copied; nobody may change it afterwards.

        Refuses what casync refuses, which is more than Go desync does.

        :param data: the whole file.
        :param where: its name or location as shown to the user.
        :param digest: the algorithm that the ids must be made with; either, if None.
        :raises WrongDigest: if the index says that its ids are made with another.
        :raises InvalidIndex: if it isn't a valid index; nothing else is ever raised, whatever the
            data.
        """
        where = where or "index"
        view = memoryview(data)
        flags, sizes = parse_start(view, where)
        index_digest = digest_of(flags)
        if digest is not None and index_digest is not digest:
            used = "SHA512-256" if index_digest is SHA512_256 else "SHA256"
            raise WrongDigest(where, f"index file uses {used}")
        items = view[TABLE_START:]
        whole = len(items) // ITEM_SIZE * ITEM_SIZE
        # The tail begins with a zero where an item has its end, so it is always the first item
        # out of order.
        count = kernels.check_table(items[:whole], sizes.max)
        if count < 0:
            raise InvalidIndex(where, "truncated: the table of chunks has no end")
        _check_tail(items, count, sizes.max, where)
        return cls(flags, sizes, items[: count * ITEM_SIZE])

    @property
    def digest(self) -> Digest:
        """The algorithm that the ids are made with."""
        return digest_of(self.flags)

    @property
    def size(self) -> int:
        """Length in bytes of the stream that the index describes."""
        return self._end(self._count - 1) if self._count else 0

    @property
    def ids(self) -> ChunkIds:
        """The ids of the chunks in the stream's order, duplicates included: a view."""
        return ChunkIds(self._table, 8, ITEM_SIZE, self._count)

    @property
    def table(self) -> memoryview:
        """The items, 40 bytes each: where a chunk ends (64 bits, little-endian), its id."""
        return self._table

    def __len__(self) -> int:
        return self._count

    def _end(self, position: int) -> int:
        end: int = _END.unpack_from(self._table, position * ITEM_SIZE)[0]
        return end

    def _check(self, position: int) -> None:
        if not 0 <= position < self._count:
            raise IndexError(f"no chunk {position} in an index of {self._count}")

    def end(self, position: int) -> int:
        """
        Say where in the stream a chunk ends: the offset of the first byte after it.

        :param position: which chunk, from 0.
        :raises IndexError: if there is no such chunk.
        """
        self._check(position)
        return self._end(position)

    def start(self, position: int) -> int:
        """Say where in the stream a chunk begins; see :meth:`end`."""
        self._check(position)
        return self._end(position - 1) if position else 0

    def length(self, position: int) -> int:
        """Give the length in bytes of a chunk; see :meth:`end`."""
        return self.end(position) - self.start(position)

    def id(self, position: int) -> bytes:
        """Give the id of a chunk, 32 bytes; see :meth:`end`."""
        self._check(position)
        begin = position * ITEM_SIZE + 8
        return bytes(self._table[begin : begin + ID_SIZE])

    def __iter__(self) -> Iterator[tuple[int, int, bytes]]:
        return self.chunks()

    def chunks(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, bytes]]:
        """
        Walk through a run of chunks.

        :param first: the position of the first one.
        :param stop: the position after the last one; all that remain, if None.
        :returns: for each chunk where it starts, its length (both in bytes) and its id.
        """
        first, stop, _ = slice(first, stop).indices(self._count)
        start = self._end(first - 1) if first else 0
        for end, chunk_id in _ITEM.iter_unpack(self._table[first * ITEM_SIZE : stop * ITEM_SIZE]):
            yield start, end - start, chunk_id
            start = end

    def position_of(self, offset: int) -> int:
        """
        Say which chunk holds a byte of the stream.

        :param offset: of the byte, from 0. The stream's size is taken too, and gives
            ``len(index)``.
        :raises ValueError: if the offset is outside the stream.
        """
        if not 0 <= offset <= self.size:
            raise ValueError(f"offset {offset} is outside the {self.size} bytes of the index")
        return bisect_right(range(self._count), offset, key=self._end)

    def pieces(self) -> tuple[bytes, memoryview, bytes]:
        """Give the file in pieces to be written one after the other; the large one is a view."""
        return (
            _START.pack(
                HEADER_SIZE, INDEX_TYPE, self.flags, *self.sizes, _UNKNOWN_SIZE, TABLE_TYPE
            ),
            self._table,
            _tail(self._count),
        )

    def to_bytes(self) -> bytes:
        """Give the file: what :meth:`parse` reads."""
        return b"".join(self.pieces())


def digest_of(flags: int) -> Digest:
    """Give the algorithm that the ids are made with, by the feature flag word."""
    return SHA512_256 if flags & feature.SHA512_256 else SHA256


def parse_start(view: memoryview, where: str) -> tuple[int, IndexSizes]:
    """
    Read and check what comes before the first item, the first 64 bytes.

    :param where: see :meth:`Index.parse`.
    :returns: the feature flag word, and the chunk sizes.
    :raises InvalidIndex: if no index begins like that.
    """
    if len(view) < 16:
        raise InvalidIndex(where, f"not an index file: only {len(view)} bytes")
    if struct.unpack_from("<2Q", view) != (HEADER_SIZE, INDEX_TYPE):
        raise InvalidIndex(where, "not an index file")
    if len(view) < TABLE_START:
        raise InvalidIndex(where, f"truncated: only {len(view)} of at least {EMPTY_SIZE} bytes")
    _, _, flags, low, avg, high, table_size, table_type = _START.unpack_from(view)
    refused = feature.why_refused(flags)
    if refused is not None:
        raise InvalidIndex(where, refused)
    if not 1 <= low <= avg <= high <= CHUNK_SIZE_LIMIT:
        raise InvalidIndex(where, f"impossible chunk sizes {low}:{avg}:{high}")
    if (table_size, table_type) != (_UNKNOWN_SIZE, TABLE_TYPE):
        raise InvalidIndex(where, "index table not found")
    return flags, IndexSizes(low, avg, high)


def _check_tail(items: memoryview, count: int, max_size: int, where: str) -> None:
    """
    Check that the table, and the file, end properly after some good items.

    :param count: how many items are good: the next one is the tail, or bad.
    """
    begin = count * ITEM_SIZE
    end: int = _END.unpack_from(items, begin)[0]
    if end:
        start: int = _END.unpack_from(items, begin - ITEM_SIZE)[0] if count else 0
        if end <= start:
            raise InvalidIndex(where, f"chunk {count} ends at {end}, but starts at {start}")
        raise InvalidIndex(
            where, f"chunk {count} has {end - start} bytes, more than the maximum of {max_size}"
        )
    if items[begin : begin + ITEM_SIZE] != _tail(count):
        raise InvalidIndex(where, f"the table of {count} chunks has a bad tail")
    rest = len(items) - begin - ITEM_SIZE
    if rest:
        raise InvalidIndex(where, f"{rest} bytes too many at the end")


def _tail(count: int) -> bytes:
    """Give the tail of a table of so many items."""
    return _TAIL.pack(0, 0, HEADER_SIZE, 16 + count * ITEM_SIZE + ITEM_SIZE, TAIL_MARKER)


class IndexBuilder:
    """
    Collects the chunks of a stream, many at a time, and makes its index.

    Its errors are ``ValueError``: whoever cuts a stream must not get these things wrong.

    :param sizes: what the chunks are cut with: anything with ``min``, ``avg`` and ``max``, in
        bytes.
    :param digest: the algorithm of the ids.
    :param flags: the feature flag word; that of a blob which is no archive, if None
        (see :func:`desync.formats.flags.blob_flags`).
    """

    __slots__ = ("_flags", "_sizes", "_table")

    def __init__(self, sizes: HasSizes, digest: Digest, flags: int | None = None) -> None:
        if flags is None:
            flags = feature.blob_flags(digest)
        if flags & feature.SHA512_256 != digest.feature_flag:
            raise ValueError("the feature flags name another digest than the one in use")
        refused = feature.why_refused(flags)
        if refused is not None:
            raise ValueError(refused)
        self._flags = flags
        self._sizes = IndexSizes(sizes.min, sizes.avg, sizes.max)
        self._table = bytearray()

    def __len__(self) -> int:
        return len(self._table) // ITEM_SIZE

    @property
    def size(self) -> int:
        """Length in bytes of the stream so far: where the last chunk ends."""
        if not self._table:
            return 0
        end: int = _END.unpack_from(self._table, len(self._table) - ITEM_SIZE)[0]
        return end

    def append(self, length: int, chunk_id: bytes) -> None:
        """
        Add one chunk.

        :param length: its length in bytes.
        :param chunk_id: 32 bytes.
        """
        self.append_segment((length,), chunk_id, self.size)

    def append_segment(
        self, ends: Sequence[int], ids: bytes | bytearray | memoryview, base: int = 0
    ) -> None:
        """
        Add the chunks of a piece of the stream.

        :param ends: where each ends, in bytes from `base`: any sequence of integers, a
            ``memoryview`` of them included.
        :param ids: their ids, one after the other, 32 bytes each.
        :param base: where in the stream the ends are counted from.
        """
        count = len(ends)
        if len(ids) != count * ID_SIZE:
            raise ValueError(f"{len(ids)} bytes of ids for {count} chunks")
        if base:
            ends = [base + end for end in ends]
        items = bytearray(count * ITEM_SIZE)
        if count:
            # An item is five words: each of the five columns is copied at once. The words are only
            # moved, never read as numbers, so the byte order of the machine doesn't matter.
            words = memoryview(items).cast("Q")
            words[0::5] = memoryview(struct.pack(f"<{count}Q", *ends)).cast("Q")
            id_words = memoryview(ids).cast("Q")
            for column in range(4):
                words[1 + column :: 5] = id_words[column::4]
        self._table += items

    def append_items(self, items: bytes | bytearray | memoryview) -> None:
        """
        Add chunks that are packed as in an index file already, with ends counted from the beginning
        of the stream.

        :param items: 40 bytes each.
        """
        if len(items) % ITEM_SIZE:
            raise ValueError("items are 40 bytes each")
        self._table += items

    def finish(self, size: int | None = None) -> Index:
        """
        Make the index. Nothing can be added afterwards.

        :param size: length in bytes of the stream, where it is known: the chunks must cover exactly
            that.
        :raises ValueError: if no reader would take this index, or the chunks don't make up the
            stream.
        """
        if not 1 <= self._sizes.min <= self._sizes.avg <= self._sizes.max <= CHUNK_SIZE_LIMIT:
            raise ValueError("impossible chunk sizes {}:{}:{}".format(*self._sizes))
        bad = kernels.check_table(self._table, self._sizes.max)
        if bad >= 0:
            raise ValueError(f"chunk {bad} is empty, larger than the maximum or out of order")
        if size is not None and size != self.size:
            raise ValueError(f"the chunks cover {self.size} bytes, not the {size} of the stream")
        return Index(self._flags, self._sizes, self._table)
