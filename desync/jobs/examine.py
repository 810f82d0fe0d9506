# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The job of finding out which chunks a file has in their places."""

from __future__ import annotations

import struct
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from desync.assembly.runs import RUN_BYTES, runs_of
from desync.chunking.digests import Digest
from desync.jobs.source import SourceFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.formats.index import Index

_UNIT: Final = struct.Struct("<IQI")
_RESULT: Final = struct.Struct("<I")


class ExamineJob:
    """
    The parent's half.

    :param source: the file; it may be larger or smaller than the index says.
    :param progress: told of chunks as they are done.
    :param wanted: by position in the index: 0 for chunks not to look for; None to look for all.
    :param give_up: end the work when so many bytes have had nothing in its place; None never to.
    :ivar kept: by position in the index: 1 if the file has that chunk there, 0 if not.
    :ivar given_up_at: the position behind which nothing is in its place as far as was looked; None
        if all was looked at.
    """

    worker_half = "desync.jobs.examine:ExamineWorker"
    leases = 2

    def __init__(
        self,
        source: SourceFile,
        index: Index,
        progress: Callable[[int], object],
        wanted: bytes | None = None,
        give_up: int | None = None,
    ) -> None:
        self._source = source
        self._index = index
        self._progress = progress
        self.kept = bytearray(len(index))
        self.given_up_at: int | None = None
        self._give_up = give_up
        self._last = 0
        # Behind the file's end nothing is in its place.
        stop = index.position_of(min(source.size, index.size))
        self._runs = runs_of(index, wanted, stop=stop)
        self._next = next(self._runs, None)
        self._leased = self._done = 0
        self.small = min(source.size, index.size) <= RUN_BYTES // 4

    def settings(self) -> dict[str, Any]:
        largest = self._index.sizes.max
        return {
            "source": self._source.settings(),
            "digest": self._index.digest.name,
            "largest": largest if self._index.size >= largest else 0,
        }

    @property
    def exhausted(self) -> bool:
        return self._next is None

    def next_unit(self) -> bytes | None:
        if self._next is None:
            return None
        begin, end = self._next
        if self._give_up is not None:
            hopeless = self._index.start(begin) - self._index.start(self._last)
            if hopeless > self._give_up:
                self.given_up_at = self._last
                self._next = None
                return None
        self._leased += end - begin
        chunks = list(self._index.chunks(begin, end))
        self._next = next(self._runs, None)
        lengths = struct.pack(f"<{len(chunks)}I", *(length for _, length, _ in chunks))
        ids = b"".join(chunk_id for _, _, chunk_id in chunks)
        return _UNIT.pack(begin, chunks[0][0], len(chunks)) + lengths + ids

    def note(self, payload: bytes) -> None:
        raise RuntimeError("an examination has nothing to note")

    def result(self, payload: bytes) -> None:
        (begin,) = _RESULT.unpack_from(payload)
        answers = payload[_RESULT.size :]
        self.kept[begin : begin + len(answers)] = answers
        self._done += len(answers)
        self._last = max(self._last, begin + answers.rfind(1) + 1 if any(answers) else 0)
        self._progress(len(answers))

    def check_complete(self) -> None:
        """Make sure that every chunk was looked at that was to be."""
        if self._done != self._leased or len(self.kept) != len(self._index):
            raise RuntimeError(f"{self._done} of {self._leased} chunks were examined")


class ExamineWorker:
    """The worker's half."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._source = SourceFile.reopen(settings["source"])
        self._digest = Digest.named(settings["digest"])
        largest = settings["largest"]
        self._null = (largest, self._digest.null_id(largest)) if largest else None
        self._buffer = memoryview(bytearray())

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes:
        begin, start, count = _UNIT.unpack_from(unit)
        lengths = struct.unpack_from(f"<{count}I", unit, _UNIT.size)
        ids = unit[_UNIT.size + 4 * count :]
        ends = array("I", accumulate(lengths))
        if len(self._buffer) < ends[-1]:
            self._buffer = memoryview(bytearray(max(ends[-1], RUN_BYTES)))
        data = self._buffer[: ends[-1]]
        self._source.read_into(data, start)
        found = self._digest.ids_of_ranges(data, 0, ends, count, self._null)
        if found == ids:
            answers = bytes([1]) * count
        else:
            answers = bytes(
                found[at : at + 32] == ids[at : at + 32] for at in range(0, 32 * count, 32)
            )
        result: bytes = _RESULT.pack(begin) + answers
        return result

    def close(self) -> None:
        self._source.close()
