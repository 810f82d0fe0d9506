# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The 64-bit feature flag word of casync's indexes and archives.

The low 33 bits say which metadata an archive records, the four highest how it was made. Source of
every bit and rule: casync's format definitions, confirmed against files that casync 2 writes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from desync.chunking.digests import Digest

WITH_16BIT_UIDS = 0x1
WITH_32BIT_UIDS = 0x2
WITH_USER_NAMES = 0x4
WITH_SEC_TIME = 0x8
WITH_USEC_TIME = 0x10
WITH_NSEC_TIME = 0x20
WITH_2SEC_TIME = 0x40
WITH_READ_ONLY = 0x80
WITH_PERMISSIONS = 0x100
WITH_SYMLINKS = 0x200
WITH_DEVICE_NODES = 0x400
WITH_FIFOS = 0x800
WITH_SOCKETS = 0x1000
WITH_FLAG_HIDDEN = 0x2000
WITH_FLAG_SYSTEM = 0x4000
WITH_FLAG_ARCHIVE = 0x8000
WITH_FLAG_APPEND = 0x10000
WITH_FLAG_NOATIME = 0x20000
WITH_FLAG_COMPR = 0x40000
WITH_FLAG_NOCOW = 0x80000
WITH_FLAG_NODUMP = 0x100000
WITH_FLAG_DIRSYNC = 0x200000
WITH_FLAG_IMMUTABLE = 0x400000
WITH_FLAG_SYNC = 0x800000
WITH_FLAG_NOCOMP = 0x1000000
WITH_FLAG_PROJINHERIT = 0x2000000
WITH_SUBVOLUME = 0x4000000
WITH_SUBVOLUME_RO = 0x8000000
WITH_XATTRS = 0x10000000
WITH_ACL = 0x20000000
WITH_SELINUX = 0x40000000
WITH_FCAPS = 0x80000000
WITH_QUOTA_PROJID = 0x100000000

EXCLUDE_FILE = 1 << 60
SHA512_256 = 1 << 61
EXCLUDE_SUBMOUNTS = 1 << 62
EXCLUDE_NODUMP = 1 << 63

NAMES: dict[str, int] = {
    "16bit-uids": WITH_16BIT_UIDS,
    "32bit-uids": WITH_32BIT_UIDS,
    "user-names": WITH_USER_NAMES,
    "sec-time": WITH_SEC_TIME,
    "usec-time": WITH_USEC_TIME,
    "nsec-time": WITH_NSEC_TIME,
    "2sec-time": WITH_2SEC_TIME,
    "read-only": WITH_READ_ONLY,
    "permissions": WITH_PERMISSIONS,
    "symlinks": WITH_SYMLINKS,
    "device-nodes": WITH_DEVICE_NODES,
    "fifos": WITH_FIFOS,
    "sockets": WITH_SOCKETS,
    "flag-hidden": WITH_FLAG_HIDDEN,
    "flag-system": WITH_FLAG_SYSTEM,
    "flag-archive": WITH_FLAG_ARCHIVE,
    "flag-append": WITH_FLAG_APPEND,
    "flag-noatime": WITH_FLAG_NOATIME,
    "flag-compr": WITH_FLAG_COMPR,
    "flag-nocow": WITH_FLAG_NOCOW,
    "flag-nodump": WITH_FLAG_NODUMP,
    "flag-dirsync": WITH_FLAG_DIRSYNC,
    "flag-immutable": WITH_FLAG_IMMUTABLE,
    "flag-sync": WITH_FLAG_SYNC,
    "flag-nocomp": WITH_FLAG_NOCOMP,
    "flag-projinherit": WITH_FLAG_PROJINHERIT,
    "subvolume": WITH_SUBVOLUME,
    "subvolume-ro": WITH_SUBVOLUME_RO,
    "xattrs": WITH_XATTRS,
    "acl": WITH_ACL,
    "selinux": WITH_SELINUX,
    "fcaps": WITH_FCAPS,
    "quota-projid": WITH_QUOTA_PROJID,
}
"""What an archive can record, by the names that casync's ``--with`` takes."""

ALL_WITH = (WITH_QUOTA_PROJID << 1) - 1
"""Every bit that says what an archive records (not normalized)."""

_FAT_ATTRIBUTES = WITH_FLAG_HIDDEN | WITH_FLAG_SYSTEM | WITH_FLAG_ARCHIVE
_CHATTR = (
    WITH_FLAG_APPEND
    | WITH_FLAG_NOATIME
    | WITH_FLAG_COMPR
    | WITH_FLAG_NOCOW
    | WITH_FLAG_NODUMP
    | WITH_FLAG_DIRSYNC
    | WITH_FLAG_IMMUTABLE
    | WITH_FLAG_SYNC
    | WITH_FLAG_NOCOMP
    | WITH_FLAG_PROJINHERIT
)
_ANY_TIME = WITH_SEC_TIME | WITH_USEC_TIME | WITH_NSEC_TIME | WITH_2SEC_TIME
_ANY_UIDS = WITH_16BIT_UIDS | WITH_32BIT_UIDS
_NODES = WITH_SYMLINKS | WITH_DEVICE_NODES | WITH_FIFOS | WITH_SOCKETS

