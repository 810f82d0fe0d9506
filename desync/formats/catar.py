# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Archives of directory trees (``.catar``): what they are made of, as a stream of events.

The format is casync's: records of a size and a type (64 bits each, little-endian, the size counts
itself) that follow each other without padding. A tree is read and written as the same events, in
the order of the archive: depth first.

::

    Directory(b"", Metadata(0o40755, ...))      the root, which has no name
    File(b"motd", Metadata(0o100644, ...), 6)   then its content in pieces:
    Payload(b"hel") Payload(b"lo\\n")
    Symlink(b"news", Metadata(...), b"motd")
    Directory(b"pub", Metadata(...))            a directory's children ...
    Fifo(b"in", Metadata(...))
    EndDirectory()                              ... up to its end
    EndDirectory()                              the end of the root, and of the archive

Reading: :class:`desync.formats.catar_decoder.CatarDecoder` takes the bytes as they come and gives
the events. Writing: :class:`desync.formats.catar_encoder.CatarEncoder` takes the events, or what
they consist of, and gives the bytes. Neither holds more of a file's content than it is given.

Names, targets, labels and so on are bytes: archives know no encoding.
"""

from __future__ import annotations

import stat
from typing import Final, NamedTuple, TypeAlias

from . import flags as feature

ENTRY: Final = feature.ENTRY_TYPE
USER: Final = 0xF453131AAEEACCB3
GROUP: Final = 0x25EB6AC969396A52
XATTR: Final = 0xB8157091F80BC486
ACL_USER: Final = 0x297DC88B2EF12FAF
ACL_GROUP: Final = 0x36F2ACB56CB3DD0B
ACL_GROUP_OBJ: Final = 0x23047110441F38F3
ACL_DEFAULT: Final = 0xFE3EEDA6823C8CD0
ACL_DEFAULT_USER: Final = 0xBDF03DF9BD010A91
ACL_DEFAULT_GROUP: Final = 0xA0CB1168782D1F51
SELINUX: Final = 0x46FAF0602FD26C59
FCAPS: Final = 0xF7267DB0AFED0629
QUOTA_PROJID: Final = 0x161BAF2D8772A72B
SYMLINK: Final = 0x664A6FB6830E0D6C
DEVICE: Final = 0xAC3DACE369DFE643
PAYLOAD: Final = 0x8B9E1D93D6DCFFC9
FILENAME: Final = 0x6DBB6EBCB3161F0B
GOODBYE: Final = 0xDFD35C5E8327C403

GOODBYE_TAIL_MARKER: Final = 0x57446FA533702943

HEADER_SIZE: Final = 16
"""Length in bytes of what every record begins with: its size and its type."""

NAME_LIMIT: Final = 255
"""The longest name of a node, in bytes."""

TARGET_LIMIT: Final = 4095
"""The longest target of a symbolic link, in bytes."""

OWNER_NAME_LIMIT: Final = 255
"""The longest name of a user or a group, in bytes."""

XATTR_NAME_LIMIT: Final = 255
XATTR_VALUE_LIMIT: Final = 65536
LABEL_LIMIT: Final = 4095
FCAPS_LIMIT: Final = 65536

DEPTH_LIMIT: Final = 64
"""How many nodes may be on a path, the root and the last one included. casync's limit."""

NO_MASK: Final = (1 << 64) - 1
"""What an ACL_DEFAULT record says instead of a mask that isn't there."""

GO_FLAGS: Final = 0xB000000010001F22
"""
The feature flags of every archive that Go desync writes.

Go desync puts a NUL after the value of each xattr, records xattrs of symbolic links and of all
namespaces, and names fifos and sockets without recording them. Nothing in an archive but this word
tells that it wrote it; so of an archive with just this word the decoder drops one NUL at the end of
each value.
"""

DIRECTORY_ENTRY_FLAGS: Final = (
    feature.WITH_FLAG_HIDDEN
    | feature.WITH_FLAG_SYSTEM
    | feature.WITH_FLAG_ARCHIVE
    | feature.WITH_FLAG_APPEND
    | feature.WITH_FLAG_NOATIME
    | feature.WITH_FLAG_COMPR
    | feature.WITH_FLAG_NOCOW
    | feature.WITH_FLAG_NODUMP
    | feature.WITH_FLAG_DIRSYNC
    | feature.WITH_FLAG_IMMUTABLE
    | feature.WITH_FLAG_SYNC
    | feature.WITH_FLAG_NOCOMP
    | feature.WITH_FLAG_PROJINHERIT
    | feature.WITH_SUBVOLUME
    | feature.WITH_SUBVOLUME_RO
)
"""The bits of the feature flags that a node's own flags can have, with the same meaning."""

WITH_UIDS: Final = feature.WITH_16BIT_UIDS | feature.WITH_32BIT_UIDS
WITH_TIME: Final = (
    feature.WITH_SEC_TIME | feature.WITH_USEC_TIME | feature.WITH_NSEC_TIME | feature.WITH_2SEC_TIME
)


class AclEntry(NamedTuple):
    """
    What an access control list grants one user or one group.

    :ivar id: of the user or group.
    :ivar permissions: read 4, write 2, execute 1.
    :ivar name: of the user or group; None where it isn't known.
    """

    id: int
    permissions: int
    name: bytes | None = None


