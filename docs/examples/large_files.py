# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
List the largest files in an archive of a directory tree::

    python large_files.py tree.catar 10

The archive is read once, from its begin to its end; nothing of the files' content is kept.
"""

from __future__ import annotations

import heapq
import os
import sys

from desync import CatarDecoder
from desync.formats.catar import Directory, EndDirectory, File


def largest(path: str, count: int) -> list[tuple[int, bytes]]:
    """Give the sizes and paths of the largest files."""
    decoder = CatarDecoder(path)
    names: list[bytes] = []
    found: list[tuple[int, bytes]] = []
    with open(path, "rb") as archive:
        while data := archive.read(1 << 20):
            for event in decoder.feed(data):
                if isinstance(event, Directory):
                    names.append(event.name)
                elif isinstance(event, EndDirectory):
                    names.pop()
                elif isinstance(event, File):
                    found.append((event.size, b"/".join([*names[1:], event.name])))
            found = heapq.nlargest(count, found)
    decoder.finish()
    return found


if __name__ == "__main__":
    for size, name in largest(sys.argv[1], int(sys.argv[2])):
        print(size, os.fsdecode(name))