SETS: dict[str, int] = {
    "all": ALL_WITH,
    # The most telling of each kind; what those make redundant isn't among them.
    "best": ALL_WITH
    & ~(
        WITH_16BIT_UIDS
        | WITH_SEC_TIME
        | WITH_USEC_TIME
        | WITH_2SEC_TIME
        | WITH_READ_ONLY
        | WITH_PERMISSIONS
    ),
    "unix": WITH_16BIT_UIDS | WITH_SEC_TIME | WITH_PERMISSIONS | _NODES,
    "fat": WITH_2SEC_TIME | WITH_READ_ONLY | _FAT_ATTRIBUTES,
    "chattr": _CHATTR,
    "fat-attrs": _FAT_ATTRIBUTES,
    "privileged": _ANY_UIDS
    | WITH_USER_NAMES
    | WITH_DEVICE_NODES
    | WITH_FLAG_SYSTEM
    | WITH_FLAG_APPEND
    | WITH_FLAG_IMMUTABLE
    | WITH_SUBVOLUME
    | WITH_SUBVOLUME_RO
    | WITH_ACL
    | WITH_SELINUX
    | WITH_FCAPS
    | WITH_QUOTA_PROJID,
    "fuse": _ANY_UIDS
    | _ANY_TIME
    | WITH_READ_ONLY
    | WITH_PERMISSIONS
    | _NODES
    | _FAT_ATTRIBUTES
    | _CHATTR
    | WITH_XATTRS,
}
"""Several features at once, by the names that casync's ``--with`` takes."""

KNOWN = ALL_WITH | EXCLUDE_FILE | SHA512_256 | EXCLUDE_SUBMOUNTS | EXCLUDE_NODUMP
"""Every bit that means something; a reader refuses any other."""

ENTRY_TYPE = 0x1396FABCEA5BBB51
"""Type of the ENTRY record that every archive begins with."""

ENTRY_SIZE = 64
"""Length in bytes of an ENTRY record, its header of 16 bytes included."""


def normalize(flags: int) -> int:
    """
    Drop the bits that others make redundant, and add those that others need.

    A writer must write normalized flags, and a reader refuses flags that differ from their normal
    form.

    :param flags: known bits in any combination.
    """
    if flags & WITH_ACL and not flags & (WITH_16BIT_UIDS | WITH_32BIT_UIDS | WITH_USER_NAMES):
        flags |= WITH_32BIT_UIDS | WITH_USER_NAMES
    if flags & WITH_32BIT_UIDS:
        flags &= ~WITH_16BIT_UIDS
    if flags & WITH_NSEC_TIME:
        flags &= ~(WITH_USEC_TIME | WITH_SEC_TIME | WITH_2SEC_TIME)
    if flags & WITH_USEC_TIME:
        flags &= ~(WITH_SEC_TIME | WITH_2SEC_TIME)
    if flags & WITH_SEC_TIME:
        flags &= ~WITH_2SEC_TIME
    if flags & WITH_ACL:
        flags &= ~(WITH_PERMISSIONS | WITH_READ_ONLY)
    if flags & WITH_PERMISSIONS:
        flags &= ~WITH_READ_ONLY
    if flags & EXCLUDE_NODUMP:
        flags &= ~WITH_FLAG_NODUMP
    if flags & WITH_SUBVOLUME_RO:
        flags |= WITH_SUBVOLUME
    return flags


def why_refused(flags: int) -> str | None:
    """
    Say why a reader refuses a flag word.

    :returns: the reason, or None if the word is fine.
    """
    unknown = flags & ~KNOWN
    if unknown:
        return f"unknown feature flags {unknown:#x}"
    if normalize(flags) != flags:
        return f"feature flags {flags:#x} contradict each other"
    return None


def catar_flags(first_bytes: bytes | bytearray | memoryview) -> int:
    """
    Give the feature flags of the archive that a file begins with.

    :param first_bytes: the first 64 bytes of the file, or more, or all it has.
    :returns: the flags of the ENTRY record; 0 if the file begins with none, or with one whose flags
        no reader takes.
    """
    if len(first_bytes) < ENTRY_SIZE:
        return 0
    size, kind, flags = struct.unpack_from("<3Q", first_bytes)
    if size != ENTRY_SIZE or kind != ENTRY_TYPE or why_refused(flags) is not None:
        return 0
    return int(flags)


def blob_flags(digest: Digest, first_bytes: bytes | bytearray | memoryview = b"") -> int:
    """
    Give the flag word of a blob's index: what Go desync's ``make`` writes.

    The flags of an archive (a blob may be one) are added. Unlike Go's, the word is then normalized,
    for casync refuses an index whose isn't, and it names the digest that the ids were made with,
    whatever the archive says.

    :param digest: the algorithm of the ids.
    :param first_bytes: the first 64 bytes of the blob, or all it has.
    """
    recorded = catar_flags(first_bytes) & ~SHA512_256
    return normalize(EXCLUDE_NODUMP | recorded | digest.feature_flag)
