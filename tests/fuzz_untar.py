# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Archives with any bytes changed, against what unpacks them: nothing outside of the target changes.

As a program it does so for some seconds, with a seed that it prints::

    python -m tests.fuzz_untar SECONDS [SEED]
"""

from __future__ import annotations

import contextlib
import random
import stat
import sys
import tempfile
import time
from pathlib import Path

from desync.errors import DesyncError
from desync.formats.catar_decoder import CatarDecoder
from desync.trees.restoring import Restoring, Shortfall
from desync.trees.writer import TreeWriter

from .archives import archive, device, directory, fifo, file, symlink
from .command_case import remove_tree


def fuzz(room: Path, archive: bytes, seconds: float, seed: int) -> int:
    """
    Unpack archives of which bytes were changed, and look at what is outside of the target.

    :returns: how many.
    :raises AssertionError: if anything there has changed.
    """
    outside = room / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    before = _state(room, outside)
    generator = random.Random(seed)
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        count += 1
        data = bytearray(archive)
        for _ in range(generator.choice((1, 1, 2, 5, 20))):
            at = generator.randrange(len(data))
            match generator.randrange(4):
                case 0:
                    data[at] = generator.randrange(256)
                case 1:
                    data[at] ^= 1 << generator.randrange(8)
                case 2:
                    source = generator.randrange(len(data))
                    data[at : at + 16] = data[source : source + 16]
                case 3:
                    # A name that leads elsewhere, or one that is there already.
                    place = data.find(b"xoutside", at)
                    names = (b"outside\0", b"../outsi", b"/outside", b"..\0.....")
                    if place >= 0:
                        data[place : place + 8] = generator.choice(names)
        decoder = CatarDecoder()
        restoring = Restoring(delete=bool(generator.randrange(2)))
        target = room / f"target{count % 3}"
        with (
            contextlib.suppress(DesyncError),
            TreeWriter(str(target), restoring, Shortfall(lambda line: None)) as writer,
        ):
            writer.take(decoder.feed(bytes(data)), decoder.flags)
            decoder.finish()
        assert _state(room, outside) == before, (seed, count)
    return count


def _state(room: Path, outside: Path) -> object:
    names = sorted(path.name for path in room.iterdir() if not path.name.startswith("target"))
    return names, [
        (path.name, path.lstat()[:7], path.lstat().st_mtime_ns, path.lstat().st_ctime_ns)
        for path in (outside, outside / "precious")
    ]


def main(arguments: list[str]) -> int:
    seed = int(arguments[1]) if len(arguments) > 1 else time.time_ns() % 1_000_000
    room = Path(tempfile.mkdtemp(prefix="desync-fuzz-"))
    events = [
        *symlink(b"aoutside", bytes(room / "outside")),
        *device(b"c", stat.S_IFCHR, 1, 3),
        *directory(b"d", [*file(b"f", b"x" * 100), *symlink(b"up", b"../..")], mode=0o500),
        *fifo(b"p"),
        *file(b"s", b"y", 0o6755, xattrs=((b"user.a", b"b"),)),
        *directory(b"xoutside", file(b"precious", b"evil")),
    ]
    try:
        print(f"seed {seed}: {fuzz(room, archive(events), float(arguments[0]), seed)} archives")
    finally:
        remove_tree(room)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
