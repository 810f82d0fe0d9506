# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What a node on disk has, as archives record it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from desync.errors import NotArchivable
from desync.formats import catar, posix_acl
from desync.formats import flags as feature
from desync.formats.catar import Acl, AclEntry, DefaultAcl, Metadata

from . import inode_flags
from .file_systems import WITH_SUBVOLUMES, get_subvolume

_RECORDED_NAMESPACES: Final = (b"user.", b"trusted.")
_CAPABILITY: Final = b"security.capability"
_ACCESS: Final = posix_acl.ACCESS_XATTR.encode()
_DEFAULT: Final = posix_acl.DEFAULT_XATTR.encode()
_SELINUX: Final = b"security.selinux"

#: What is said where there are no extended attributes, or the one asked for is gone.
_NO_XATTRS: Final = (errno.EOPNOTSUPP, errno.ENODATA, errno.ENOSYS, errno.EPERM)

_BY_DESCRIPTOR: Final = (
    inode_flags.CHATTR_BITS | inode_flags.FAT_BITS | WITH_SUBVOLUMES | feature.WITH_QUOTA_PROJID
)


class Owners:
    """
    Users and groups as the archive has them.

    :param shift: what is taken from every id.
    :param id_range: what is kept of it then is the rest of the division by this; None for all.
    :param names: whether they are looked up.
    :param numbers_for_names: whether who has no name gets the number in its place.
    """

    def __init__(
        self,
        shift: int = 0,
        id_range: int | None = None,
        *,
        names: bool = False,
        numbers_for_names: bool = False,
    ) -> None:
        self._shift = shift
        self._range = id_range
        self._names = names
        self._numbers_for_names = numbers_for_names
        self._users: dict[int, bytes | None] = {}
        self._groups: dict[int, bytes | None] = {}
        self.changes_ids = bool(shift or id_range)

    def shifted(self, number: int) -> int:
        """
        Give the id that is recorded.

        :raises NotArchivable: if it is below the shift.
        """
        if number < self._shift:
            raise NotArchivable(f"owner {number} is below the shift of {self._shift}")
        number -= self._shift
        return number % self._range if self._range else number

    def user(self, number: int) -> bytes | None:
        """Give the name of a user by the id on disk."""
        return self._name(self._users, number, _user_name)

    def group(self, number: int) -> bytes | None:
        """Give the name of a group by the id on disk."""
        return self._name(self._groups, number, _group_name)

    def _name(
        self, known: dict[int, bytes | None], number: int, find: Callable[[int], bytes | None]
    ) -> bytes | None:
        if not self._names or number == 0:
            return None
        if number not in known:
            name = find(number)
            if name is None and self._numbers_for_names:
                name = b"%d" % self.shifted(number)
            known[number] = name
        return known[number]


def _user_name(number: int) -> bytes | None:
    try:
        import pwd

        return os.fsencode(pwd.getpwuid(number).pw_name)
    except (ImportError, KeyError, OverflowError):
        return None


def _group_name(number: int) -> bytes | None:
    try:
        import grp

        return os.fsencode(grp.getgrgid(number).gr_name)
    except (ImportError, KeyError, OverflowError):
        return None


