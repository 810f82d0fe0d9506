# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The job of moving chunks within the file that is changed in place.

A chunk has to be read before something else is written over it. So units are read one after the
other, in an order in which those that move towards the end of the file come first, the last one
first, and then those that move towards its beginning, the first one first. While a worker verifies
and writes what it has read, the next one reads. As long as chunks don't change places with each
other, none is lost; one that is, isn't what it should be when it is read, and has to be fetched.
"""

from __future__ import annotations

import os
import struct
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from desync.assembly.runs import RUN_BYTES, runs_of
from desync.assembly.writing import write_all
from desync.chunking.digests import Digest
from desync.errors import FileError, describe_os_error
from desync.jobs.source import SourceFile
from desync.replace import share_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from desync.assembly.matching import SeedRun
    from desync.formats.index import Index

_UNIT: Final = struct.Struct("<IQQI")
_RESULT: Final = struct.Struct("<IQ")


class MoveJob:
    """
    The parent's half.

    :param index: what the file is to be.
    :param there: the index of what it is.
    :param runs: which chunks of the one are where in the other.
    :param file: the file.
    :param progress: told of chunks as they are done.
    :ivar kept: by position in the index: 1 for chunks that are in their places now.
    :ivar moved: how many those are.
    :ivar moved_bytes: how many bytes.
    """

    worker_half = "desync.jobs.move:MoveWorker"
    leases = 1

    def __init__(
        self,
        index: Index,
        there: Index,
        runs: Iterable[SeedRun],
        file: SourceFile,
        progress: Callable[[int], object],
    ) -> None:
        self._index = index
        self._file = file
        self._progress = progress
        self.kept = bytearray(len(index))
        self.moved = self.moved_bytes = 0
        forward: list[tuple[SeedRun, int]] = []
        backward: list[tuple[SeedRun, int]] = []
        self._size = 0
        for run in runs:
            source, target = there.start(run.seed_position), index.start(run.position)
            self._size += index.end(run.position + run.chunks - 1) - target
            (forward if target > source else backward).append((run, source - target))
        self._units = self._all_units(forward, backward)
        self._next = next(self._units, None)
        self._may_read = True
        self._awaited = 0
        self.small = self._size <= RUN_BYTES // 4

    def _all_units(
        self, forward: list[tuple[SeedRun, int]], backward: list[tuple[SeedRun, int]]
    ) -> Iterator[bytes]:
        for run, distance in reversed(forward):
            pieces = list(self._pieces(run))
            for begin, end in reversed(pieces):
                yield self._pack(begin, end, distance)
        for run, distance in backward:
            for begin, end in self._pieces(run):
                yield self._pack(begin, end, distance)

    def _pieces(self, run: SeedRun) -> Iterator[tuple[int, int]]:
        return runs_of(self._index, first=run.position, stop=run.position + run.chunks)

    def _pack(self, begin: int, end: int, distance: int) -> bytes:
        chunks = list(self._index.chunks(begin, end))
        start = chunks[0][0]
        lengths = struct.pack(f"<{len(chunks)}I", *(length for _, length, _ in chunks))
        ids = b"".join(chunk_id for _, _, chunk_id in chunks)
        return _UNIT.pack(begin, start + distance, start, len(chunks)) + lengths + ids

    def settings(self) -> dict[str, Any]:
        return {"file": self._file.settings(), "digest": self._index.digest.name}

    @property
    def exhausted(self) -> bool:
        return self._next is None

    def next_unit(self) -> bytes | None:
        if not self._may_read or self._next is None:
            return None
        self._may_read = False
        self._awaited += 1
        unit, self._next = self._next, next(self._units, None)
        return unit

    def note(self, payload: bytes) -> None:
        self._may_read = True

    def result(self, payload: bytes) -> None:
        begin, size = _RESULT.unpack_from(payload)
        answers = payload[_RESULT.size :]
        self._awaited -= 1
        self.kept[begin : begin + len(answers)] = answers
        self.moved += answers.count(1)
        self.moved_bytes += size
        self._progress(answers.count(1))

    def check_complete(self) -> None:
        """Make sure that all was tried."""
        if self._awaited or not self.exhausted:
            raise RuntimeError(f"{self._awaited} units of a move got no result")


class MoveWorker:
    """The worker's half."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._source = SourceFile.reopen(settings["file"])
        self._digest = Digest.named(settings["digest"])
        path = settings["file"]["path"]
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            self._source.close()
            raise self._error(error) from None
        share_lock(self._descriptor)
        self._buffer = memoryview(bytearray())

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes:
        first, source, target, count = _UNIT.unpack_from(unit)
        lengths = struct.unpack_from(f"<{count}I", unit, _UNIT.size)
        ids = unit[_UNIT.size + 4 * count :]
        ends = array("I", accumulate(lengths))
        if len(self._buffer) < ends[-1]:
            self._buffer = memoryview(bytearray(max(ends[-1], RUN_BYTES)))
        data = self._buffer[: ends[-1]]
        self._source.read_available(data, source)
        note(b"")
        found = self._digest.ids_of_ranges(data, 0, ends, count)
        answers = bytearray(count)
        moved = 0
        for position, length in enumerate(lengths):
            here = slice(32 * position, 32 * position + 32)
            answers[position] = found[here] == ids[here]
            moved += length * answers[position]
        self._write(data, ends, answers, target)
        result: bytes = _RESULT.pack(first, moved) + answers
        return result

    def _write(self, data: memoryview, ends: array[int], answers: bytearray, target: int) -> None:
        """Write what is right, stretch by stretch."""
        begin = answers.find(1)
        while begin >= 0:
            end = answers.find(0, begin)
            if end < 0:
                end = len(answers)
            low, high = (ends[begin - 1] if begin else 0), ends[end - 1]
            try:
                write_all(self._descriptor, [data[low:high]], target + low)
            except OSError as error:
                raise self._error(error) from None
            begin = answers.find(1, end)

    def _error(self, error: OSError) -> FileError:
        return FileError(self._source.path, error.strerror or describe_os_error(error))

    def close(self) -> None:
        os.close(self._descriptor)
        self._source.close()
