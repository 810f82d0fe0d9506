# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for the archive format: what is encoded is decoded, however it is split."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.formats import catar
from desync.formats import flags as feature
from desync.formats.catar import (
    AclEntry,
    Device,
    Directory,
    EndDirectory,
    Event,
    Fifo,
    File,
    Metadata,
    Payload,
    Socket,
    Symlink,
)
from desync.formats.catar_decoder import CatarDecoder
from desync.formats.catar_encoder import CatarEncoder
from desync.formats.catar_goodbye import Children, name_hash, tree_order

EVERYTHING = feature.normalize(
    feature.ALL_WITH | feature.SHA512_256 | feature.EXCLUDE_NODUMP | feature.EXCLUDE_FILE
)

SMALL = (
    Directory(b"", Metadata(0o40755)),
    File(b"a", Metadata(0o100644), 6),
    Payload(b"hello\n"),
    Directory(b"b", Metadata(0o40755)),
    Symlink(b"l", Metadata(0o120777), b"a"),
    EndDirectory(),
    EndDirectory(),
)


def rich_tree() -> list[Event]:
    """A tree with every type of node and every kind of metadata."""
    acl = catar.Acl(
        (AclEntry(3, 7, b"sys"), AclEntry(99999, 4)), (AclEntry(5, 6, b"games"),), group_obj=5
    )
    default = catar.DefaultAcl(7, 5, 0, 7, (AclEntry(3, 7, b"sys"),), (AclEntry(5, 6),))
    mtime = 1564850846_071751951
    directory = Metadata(
        0o42775,
        1000,
        1001,
        mtime,
        feature.WITH_FLAG_NOATIME | feature.WITH_SUBVOLUME,
        b"me",
        b"us",
        ((b"trusted.x", b""), (b"user.y", b"\0")),
        acl,
        default,
        b"system_u:object_r:usr_t:s0",
        None,
        77,
    )
    plain = Metadata(0o100640, 1, 2, -1_500_000_000)
    return [
        Directory(b"", directory),
        Device(b"block", Metadata(0o60660, 0, 6, mtime), 4095, 1048575),
        Device(b"char", Metadata(0o20666, mtime=mtime), 1, 3),
        Directory(b"empty", Metadata(0o40700)),
        EndDirectory(),
        Fifo(b"fifo", Metadata(0o10600, mtime=5, acl=acl)),
        File(b"file", plain._replace(fcaps=b"\1\0\0\2" + bytes(16)), 5),
        Payload(b"12345"),
        File(b"nothing", plain._replace(default_acl=None, acl=acl), 0),
        Socket(b"socket", Metadata(0o140755, selinux=b"label")),
        Symlink(b"symlink", Metadata(0o120777, 9, 9, mtime, user=b"nine"), b"/no/where"),
        EndDirectory(),
    ]


def encode(events: Sequence[Event], flags: int = EVERYTHING, *, as_go: bool = False) -> bytes:
    """The archive of some events."""
    encoder = CatarEncoder(flags, as_go=as_go)
    return b"".join(encoder.encode(event) for event in events)


def joined(events: Sequence[Event]) -> list[Event]:
    """The same events, with a file's content in one piece."""
    result: list[Event] = []
    for event in events:
        if isinstance(event, Payload):
            before = result[-1]
            if isinstance(before, Payload):
                result[-1] = Payload(bytes(before.data) + bytes(event.data))
                continue
            event = Payload(bytes(event.data))
        result.append(event)
    return result


def decode(data: bytes, cuts: Sequence[int] = ()) -> list[Event]:
    """The events of an archive that is fed in pieces."""
    decoder = CatarDecoder()
    events: list[Event] = []
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(bounds):
        events += decoder.feed(data[start:stop])
    decoder.finish()
    return joined(events)