class MetadataReader:
    """
    Reads what an archive with certain feature flags records.

    :param flags: the feature flags.
    :param as_go: read all xattrs, as Go desync does.
    :param no_time: give all nodes the time 0.
    :ivar needs_descriptor: whether regular files and directories have to be opened for it.
    """

    def __init__(
        self, flags: int, owners: Owners, *, as_go: bool = False, no_time: bool = False
    ) -> None:
        self._flags = flags
        self._owners = owners
        self._as_go = as_go
        self._no_time = no_time
        self._with_xattrs = hasattr(os, "listxattr") and bool(
            flags
            & (feature.WITH_XATTRS | feature.WITH_ACL | feature.WITH_SELINUX | feature.WITH_FCAPS)
        )
        self.needs_descriptor = bool(flags & _BY_DESCRIPTOR)
        self._plain = not self.needs_descriptor and not flags & feature.WITH_USER_NAMES

    def read(self, path: bytes, found: os.stat_result, descriptor: int | None = None) -> Metadata:
        """
        Give a node's metadata.

        :param path: leads to it, where it is looked at without following a link.
        :param found: what ``lstat`` said.
        :param descriptor: of the open file or directory, where one is needed.
        :raises NotArchivable: if it can't be recorded.
        :raises OSError: if it can't be read.
        """
        mtime = 0 if self._no_time else found.st_mtime_ns
        uid, gid = found.st_uid, found.st_gid
        if self._owners.changes_ids:
            uid, gid = self._owners.shifted(uid), self._owners.shifted(gid)
        mode = found.st_mode
        names = self._xattr_names(path) if self._with_xattrs else None
        if self._plain and not names:
            return Metadata(mode, uid, gid, mtime)
        metadata = Metadata(
            mode,
            uid,
            gid,
            mtime,
            user=self._owners.user(found.st_uid),
            group=self._owners.group(found.st_gid),
        )
        if names:
            metadata = self._with_attributes(metadata, path, names)
        if descriptor is not None and self.needs_descriptor:
            metadata = self._with_flags(metadata, found, descriptor)
        return metadata

    def _xattr_names(self, path: bytes) -> list[bytes]:
        try:
            return [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return []
            raise

    def _xattr(self, path: bytes, name: bytes) -> bytes | None:
        try:
            return os.getxattr(path, name, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return None
            raise

    def _with_attributes(self, metadata: Metadata, path: bytes, names: list[bytes]) -> Metadata:
        flags = self._flags
        xattrs = []
        for name in sorted(names):
            if self._as_go or (
                flags & feature.WITH_XATTRS
                and name.startswith(_RECORDED_NAMESPACES)
                and not stat.S_ISLNK(metadata.mode)
            ):
                value = self._xattr(path, name)
                if value is not None:
                    xattrs.append((name, value))
        metadata = metadata._replace(xattrs=tuple(xattrs))
        if self._as_go:
            return metadata
        if flags & feature.WITH_ACL and not stat.S_ISLNK(metadata.mode):
            metadata = self._with_acl(metadata, path, names)
        if flags & feature.WITH_SELINUX and _SELINUX in names:
            label = self._xattr(path, _SELINUX)
            metadata = metadata._replace(selinux=label.rstrip(b"\0") if label else None)
        if flags & feature.WITH_FCAPS and _CAPABILITY in names and stat.S_ISREG(metadata.mode):
            metadata = metadata._replace(fcaps=self._xattr(path, _CAPABILITY))
        return metadata

    def _with_acl(self, metadata: Metadata, path: bytes, names: list[bytes]) -> Metadata:
        found = self._acl(path, _ACCESS) if _ACCESS in names else None
        if found is not None and found.mask is not None:
            acl = Acl(*self._named(found), found.group_obj)
            metadata = metadata._replace(acl=acl)
        if _DEFAULT in names and stat.S_ISDIR(metadata.mode):
            found = self._acl(path, _DEFAULT)
            if found is not None:
                default = DefaultAcl(
                    found.user_obj, found.group_obj, found.other, found.mask, *self._named(found)
                )
                metadata = metadata._replace(default_acl=default)
        return metadata

    def _acl(self, path: bytes, name: bytes) -> posix_acl.PosixAcl | None:
        value = self._xattr(path, name)
        try:
            return None if value is None else posix_acl.decode(value)
        except ValueError as error:
            raise NotArchivable(f"it has {error}") from None

    def _named(
        self, found: posix_acl.PosixAcl
    ) -> tuple[tuple[AclEntry, ...], tuple[AclEntry, ...]]:
        return (
            self._entries(found.users, self._owners.user),
            self._entries(found.groups, self._owners.group),
        )

    def _entries(
        self, entries: tuple[tuple[int, int], ...], name: Callable[[int], bytes | None]
    ) -> tuple[AclEntry, ...]:
        with_ids = self._flags & catar.WITH_UIDS
        with_names = self._flags & feature.WITH_USER_NAMES
        return tuple(
            AclEntry(
                self._owners.shifted(number) if with_ids else 0,
                permissions,
                name(number) if with_names else None,
            )
            for number, permissions in entries
        )

    def _with_flags(self, metadata: Metadata, found: os.stat_result, descriptor: int) -> Metadata:
        wanted = self._flags
        bits = 0
        if wanted & inode_flags.CHATTR_BITS:
            bits |= inode_flags.get_chattr(descriptor)
        if wanted & inode_flags.FAT_BITS:
            bits |= inode_flags.get_fat(descriptor)
        if wanted & WITH_SUBVOLUMES and stat.S_ISDIR(found.st_mode):
            bits |= get_subvolume(descriptor, found.st_ino)
        project = 0
        if wanted & feature.WITH_QUOTA_PROJID:
            project = inode_flags.get_project(descriptor)
        return metadata._replace(flags=bits, quota_projid=project)