class Acl(NamedTuple):
    """
    The access control list of a node, as far as its mode doesn't tell.

    :ivar group_obj: what the owning group may do. The group's bits of the mode are the mask, then.
        None if there is no mask; there are no other entries then.
    """

    users: tuple[AclEntry, ...] = ()
    groups: tuple[AclEntry, ...] = ()
    group_obj: int | None = None


class DefaultAcl(NamedTuple):
    """
    The access control list that a directory gives to what is made in it.

    :ivar mask: None if there is none; there are no users and groups then.
    """

    user_obj: int
    group_obj: int
    other: int
    mask: int | None = None
    users: tuple[AclEntry, ...] = ()
    groups: tuple[AclEntry, ...] = ()


class Metadata(NamedTuple):
    """
    What an archive says about a node besides its name and content.

    What the archive doesn't record, as its feature flags say, has the default here.

    :ivar mode: type and permission bits, as in ``st_mode``.
    :ivar mtime: nanoseconds since 1970, negative before. An archive holds 64 bits without a sign;
        the upper half counts as the time before 1970.
    :ivar flags: the attributes that chattr, FAT and btrfs know, as the bits ``WITH_FLAG_...`` and
        ``WITH_SUBVOLUME...`` of :mod:`desync.formats.flags`.
    :ivar user: the owner's name; None for root, and where it has none.
    :ivar xattrs: (name, value) of the extended attributes, sorted by name.
    :ivar acl: None if the mode says it all.
    :ivar selinux: the label.
    :ivar fcaps: the capabilities of a file: the value of the xattr ``security.capability``. In an
        archive by Go desync that is among the xattrs.
    :ivar quota_projid: the project that the node counts for, 0 if none.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    flags: int = 0
    user: bytes | None = None
    group: bytes | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    acl: Acl | None = None
    default_acl: DefaultAcl | None = None
    selinux: bytes | None = None
    fcaps: bytes | None = None
    quota_projid: int = 0

    @property
    def kind(self) -> int:
        """The type bits of the mode: ``stat.S_IFREG`` and so on."""
        return stat.S_IFMT(self.mode)


class Directory(NamedTuple):
    """A directory begins. The name of the root is empty."""

    name: bytes
    metadata: Metadata


class EndDirectory(NamedTuple):
    """The directory that began last and hasn't ended has no more children."""


class File(NamedTuple):
    """
    A regular file.

    :ivar size: length in bytes of its content, which follows as :class:`Payload`; none follows if
        it is 0.
    """

    name: bytes
    metadata: Metadata
    size: int


class Payload(NamedTuple):
    """The next piece of a file's content: at least a byte. From the decoder a view of its input."""

    data: bytes | memoryview


class Symlink(NamedTuple):
    """A symbolic link."""

    name: bytes
    metadata: Metadata
    target: bytes


class Device(NamedTuple):
    """A character or block device, as the mode says."""

    name: bytes
    metadata: Metadata
    major: int
    minor: int


class Fifo(NamedTuple):
    """A named pipe."""

    name: bytes
    metadata: Metadata


class Socket(NamedTuple):
    """A socket's name in the file system."""

    name: bytes
    metadata: Metadata


Event: TypeAlias = Directory | EndDirectory | File | Payload | Symlink | Device | Fifo | Socket


def granularity(flags: int) -> int:
    """
    Say what the times in an archive are multiples of, in nanoseconds.

    :param flags: its feature flags.
    :returns: 0 if it has no times.
    """
    if flags & feature.WITH_NSEC_TIME:
        return 1
    if flags & feature.WITH_USEC_TIME:
        return 1_000
    if flags & feature.WITH_SEC_TIME:
        return 1_000_000_000
    if flags & feature.WITH_2SEC_TIME:
        return 2_000_000_000
    return 0


def fitting_mode(mode: int, flags: int) -> int:
    """
    Give what is recorded of a node's type and permissions.

    :param mode: as in ``st_mode``.
    :param flags: the archive's feature flags.
    """
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        return kind | 0o777
    if flags & (feature.WITH_PERMISSIONS | feature.WITH_ACL):
        return mode
    if flags & feature.WITH_READ_ONLY and not mode & 0o222:
        return kind | (0o555 if kind == stat.S_IFDIR else 0o444)
    return kind | (0o777 if kind == stat.S_IFDIR else 0o666)


def feature_of_type(mode: int) -> int:
    """
    Give the feature flag without which nodes of a type are left out; 0 for those that never are.

    :raises ValueError: if archives don't know the type.
    """
    try:
        return _FEATURE_OF_TYPE[stat.S_IFMT(mode)]
    except KeyError:
        raise ValueError(f"mode {mode:o} is of no known type") from None


_FEATURE_OF_TYPE: Final = {
    stat.S_IFREG: 0,
    stat.S_IFDIR: 0,
    stat.S_IFLNK: feature.WITH_SYMLINKS,
    stat.S_IFCHR: feature.WITH_DEVICE_NODES,
    stat.S_IFBLK: feature.WITH_DEVICE_NODES,
    stat.S_IFIFO: feature.WITH_FIFOS,
    stat.S_IFSOCK: feature.WITH_SOCKETS,
}


def why_bad_name(name: bytes) -> str | None:
    """Say why a node can't have a name in an archive; None if it can."""
    if not name:
        return "it is empty"
    if name in (b".", b".."):
        return "it names a directory's own entry"
    if b"/" in name or b"\0" in name:
        return "it has a slash or a NUL in it"
    if len(name) > NAME_LIMIT:
        return f"it has {len(name)} bytes"
    return None
