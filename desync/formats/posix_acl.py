# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Access control lists as Linux keeps them, in the xattrs ``system.posix_acl_access`` and
``system.posix_acl_default``: a version, then a tag, permissions and an id for each entry.

Archives divide the same between a node's mode and records of their own
(:class:`desync.formats.catar.Acl`): the owner's and the others' permissions are in the mode, and
where there is a mask, it is the group's bits of the mode.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

ACCESS_XATTR: Final = "system.posix_acl_access"
DEFAULT_XATTR: Final = "system.posix_acl_default"

USER_OBJ: Final = 0x01
USER: Final = 0x02
GROUP_OBJ: Final = 0x04
GROUP: Final = 0x08
MASK: Final = 0x10
OTHER: Final = 0x20

_TAGS: Final = (USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER)
_VERSION: Final = 2
_NO_ID: Final = 0xFFFFFFFF
_HEADER: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")


class PosixAcl(NamedTuple):
    """
    What a list grants. Permissions are read 4, write 2, execute 1.

    :ivar users: (uid, permissions) of the users that it names.
    :ivar groups: (gid, permissions) of the groups that it names.
    :ivar mask: the most that users and groups that are named, and the owning group, get; None if
        there is none, which is so only where nobody is named.
    """

    user_obj: int
    group_obj: int
    other: int
    mask: int | None = None
    users: tuple[tuple[int, int], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()

    @property
    def is_minimal(self) -> bool:
        """Whether a mode says as much."""
        return self.mask is None and not self.users and not self.groups


def encode(acl: PosixAcl) -> bytes:
    """Give the value of the xattr. Who is named is sorted by id, and named once."""
    pieces = [_HEADER.pack(_VERSION), _ENTRY.pack(USER_OBJ, acl.user_obj, _NO_ID)]
    pieces += (_ENTRY.pack(USER, bits, uid) for uid, bits in _each_once(acl.users))
    pieces.append(_ENTRY.pack(GROUP_OBJ, acl.group_obj, _NO_ID))
    pieces += (_ENTRY.pack(GROUP, bits, gid) for gid, bits in _each_once(acl.groups))
    if acl.mask is not None:
        pieces.append(_ENTRY.pack(MASK, acl.mask, _NO_ID))
    pieces.append(_ENTRY.pack(OTHER, acl.other, _NO_ID))
    return b"".join(pieces)


def _each_once(entries: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    # Several names of an archive may be one id here; the kernel refuses a list that repeats one.
    return sorted(dict(entries).items())


def decode(value: bytes) -> PosixAcl:
    """
    Read the value of the xattr.

    :raises ValueError: if it isn't one.
    """
    if len(value) < _HEADER.size or (len(value) - _HEADER.size) % _ENTRY.size:
        raise ValueError(f"an access control list of {len(value)} bytes")
    (version,) = _HEADER.unpack_from(value)
    if version != _VERSION:
        raise ValueError(f"an access control list of version {version}")
    single: dict[int, int] = {}
    users = []
    groups = []
    for tag, bits, number in _ENTRY.iter_unpack(value[_HEADER.size :]):
        if tag not in _TAGS or bits > 7:
            raise ValueError(f"an access control list with tag {tag:#x}, permissions {bits}")
        if tag == USER:
            users.append((number, bits))
        elif tag == GROUP:
            groups.append((number, bits))
        elif tag in single:
            raise ValueError(f"an access control list with tag {tag:#x} twice")
        else:
            single[tag] = bits
    try:
        user_obj, group_obj, other = single[USER_OBJ], single[GROUP_OBJ], single[OTHER]
    except KeyError:
        raise ValueError("an access control list that is incomplete") from None
    return PosixAcl(user_obj, group_obj, other, single.get(MASK), tuple(users), tuple(groups))
