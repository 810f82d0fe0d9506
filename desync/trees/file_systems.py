# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What a file system is: one of files, or one of those that a kernel shows itself with; and whether a
directory is a subvolume of btrfs. Linux only: elsewhere nothing is known.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

from desync.formats import flags as feature

from .inode_flags import AVAILABLE

WITH_SUBVOLUMES: Final = feature.WITH_SUBVOLUME | feature.WITH_SUBVOLUME_RO

_GET_SUBVOLUME_FLAGS: Final = 0x80089419
_SET_SUBVOLUME_FLAGS: Final = 0x4008941A
_CREATE_SUBVOLUME: Final = 0x5000940E
_SUBVOLUME_ARGUMENTS: Final = struct.Struct("=q4088s")
_SUBVOLUME_READ_ONLY: Final = 0x2

#: The inode number of the root of every subvolume.
_SUBVOLUME_INODE: Final = 256

_NOT_HERE: Final = (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EBADF)


def get_subvolume(descriptor: int, inode: int) -> int:
    """Give the bits ``WITH_SUBVOLUME...`` of an open directory."""
    if inode != _SUBVOLUME_INODE or not AVAILABLE:
        return 0
    import fcntl

    try:
        found = fcntl.ioctl(descriptor, _GET_SUBVOLUME_FLAGS, bytes(8))
    except OSError as error:
        if error.errno in _NOT_HERE:
            return 0
        raise
    (flags,) = struct.unpack("=Q", found)
    read_only = feature.WITH_SUBVOLUME_RO if flags & _SUBVOLUME_READ_ONLY else 0
    return feature.WITH_SUBVOLUME | read_only


def make_subvolume(name: bytes, parent: int) -> bool:
    """
    Make a subvolume.

    :param parent: the directory that it is to be in.
    :returns: False if the file system has none.
    :raises OSError: if it can't be made.
    """
    if not AVAILABLE:
        return False
    import fcntl

    try:
        # Python takes only short arguments that it has to copy.
        arguments = bytearray(_SUBVOLUME_ARGUMENTS.pack(0, name))
        fcntl.ioctl(parent, _CREATE_SUBVOLUME, arguments)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return False
        raise
    return True


def set_subvolume_read_only(descriptor: int, read_only: bool) -> None:
    """
    Let a subvolume be changed, or not.

    :raises OSError: if that can't be set.
    """
    import fcntl

    (flags,) = struct.unpack("=Q", fcntl.ioctl(descriptor, _GET_SUBVOLUME_FLAGS, bytes(8)))
    wanted = flags & ~_SUBVOLUME_READ_ONLY | (_SUBVOLUME_READ_ONLY if read_only else 0)
    if wanted != flags:
        fcntl.ioctl(descriptor, _SET_SUBVOLUME_FLAGS, struct.pack("=Q", wanted))


def mounted() -> dict[int, str]:
    """Say of which type the mounted file systems are, by device number (``st_dev``)."""
    types = {}
    try:
        with open("/proc/self/mountinfo", "rb") as mounts:
            for line in mounts:
                before, _, after = line.partition(b" - ")
                major, _, minor = before.split()[2].partition(b":")
                types[os.makedev(int(major), int(minor))] = after.split()[0].decode("ascii")
    except (OSError, ValueError, IndexError):
        pass
    return types


VIRTUAL: Final = frozenset(
    {
        "autofs",
        "bpf",
        "binfmt_misc",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "efivarfs",
        "fusectl",
        "hugetlbfs",
        "mqueue",
        "nfsd",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "sysfs",
        "tracefs",
    }
)
"""Types of file systems whose files are no files: directories of them are recorded as empty."""
