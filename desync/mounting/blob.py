# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The stream that an index describes, as a file that any thread can read anywhere.

Decoded chunks are kept in a cache of so many bytes, those that were used last. Reads that follow
each other are a *stream*: what comes next is fetched ahead of it, the more the longer it goes on.
Reads here and there fetch what they need and no more. A chunk that several want is fetched once,
and one that couldn't be had is asked for again by the next who wants it.
"""

from __future__ import annotations

import contextlib
import errno
import sys
import threading
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from desync.errors import DesyncError, Interrupted, describe_os_error

from .supply import Wanted, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from desync.formats.index import Index

    from .copy_on_read import CopyOnRead
    from .supply import Supply

#: How many bytes of decoded chunks are kept, where nothing else is said.
CACHE_SIZE: Final = 48 << 20

#: How far ahead of a stream chunks are fetched: at first, and at the most.
_FIRST_WINDOW: Final = 512 << 10
_LARGEST_WINDOW: Final = 8 << 20

#: How many streams are followed.
_STREAMS: Final = 8

#: The kernel asks for the parts of what it reads ahead at once: they come in any order, this far
#: apart at the most.
_DISORDER: Final = 1 << 20

#: Zeros to be served, in pieces.
_ZEROS: Final = bytes(1 << 17)

#: Seconds for which the same line isn't written again: the kernel repeats a read that failed.
_SAID_LATELY: Final = 5.0


class _Place(Enum):
    """Where the bytes of a chunk are that are neither in memory nor in a store."""

    ZEROS = "nowhere: it is a null chunk"
    KEPT = "in the file of those that were read before"


class _Held(NamedTuple):
    """A chunk in memory, and the number of its group."""

    plain: bytes | memoryview
    group: int


class _Group(NamedTuple):
    """Chunks that came together: they may share memory, so that they are let go of together."""

    ids: list[bytes]
    size: int


class _Stream:
    """
    Reads that follow each other.

    :ivar at: where the furthest read ended.
    :ivar ahead: the position of the first chunk that wasn't fetched for it.
    :ivar window: how far ahead of it chunks are fetched, in bytes.
    """

    __slots__ = ("ahead", "at", "window")

    def __init__(self, at: int) -> None:
        self.at = at
        self.ahead = -1
        self.window = 0


class Blob:
    """
    A stream, to be read by any thread.

    :param index: what it is made of.
    :param supply: where its chunks come from.
    :param say: told in a line what couldn't be read, and why; called in any thread.
    :param cache_size: how many bytes of decoded chunks are kept.
    :param kept: the file where chunks that were read are kept, if there is one.
    :ivar size: how many bytes it has.
    """

    def __init__(
        self,
        index: Index,
        supply: Supply,
        say: Callable[[str], object],
        *,
        cache_size: int = CACHE_SIZE,
        kept: CopyOnRead | None = None,
    ) -> None:
        self._index = index
        self._supply = supply
        self._say = say
        self.size = index.size
        self._ends = ends_of(index)
        self._null_length = index.sizes.max
        self._null: bytes | None = None
        self._kept = kept
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._held: dict[bytes, _Held] = {}
        self._groups: OrderedDict[int, _Group] = OrderedDict()
        self._held_size = 0
        self._numbers = 0
        self._wanted: dict[bytes, Wanted] = {}
        self._streams: list[_Stream] = []
        self._said: dict[str, float] = {}
        self._stopped = False

    @property
    def held_size(self) -> int:
        """How many bytes of decoded chunks are in memory."""
        return self._held_size

    def read(self, offset: int, size: int) -> bytes:
        """
        Read a part, shorter than wanted only at the end.

        :raises OSError: EIO if a chunk can't be had; why has been said then.
        """
        buffer = bytearray(max(0, min(size, self.size - offset)))
        self.read_into(memoryview(buffer), offset)
        return bytes(buffer)

    def read_into(self, view: memoryview, offset: int) -> int:
        """
        Read a part to somewhere.

        :returns: how many bytes there were; fewer than wanted only at the end.
        :raises OSError: as :meth:`read`.
        """
        size = min(len(view), self.size - offset)
        if size <= 0:
            return 0
        try:
            self._read(view, offset, size)
        except Exception as error:
            self._complain(offset, error)
            raise OSError(errno.EIO, str(error)) from None
        return size

    def _read(self, view: memoryview, offset: int, size: int) -> None:
        first = self._position_of(offset)
        stop = first + 1
        if self._ends[first] < offset + size:
            stop = self._position_of(offset + size - 1) + 1
        chunks = list(self._index.chunks(first, stop))
        found, fresh = self._find(first, chunks)
        with _answering(fresh):
            self._fetch_ahead(offset, offset + size, stop)
            self._fetch(fresh)
        end = offset + size
        for number, (start, length, chunk_id) in enumerate(chunks):
            begin = max(start, offset)
            part = view[begin - offset : min(start + length, end) - offset]
            skip = begin - start
            chunk = found[number]
            if chunk is _Place.ZEROS:
                _fill_with_zeros(part)
                continue
            if chunk is _Place.KEPT:
                assert self._kept is not None
                if self._kept.read_into(first + number, part, skip):
                    continue
                # It isn't what it was any more.
                chunk = self._get(chunk_id, length)
            if isinstance(chunk, Wanted):
                chunk = self._wait_for(chunk, chunk_id, length, is_own=chunk in fresh)
            assert not isinstance(chunk, _Place)
            if self._kept is not None:
                self._kept.keep(first + number, chunk)
            part[:] = memoryview(chunk)[skip : skip + len(part)]

    def _wait_for(
        self, chunk: Wanted, chunk_id: bytes, length: int, *, is_own: bool
    ) -> bytes | memoryview:
        try:
            return chunk.wait()
        except DesyncError:
            if is_own:
                raise
            # It was fetched ahead of need: now it is needed.
            return self._get(chunk_id, length)

    def _fetch_ahead(self, begin: int, end: int, stop: int) -> None:
        ahead = self._follow(begin, end, stop)
        size = self._supply.batch
        with _answering(ahead):
            for first in range(0, len(ahead), size):
                self._supply.fetch_ahead(ahead[first : first + size])

    def _position_of(self, offset: int) -> int:
        return bisect_right(self._ends, offset)

    def load(self, position: int) -> None:
        """
        Read a chunk so that it is kept.

        :param position: which, from 0.
        :raises DesyncError: if it can't be had.
        """
        assert self._kept is not None
        length, chunk_id = self._index.length(position), self._index.id(position)
        if not self._is_null(chunk_id, length) and not self._kept.has(position):
            self._kept.keep(position, self._get(chunk_id, length))

    def _get(self, chunk_id: bytes, length: int) -> bytes | memoryview:
        fresh: list[Wanted] = []
        with self._lock:
            found = self._hold_or_want(chunk_id, length, fresh)
        with _answering(fresh):
            self._fetch(fresh)
        return found.wait() if isinstance(found, Wanted) else found

    def _find(
        self, first: int, chunks: list[tuple[int, int, bytes]]
    ) -> tuple[list[bytes | memoryview | Wanted | _Place], list[Wanted]]:
        """
        Find what there is of some chunks, and want the others.

        :returns: for each its bytes, or what to wait for; and those that nobody has asked for yet.
        """
        found: list[bytes | memoryview | Wanted | _Place] = []
        fresh: list[Wanted] = []
        kept = self._kept
        with self._lock:
            for number, (_, length, chunk_id) in enumerate(chunks):
                if length == self._null_length and self._is_null(chunk_id, length):
                    found.append(_Place.ZEROS)
                elif kept is not None and kept.has(first + number):
                    found.append(_Place.KEPT)
                else:
                    found.append(self._hold_or_want(chunk_id, length, fresh))
        return found, fresh

    def _hold_or_want(
        self, chunk_id: bytes, length: int, fresh: list[Wanted]
    ) -> bytes | memoryview | Wanted:
        held = self._held.get(chunk_id)
        if held is not None and len(held.plain) == length:
            self._groups.move_to_end(held.group)
            return held.plain
        wanted = self._wanted.get(chunk_id)
        if wanted is None or wanted.length != length:
            wanted = self._want(chunk_id, length)
            fresh.append(wanted)
        return wanted

    def _want(self, chunk_id: bytes, length: int) -> Wanted:
        wanted = Wanted(chunk_id, length, self._settled)
        self._wanted[chunk_id] = wanted
        return wanted

    def _is_null(self, chunk_id: bytes, length: int) -> bool:
        if length != self._null_length:
            return False
        if self._null is None:
            # Late, because it costs hashing as many zeros as a chunk can have.
            self._null = self._index.digest.null_id(length)
        return chunk_id == self._null

    def _fetch(self, fresh: list[Wanted]) -> None:
        if self._stopped:
            for each in fresh:
                each.fail(Interrupted())
            settle(fresh)
        elif fresh:
            self._supply.fetch(fresh)

    def _settled(self, wanted: Sequence[Wanted]) -> None:
        with self._lock:
            self._numbers += 1
            number = self._numbers
            ids = []
            size = 0
            for each in wanted:
                if self._wanted.get(each.chunk_id) is each:
                    del self._wanted[each.chunk_id]
                if each.plain is not None:
                    # Also if another group has it: that one forgets it when it goes.
                    self._held[each.chunk_id] = _Held(each.plain, number)
                    ids.append(each.chunk_id)
                    size += each.length
            if not ids:
                return
            self._groups[number] = _Group(ids, size)
            self._held_size += size
            while self._held_size > self._cache_size and len(self._groups) > 1:
                oldest, group = self._groups.popitem(last=False)
                self._held_size -= group.size
                for chunk_id in group.ids:
                    held = self._held.get(chunk_id)
                    if held is not None and held.group == oldest:
                        del self._held[chunk_id]

    def _follow(self, begin: int, end: int, stop: int) -> list[Wanted]:
        """
        Note a read, and say what is to be fetched ahead of the stream that it belongs to.

        :param stop: the position after its last chunk.
        """
        with self._lock:
            stream = self._stream_of(begin, end)
            if stream is None or self._stopped:
                return []
            return self._ahead(stream, stop)

    def _stream_of(self, begin: int, end: int) -> _Stream | None:
        for stream in self._streams:
            if begin <= stream.at + _DISORDER and end >= stream.at - _DISORDER:
                break
        else:
            self._streams.insert(0, _Stream(end))
            del self._streams[_STREAMS:]
            return None
        if stream is not self._streams[0]:
            self._streams.remove(stream)
            self._streams.insert(0, stream)
        if end <= stream.at:
            # Again what was read before, or an earlier part that comes later.
            return None
        if begin > stream.at and not stream.window:
            # Near each other, but not one after the other.
            stream.at = end
            return None
        stream.at = end
        largest = min(_LARGEST_WINDOW, self._cache_size // 4)
        stream.window = min(largest, 2 * stream.window or _FIRST_WINDOW)
        return stream

    def _ahead(self, stream: _Stream, stop: int) -> list[Wanted]:
        index = self._index
        upto = min(stream.at + stream.window, self.size)
        begin = max(stream.ahead, stop)
        if begin >= len(index):
            return []
        reached = index.start(begin)
        # Not one by one, but as soon as half of the window is used up.
        if upto - reached < min(stream.window // 2, self.size - reached):
            return []
        last = self._position_of(upto - 1) + 1
        stream.ahead = max(last, begin)
        lacking = {}
        for number, (_, length, chunk_id) in enumerate(index.chunks(begin, last), begin):
            if (
                chunk_id not in self._held
                and chunk_id not in self._wanted
                and not (length == self._null_length and self._is_null(chunk_id, length))
                and not (self._kept is not None and self._kept.has(number))
            ):
                lacking[chunk_id] = length
        return [self._want(chunk_id, length) for chunk_id, length in lacking.items()]

    def _complain(self, offset: int, error: BaseException) -> None:
        if self._stopped:
            return
        text = describe_os_error(error) if isinstance(error, OSError) else str(error)
        text = text or type(error).__name__
        now = time.monotonic()
        with self._lock:
            self._said = {
                line: when for line, when in self._said.items() if now - when < _SAID_LATELY
            }
            if text in self._said:
                return
            self._said[text] = now
        self._say(f"Error: reading at {offset}: {text}")

    def stop(self) -> None:
        """Answer those who wait for a chunk, and all who come, with an error."""
        with self._lock:
            self._stopped = True
            waiting = list(self._wanted.values())
        self._supply.stop()
        for wanted in waiting:
            wanted.fail(Interrupted())
        settle(waiting)


@contextlib.contextmanager
def _answering(wanted: Sequence[Wanted]) -> Iterator[None]:
    """See to it that nobody waits for ever for what couldn't even be asked for."""
    try:
        yield
    except BaseException as error:
        for each in wanted:
            each.fail(error)
        settle([each for each in wanted if not each.is_settled])
        raise


def ends_of(index: Index) -> Sequence[int]:
    """Give where each chunk ends, as something that bisect searches without calling Python."""
    if sys.byteorder == "little":
        return index.table.cast("Q")[::5]
    return array("Q", [start + length for start, length, _ in index.chunks()])


def _fill_with_zeros(part: memoryview) -> None:
    for begin in range(0, len(part), len(_ZEROS)):
        piece = part[begin : begin + len(_ZEROS)]
        piece[:] = _ZEROS[: len(piece)] if len(piece) < len(_ZEROS) else _ZEROS
