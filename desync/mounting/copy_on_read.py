# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A file in which the chunks of a blob are kept that were read once, each in its place.

Which ones it has is a bitmap, one bit a chunk: chunk i is bit i % 8, the lowest first, of byte
i // 8. The state file is this bitmap and nothing else, as Go desync writes it. So it can't tell
what index it belongs to; chunks that were kept by an earlier run are therefore checked when they
are first read, and fetched again if they aren't what they should be.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from typing import TYPE_CHECKING

from desync.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from desync.formats.index import Index


class CopyOnRead:
    """
    The file, open. Used by any thread.

    :param path: made if it isn't there.
    :param index: of the blob.
    :param say: told in a line if chunks can't be kept any more; called in any thread.
    :param state: the bitmap that an earlier run saved, if the file is what that left.
    :raises FileError: if the file can't be used, or somebody else does.
    """

    def __init__(
        self,
        path: str,
        index: Index,
        say: Callable[[str], object],
        state: bytes | None = None,
    ) -> None:
        self.path = path
        self._index = index
        self._say = say
        self._said = False
        self._lock = threading.Lock()
        self._kept = bytearray(state_size(index))
        # Those of an earlier run that nobody has looked at in this one.
        self._unchecked = bytearray(len(self._kept))
        self._descriptor = self._open()
        try:
            if state is not None and os.fstat(self._descriptor).st_size == index.size:
                self._kept[:] = state
                self._unchecked[:] = state
            else:
                # What is in the file is of no use, and would show where there are zeros.
                os.ftruncate(self._descriptor, 0)
                os.ftruncate(self._descriptor, index.size)
        except OSError as error:
            os.close(self._descriptor)
            raise FileError(path, error.strerror or str(error)) from None

    def _open(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o755)
        except OSError as error:
            raise FileError(self.path, error.strerror or str(error)) from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileError(self.path, "not a regular file")
            _lock(descriptor, self.path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def has(self, position: int) -> bool:
        """Tell whether a chunk is in the file."""
        return bool(self._kept[position >> 3] & 1 << (position & 7))

    def read_into(self, position: int, view: memoryview, skip: int) -> bool:
        """
        Read a part of a chunk that is in the file.

        :param skip: where in the chunk the part begins.
        :returns: whether it could be read; if not, the chunk isn't in the file any more.
        """
        if self._unchecked[position >> 3] & 1 << (position & 7):
            self._check(position)
        if not self.has(position):
            return False
        start = self._index.start(position) + skip
        try:
            done = 0
            while done < len(view):
                count = os.preadv(self._descriptor, [view[done:]], start + done)
                if not count:
                    break
                done += count
        except OSError as error:
            self._complain("read", error)
            done = -1
        if done != len(view):
            self._set(self._kept, position, False)
            return False
        return True

    def _check(self, position: int) -> None:
        """Look whether a chunk of an earlier run is what it should be."""
        start, length = self._index.start(position), self._index.length(position)
        try:
            plain = os.pread(self._descriptor, length, start)
        except OSError as error:
            self._complain("read", error)
            plain = b""
        good = len(plain) == length and self._index.digest.id_of(plain) == self._index.id(position)
        # In this order: whoever finds that it was checked may rely on what came of it.
        if not good:
            self._set(self._kept, position, False)
        self._set(self._unchecked, position, False)

    def keep(self, position: int, plain: bytes | memoryview) -> None:
        """
        Write a chunk into the file, if it isn't there. If that fails it isn't there afterwards
        either, and can be kept the next time.
        """
        if self.has(position):
            return
        start = self._index.start(position)
        try:
            done = 0
            while done < len(plain):
                done += os.pwrite(self._descriptor, memoryview(plain)[done:], start + done)
        except OSError as error:
            self._complain("written to", error)
            return
        self._set(self._kept, position, True)

    def _set(self, bitmap: bytearray, position: int, value: bool) -> None:
        bit = 1 << (position & 7)
        with self._lock:
            if value:
                bitmap[position >> 3] |= bit
            else:
                bitmap[position >> 3] &= ~bit

    def _complain(self, what: str, error: OSError) -> None:
        if not self._said:
            self._said = True
            self._say(f"Error: {self.path}: it can't be {what}: {error.strerror or error}")

    def save(self, path: str) -> None:
        """
        Write the state, after everything it names is on the disk.

        :param path: the file is replaced as a whole.
        :raises FileError: if that can't be done; what was there before stays.
        """
        from desync.replace import replacing

        with self._lock:
            state = bytes(self._kept)
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise FileError(self.path, error.strerror or str(error)) from None
        with replacing(path) as out:
            out.write(state)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


def state_size(index: Index) -> int:
    """Say how many bytes the state of an index has."""
    return -(-len(index) // 8)


def read_state(path: str, index: Index) -> bytes:
    """
    Read a state file.

    :raises FileError: if it can't be read, or isn't one for an index with so many chunks.
    """
    size = state_size(index)
    try:
        with open(path, "rb") as file:
            state = file.read(size + 1)
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    if len(state) != size:
        raise FileError(path, "sparse state file does not match the index")
    return state


def positions_in(state: bytes, index: Index) -> Iterator[int]:
    """Give the positions of the chunks that a state names."""
    for position in range(len(index)):
        if state[position >> 3] & 1 << (position & 7):
            yield position


def _lock(descriptor: int, path: str) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise FileError(path, "it is in use by another mount") from None
