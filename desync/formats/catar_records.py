# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The records that say what a node has: their order, their limits, and the checks of their values.

The rules are those that casync's reader enforces, with these exceptions: names of owners may have
any characters but a slash, a colon and control characters, as casync writes more names than it
reads; times are checked to the microsecond where that is what is recorded; and what Go desync
writes differently is taken from archives with its feature flags.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from typing import Final

from . import catar
from . import flags as feature
from .catar import AclEntry, Metadata

_ENTRY: Final = struct.Struct("<16x6Q")
_ACL_ENTRY: Final = struct.Struct("<16x2Q")
_NUMBER: Final = struct.Struct("<16xQ")
_ACL_DEFAULT: Final = struct.Struct("<16x4Q")

#: How large the extended attributes of a node, and the lists of access control, may be together,
#: in bytes and entries. Linux can hold no longer lists of names.
_XATTRS_LIMIT: Final = 16 << 20
_XATTR_COUNT_LIMIT: Final = 1 << 16
_ACL_LIMIT: Final = 1 << 16

_SIGN: Final = 1 << 63
_U64: Final = (1 << 64) - 1

LIMITS: Final[dict[int, tuple[int, int]]] = {
    catar.ENTRY: (64, 64),
    catar.USER: (18, 17 + catar.OWNER_NAME_LIMIT),
    catar.GROUP: (18, 17 + catar.OWNER_NAME_LIMIT),
    # One more than casync's: for the NUL behind the value.
    catar.XATTR: (20, 18 + catar.XATTR_NAME_LIMIT + catar.XATTR_VALUE_LIMIT),
    catar.ACL_USER: (32, 33 + catar.OWNER_NAME_LIMIT),
    catar.ACL_GROUP: (32, 33 + catar.OWNER_NAME_LIMIT),
    catar.ACL_GROUP_OBJ: (24, 24),
    catar.ACL_DEFAULT: (48, 48),
    catar.ACL_DEFAULT_USER: (32, 33 + catar.OWNER_NAME_LIMIT),
    catar.ACL_DEFAULT_GROUP: (32, 33 + catar.OWNER_NAME_LIMIT),
    catar.SELINUX: (18, 17 + catar.LABEL_LIMIT),
    catar.FCAPS: (17, 16 + catar.FCAPS_LIMIT),
    catar.QUOTA_PROJID: (24, 24),
    catar.SYMLINK: (18, 17 + catar.TARGET_LIMIT),
    catar.DEVICE: (32, 32),
    catar.FILENAME: (18, 17 + catar.NAME_LIMIT),
}
"""The least and the most bytes of each record that is read as a whole, its header included."""

RECORD_NAMES: Final = {
    value: name
    for name, value in vars(catar).items()
    if isinstance(value, int) and value in (*LIMITS, catar.PAYLOAD, catar.GOODBYE)
}
"""The names of all records by their types."""


class Bad(Exception):
    """What is wrong with a record, in a few words; the decoder says where."""


