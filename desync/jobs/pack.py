# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The job of cutting an archive into chunks while it is being made.

It is the job of :mod:`desync.jobs.cut`, cut token and all, but for where the bytes are. The parent
goes through the tree in a thread, and hands out what the archive consists of: records, and names of
files with the place of their content. The workers read the files themselves, so that no content
goes through the parent.
"""

from __future__ import annotations

import marshal
import os
import struct
import threading
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from desync import umask
from desync.chunking import kernels
from desync.chunking.digests import Digest
from desync.chunking.sizes import ChunkSizes
from desync.errors import InputChanged
from desync.jobs.cut import RESULT, SEGMENT, SegmentsInOrder, put_new
from desync.stores.local_files import LocalFiles
from desync.trees.content import FileContent, open_content, read_content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from desync.jobs.cut import CutSegment
    from desync.trees.content import Piece

_NOTE: Final = struct.Struct("<Q")

#: Bytes of the archive that the parent knows of ahead of what has been handed out. More would only
#: leave more time for files to change before they are read.
_AHEAD: Final = SEGMENT

#: The same in pieces: a tree of empty files is all records.
_PIECES_AHEAD: Final = 1 << 17

#: Records that follow each other are joined up to this many bytes.
_JOINED: Final = 1 << 16


class _Layout:
    """
    What an archive consists of, found by a thread ahead of need.

    :param pieces: the archive, in order.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = pieces
        self._known: deque[tuple[int, int, Any]] = deque()
        self._end = 0
        self._wanted = 0
        self._complete = False
        self._stopped = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look ahead; where no thread can be started, all is looked at now."""
        self._thread = threading.Thread(target=self._look, name="desync-walk", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            self._look()

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        try:
            joined: list[bytes] = []
            size = 0
            for piece in self._pieces:
                if isinstance(piece, FileContent):
                    if joined:
                        self._add(size, b"".join(joined))
                        joined, size = [], 0
                    if not self._add(piece.size, tuple(piece)):
                        return
                    continue
                joined.append(bytes(piece))
                size += len(piece)
                if size >= _JOINED:
                    if not self._add(size, b"".join(joined)):
                        return
                    joined, size = [], 0
            self._add(size, b"".join(joined))
        except BaseException as error:
            self._error = error
        finally:
            close = getattr(self._pieces, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._complete = True
                self._changed.notify_all()

    def _add(self, size: int, content: Any) -> bool:
        if not size:
            return True
        with self._changed:
            self._known.append((self._end, size, content))
            self._end += size
            if self._end < self._wanted:
                return not self._stopped
            self._changed.notify_all()
            while (
                self._thread is not None
                and not self._stopped
                and self._end >= self._wanted
                and (self._end - self._wanted >= _AHEAD or len(self._known) >= _PIECES_AHEAD)
            ):
                self._changed.wait()
            return not self._stopped

    def reaches(self, place: int) -> bool:
        """Tell whether the archive has so many bytes, waiting until it is known."""
        with self._changed:
            while self._end < place and not self._complete:
                self._changed.wait()
            return self._end >= place

    def take(self, start: int, end: int) -> tuple[int, bool, list[Any]]:
        """
        Give what is between two places, waiting for it.

        :param start: where; nobody asks for anything before that any more.
        :returns: where it ends, whether that is the end of the archive, and a list of records, and
            of tuples of an offset, a length and a file's content.
        :raises: what looking through the tree raised.
        """
        with self._changed:
            self._wanted = max(self._wanted, end)
            self._changed.notify_all()
            while self._end < end and not self._complete:
                self._changed.wait()
            if self._error is not None:
                raise self._error
            known = self._known
            while known and known[0][0] + known[0][1] <= start:
                known.popleft()
            taken: list[Any] = []
            for begin, size, content in known:
                if begin >= end:
                    break
                low, high = max(start - begin, 0), min(end - begin, size)
                if isinstance(content, bytes):
                    taken.append(content if high - low == size else content[low:high])
                else:
                    taken.append((low, high - low, content))
            return min(self._end, end), self._complete and end >= self._end, taken


class PackJob:
    """
    The parent's half: hands out the archive, passes the token and brings the results into order.

    :param pieces: the archive; gone through in a thread.
    :param take: gets the segments in the archive's order.
    :param store: where chunks go that aren't there yet; None to only find the chunks.
    """

    worker_half = "desync.jobs.pack:PackWorker"
    leases = 1

    def __init__(
        self,
        pieces: Iterable[Piece],
        sizes: ChunkSizes,
        digest: Digest,
        take: Callable[[CutSegment], None],
        store: LocalFiles | None,
    ) -> None:
        self._layout = _Layout(pieces)
        self._sizes = sizes
        self._digest = digest
        self._segments = SegmentsInOrder(take)
        self._store = store
        self._token: int | None = 0
        self._size: int | None = None

    def __enter__(self) -> PackJob:
        self._layout.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._layout.stop()

    @property
    def small(self) -> bool:
        return not self._layout.reaches(SEGMENT // 2)

    def settings(self) -> dict[str, Any]:
        return {
            "sizes": tuple(self._sizes),
            "digest": self._digest.name,
            "store": self._store.settings() if self._store is not None else None,
        }

    @property
    def exhausted(self) -> bool:
        return self._size is not None and self._token is not None and self._token >= self._size

    def next_unit(self) -> bytes | None:
        if self._token is None or self.exhausted:
            return None
        start = self._token
        stop = (start // SEGMENT + 1) * SEGMENT
        end, final, pieces = self._layout.take(start, stop + self._sizes.max)
        if final:
            self._size = end
        self._token = None
        return marshal.dumps((start, min(stop, end), end, final, pieces))

    def note(self, payload: bytes) -> None:
        (self._token,) = _NOTE.unpack(payload)

    def result(self, payload: bytes) -> None:
        self._segments.add(payload)

    def check_complete(self) -> int:
        """
        Make sure that the chunks cover the archive to its end.

        :returns: the archive's length in bytes.
        """
        if self._size is None:
            raise RuntimeError("the archive has no end")
        self._segments.check_complete(self._size)
        return self._size


class PackWorker:
    """The worker's half: one buffer, used for each segment in turn."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._sizes = ChunkSizes(*settings["sizes"])
        self._digest = Digest.named(settings["digest"])
        self._null = (self._sizes.max, self._digest.null_id(self._sizes.max))
        store = settings["store"]
        self._store = (
            LocalFiles.from_settings(store, set_modes=not umask.is_unchanged())
            if store is not None
            else None
        )
        self._buffer = memoryview(bytearray(SEGMENT + self._sizes.max))
        self._ends = array("I", bytes(4 * (SEGMENT // self._sizes.min + 2)))

    def run(self, unit: bytes, note: Callable[[bytes], None]) -> bytes:
        start, stop, end, final, pieces = marshal.loads(unit)
        data = self._buffer[: end - start]
        at = 0
        for piece in pieces:
            if isinstance(piece, bytes):
                data[at : at + len(piece)] = piece
                at += len(piece)
                continue
            offset, length, fields = piece
            content = FileContent(*fields)
            descriptor = open_content(content)
            try:
                read_content(content, descriptor, offset, data[at : at + length])
            finally:
                os.close(descriptor)
            at += length
        if at != end - start:
            raise InputChanged("archive", "it isn't as long as it should be")
        ends = self._ends
        count = kernels.find_cuts(data, 0, stop - start, end - start, final, self._sizes, ends)
        note(_NOTE.pack(start + ends[count - 1]))
        ids = self._digest.ids_of_ranges(data, 0, ends, count, self._null)
        stored = stored_bytes = 0
        if self._store is not None:
            stored, stored_bytes = put_new(self._store, data, ends, count, ids)
        return RESULT.pack(start, count, stored, stored_bytes) + ends[:count].tobytes() + ids

    def close(self) -> None:
        """There is nothing to close."""
