# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The job of cutting a file into chunks, hashing them and, if there is a local store, storing them.

A chunk begins where the one before it ends, so cutting is serial; it is also the fast part. Each
worker therefore reads one segment of the file, cuts it, and at once tells where the next chunk
begins: the *cut token*, which the parent gives to the next free worker. Then it hashes and stores
from the same buffer, in parallel with the others. Segment ``k`` holds the chunks that begin in
``[k*S, (k+1)*S)``; its last chunk may end in the next. No input can make this slower than cutting
serially.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from desync import umask
from desync.chunking import kernels
from desync.chunking.digests import Digest
from desync.chunking.sizes import ChunkSizes
from desync.jobs.source import SourceFile
from desync.stores.local_files import LocalFiles

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes. Large enough that passing the token costs nothing, small enough that a few of them are no
#: memory to speak of.
SEGMENT: Final = 8 << 20

_UNIT: Final = struct.Struct("<Q")
RESULT: Final = struct.Struct("<QIIQ")


class CutSegment(NamedTuple):
    """
    The chunks that begin in one segment.

    :ivar start: where the first begins, in bytes from the file's begin.
    :ivar ends: where each ends, in bytes from `start`: packed native uint32.
    :ivar ids: packed, 32 bytes each.
    :ivar stored: how many of them were new to the store.
    :ivar stored_bytes: the size of their stored form.
    """

    start: int
    ends: array[int]
    ids: bytes
    stored: int
    stored_bytes: int


class SegmentsInOrder:
    """
    Brings the results of workers into order.

    :param take: gets the segments in the order of the file.
    :param begin: where cutting begins, in bytes.
    """

    def __init__(self, take: Callable[[CutSegment], None], begin: int = 0) -> None:
        self._take = take
        self._done = begin
        self._waiting: dict[int, CutSegment] = {}

    def add(self, payload: bytes) -> None:
        """Take a result."""
        start, count, stored, stored_bytes = RESULT.unpack_from(payload)
        ends = array("I", payload[RESULT.size : RESULT.size + 4 * count])
        ids = payload[RESULT.size + 4 * count :]
        if not count or len(ids) != 32 * count:
            raise RuntimeError("a worker returned an incomplete segment")
        self._waiting[start] = CutSegment(start, ends, ids, stored, stored_bytes)
        while (segment := self._waiting.pop(self._done, None)) is not None:
            self._done = segment.start + segment.ends[-1]
            self._take(segment)

    def check_complete(self, size: int) -> None:
        """Make sure that the chunks cover so many bytes."""
        if self._done != size or self._waiting:
            raise RuntimeError(f"chunks end at {self._done} of {size} bytes")


class CutJob:
    """
    The parent's half: passes the token and brings the results into order.

    :param take: gets the segments in the order of the file.
    :param store: where chunks go that aren't there yet; None to only find the chunks.
    :param begin: where cutting begins, in bytes.
    :param segment: bytes of the file that a worker takes at a time.
    """

    worker_half = "desync.jobs.cut:CutWorker"
    leases = 1

    def __init__(
        self,
        source: SourceFile,
        sizes: ChunkSizes,
        digest: Digest,
        take: Callable[[CutSegment], None],
        *,
        store: LocalFiles | None = None,
        begin: int = 0,
        segment: int = SEGMENT,
    ) -> None:
        self._source = source
        self._sizes = sizes
        self._digest = digest
        self._store = store
        self._token: int | None = begin
        self._segments = SegmentsInOrder(take, begin)
        self._segment = segment
        self.small = source.size - begin <= SEGMENT // 2

    def settings(self) -> dict[str, Any]:
        return {
            "source": self._source.settings(),
            "sizes": tuple(self._sizes),
            "digest": self._digest.name,
            "segment": self._segment,
            "store": self._store.settings() if self._store is not None else None,
        }

    @property
    def exhausted(self) -> bool:
        return self._token is not None and self._token >= self._source.size

    def next_unit(self) -> bytes | None:
        if self._token is None or self.exhausted:
            return None
        unit, self._token = _UNIT.pack(self._token), None
        return unit

    def note(self, payload: bytes) -> None:
        (self._token,) = _UNIT.unpack(payload)

    def result(self, payload: bytes) -> None:
        self._segments.add(payload)

    def check_complete(self) -> None:
        """
        Make sure that the chunks cover the file to its end, and that it is still the same.

        :raises InputChanged: if the file changed meanwhile.
        """
        self._source.check_unchanged()
        self._segments.check_complete(self._source.size)


class CutWorker:
    """The worker's half: one buffer, used for each segment in turn."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._source = SourceFile.reopen(settings["source"])
        self._sizes = ChunkSizes(*settings["sizes"])
        self._digest = Digest.named(settings["digest"])
        self._null = (self._sizes.max, self._digest.null_id(self._sizes.max))
        store = settings["store"]
        self._store = (
            LocalFiles.from_settings(store, set_modes=not umask.is_unchanged())
            if store is not None
            else None
        )
        self._segment: int = settings["segment"]
        room = min(self._segment + self._sizes.max, self._source.size)
        self._buffer = memoryview(bytearray(room))
        # A chunk is at least `min` long but for the last; one that begins in the segment may end
        # after it.
        self._ends = array("I", bytes(4 * (self._segment // self._sizes.min + 2)))

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes:
        (start,) = _UNIT.unpack(unit)
        size = self._source.size
        stop = min((start // self._segment + 1) * self._segment, size)
        end = min(stop + self._sizes.max, size)
        data = self._buffer[: end - start]
        self._source.read_into(data, start)
        ends = self._ends
        count = kernels.find_cuts(
            data, 0, stop - start, end - start, end == size, self._sizes, ends
        )
        note(_UNIT.pack(start + ends[count - 1]))
        ids = self._digest.ids_of_ranges(data, 0, ends, count, self._null)
        stored = stored_bytes = 0
        if self._store is not None:
            stored, stored_bytes = put_new(self._store, data, ends, count, ids)
        return RESULT.pack(start, count, stored, stored_bytes) + ends[:count].tobytes() + ids

    def close(self) -> None:
        self._source.close()


def put_new(
    store: LocalFiles, data: memoryview, ends: array[int], count: int, ids: bytes
) -> tuple[int, int]:
    """
    Store those of some chunks that a store doesn't have, and renew the age of the others.

    :param data: the chunks, one after the other.
    :param ends: where each ends.
    :param ids: packed, 32 bytes each.
    :returns: how many were new, and the size of their stored form.
    """
    renew, put_plain = store.renew, store.put_plain
    stored = stored_bytes = begin = 0
    last = b""
    for position in range(count):
        end = ends[position]
        chunk_id = ids[32 * position : 32 * position + 32]
        if chunk_id != last and not renew(chunk_id):
            stored_bytes += put_plain(chunk_id, data[begin:end])
            stored += 1
        last = chunk_id
        begin = end
    return stored, stored_bytes
