# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The content of files that go into an archive: read later, and perhaps by another process, than the
tree was looked at, so it has to be made sure that it is still the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from desync.errors import FileError, InputChanged

LONGEST_PATH: Final = 4000
"""In bytes. Longer paths are refused by the system; their end is reached from a directory."""

DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | os.O_NOFOLLOW | os.O_CLOEXEC
FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class FileContent(NamedTuple):
    """
    The content of a regular file, which belongs at a place of an archive.

    :ivar path: where it is.
    :ivar size: length in bytes: at least 1.
    :ivar mtime: nanoseconds. With the next two what it has to have still when it is read.
    """

    path: bytes
    size: int
    mtime: int
    device: int
    inode: int


Piece: TypeAlias = bytes | memoryview | FileContent
"""What an archive consists of, one after the other."""


def shown(path: bytes) -> str:
    """Give a path as errors show it."""
    return os.fsdecode(path)


def open_content(content: FileContent) -> int:
    """
    Open a file.

    :returns: a descriptor.
    :raises FileError: if it can't be read.
    """
    path = content.path
    directory = None
    try:
        while len(path) > LONGEST_PATH:
            cut = path.rindex(b"/", 0, LONGEST_PATH)
            following = os.open(path[:cut], DIRECTORY, dir_fd=directory)
            if directory is not None:
                os.close(directory)
            directory, path = following, path[cut:].lstrip(b"/")
        return os.open(path, FILE, dir_fd=directory)
    except OSError as error:
        raise FileError(shown(content.path), error.strerror or str(error)) from None
    finally:
        if directory is not None:
            os.close(directory)


def read_content(content: FileContent, descriptor: int, offset: int, view: memoryview) -> None:
    """
    Fill a buffer with a part of an open file, and make sure that it is the file that was meant and
    hasn't changed.

    :param offset: where the part begins, in bytes.
    :raises InputChanged: if it has changed.
    :raises FileError: if it can't be read.
    """
    try:
        filled = 0
        while filled < len(view):
            got = _read_at(descriptor, view[filled:], offset + filled)
            if not got:
                raise InputChanged(
                    shown(content.path),
                    f"it ended at {offset + filled} of {content.size} bytes: "
                    "it shrank while it was being read",
                )
            filled += got
        found = os.fstat(descriptor)
    except OSError as error:
        raise FileError(shown(content.path), error.strerror or str(error)) from None
    if (found.st_dev, found.st_ino) != (content.device, content.inode):
        raise InputChanged(shown(content.path), "it was replaced while the tree was being read")
    if (found.st_size, found.st_mtime_ns) != (content.size, content.mtime):
        raise InputChanged(shown(content.path), "it changed while it was being read")
    if not stat.S_ISREG(found.st_mode):
        raise FileError(shown(content.path), "it isn't a regular file")


def _read_at(descriptor: int, view: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [view], offset)
    # Not every system has it: a copy more.
    data = os.pread(descriptor, len(view), offset)
    view[: len(data)] = data
    return len(data)


#: Bytes that are read or gathered before they are written.
_STEP: Final = 1 << 20


def copy_pieces(pieces: Iterable[Piece], write: Callable[[memoryview], object]) -> int:
    """
    Write an archive.

    :param write: takes all of what it is given, which it may not keep.
    :returns: its length in bytes.
    :raises FileError: if a file can't be read, or changed meanwhile.
    """
    buffer = memoryview(bytearray(_STEP))
    filled = total = 0

    def flush() -> None:
        nonlocal filled, total
        write(buffer[:filled])
        total += filled
        filled = 0

    for piece in pieces:
        if isinstance(piece, FileContent):
            descriptor = open_content(piece)
            try:
                done = 0
                while done < piece.size:
                    if filled == _STEP:
                        flush()
                    step = min(piece.size - done, _STEP - filled)
                    read_content(piece, descriptor, done, buffer[filled : filled + step])
                    done += step
                    filled += step
            finally:
                os.close(descriptor)
            continue
        data = memoryview(piece)
        while data:
            if filled == _STEP:
                flush()
            step = min(len(data), _STEP - filled)
            buffer[filled : filled + step] = data[:step]
            filled += step
            data = data[step:]
    flush()
    return total


class PieceReader:
    """Reads an archive as one stream, which can't go back."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = iter(pieces)
        self._piece: Piece = b""
        self._size = 0
        self._offset = 0  # in the piece
        self._descriptor = -1

    def read_into(self, view: memoryview) -> int:
        """
        Fill a buffer.

        :returns: how many bytes there were: less than its length only at the end.
        :raises FileError: if a file can't be read, or changed meanwhile.
        """
        return self._go(len(view), view)

    def skip(self, count: int) -> int:
        """
        Pass over some bytes, without reading the files that they are in.

        :returns: how many there were.
        """
        return self._go(count, None)

    def _go(self, count: int, view: memoryview | None) -> int:
        done = 0
        while done < count:
            if self._offset == self._size and not self._take_next():
                break
            step = min(count - done, self._size - self._offset)
            if view is not None:
                self._copy(view[done : done + step])
            self._offset += step
            done += step
            if self._offset == self._size:
                self._let_go()
        return done

    def _take_next(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._piece, self._offset = piece, 0
        self._size = piece.size if isinstance(piece, FileContent) else len(piece)
        return True

    def _copy(self, view: memoryview) -> None:
        piece, begin = self._piece, self._offset
        if not isinstance(piece, FileContent):
            view[:] = memoryview(piece)[begin : begin + len(view)]
            return
        if self._descriptor < 0:
            self._descriptor = open_content(piece)
        read_content(piece, self._descriptor, begin, view)

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Close what is open."""
        self._let_go()
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