class NodeRecords:
    """
    Collects what the records before a node's content say.

    :ivar flags: the archive's feature flags; None until the first ENTRY.
    :ivar as_go: whether they are those that Go desync writes.
    """

    def __init__(self) -> None:
        self.flags: int | None = None
        self.as_go = False
        self._granularity = 1
        self._seen: dict[int, int] = {}
        self._begin()

    def _begin(self) -> None:
        self._rank = 0
        self._user: bytes | None = None
        self._group: bytes | None = None
        self._xattrs: list[tuple[bytes, bytes]] = []
        self._xattrs_size = 0
        self._acl: dict[int, list[AclEntry]] = {}
        self._group_obj: int | None = None
        self._default: tuple[int, int, int, int] | None = None
        self._selinux: bytes | None = None
        self._fcaps: bytes | None = None
        self._projid = 0

    def entry(self, record: bytes | memoryview) -> int:
        """
        Begin with a node's ENTRY record.

        :returns: its mode.
        """
        flags, mode, node_flags, uid, gid, mtime = _ENTRY.unpack(record)
        if flags != self.flags:
            self._take_flags(flags)
        kind = mode & 0o170000
        # The same few modes come again and again.
        if self._seen.get(mode) is None:
            self._check_mode(mode)
            if len(self._seen) < 4096:
                self._seen[mode] = kind
        if uid or gid:
            self._check_owner(uid)
            self._check_owner(gid)
        if node_flags:
            self._check_node_flags(node_flags, kind)
        if mtime:
            if mtime == _U64 or not self._granularity or mtime % self._granularity:
                raise Bad(f"the time {mtime} isn't one that the archive can record")
            if mtime & _SIGN:
                mtime -= 1 << 64
        self._entry = (mode, uid, gid, mtime, node_flags)
        self._kind = kind
        if self._rank:
            self._begin()
        return int(mode)

    def _take_flags(self, flags: int) -> None:
        if self.flags is not None:
            raise Bad(f"feature flags {flags:#x} after {self.flags:#x}")
        refused = feature.why_refused(flags)
        if refused is not None:
            raise Bad(refused)
        self.flags = flags
        self.as_go = flags == catar.GO_FLAGS
        self._granularity = catar.granularity(flags)

    def _check_mode(self, mode: int) -> None:
        assert self.flags is not None
        try:
            if mode & ~0o177777:
                raise ValueError
            needed = catar.feature_of_type(mode)
        except ValueError:
            raise Bad(f"mode {mode:o} is of no known type") from None
        if needed and not self.flags & needed:
            raise Bad(f"mode {mode:o} is of a type that the archive doesn't record")
        # casync takes no other mode of a symbolic link either.
        if catar.fitting_mode(mode, self.flags) != mode and not self._is_read_only_mode(mode):
            raise Bad(f"mode {mode:o} isn't one that the archive can record")

    def _is_read_only_mode(self, mode: int) -> bool:
        assert self.flags is not None
        return bool(self.flags & feature.WITH_READ_ONLY) and (mode & 0o7777) in (
            (0o777, 0o555) if stat.S_ISDIR(mode) else (0o666, 0o444)
        )

    def _check_owner(self, number: int) -> None:
        assert self.flags is not None
        if self.as_go:
            good = number < 1 << 32
        elif self.flags & feature.WITH_16BIT_UIDS:
            good = number < 0xFFFF
        elif self.flags & feature.WITH_32BIT_UIDS:
            good = number < 0xFFFFFFFF and number != 0xFFFF
        else:
            good = number == 0
        if not good:
            raise Bad(f"owner {number} isn't one that the archive can record")

    def _check_node_flags(self, node_flags: int, kind: int) -> None:
        assert self.flags is not None
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise Bad("attributes of what is neither a file nor a directory")
        if node_flags & ~(self.flags & catar.DIRECTORY_ENTRY_FLAGS):
            raise Bad(f"attributes {node_flags:#x} that the archive doesn't record")

    def more(self, kind: int, record: bytes | memoryview) -> None:
        """
        Take a further record.

        :param kind: its type, one of those that :data:`RANKS` has.
        """
        assert self.flags is not None
        rank, needed, repeated, take = RANKS[kind]
        if rank < self._rank or (rank == self._rank and not repeated):
            raise Bad(f"{RECORD_NAMES[kind]} is out of order")
        if not self.flags & needed:
            raise Bad(f"{RECORD_NAMES[kind]}, which the archive doesn't record")
        self._rank = rank
        take(self, kind, record)

    def _take_owner(self, kind: int, record: bytes | memoryview) -> None:
        name = _owner_name(record, 16)
        if kind == catar.USER:
            self._user = name
        else:
            self._group = name

    def _take_xattr(self, kind: int, record: bytes | memoryview) -> None:
        if self._kind == stat.S_IFLNK and not self.as_go:
            raise Bad("an extended attribute of a symbolic link")
        name, nul, value = bytes(record[16:]).partition(b"\0")
        if not nul or len(name) > catar.XATTR_NAME_LIMIT or not all(name.partition(b".")):
            raise Bad("an extended attribute without a proper name")
        if self.as_go and value.endswith(b"\0"):
            value = value[:-1]
        if len(value) > catar.XATTR_VALUE_LIMIT:
            raise Bad("an extended attribute that is too long")
        if self._xattrs and name <= self._xattrs[-1][0]:
            raise Bad("extended attributes out of order")
        self._xattrs_size += len(record)
        if self._xattrs_size > _XATTRS_LIMIT or len(self._xattrs) >= _XATTR_COUNT_LIMIT:
            raise Bad("more extended attributes than a node can have")
        self._xattrs.append((name, value))

    def _take_acl(self, kind: int, record: bytes | memoryview) -> None:
        self._check_acl_allowed(kind)
        number, permissions = _ACL_ENTRY.unpack_from(record)
        name = None if len(record) == 32 else _owner_name(record, 32)
        self._check_owner_of_acl(number)
        entry = AclEntry(number, _permissions(permissions), name)
        entries = self._acl.setdefault(kind, [])
        if entries and _acl_key(entry) <= _acl_key(entries[-1]):
            raise Bad("an access control list out of order")
        if len(entries) >= _ACL_LIMIT:
            raise Bad("an access control list that is too long")
        entries.append(entry)

    def _check_owner_of_acl(self, number: int) -> None:
        assert self.flags is not None
        if self.flags & catar.WITH_UIDS:
            self._check_owner(number)
        elif number >= 0xFFFFFFFF:
            raise Bad(f"owner {number} isn't one that the archive can record")

    def _check_acl_allowed(self, kind: int) -> None:
        if self._kind == stat.S_IFLNK:
            raise Bad("an access control list of a symbolic link")
        if RANKS[kind][0] >= RANKS[catar.ACL_DEFAULT][0] and self._kind != stat.S_IFDIR:
            raise Bad("a default access control list of what is no directory")

    def _take_group_obj(self, kind: int, record: bytes | memoryview) -> None:
        self._check_acl_allowed(kind)
        self._group_obj = _permissions(_NUMBER.unpack(record)[0])

    def _take_default(self, kind: int, record: bytes | memoryview) -> None:
        self._check_acl_allowed(kind)
        user, group, other, mask = _ACL_DEFAULT.unpack(record)
        for each in (user, group, other):
            _permissions(each)
        if mask != catar.NO_MASK:
            _permissions(mask)
        self._default = (user, group, other, mask)

    def _take_selinux(self, kind: int, record: bytes | memoryview) -> None:
        self._selinux = text_of(record)

    def _take_fcaps(self, kind: int, record: bytes | memoryview) -> None:
        if self._kind != stat.S_IFREG:
            raise Bad("capabilities of what is no regular file")
        self._fcaps = bytes(record[16:])

    def _take_projid(self, kind: int, record: bytes | memoryview) -> None:
        if self._kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise Bad("a quota project of what is neither a file nor a directory")
        (projid,) = _NUMBER.unpack(record)
        if not 1 <= projid <= 0xFFFFFFFF:
            raise Bad(f"quota project {projid}")
        self._projid = projid

    def finish(self) -> Metadata:
        """Give what the records said together."""
        if not self._rank:
            return Metadata(*self._entry)
        users = self._acl.get(catar.ACL_USER, ())
        groups = self._acl.get(catar.ACL_GROUP, ())
        acl = None
        if self._group_obj is not None:
            acl = catar.Acl(tuple(users), tuple(groups), self._group_obj)
        elif users or groups:
            raise Bad("an access control list without its ACL_GROUP_OBJ")
        return Metadata(
            *self._entry,
            self._user,
            self._group,
            tuple(self._xattrs),
            acl,
            self._default_acl(),
            self._selinux,
            self._fcaps,
            self._projid,
        )

    def _default_acl(self) -> catar.DefaultAcl | None:
        users = tuple(self._acl.get(catar.ACL_DEFAULT_USER, ()))
        groups = tuple(self._acl.get(catar.ACL_DEFAULT_GROUP, ()))
        if self._default is None:
            if users or groups:
                raise Bad("a default access control list without its ACL_DEFAULT")
            return None
        user, group, other, number = self._default
        mask = None if number == catar.NO_MASK else number
        if mask is None and (users or groups):
            raise Bad("a default access control list without a mask")
        return catar.DefaultAcl(user, group, other, mask, users, groups)


