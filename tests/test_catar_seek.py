# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for finding nodes of an archive by its goodbye tables."""

from __future__ import annotations

import random
import stat
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.errors import InvalidArchive
from desync.formats import catar, catar_seek
from desync.formats.catar import Directory, EndDirectory, Event, File, Metadata, Payload
from desync.formats.catar_seek import Node, answered, child, children, find, lookup, root_of

from .test_catar import EVERYTHING, encode, rich_tree


class Reader:
    """An archive in memory that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.count = 0

    def __call__(self, offset: int, length: int) -> bytes:
        assert offset >= 0 and length > 0, (offset, length)
        self.count += length
        return self.data[offset : offset + length]


def everything(read: Reader) -> dict[bytes, Node]:
    """All nodes of an archive by their paths."""
    root = answered(root_of(len(read.data)), read)
    found = {b"": root}
    waiting = [(b"", root)]
    while waiting:
        before, directory = waiting.pop()
        for name, start, end in answered(children(directory), read):
            node = answered(child(directory, name, start, end), read)
            found[before + name] = node
            if stat.S_ISDIR(node.metadata.mode):
                waiting.append((before + name + b"/", node))
    return found


class SeekTests(SynchronousTestCase):
    """Looking into good archives."""

    def test_everything(self) -> None:
        """Every node that the events have is found, with all it has."""
        read = Reader(encode(rich_tree()))
        found = everything(read)
        content = (0, 0)
        for event in rich_tree():
            if isinstance(event, EndDirectory):
                continue
            if isinstance(event, Payload):
                start, length = content
                self.assertEqual(read.data[start : start + length], event.data)
                continue
            node = found.pop(event.name)
            self.assertEqual(node.metadata, event.metadata)
            self.assertEqual(node.flags, EVERYTHING)
            if isinstance(event, File):
                content = node.content
                self.assertEqual(content[1], event.size)
            elif isinstance(event, catar.Symlink):
                self.assertEqual(node.target, event.target)
            elif isinstance(event, catar.Device):
                self.assertEqual(node.device, (event.major, event.minor))
        self.assertEqual(found, {})

    def test_sizes(self) -> None:
        """In directories of any size each name is found, and no other."""
        for size in (*range(20), 63, 64, 65, 3000):
            events: list[Event] = [Directory(b"", Metadata(0o40755))]
            for number in range(size):
                events += (File(b"n%d" % number, Metadata(0o100644), 1), Payload(b"x"))
            read = Reader(encode([*events, EndDirectory()]))
            root = answered(root_of(len(read.data)), read)
            for number in range(size):
                node = answered(lookup(root, b"n%d" % number), read)
                assert node is not None
                self.assertEqual(read.data[node.content[0] : node.end], b"x")
            self.assertIsNone(answered(lookup(root, b"n%d" % size), read))
            names = [name for name, _, _ in answered(children(root), read)]
            self.assertEqual(names, [b"n%d" % number for number in range(size)])

    def test_little_is_read(self) -> None:
        """In a large archive a name is found by reading a little of it."""
        events: list[Event] = [Directory(b"", Metadata(0o40755))]
        for number in range(20_000):
            events += (File(b"n%d" % number, Metadata(0o100644), 100), Payload(bytes(100)))
        read = Reader(encode([*events, EndDirectory()]))
        root = answered(root_of(len(read.data)), read)
        self.assertIsNotNone(answered(lookup(root, b"n777"), read))
        self.assertLess(read.count, 5000)

    def test_paths(self) -> None:
        """A node is found by the names on the way to it; nothing is below a file."""
        events: list[Event] = [
            Directory(b"", Metadata(0o40755)),
            Directory(b"a", Metadata(0o40755)),
            Directory(b"b", Metadata(0o40700)),
            File(b"c", Metadata(0o100644), 0),
            *[EndDirectory()] * 3,
        ]
        read = Reader(encode(events))
        root = answered(root_of(len(read.data)), read)
        self.assertEqual(answered(find(root, []), read), root)
        found = answered(find(root, [b"a", b"b", b"c"]), read)
        assert found is not None
        self.assertEqual((found.name, found.depth), (b"c", 4))
        for path in ([b"b"], [b"a", b"b", b"c", b"d"], [b"a", b"x", b"c"]):
            self.assertIsNone(answered(find(root, path), read))

    def test_equal_hashes(self) -> None:
        """Children whose names have the same hash are told apart by their names."""
        with (
            mock.patch("desync.chunking.kernels.siphash", lambda data, key: len(data) % 3),
            mock.patch.object(catar_seek, "name_hash", lambda name: len(name) % 3),
        ):
            names = [b"%0*d" % (width, width) for width in range(1, 60)]
            events: list[Event] = [Directory(b"", Metadata(0o40755))]
            events += [File(name, Metadata(0o100644), 0) for name in names]
            read = Reader(encode([*events, EndDirectory()]))
            root = answered(root_of(len(read.data)), read)
            for name in names:
                found = answered(lookup(root, name), read)
                assert found is not None
                self.assertEqual(found.name, name)


class BadTableTests(SynchronousTestCase):
    """Archives whose tables, or records, lie."""

    def test_truncated(self) -> None:
        """An archive that was cut off anywhere can't be looked into."""
        data = encode(rich_tree())
        for size in range(len(data)):
            with self.assertRaises(InvalidArchive):
                everything(Reader(data[:size]))

    @given(st.integers(0, 1 << 62))
    def test_damaged(self, seed: int) -> None:
        """Whatever is wrong in it, it is refused or read, and comes to an end."""
        source = random.Random(seed)
        data = bytearray(encode(rich_tree()))
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(data) - 8)
            width = source.choice((1, 1, 8))
            value = source.choice((0, 1, 0xFF, source.getrandbits(8)))
            data[at : at + width] = bytes([value]) * width
        read = Reader(bytes(data))
        try:
            found = everything(read)
            for path in found:
                answered(find(found[b""], path.split(b"/")), read)
        except InvalidArchive:
            pass
        self.assertLess(read.count, 1 << 20)
