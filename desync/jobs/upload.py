# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The job of getting chunks of a file ready for a store that isn't local, and of finding them first if
there is no index yet.

Workers cut and hash as in :mod:`desync.jobs.cut`. The parent asks the store which of the chunks it
lacks, and has workers read those once more, compare them with their ids, compress them, and send
them back. Neither runs far ahead of what the store takes.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from desync.chunking.digests import Digest
from desync.errors import InputChanged, not_the_chunk
from desync.formats.chunk import Chunk
from desync.formats.stored import form_named
from desync.workers.pool import WaitingJob

from .cut import SEGMENT, CutJob, CutWorker
from .source import SourceFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from desync.chunking.sizes import ChunkSizes
    from desync.formats.stored import StoredForm

    from .cut import CutSegment

#: Bytes of chunks that have been found and that no worker has been asked for yet: beyond it nothing
#: is cut.
AHEAD: Final = 4 * SEGMENT

#: Bytes of chunks that workers are at or that wait for the store; beyond it they get no more, but
#: for as many chunks as the store takes at a time.
ROOM: Final = 16 << 20

#: What a worker is asked for at a time, at most; a larger chunk alone.
_MANY: Final = 16
_MUCH: Final = 1 << 20

_CUT: Final = b"\0"
_ENCODE: Final = b"\1"
_COUNT: Final = struct.Struct("<I")


class Place(NamedTuple):
    """Where a chunk is in a file, in bytes."""

    start: int
    length: int
    chunk_id: bytes


def _size_of(places: Iterable[Place]) -> int:
    return sum(place.length for place in places)


class UploadJob(WaitingJob):
    """
    The parent's half.

    :param source: the file.
    :param digest: the algorithm of the ids.
    :param form: what the chunks are encoded in; None to leave them as they are.
    :param concurrency: how many chunks the store takes at a time.
    :param take: gets the chunks, some at a time, with their lengths; whoever does calls
        :meth:`settle` for each when the store has it.
    """

    worker_half = "desync.jobs.upload:UploadWorker"
    leases = 2
    small = False

    def __init__(
        self,
        source: SourceFile,
        digest: Digest,
        form: StoredForm | None,
        concurrency: int,
        take: Callable[[list[tuple[Chunk, int]]], None],
    ) -> None:
        super().__init__()
        self._source = source
        self._digest = digest
        self._form = form
        self._concurrency = concurrency
        self._take = take
        self._cut: CutJob | None = None
        self._found = 0  # bytes of chunks that no worker has been asked for
        self._places: deque[Place] = deque()
        self._held_count = self._held = 0
        self._is_complete = False

    def cut(self, sizes: ChunkSizes, take: Callable[[CutSegment], None]) -> None:
        """
        Have the file cut, too.

        :param take: gets the segments in the order of the file.
        """
        self._cut = CutJob(self._source, sizes, self._digest, take)

    @property
    def is_ahead(self) -> bool:
        """Whether so many chunks have been found that no more should be for now."""
        return self._found >= AHEAD

    def find(self, places: Sequence[Place]) -> None:
        """Learn of chunks that :meth:`encode` may be called for."""
        self._found += _size_of(places)

    def forget(self, places: Sequence[Place]) -> None:
        """Learn that it won't be called for some."""
        self._found -= _size_of(places)
        self.more()

    def encode(self, places: Iterable[Place]) -> None:
        """Have chunks encoded."""
        self._places.extend(places)
        self.more()

    def settle(self, length: int) -> None:
        """Learn that the store has a chunk."""
        self._held_count -= 1
        self._held -= length
        self.more()

    def complete(self) -> None:
        """Learn that no other chunk will have to be encoded."""
        self._is_complete = True
        self.more()

    # What the pool asks

    def settings(self) -> dict[str, Any]:
        form = self._form
        return {
            "source": self._source.settings(),
            "digest": self._digest.name,
            "form": None if form is None else (form.extension, getattr(form, "level", 0)),
            "cut": None if self._cut is None else self._cut.settings(),
        }

    @property
    def exhausted(self) -> bool:
        is_cut = self._cut is None or self._cut.exhausted
        return self._is_complete and not self._places and is_cut

    def next_unit(self) -> bytes | None:
        if self._cut is not None and not self.is_ahead:
            unit = self._cut.next_unit()
            if unit is not None:
                return _CUT + unit
        return self._next_places()

    def _next_places(self) -> bytes | None:
        if self._held >= ROOM and self._held_count >= self._concurrency:
            return None
        size = 0
        chosen: list[Place] = []
        while self._places and len(chosen) < _MANY:
            following = self._places[0].length
            if chosen and size + following > _MUCH:
                break
            size += following
            chosen.append(self._places.popleft())
        if not chosen:
            return None
        self._found -= size
        self._held += size
        self._held_count += len(chosen)
        count = len(chosen)
        return b"".join(
            (
                _ENCODE,
                _COUNT.pack(count),
                struct.pack(f"<{count}Q", *(place.start for place in chosen)),
                struct.pack(f"<{count}I", *(place.length for place in chosen)),
                *(place.chunk_id for place in chosen),
            )
        )

    def note(self, payload: bytes) -> None:
        assert self._cut is not None
        self._cut.note(payload)

    def result(self, payload: bytes) -> None:
        if payload[:1] == _CUT:
            assert self._cut is not None
            self._cut.result(payload[1:])
            return
        (count,) = _COUNT.unpack_from(payload, 1)
        words = struct.unpack_from(f"<{2 * count}I", payload, 5)
        begin = 5 + 8 * count
        ids = payload[begin : begin + 32 * count]
        begin += 32 * count
        chunks = []
        for position in range(count):
            end = begin + words[count + position]
            chunk_id = ids[32 * position : 32 * position + 32]
            body = payload[begin:end]
            chunk = (
                Chunk(chunk_id, body, verified=True)
                if self._form is None
                else Chunk(chunk_id, stored=body, form=self._form, verified=True)
            )
            chunks.append((chunk, words[position]))
            begin = end
        if begin != len(payload):
            raise RuntimeError("a worker returned incomplete chunks")
        self._take(chunks)

    def check_complete(self) -> None:
        """
        Make sure that the file is still the same and, if it was cut, that chunks cover it.

        :raises InputChanged: if it changed meanwhile.
        """
        self._source.check_unchanged()
        if self._cut is not None:
            self._cut.check_complete()
        if self._held_count or self._places:
            raise RuntimeError(f"{self._held_count + len(self._places)} chunks were not stored")


