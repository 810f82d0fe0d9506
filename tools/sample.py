# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Sample data for bin/demo: something like a disk image, and the next version of a file.

::

    python tools/sample.py image OUTPUT MEBIBYTES
    python tools/sample.py edit INPUT OUTPUT

The same arguments always make the same bytes.
"""

from __future__ import annotations

import os
import random
import sys
from typing import BinaryIO

KIB = 1024
MIB = 1024 * KIB

#: How much of a file is copied at a time.
BLOCK = 256 * KIB

#: An edited file has one edit in about so many bytes, and at least one of each kind.
EDIT_DISTANCE = 12 * MIB


def write_sparse(output: BinaryIO, data: bytes) -> None:
    """Write data; where it is all zeros leave a hole, as the tools that make images do."""
    if data.count(0) == len(data):
        output.seek(len(data), os.SEEK_CUR)
    else:
        output.write(data)


def image(path: str, size: int) -> None:
    """Write a file of the given size in bytes: text-like, incompressible and empty stretches."""
    source = random.Random(f"image of {size}")
    words = [source.randbytes(source.randint(1, 6)).hex() for _ in range(2000)]
    text = " ".join(source.choices(words, k=200_000)).encode("ascii")
    with open(path, "wb") as output:
        while output.tell() < size:
            length = min(source.randint(256 * KIB, 4 * MIB), size - output.tell())
            kind = source.choices(("text", "random", "zeros"), (45, 35, 20))[0]
            if kind == "text":
                output.write(shuffled_lines(source, text, length))
            elif kind == "random":
                output.write(source.randbytes(length))
            else:
                output.seek(length, os.SEEK_CUR)
        output.truncate(size)


def shuffled_lines(source: random.Random, text: bytes, length: int) -> bytes:
    """So many bytes of pieces of the text in random order: they compress well and never repeat."""
    lines = []
    missing = length
    while missing > 0:
        start = source.randrange(len(text) - 2000)
        lines.append(text[start : start + min(missing, source.randint(80, 2000))])
        missing -= len(lines[-1])
    return b"".join(lines)


def edit(old: str, new: str) -> None:
    """Write a file's next version: pieces overwritten, inserted and taken out, the rest moved."""
    size = os.path.getsize(old)
    source = random.Random(f"edit of {size}")
    count = max(3, size // EDIT_DISTANCE)
    places = sorted(source.randrange(size + 1) for _ in range(count))
    with open(old, "rb") as before, open(new, "wb") as after:
        for number, place in enumerate(places):
            copy(before, after, place - before.tell())
            length = min(source.randint(1, 40 * KIB), size // 8 + 1)
            kind = ("overwrite", "insert", "take out")[number % 3]
            if kind != "insert":
                before.seek(min(length, size - before.tell()), os.SEEK_CUR)
            if kind != "take out":
                after.write(source.randbytes(length))
        copy(before, after, size - before.tell())
        after.truncate()


def copy(before: BinaryIO, after: BinaryIO, length: int) -> None:
    """Copy so many bytes, if the end of the file is not nearer; a negative number is none."""
    while length > 0 and (data := before.read(min(BLOCK, length))):
        write_sparse(after, data)
        length -= len(data)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["image", path, mebibytes]:
            image(path, int(mebibytes) * MIB)
        case ["edit", old, new]:
            edit(old, new)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
