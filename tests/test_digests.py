# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for :mod:`desync.chunking.digests`."""

from __future__ import annotations

import hashlib
import pickle
import random
from array import array

from twisted.trial.unittest import SynchronousTestCase

from desync.chunking.digests import FLAG_SHA512_256, SHA256, SHA512_256, Digest
from desync.errors import UsageError


class DigestTests(SynchronousTestCase):
    """The two algorithms."""

    def test_known_answers(self) -> None:
        """The ids of "abc" are those of the standard's examples."""
        self.assertEqual(
            SHA512_256.id_of(b"abc").hex(),
            "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23",
        )
        self.assertEqual(
            SHA256.id_of(b"abc").hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        )

    def test_named(self) -> None:
        """An algorithm is found by the name that the command line has for it."""
        self.assertIs(Digest.named("sha512-256"), SHA512_256)
        self.assertIs(Digest.named("sha256"), SHA256)
        self.assertEqual(SHA256.name, "sha256")
        for name in ("md5", "", "SHA256"):
            with self.assertRaisesRegex(UsageError, f"^invalid digest algorithm '{name}'$"):
                Digest.named(name)

    def test_flags(self) -> None:
        """An index says by bit 61 that its ids are SHA-512/256."""
        self.assertEqual(SHA512_256.feature_flag, 0x2000000000000000)
        self.assertEqual(FLAG_SHA512_256, SHA512_256.feature_flag)
        self.assertEqual(SHA256.feature_flag, 0)

    def test_pickled(self) -> None:
        """What comes from another process is the object that is here."""
        for digest in (SHA512_256, SHA256):
            self.assertIs(pickle.loads(pickle.dumps(digest)), digest)
            self.assertIn(digest.name, repr(digest))

    def test_null_id(self) -> None:
        """The id of zeros is the id of zeros, whether asked for again or not."""
        for digest in (SHA512_256, SHA256):
            for length in (1, 262144, 1, *range(40), 262144):
                self.assertEqual(digest.null_id(length), digest.id_of(bytes(length)))
        self.assertEqual(
            SHA512_256.null_id(262144).hex(),
            "1c8109946feed9f9e9fe4b5144d90f05a50fb3275e848cb72f4b9546d8c533f2",
        )

    def test_many(self) -> None:
        """The ids of ranges and of buffers are those of the chunks one by one, in order."""
        source = random.Random(7)
        data = source.randbytes(50000)
        ends = sorted(source.randrange(len(data)) for _ in range(40))
        bounds = array("I", ends)
        starts = [100 if ends[0] >= 100 else 0, *ends]
        chunks = [data[start:end] for start, end in zip(starts, ends, strict=False)]
        for digest in (SHA512_256, SHA256):
            expected = b"".join(map(digest.id_of, chunks))
            self.assertEqual(digest.ids_of_ranges(data, starts[0], bounds, 40), expected)
            self.assertEqual(digest.ids_of_buffers(chunks), expected)
            self.assertEqual(digest.ids_of_ranges(data, starts[0], bounds, 0), b"")
            self.assertEqual(digest.ids_of_buffers([]), b"")

    def test_null(self) -> None:
        """A chunk of zeros of the given length has the given id; other zeros have their own."""
        data = bytes(1000) + b"\1" + bytes(1999) + bytes(1000) + bytes(500)
        ends = array("I", [1000, 2000, 3000, 4000, 4500])
        for digest in (SHA512_256, SHA256):
            ids = digest.ids_of_ranges(data, 0, ends, 5, (1000, b"N" * 32))
            expected = [
                b"N" * 32,
                digest.id_of(data[1000:2000]),
                b"N" * 32,
                b"N" * 32,
                digest.id_of(bytes(500)),
            ]
            self.assertEqual(ids, b"".join(expected))

    def test_is_not_half_of_sha512(self) -> None:
        """SHA-512/256 has initial values of its own."""
        self.assertNotEqual(SHA512_256.id_of(b""), hashlib.sha512(b"").digest()[:32])