class UploadWorker:
    """The worker's half."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._cutter: CutWorker | None = None
        self._source = SourceFile.reopen(settings["source"])
        if settings["cut"] is not None:
            self._cutter = CutWorker(settings["cut"])
        self._digest = Digest.named(settings["digest"])
        form = settings["form"]
        self._form = None if form is None else form_named(*form)
        self._buffer = memoryview(bytearray())

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes:
        if unit[:1] == _CUT:
            assert self._cutter is not None
            return _CUT + self._cutter.run(unit[1:], note)
        (count,) = _COUNT.unpack_from(unit, 1)
        starts = struct.unpack_from(f"<{count}Q", unit, 5)
        lengths = struct.unpack_from(f"<{count}I", unit, 5 + 8 * count)
        ids = unit[5 + 12 * count :]
        ends = array("I", accumulate(lengths))
        if len(self._buffer) < ends[-1]:
            self._buffer = memoryview(bytearray(max(ends[-1], _MUCH)))
        pieces = []
        for start, length, end in zip(starts, lengths, ends, strict=True):
            pieces.append(self._buffer[end - length : end])
            self._source.read_into(pieces[-1], start)
        found = self._digest.ids_of_ranges(self._buffer, 0, ends, count)
        if found != ids:
            self._complain(starts, lengths, ids, found)
        form = self._form
        bodies = pieces if form is None else [form.encode(piece) for piece in pieces]
        sizes = struct.pack(f"<{2 * count}I", *lengths, *map(len, bodies))
        return b"".join((_ENCODE, _COUNT.pack(count), sizes, ids, *bodies))

    def _complain(
        self, starts: tuple[int, ...], lengths: tuple[int, ...], ids: bytes, found: bytes
    ) -> None:
        if self._cutter is not None:
            raise InputChanged(self._source.path, "it changed while it was being read")
        for position, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            here = slice(32 * position, 32 * position + 32)
            if found[here] != ids[here]:
                raise not_the_chunk(self._source.path, start, start + length, ids[here])

    def close(self) -> None:
        self._source.close()
        if self._cutter is not None:
            self._cutter.close()
