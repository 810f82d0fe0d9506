# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What a command reads from and writes to, and text that is safe to put on a terminal.

stdout is binary and buffered. When its reader has gone away (``desync list-chunks x | head``)
writing raises :class:`OutputClosed`, on which a command ends without a word.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, BinaryIO, NamedTuple, TextIO

STANDARD_INPUT = "standard input"
STANDARD_OUTPUT = "standard output"

_STEP = 1 << 20


class OutputClosed(Exception):
    """Nobody reads the command's output any more. Not an error that is shown."""


class Streams(NamedTuple):
    """
    The three of a command.

    :param stdout: for results.
    :param stderr: for everything that is said to the user.
    """

    stdin: BinaryIO
    stdout: BinaryIO
    stderr: TextIO


class _Input(io.RawIOBase):
    """A file descriptor to read from, whose errors say what they're about."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._read(_STEP), b""))

    def _read(self, size: int) -> bytes:
        try:
            return os.read(self._descriptor, size)
        except OSError as error:
            error.filename = STANDARD_INPUT
            raise


class _Output(io.RawIOBase):
    """A file descriptor to write to, whose errors say what they're about."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        try:
            return os.write(self._descriptor, data)
        except BrokenPipeError as error:
            raise OutputClosed from error
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            raise


class _NoOutput(io.RawIOBase):
    """What stands for a standard output that was closed before the program started."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), STANDARD_OUTPUT)


def standard_streams() -> Streams:
    """Give the process's own streams, to be asked for once and before any file is opened."""
    missing = _occupy_standard_descriptors()
    output = _NoOutput() if 1 in missing else _Output(1)
    return Streams(
        stdin=io.BufferedReader(_Input(0), 1 << 16),
        stdout=io.BufferedWriter(output, 1 << 16),
        stderr=sys.stderr if sys.stderr is not None else open(os.devnull, "w"),
    )


def _occupy_standard_descriptors() -> set[int]:
    # Otherwise the first file that is opened, a chunk say, would get to be "standard output".
    missing = set()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            missing.add(descriptor)
            os.open(os.devnull, os.O_RDWR)
    return missing


def printable(text: str) -> str:
    """
    Escape what could harm a terminal or break a line.

    Control characters, bytes that aren't UTF-8, and invisible characters that change the direction
    of text come out as ``\\x1b`` and the like. File names, peers and archives can hold any of them.
    """
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python holds a byte that isn't UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