class RoundTripTests(SynchronousTestCase):
    """What is written can be read."""

    def test_known_archive(self) -> None:
        """A small archive has the bytes that Go desync writes, down to the digest."""
        data = encode(SMALL, catar.GO_FLAGS, as_go=True)
        self.assertEqual(len(data), 502)
        self.assertEqual(
            hashlib.sha256(data).hexdigest(),
            "17a5b31d64073bd3ee264dae2c6c67c13b19a6fcf163912f9d2e0e593051b8b3",
        )

    def test_everything(self) -> None:
        """Every type of node and every kind of metadata comes back."""
        self.assertEqual(decode(encode(rich_tree())), rich_tree())

    def test_byte_by_byte(self) -> None:
        """Fed byte by byte an archive gives the same events."""
        data = encode(rich_tree())
        self.assertEqual(decode(data, range(len(data))), rich_tree())

    @given(st.lists(st.integers(0, 4000), max_size=8))
    def test_any_split(self, cuts: list[int]) -> None:
        """However an archive is split, the events are the same."""
        self.assertEqual(decode(encode(rich_tree()), cuts), rich_tree())

    def test_go_xattrs(self) -> None:
        """What Go desync puts behind the values of xattrs is written on request, and dropped."""
        xattrs = ((b"security.capability", b"\1\0"), (b"user.a", b""), (b"user.b", b"b"))
        events: list[Event] = [
            Directory(b"", Metadata(0o40755, xattrs=xattrs)),
            Symlink(b"l", Metadata(0o120777, xattrs=xattrs[:1]), b"t"),
            EndDirectory(),
        ]
        data = encode(events, catar.GO_FLAGS, as_go=True)
        self.assertIn(b"security.capability\0\1\0\0", data)
        self.assertIn(b"user.a\0\0", data)
        self.assertEqual(decode(data), events)

    def test_reduced(self) -> None:
        """What the feature flags don't name isn't recorded, and comes back as its default."""
        data = encode([*rich_tree()[:1], EndDirectory()], feature.WITH_SEC_TIME)
        (directory, _) = decode(data)
        seconds = Metadata(0o40777, mtime=1564850846_000000000)
        self.assertEqual(directory, Directory(b"", seconds))

    def test_read_only(self) -> None:
        """With the read-only feature alone a mode says only whether anybody may write."""
        events: list[Event] = [
            Directory(b"", Metadata(0o40550)),
            File(b"a", Metadata(0o100640), 0),
            File(b"b", Metadata(0o104511), 0),
            EndDirectory(),
        ]
        modes = [
            event.metadata.mode
            for event in decode(encode(events, feature.WITH_READ_ONLY))
            if isinstance(event, Directory | File)
        ]
        self.assertEqual(modes, [0o40555, 0o100666, 0o100444])

    def test_flags_are_known_early(self) -> None:
        """The feature flags are known from the first record on."""
        decoder = CatarDecoder()
        self.assertEqual(decoder.flags, 0)
        decoder.feed(encode(SMALL)[:64])
        self.assertEqual(decoder.flags, EVERYTHING)

    def test_stray_names_of_go(self) -> None:
        """The names that Go desync writes of fifos, which it doesn't record, are passed over."""
        encoder = CatarEncoder(catar.GO_FLAGS, as_go=True)
        begin = encoder.directory(b"", Metadata(0o40755))
        stray = encode_name(b"fifo")
        entry_offset = len(begin) + len(stray)
        children = Children(0)
        children.add(b"fifo", len(begin))
        end = children.table(entry_offset)
        events = decode(begin + stray + end)
        self.assertEqual(events, [Directory(b"", Metadata(0o40755)), EndDirectory()])
        self.assertFalse(encoder.records(stat.S_IFIFO))


def encode_name(name: bytes) -> bytes:
    """A FILENAME record."""
    size = 17 + len(name)
    return size.to_bytes(8, "little") + catar.FILENAME.to_bytes(8, "little") + name + b"\0"


class GoodbyeTests(SynchronousTestCase):
    """The tables of directories."""

    def test_known_hashes(self) -> None:
        """Names have the hashes that casync gives them."""
        known = {
            b"": 0xB64ACAB6CA921906,
            b"a": 0x51BA5A19E058C7AD,
            b"d1": 0x84B397273EECC769,
            b"foo": 0x4A2193AE181986CB,
            b"hello.txt": 0x768166EC6F1259FB,
        }
        for name, expected in known.items():
            self.assertEqual(name_hash(name), expected, name)

    def test_tree(self) -> None:
        """For any number of items the order is a search tree, complete from the left."""

        def in_order(order: Sequence[int], place: int) -> list[int]:
            if place >= len(order):
                return []
            left = in_order(order, 2 * place + 1)
            return [*left, order[place], *in_order(order, 2 * place + 2)]

        for count in [*range(300), 1023, 1024, 1025, 5000]:
            order = tree_order(count)
            self.assertEqual(in_order(order, 0), list(range(count)), count)
