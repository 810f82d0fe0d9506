# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Access control lists as Linux keeps them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.formats.posix_acl import PosixAcl, decode, encode

_BITS = st.integers(0, 7)
_NAMED = st.dictionaries(st.integers(0, 0xFFFFFFFE), _BITS, max_size=4).map(
    lambda found: tuple(sorted(found.items()))
)


class PosixAclTests(SynchronousTestCase):
    """Reading and writing the values of the xattrs."""

    @given(st.builds(PosixAcl, _BITS, _BITS, _BITS, st.none() | _BITS, _NAMED, _NAMED))
    def test_round_trip(self, acl: PosixAcl) -> None:
        """What is encoded is decoded."""
        self.assertEqual(acl, decode(encode(acl)))

    def test_known(self) -> None:
        """The value is the one that setfacl makes the kernel keep."""
        acl = PosixAcl(6, 4, 0, mask=4, users=((1000, 6),))
        expected = bytes.fromhex(
            "02000000 01000600ffffffff 02000600e8030000 04000400ffffffff 10000400ffffffff"
            "20000000ffffffff"
        )
        self.assertEqual(expected, encode(acl))
        self.assertFalse(acl.is_minimal)
        self.assertTrue(PosixAcl(6, 4, 0).is_minimal)

    def test_named_twice(self) -> None:
        """Who is named twice, as names of an archive may be one id, is named once."""
        twice = PosixAcl(6, 4, 0, mask=7, users=((1, 4), (1, 6)))
        self.assertEqual(((1, 6),), decode(encode(twice)).users)

    @given(st.binary(max_size=60))
    def test_anything(self, value: bytes) -> None:
        """Anything else is refused with a ValueError and nothing else."""
        try:
            decode(value)
        except ValueError:
            return
        self.assertEqual(b"\2\0\0\0", value[:4])

    def test_incomplete(self) -> None:
        """A list that lacks an entry that each has, or has one twice, is refused."""
        whole = encode(PosixAcl(6, 4, 0))
        self.assertRaises(ValueError, decode, whole[:-8])
        self.assertRaises(ValueError, decode, whole + whole[-8:])
        self.assertRaises(ValueError, decode, b"\1" + whole[1:])
