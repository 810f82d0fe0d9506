# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Damages archives at random, and makes sure that nothing but events or one error comes of them.

    python -m tests.fuzz_archives SECONDS [SEED]
"""

from __future__ import annotations

import random
import struct
import sys
import time

from desync.errors import DesyncError, InvalidArchive
from desync.formats import catar
from desync.formats.catar import EndDirectory, Event, Payload
from desync.formats.catar_decoder import CatarDecoder
from desync.formats.catar_encoder import CatarEncoder
from desync.formats.catar_seek import answered, children, root_of

NUMBERS = (0, 1, 15, 16, 17, 64, 0x7FFFFFFF, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
KINDS = tuple(value for name, value in vars(catar).items() if name.isupper() and value is not None)


def samples() -> list[bytes]:
    """Good archives to begin with."""
    from .bad_archives import BAD_ARCHIVES, TAKEN
    from .test_catar import SMALL, encode, rich_tree

    found = [encode(rich_tree()), encode(SMALL, catar.GO_FLAGS, as_go=True)]
    return [*found, *TAKEN.values(), *(bad.data for bad in BAD_ARCHIVES if len(bad.data) < 2000)]


def damaged(source: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The same with something changed, taken away, repeated or put in."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 5)):
        at = source.randrange(len(changed) + 1)
        kind = source.randrange(6)
        if kind == 0:
            changed[at : at + 1] = bytes([source.getrandbits(8)])
        elif kind == 1:
            changed[at : at + 8] = struct.pack("<Q", source.choice(NUMBERS))
        elif kind == 2:
            numbers = [value for value in KINDS if isinstance(value, int) and 0 <= value < 1 << 64]
            changed[at : at + 8] = struct.pack("<Q", source.choice(numbers))
        elif kind == 3:
            del changed[at : at + source.choice((1, 8, 24, source.randrange(200)))]
        elif kind == 4:
            length = source.choice((8, 16, 64, source.randrange(200)))
            changed[at:at] = changed[at : at + length]
        else:
            other = source.choice(others)
            begin = source.randrange(len(other))
            changed[at:at] = other[begin : begin + source.randrange(200)]
    return bytes(changed)


def outcome(data: bytes, pieces: list[int]) -> tuple[list[Event], str | None]:
    """What comes of an archive that is fed in pieces: events, and the error's text."""
    decoder = CatarDecoder()
    events: list[Event] = []
    content: list[bytes] = []
    error = None
    try:
        begin = 0
        for length in [*pieces, len(data)]:
            for event in decoder.feed(data[begin : begin + length]):
                if isinstance(event, Payload):
                    content.append(bytes(event.data))
                    continue
                if content:
                    events.append(Payload(b"".join(content)))
                    content.clear()
                events.append(event)
            begin += length
        decoder.finish()
    except InvalidArchive as refused:
        error = str(refused)
    if content:
        events.append(Payload(b"".join(content)))
    return events, error


def has_others_xattrs(event: Event) -> bool:
    """Whether a node has xattrs of namespaces that casync reads but doesn't write."""
    if isinstance(event, Payload | EndDirectory):
        return False
    return any(not name.startswith((b"user.", b"trusted.")) for name, _ in event.metadata.xattrs)


def check(source: random.Random, data: bytes) -> bool:
    """
    Read an archive in several ways.

    :returns: whether it is a good one.
    """
    events, error = outcome(data, [])
    pieces = [source.choice((0, 1, 7, 64, 500)) for _ in range(len(data) // 8)]
    assert outcome(data, pieces) == (events, error), data
    if error is None and not any(map(has_others_xattrs, events)):
        # A good one can be written again.
        first = CatarDecoder()
        first.feed(data)
        encoder = CatarEncoder(first.flags, as_go=first.flags == catar.GO_FLAGS)
        encoded = b"".join(encoder.encode(event) for event in events)
        assert outcome(encoded, [])[0] == events, data
    try:
        root = answered(root_of(len(data)), lambda at, length: data[at : at + length])
        answered(children(root), lambda at, length: data[at : at + length])
    except DesyncError:
        pass
    return error is None


def run(seconds: float, seed: int) -> tuple[int, int]:
    """
    Go on for so long.

    :returns: how many archives were read, and how many of them were good.
    """
    source = random.Random(seed)
    archives = samples()
    until = time.monotonic() + seconds
    count = good = 0
    while time.monotonic() < until:
        data = damaged(source, source.choice(archives), archives)
        good += check(source, data)
        count += 1
    return count, good


if __name__ == "__main__":
    read, taken = run(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(f"{read} archives, {taken} of them good, nothing but events and errors")
