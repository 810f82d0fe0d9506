# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The data that is measured with. The same source and the same arguments give the same bytes.

The image is real content, a tar of a folder of programs and libraries: what it compresses to, and
where it is cut, is what users will see, which is not true of anything generated. Where the folder
holds too little, copies of what there is follow it, edited so often that hardly any chunk repeats.
"""

from __future__ import annotations

import contextlib
import os
import random
import stat
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

SOURCE = "/usr/lib"
SIZES_OF = "/usr/share"
SEED = 1

_BLOCK = 1 * MIB
_EDIT_DISTANCE = 16 * KIB
"""Copies are edited once in so many bytes: a few times in each chunk."""
_EDIT_SIZE = 16


class _Full(Exception):
    """The file has the size that was asked for."""


class _LimitedFile:
    """A file for tarfile to write to, up to a size."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def write(self, data: bytes) -> int:
        part = data[: self._left]
        self._file.write(part)
        self._left -= len(part)
        if not self._left:
            raise _Full
        return len(data)


def image(path: str, size: int, source: str = SOURCE, seed: int = SEED) -> None:
    """
    Write the image: a tar of a folder, cut or filled up to a size.

    :param size: in bytes.
    :param source: the folder. What can't be read of it is left out.
    :param seed: what the edits of the copies are made from.
    """
    with open(path, "wb") as output:
        try:
            _write_tar(_LimitedFile(output, size), source)
        except _Full:
            return
        output.flush()
        _fill_up(output, path, size, random.Random(f"{seed} image"))


def _write_tar(output: _LimitedFile, source: str) -> None:
    with tarfile.open(fileobj=output, mode="w|", format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        for name in _walk(source):
            try:
                member = archive.gettarinfo(name, os.path.relpath(name, source))
            except OSError:
                continue
            if member is None:
                continue  # a socket
            member.uname = member.gname = ""
            if not member.isreg():
                archive.addfile(member)
                continue
            with contextlib.suppress(PermissionError, FileNotFoundError), open(name, "rb") as file:
                archive.addfile(member, file)


def _walk(folder: str) -> Iterator[str]:
    yield folder
    for where, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(folders + files):
            yield os.path.join(where, name)


def _fill_up(output: BinaryIO, path: str, size: int, edits: random.Random) -> None:
    """Append edited copies of what was written so far, of which there is some."""
    have = output.tell()
    with open(path, "rb") as before:
        left = size - have
        while left:
            before.seek(0)
            copied = 0
            while left and copied < have:
                block = bytearray(before.read(min(_BLOCK, left, have - copied)))
                for at in range(0, len(block), _EDIT_DISTANCE):
                    place = at + edits.randrange(_EDIT_DISTANCE)
                    if place < len(block):
                        end = min(place + _EDIT_SIZE, len(block))
                        block[place:end] = edits.randbytes(end - place)
                output.write(block)
                copied += len(block)
                left -= len(block)


def next_version(
    old: str, new: str, share: float = 0.05, seed: int = SEED, inserted: bool = True
) -> None:
    """
    Write the next version of a file: stretches replaced, and some bytes inserted after each.

    :param share: how much of the file is replaced, from 0 to 1.
    :param inserted: whether bytes are inserted.
    :param seed: what the edits are made from.
    """
    edits = random.Random(f"{seed} next version")
    size = os.path.getsize(old)
    with open(old, "rb") as before, open(new, "wb") as after:
        while (begin := before.tell()) < size:
            stretch = min(edits.randint(16 * KIB, MIB), size - begin)
            # So much is kept before each replaced stretch that the shares come out right.
            kept = min(round(stretch * (1 - share) / share), size - begin)
            _copy(before, after, kept)
            stretch = min(stretch, size - before.tell())
            replaced = before.read(stretch)
            if not replaced:
                break
            # Not random bytes, which don't compress: the stretch backwards is as real as it was.
            after.write(replaced[::-1])
            if inserted:
                after.write(edits.randbytes(edits.randint(1, 64)))


def zeros(path: str, size: int) -> None:
    """Write a file of zeros: written ones, not a hole."""
    block = bytes(_BLOCK)
    with open(path, "wb") as output:
        for at in range(0, size, _BLOCK):
            output.write(block[: size - at])


def sparse(path: str, size: int, source: str, one_in: int = 32) -> None:
    """
    Write a file that is large and takes little room: holes with pieces of another file in between.

    :param size: in bytes.
    :param source: the other file; when it ends it is read from its start again.
    :param one_in: one mebibyte in so many is not a hole.
    """
    with open(source, "rb") as pieces, open(path, "wb") as output:
        output.truncate(size)
        for at in range(0, size, one_in * _BLOCK):
            piece = pieces.read(min(_BLOCK, size - at))
            if not piece:
                pieces.seek(0)
                piece = pieces.read(min(_BLOCK, size - at))
            output.seek(at)
            output.write(piece)


def tree(path: str, count: int, source: str, sizes_of: str = SIZES_OF, seed: int = SEED) -> None:
    """
    Make a directory tree of small files: pieces of another file, as long as files of a folder are.

    :param count: how many files.
    :param source: the other file; when it ends it is read from its start again.
    :param sizes_of: the folder. Files of 2 MiB and more are left out.
    """
    choices = random.Random(f"{seed} tree")
    sizes = sorted(_small_sizes(sizes_of))
    with open(source, "rb") as pieces:
        for number in range(count):
            folder = os.path.join(path, f"{number // 2000:03}", f"{number // 40 % 50:02}")
            if number % 40 == 0:
                os.makedirs(folder, exist_ok=True)
            left = choices.choice(sizes)
            with open(os.path.join(folder, f"file-{number}.dat"), "wb") as output:
                while left:
                    piece = pieces.read(left)
                    if not piece:
                        pieces.seek(0)
                    left -= output.write(piece)


def _small_sizes(folder: str) -> Iterator[int]:
    for where, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(where, name))
                if stat.S_ISREG(found.st_mode) and found.st_size < 2 * MIB:
                    yield found.st_size


def _copy(before: BinaryIO, after: BinaryIO, length: int) -> None:
    while length and (data := before.read(min(_BLOCK, length))):
        after.write(data)
        length -= len(data)
