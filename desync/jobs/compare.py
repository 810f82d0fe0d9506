# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The job of checking a file against its index and, if there is a local store, storing the chunks that
it has.
"""

from __future__ import annotations

import struct
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from desync import umask
from desync.assembly.runs import RUN_BYTES
from desync.chunking.digests import Digest
from desync.errors import not_the_chunk
from desync.jobs.source import SourceFile
from desync.stores.local_files import LocalFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from desync.formats.index import Index

_UNIT: Final = struct.Struct("<QI")
_RESULT: Final = struct.Struct("<IIQ")


class CompareJob:
    """
    The parent's half.

    :param source: the file, as long as the index says.
    :param runs: which chunks: positions in the index, from the first to the one after the last.
    :param store: where the chunks go that aren't there yet; None to only compare.
    :param progress: told of chunks as they are done.
    :ivar stored: how many chunks were new to the store.
    :ivar stored_bytes: the size of their stored form.
    """

    worker_half = "desync.jobs.compare:CompareWorker"
    leases = 2

    def __init__(
        self,
        source: SourceFile,
        index: Index,
        runs: Iterable[tuple[int, int]],
        progress: Callable[[int], object],
        store: LocalFiles | None = None,
    ) -> None:
        self._source = source
        self._index = index
        self._store = store
        self._progress = progress
        self._runs = iter(runs)
        self._next = next(self._runs, None)
        self._leased = self._done = 0
        self.stored = 0
        self.stored_bytes = 0
        self.small = index.size <= RUN_BYTES // 4

    def settings(self) -> dict[str, Any]:
        return {
            "source": self._source.settings(),
            "digest": self._index.digest.name,
            "largest": self._index.sizes.max,
            "store": self._store.settings() if self._store is not None else None,
        }

    @property
    def exhausted(self) -> bool:
        return self._next is None

    def next_unit(self) -> bytes | None:
        if self._next is None:
            return None
        chunks = list(self._index.chunks(*self._next))
        self._next = next(self._runs, None)
        self._leased += len(chunks)
        lengths = struct.pack(f"<{len(chunks)}I", *(length for _, length, _ in chunks))
        return _UNIT.pack(chunks[0][0], len(chunks)) + lengths + b"".join(i for _, _, i in chunks)

    def note(self, payload: bytes) -> None:
        raise RuntimeError("a comparison has nothing to note")

    def result(self, payload: bytes) -> None:
        compared, stored, stored_bytes = _RESULT.unpack(payload)
        self._done += compared
        self.stored += stored
        self.stored_bytes += stored_bytes
        self._progress(compared)

    def check_complete(self) -> None:
        """
        Make sure that every chunk was compared, and that the file is still the same.

        :raises InputChanged: if the file changed meanwhile.
        """
        self._source.check_unchanged()
        if self._done != self._leased:
            raise RuntimeError(f"{self._done} of {self._leased} chunks were compared")


class CompareWorker:
    """The worker's half."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._source = SourceFile.reopen(settings["source"])
        self._digest = Digest.named(settings["digest"])
        store = settings["store"]
        self._store = (
            LocalFiles.from_settings(store, set_modes=not umask.is_unchanged())
            if store is not None
            else None
        )
        # The largest size that the index allows is no reason to compute the null chunk's id beyond
        # what chunks usually have.
        largest = settings["largest"]
        self._null = (largest, self._digest.null_id(largest)) if largest <= RUN_BYTES else None
        self._buffer = memoryview(bytearray())

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes:
        start, count = _UNIT.unpack_from(unit)
        lengths = struct.unpack_from(f"<{count}I", unit, _UNIT.size)
        ids = unit[_UNIT.size + 4 * count :]
        ends = array("I", accumulate(lengths))
        size = ends[-1]
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(max(size, RUN_BYTES)))
        data = self._buffer[:size]
        self._source.read_into(data, start)
        found = self._digest.ids_of_ranges(data, 0, ends, count, self._null)
        if found != ids:
            self._complain(start, ends, ids, found)
        stored = stored_bytes = 0
        if self._store is not None:
            begin = 0
            for position, end in enumerate(ends):
                chunk_id = ids[32 * position : 32 * position + 32]
                if not self._store.renew(chunk_id):
                    stored_bytes += self._store.put_plain(chunk_id, data[begin:end])
                    stored += 1
                begin = end
        return _RESULT.pack(count, stored, stored_bytes)

    def _complain(self, start: int, ends: array[int], ids: bytes, found: bytes) -> None:
        begin = 0
        for position, end in enumerate(ends):
            here = slice(32 * position, 32 * position + 32)
            if found[here] != ids[here]:
                raise not_the_chunk(self._source.path, start + begin, start + end, ids[here])
            begin = end

    def close(self) -> None:
        self._source.close()