#: For each record after ENTRY: its place in the order, the feature it needs, whether there may be
#: several, who takes it.
RANKS: Final[
    dict[int, tuple[int, int, bool, Callable[[NodeRecords, int, bytes | memoryview], None]]]
] = {
    catar.USER: (1, feature.WITH_USER_NAMES, False, NodeRecords._take_owner),
    catar.GROUP: (2, feature.WITH_USER_NAMES, False, NodeRecords._take_owner),
    catar.XATTR: (3, feature.WITH_XATTRS, True, NodeRecords._take_xattr),
    catar.ACL_USER: (4, feature.WITH_ACL, True, NodeRecords._take_acl),
    catar.ACL_GROUP: (5, feature.WITH_ACL, True, NodeRecords._take_acl),
    catar.ACL_GROUP_OBJ: (6, feature.WITH_ACL, False, NodeRecords._take_group_obj),
    catar.ACL_DEFAULT: (7, feature.WITH_ACL, False, NodeRecords._take_default),
    catar.ACL_DEFAULT_USER: (8, feature.WITH_ACL, True, NodeRecords._take_acl),
    catar.ACL_DEFAULT_GROUP: (9, feature.WITH_ACL, True, NodeRecords._take_acl),
    catar.SELINUX: (10, feature.WITH_SELINUX, False, NodeRecords._take_selinux),
    catar.FCAPS: (11, feature.WITH_FCAPS, False, NodeRecords._take_fcaps),
    catar.QUOTA_PROJID: (12, feature.WITH_QUOTA_PROJID, False, NodeRecords._take_projid),
}


def text_of(record: bytes | memoryview) -> bytes:
    """Give the text of a record that holds one, which ends with the record's only NUL."""
    text = bytes(record[16:])
    if text.find(b"\0") != len(text) - 1:
        raise Bad("a text that doesn't end with its first NUL")
    if len(text) == 1:
        raise Bad("an empty text")
    return text[:-1]


def _owner_name(record: bytes | memoryview, start: int) -> bytes:
    name = bytes(record[start:])
    if name.find(b"\0") != len(name) - 1 or len(name) == 1:
        raise Bad("an owner's name that doesn't end with its only NUL")
    if any(byte <= 0x20 or byte in b"/:\x7f" for byte in name[:-1]):
        raise Bad("an owner's name with impossible characters")
    return name[:-1]


def _permissions(number: int) -> int:
    if number > 7:
        raise Bad(f"permissions {number} in an access control list")
    return number


def _acl_key(entry: AclEntry) -> tuple[int, bytes, int]:
    return entry.id, entry.name or b"", entry.permissions
