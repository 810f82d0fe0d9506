# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of :mod:`desync.formats.flags`."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.digests import SHA256, SHA512_256
from desync.formats import flags

DEFAULT = flags.EXCLUDE_NODUMP | flags.EXCLUDE_FILE | flags.SHA512_256
"""What casync sets beside the bits of ``--with``."""

UNIX = ("16bit-uids", "sec-time", "permissions", "symlinks", "device-nodes", "fifos", "sockets")

any_flags = st.integers(0, flags.ALL_WITH).flatmap(
    lambda low: st.sampled_from(range(16)).map(lambda high: low | high << 60)
)


def entry(word: int, size: int = 64, kind: int = flags.ENTRY_TYPE) -> bytes:
    """Make the first record of an archive."""
    return struct.pack("<8Q", size, kind, word, 0o40755, 0, 0, 0, 0)


class NormalizeTests(SynchronousTestCase):
    """The rules that make one word of many equal ones."""

    def test_names(self) -> None:
        """There is a name for each of the 33 bits of archives, and four bits more are known."""
        self.assertEqual([1 << bit for bit in range(33)], list(flags.NAMES.values()))
        self.assertEqual(0x1FFFFFFFF, flags.ALL_WITH)
        self.assertEqual(0xF0000001FFFFFFFF, flags.KNOWN)
        self.assertEqual(SHA512_256.feature_flag, flags.SHA512_256)

    def test_words_of_casync(self) -> None:
        """Sets of features become the words that casync 2 writes into its headers."""

        def named(*names: str) -> int:
            return sum(flags.NAMES[name] for name in names)

        every = flags.ALL_WITH
        fat = named("2sec-time", "read-only", "flag-hidden", "flag-system", "flag-archive")
        for word, features in (
            (0xB0000001FFEFFE26, every | DEFAULT),
            (0xB000000000001F09, named(*UNIX) | DEFAULT),
            (0xB00000000000E0C0, fat | DEFAULT),
            (0xB000000003EF0000, 0x3FF0000 | DEFAULT),
            (0xB000000020000006, named("acl") | DEFAULT),
            (0xB00000000C000000, named("subvolume-ro") | DEFAULT),
            (0xB0000001FFEFE026, every & ~named(*UNIX) | DEFAULT),
            (0xB0000001FC00FE26, every & ~0x3FF0000 | DEFAULT),
            (0x90000001FFEFFE26, every | DEFAULT & ~flags.SHA512_256),
            (0xA0000001FFEFFE26, every | DEFAULT & ~flags.EXCLUDE_FILE),
            (0x30000001FFFFFE26, every | DEFAULT & ~flags.EXCLUDE_NODUMP),
            (0xF0000001FFEFFE26, every | DEFAULT | flags.EXCLUDE_SUBMOUNTS),
        ):
            with self.subTest(word=hex(word)):
                self.assertEqual(hex(word), hex(flags.normalize(features)))
                self.assertIsNone(flags.why_refused(word))

    def test_times(self) -> None:
        """Of several time stamps only the finest stays."""
        times = [flags.NAMES[f"{unit}-time"] for unit in ("nsec", "usec", "sec", "2sec")]
        for position, finest in enumerate(times):
            self.assertEqual(finest, flags.normalize(sum(times[position:])))

    def test_acl_keeps_given_owners(self) -> None:
        """Access lists need some form of owner, but add one only if there is none."""
        for owner in (flags.WITH_16BIT_UIDS, flags.WITH_32BIT_UIDS, flags.WITH_USER_NAMES):
            self.assertEqual(flags.WITH_ACL | owner, flags.normalize(flags.WITH_ACL | owner))

    @given(any_flags)
    def test_idempotent(self, word: int) -> None:
        """A normalized word is its own normal form, and readers take it."""
        normal = flags.normalize(word)
        self.assertEqual(normal, flags.normalize(normal))
        self.assertIsNone(flags.why_refused(normal))

    def test_refused(self) -> None:
        """Unknown bits and words that aren't normalized are refused, with a reason."""
        self.assertEqual("unknown feature flags 0x200000000", flags.why_refused(0x200000001))
        self.assertEqual("unknown feature flags 0xffffffe00000000", flags.why_refused(2**64 - 1))
        self.assertEqual("feature flags 0x3 contradict each other", flags.why_refused(3))
        self.assertEqual(
            "feature flags 0x8000000 contradict each other",
            flags.why_refused(flags.WITH_SUBVOLUME_RO),
        )


class BlobFlagsTests(SynchronousTestCase):
    """The flag word of the index of a file."""

    def test_blob(self) -> None:
        """A file that is no archive gets Go desync's word for its digest."""
        for data in (b"", b"data", bytes(100), entry(0x6)[:63]):
            self.assertEqual(0, flags.catar_flags(data))
            self.assertEqual(0xA000000000000000, flags.blob_flags(SHA512_256, data))
            self.assertEqual(0x8000000000000000, flags.blob_flags(SHA256, data))

    def test_archive(self) -> None:
        """The flags of an archive are added, its digest bit excepted."""
        data = entry(0xA000000010001F22) + b"more"
        for form in (data, bytearray(data), memoryview(data)):
            self.assertEqual(0xA000000010001F22, flags.catar_flags(form))
        self.assertEqual(0xA000000010001F22, flags.blob_flags(SHA512_256, data))
        self.assertEqual(0x8000000010001F22, flags.blob_flags(SHA256, data))
        with_file = entry(0x90000001FFEFFE26)
        self.assertEqual(0xB0000001FFEFFE26, flags.blob_flags(SHA512_256, with_file))

    def test_result_is_normalized(self) -> None:
        """An archive that records the nodump attribute doesn't make its index contradict itself."""
        word = flags.blob_flags(SHA512_256, entry(0x30000001FFFFFE26))
        self.assertEqual(hex(0xB0000001FFEFFE26), hex(word))

    def test_not_really_an_archive(self) -> None:
        """A first record of another type or size, or with impossible flags, adds nothing."""
        for data in (entry(0x6, size=65), entry(0x6, kind=1), entry(0x3), entry(1 << 40)):
            self.assertEqual(0, flags.catar_flags(data))
            self.assertEqual(0xA000000000000000, flags.blob_flags(SHA512_256, data))
