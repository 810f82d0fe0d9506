# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What Linux keeps of a file or directory besides its mode, owner, times and xattrs: the attributes
that ``chattr`` and FAT know, and the quota project. On other systems there is nothing of it.
"""

from __future__ import annotations

import array
import errno
import struct
import sys
from typing import Final

from desync.formats import flags as feature

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

AVAILABLE: Final = fcntl is not None and sys.platform == "linux"

_LONG: Final = struct.calcsize("l")
_GET_FLAGS: Final = 0x80006601 | _LONG << 16
_SET_FLAGS: Final = 0x40006602 | _LONG << 16
_GET_FSXATTR: Final = 0x801C581F
_SET_FSXATTR: Final = 0x401C5820
_GET_FAT: Final = 0x80047210
_SET_FAT: Final = 0x40047211

_FSXATTR: Final = struct.Struct("=5I8x")

#: What a system says that has no such thing for this file.
_NOT_HERE: Final = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)

CHATTR: Final = {
    feature.WITH_FLAG_APPEND: 0x20,
    feature.WITH_FLAG_NOATIME: 0x80,
    feature.WITH_FLAG_COMPR: 0x4,
    feature.WITH_FLAG_NOCOW: 0x800000,
    feature.WITH_FLAG_NODUMP: 0x40,
    feature.WITH_FLAG_DIRSYNC: 0x10000,
    feature.WITH_FLAG_IMMUTABLE: 0x10,
    feature.WITH_FLAG_SYNC: 0x8,
    feature.WITH_FLAG_NOCOMP: 0x400,
    feature.WITH_FLAG_PROJINHERIT: 0x20000000,
}
"""The system's bit of each attribute that archives record."""

FAT: Final = {
    feature.WITH_FLAG_HIDDEN: 0x2,
    feature.WITH_FLAG_SYSTEM: 0x4,
    feature.WITH_FLAG_ARCHIVE: 0x20,
}
"""The same for those of FAT."""

CHATTR_BITS: Final = sum(CHATTR)
FAT_BITS: Final = sum(FAT)

#: While one of these is set, a file can't be changed.
LOCKING: Final = feature.WITH_FLAG_IMMUTABLE | feature.WITH_FLAG_APPEND


#: Those that say how a file's content is to be kept when it is written.
EARLY: Final = feature.WITH_FLAG_NOCOW | feature.WITH_FLAG_COMPR | feature.WITH_FLAG_NOCOMP


def get_chattr(descriptor: int) -> int:
    """
    Give the attributes of an open file or directory, as bits of the feature flags.

    :returns: 0 where the file system knows none.
    :raises OSError: if they can't be read.
    """
    return _from_system(_get_int(descriptor, _GET_FLAGS), CHATTR)


def set_chattr(descriptor: int, wanted: int, mask: int) -> None:
    """
    Set the attributes of an open file or directory.

    :param wanted: bits of the feature flags.
    :param mask: those that are set or cleared; others stay.
    :raises OSError: if they can't be set.
    """
    _set_ints(descriptor, _GET_FLAGS, _SET_FLAGS, CHATTR, wanted, mask)


def get_fat(descriptor: int) -> int:
    """Give the attributes that FAT keeps, as bits of the feature flags; 0 elsewhere."""
    return _from_system(_get_int(descriptor, _GET_FAT), FAT)


def set_fat(descriptor: int, wanted: int, mask: int) -> None:
    """
    Set the attributes that FAT keeps; as :func:`set_chattr`.

    :raises OSError: if they can't be set.
    """
    _set_ints(descriptor, _GET_FAT, _SET_FAT, FAT, wanted, mask)


def get_project(descriptor: int) -> int:
    """Give the quota project of an open file or directory, 0 if it has none."""
    found = _get_fsxattr(descriptor)
    return 0 if found is None else found[3]


def set_project(descriptor: int, project: int) -> None:
    """
    Set the quota project of an open file or directory.

    :raises OSError: if it can't be set.
    """
    found = _get_fsxattr(descriptor)
    if found is None:
        if project:
            raise OSError(errno.EOPNOTSUPP, "the file system has no quota projects")
        return
    if found[3] != project:
        packed = _FSXATTR.pack(found[0], found[1], found[2], project, found[4])
        fcntl.ioctl(descriptor, _SET_FSXATTR, packed)


def _get_fsxattr(descriptor: int) -> tuple[int, ...] | None:
    if not AVAILABLE:
        return None
    try:
        found = fcntl.ioctl(descriptor, _GET_FSXATTR, bytes(_FSXATTR.size))
    except OSError as error:
        if error.errno in _NOT_HERE:
            return None
        raise
    return _FSXATTR.unpack(found)


def _get_int(descriptor: int, request: int) -> int:
    if not AVAILABLE:
        return 0
    # The kernel writes an int, whatever the request's number says.
    cell = array.array("i", [0, 0])
    try:
        fcntl.ioctl(descriptor, request, cell)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return 0
        raise
    return cell[0]


def _set_ints(
    descriptor: int, get: int, put: int, bits: dict[int, int], wanted: int, mask: int
) -> None:
    changed = _to_system(mask, bits)
    if not changed:
        return
    if not AVAILABLE:
        if wanted & mask:
            raise OSError(errno.EOPNOTSUPP, "the system has no such attributes")
        return
    cell = array.array("i", [0, 0])
    try:
        fcntl.ioctl(descriptor, get, cell)
    except OSError as error:
        if error.errno in _NOT_HERE and not wanted & mask:
            return
        raise
    new = cell[0] & ~changed | _to_system(wanted, bits) & changed
    if new != cell[0]:
        cell[0] = new
        fcntl.ioctl(descriptor, put, cell)


def _from_system(found: int, bits: dict[int, int]) -> int:
    return sum(ours for ours, theirs in bits.items() if found & theirs)


def _to_system(wanted: int, bits: dict[int, int]) -> int:
    return sum(theirs for ours, theirs in bits.items() if wanted & ours)
