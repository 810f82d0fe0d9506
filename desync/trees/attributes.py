# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Giving nodes the metadata that an archive has of them.

The order matters: a change of owner takes away set-id bits and capabilities, an access control list
changes the mode, all of them change what may be done next, and an immutable file can't be changed
at all.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, TypeAlias

from desync import umask
from desync.formats import catar, posix_acl
from desync.formats import flags as feature
from desync.formats.catar import AclEntry, Metadata
from desync.formats.node_acls import access_acl, default_acl

from . import inode_flags
from .confined import node_at
from .file_systems import WITH_SUBVOLUMES, get_subvolume, set_subvolume_read_only
from .restoring import OwnerIds, Restoring, Shortfall

PathOf: TypeAlias = Callable[[], str]
"""Gives the path of a node; asked for only where something is to be said about it."""

_FCAPS_XATTR: Final = "security.capability"
_SELINUX_XATTR: Final = "security.selinux"

#: What a node has beyond the fields that each has, where it has nothing of it.
_NOTHING_MORE: Final = Metadata(0)[7:]

_HAVE_XATTRS: Final = hasattr(os, "setxattr")

#: What says that an attribute isn't there, or that the file system has none.
_ABSENT: Final = (errno.ENODATA, errno.EOPNOTSUPP)


class Attributes:
    """
    Gives nodes their metadata.

    :param flags: the archive's feature flags. What they don't name isn't touched.
    :param restoring: what is to be restored.
    :param shortfall: told what can't be.
    :ivar has_acls: whether the archive says who has which access control list, or none.
    """

    def __init__(self, flags: int, restoring: Restoring, shortfall: Shortfall) -> None:
        self._shortfall = shortfall
        self._owners = OwnerIds(restoring)
        # One look-up for both, and most nodes have the same owner as the one before.
        self._known_ids: dict[tuple[object, ...], tuple[int, int]] = {}
        self._own = os.geteuid(), os.getegid()
        self.go = flags | feature.SHA512_256 == catar.GO_FLAGS
        self._granularity = catar.granularity(flags) or 1
        flags = restoring.of(flags)
        uids = catar.WITH_UIDS | feature.WITH_USER_NAMES
        self._has_owners = restoring.owner and bool(flags & uids)
        self._chown = self._has_owners and restoring.chown
        self._whole_mode = restoring.permissions and bool(
            flags & (feature.WITH_PERMISSIONS | feature.WITH_ACL)
        )
        self._allowed = umask.file_mode(0o777)
        self._times = bool(flags & catar.WITH_TIME)
        self._xattrs = restoring.owner and bool(flags & feature.WITH_XATTRS)
        self.has_acls = restoring.owner and self._whole_mode and bool(flags & feature.WITH_ACL)
        self._selinux = restoring.owner and bool(flags & feature.WITH_SELINUX)
        self._fcaps = restoring.owner and bool(flags & feature.WITH_FCAPS)
        self._projects = restoring.owner and bool(flags & feature.WITH_QUOTA_PROJID)
        self._chattr = flags & inode_flags.CHATTR_BITS
        self._fat = flags & inode_flags.FAT_BITS
        self._subvolumes = flags & WITH_SUBVOLUMES
        self._more_flags = bool(self._chattr | self._fat | self._subvolumes) or self._projects

    def for_new_file(
        self, descriptor: int, metadata: Metadata, path: PathOf, has_acl: bool
    ) -> None:
        """
        Complete a regular file or directory that was made a moment ago with a mode for its owner
        alone; :meth:`lock` is what comes last.

        :param descriptor: open.
        :param has_acl: whether it may have got access control lists from its directory.
        """
        restored = self._set_owner(descriptor, metadata, path)
        if has_acl or metadata[7:] != _NOTHING_MORE:
            self._set_more(descriptor, metadata, path, new=not has_acl)
        try:
            os.fchmod(descriptor, self._mode(metadata.mode, restored))
        except OSError as error:
            self._shortfall.fail(path(), "set its mode", error)
        if self._times:
            self._set_time(descriptor, metadata.mtime, path)

    def before_content(self, descriptor: int, metadata: Metadata, path: PathOf) -> None:
        """Give an empty file the attributes that don't count any more when it has content."""
        early = self._chattr & inode_flags.EARLY
        if metadata.flags & early:
            try:
                inode_flags.set_chattr(descriptor, metadata.flags, early)
            except OSError as error:
                self._shortfall.fail(path(), "set its attributes", error)

    def is_subvolume(self, metadata: Metadata) -> bool:
        """Tell whether a directory is to be a subvolume."""
        return bool(self._subvolumes & metadata.flags & feature.WITH_SUBVOLUME)

    def lock(self, descriptor: int, metadata: Metadata, path: PathOf) -> None:
        """Give a new file or directory, when it has its name, what can keep it from changes."""
        if self._more_flags and (metadata.flags or metadata.quota_projid):
            self._set_flags(descriptor, metadata, path)

    def for_old_file(
        self, descriptor: int, metadata: Metadata, path: PathOf, found: os.stat_result
    ) -> None:
        """
        Make the metadata of a file or directory that was there already what the archive has,
        leaving alone what is right.

        :param found: what it is like now.
        """
        restored = self._set_owner(descriptor, metadata, path, found)
        self._set_more(descriptor, metadata, path, new=False)
        mode = self._mode(metadata.mode, restored)
        try:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:
                os.fchmod(descriptor, mode)
        except OSError as error:
            self._shortfall.fail(path(), "set its mode", error)
        if self._times and not self._has_time(metadata.mtime, os.fstat(descriptor).st_mtime_ns):
            self._set_time(descriptor, metadata.mtime, path)
        if self._more_flags:
            self._set_flags(descriptor, metadata, path)

    def for_special(
        self, place: int, metadata: Metadata, path: PathOf, has_acl: bool = False
    ) -> None:
        """
        Complete a device, a fifo or a socket.

        :param place: what :func:`.confined.open_place` gave.
        """
        node = node_at(place)
        restored = self._set_owner(node, metadata, path)
        if has_acl or metadata[7:] != _NOTHING_MORE:
            self._set_more(node, metadata, path, new=not has_acl)
        try:
            os.chmod(node, self._mode(metadata.mode, restored))
        except OSError as error:
            self._shortfall.fail(path(), "set its mode", error)
        if self._times:
            self._set_time(node, metadata.mtime, path)

    def for_symlink(self, name: bytes, parent: int, metadata: Metadata, path: PathOf) -> None:
        """
        Complete a symbolic link; what it leads to isn't touched.

        :param parent: the directory that it is in.
        """
        if self._chown:
            try:
                uid, gid = self._ids(metadata)
                os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                self._shortfall.fail(path(), "set its owner", error)
        elif self._has_owners:
            self._count_owner(metadata)
        wanted = {os.fsdecode(key): value for key, value in metadata.xattrs if self._xattrs}
        if self._selinux and metadata.selinux is not None:
            wanted[_SELINUX_XATTR] = metadata.selinux
        # There is no call for xattrs that takes a directory and a name.
        link = os.path.join(f"/proc/self/fd/{parent}".encode(), name) if wanted else b""
        for key, value in wanted.items():
            try:
                _set_xattr(link, key, value, follow=False)
            except OSError as error:
                self._shortfall.fail(path(), f"set its {_NAMES.get(key, f'xattr {key}')}", error)
        if self._times and not (self.go and not metadata.mtime):
            times = (metadata.mtime, metadata.mtime)
            try:
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                self._shortfall.fail(path(), "set its time", error)

    def is_right_symlink(self, metadata: Metadata, found: os.stat_result) -> bool:
        """Tell whether there is nothing to be done about a link that was there already."""
        if metadata.xattrs or metadata.selinux is not None:
            return False
        if self._chown and not self._is_owner(metadata, found):
            return False
        return not self._times or self._has_time(metadata.mtime, found.st_mtime_ns)

    def may_keep(self, metadata: Metadata, found: os.stat_result) -> bool:
        """
        Tell whether a file may become the archive's as it is: not if it has other names, which
        would change too, nor if it is somebody's who may have it open and isn't to own it.
        """
        if found.st_nlink > 1:
            return False
        if found.st_uid == self._own[0]:
            return True
        try:
            return self._chown and found.st_uid == self._ids(metadata)[0]
        except OSError:
            return False

    def lowest_mode(self, metadata: Metadata) -> int:
        """Give the permissions that a node will have, for one that mustn't have more meanwhile."""
        return self._mode_bits(metadata.mode) & 0o777

    def unlock(self, descriptor: int) -> None:
        """Let a file or directory be changed that is immutable or append-only, if that can be."""
        try:
            if inode_flags.get_chattr(descriptor) & inode_flags.LOCKING:
                inode_flags.set_chattr(descriptor, 0, inode_flags.LOCKING)
            if self._subvolumes and get_subvolume(descriptor, os.fstat(descriptor).st_ino):
                set_subvolume_read_only(descriptor, False)
        except OSError:
            pass  # What needs it fails, and says so.

    def _ids(self, metadata: Metadata) -> tuple[int, int]:
        key = (metadata[1], metadata[2], metadata[5], metadata[6])
        known = self._known_ids.get(key)
        if known is None:
            known = self._known_ids[key] = (
                self._owners.user(metadata.user, metadata.uid),
                self._owners.group(metadata.group, metadata.gid),
            )
        return known

    def _is_owner(self, metadata: Metadata, found: os.stat_result) -> bool:
        try:
            return self._ids(metadata) == (found.st_uid, found.st_gid)
        except OSError:
            return False

    def _count_owner(self, metadata: Metadata) -> bool:
        """Note an owner that isn't set, unless it is right by itself; say whether it is."""
        try:
            if self._ids(metadata) == self._own:
                return True
        except OSError:
            pass
        self._shortfall.owners += 1
        return False

    def _set_owner(
        self,
        node: int | str,
        metadata: Metadata,
        path: PathOf,
        found: os.stat_result | None = None,
    ) -> bool:
        """Set the owner, and say whether it is the archive's now."""
        if not self._chown:
            if not self._has_owners:
                return False
            if found is not None and self._is_owner(metadata, found):
                return True
            return self._count_owner(metadata)
        try:
            uid, gid = self._ids(metadata)
            if found is None or (found.st_uid, found.st_gid) != (uid, gid):
                os.chown(node, uid, gid)
        except OSError as error:
            self._shortfall.fail(path(), "set its owner", error)
            return False
        return True

    def _mode_bits(self, mode: int) -> int:
        return mode & 0o7777 if self._whole_mode else mode & self._allowed

    def _mode(self, mode: int, owner_restored: bool) -> int:
        bits = self._mode_bits(mode)
        # A directory's bits only say what its new nodes belong to.
        if bits & 0o6000 and not owner_restored and not stat.S_ISDIR(mode):
            self._shortfall.set_ids += 1
            bits &= ~0o6000
        return bits

    def _has_time(self, wanted: int, found: int) -> bool:
        if self.go and not wanted:
            return True
        return found - found % self._granularity == wanted

    def _set_time(self, node: int | str, mtime: int, path: PathOf) -> None:
        if not mtime and self.go:
            return  # It was made with --no-time, perhaps.
        try:
            os.utime(node, ns=(mtime, mtime))
        except (OSError, OverflowError) as error:
            if isinstance(error, OverflowError):
                error = OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW))
            self._shortfall.fail(path(), "set its time", error)

    def _set_more(
        self,
        node: int | str,
        metadata: Metadata,
        path: PathOf,
        *,
        new: bool,
    ) -> None:
        """
        Set what is kept in xattrs.

        :param new: whether the node has none yet, so that only what the archive has is to be set.
        """
        present = set() if new else _list_xattrs(node)
        wanted: dict[str, bytes] = {}
        if self._xattrs:
            for name, value in metadata.xattrs:
                if self._may_set(name):
                    wanted[os.fsdecode(name)] = value
                else:
                    error = OSError(errno.EPERM, "archives have no such attributes")
                    self._shortfall.fail(path(), f"set its xattr {os.fsdecode(name)}", error)
            gone = {key for key in present if key.startswith(("user.", "trusted."))}
            if self.go:
                gone |= present & {_FCAPS_XATTR}
        else:
            gone = set()
        if self.has_acls:
            try:
                wanted.update(self._acls(metadata))
            except OSError as error:
                self._shortfall.fail(path(), "set its access control list", error)
            gone |= present & {posix_acl.ACCESS_XATTR, posix_acl.DEFAULT_XATTR}
        if self._fcaps and stat.S_ISREG(metadata.mode):
            if metadata.fcaps is not None:
                wanted[_FCAPS_XATTR] = metadata.fcaps
            gone |= present & {_FCAPS_XATTR}
        if self._selinux and metadata.selinux is not None:
            wanted[_SELINUX_XATTR] = metadata.selinux
        for key in sorted(gone - wanted.keys()):
            try:
                os.removexattr(node, key)
            except OSError as error:
                if error.errno not in _ABSENT:
                    self._shortfall.fail(path(), f"remove its xattr {key}", error)
        for key, value in wanted.items():
            try:
                if key in present and _get_xattr(node, key) == value:
                    continue
                _set_xattr(node, key, value)
            except OSError as error:
                self._shortfall.fail(path(), f"set its {_NAMES.get(key, f'xattr {key}')}", error)

    def _may_set(self, key: bytes) -> bool:
        # casync records these two namespaces only; whatever else its archives have was put there
        # by hand. Go desync records all that there are.
        if key.startswith((b"user.", b"trusted.")):
            return True
        return self.go and key.startswith((b"security.", b"system."))

    def _acls(self, metadata: Metadata) -> dict[str, bytes]:
        found = {}
        access = access_acl(metadata, self._user_of, self._group_of)
        if access is not None:
            found[posix_acl.ACCESS_XATTR] = posix_acl.encode(access)
        default = default_acl(metadata, self._user_of, self._group_of)
        if default is not None:
            found[posix_acl.DEFAULT_XATTR] = posix_acl.encode(default)
        return found

    def _user_of(self, entry: AclEntry) -> int:
        return self._owners.user(entry.name, entry.id)

    def _group_of(self, entry: AclEntry) -> int:
        return self._owners.group(entry.name, entry.id)

    def _set_flags(self, descriptor: int, metadata: Metadata, path: PathOf) -> None:
        """Set the quota project and the attributes of chattr and FAT, the locking ones last."""
        try:
            if self._projects:
                inode_flags.set_project(descriptor, metadata.quota_projid)
        except OSError as error:
            self._shortfall.fail(path(), "set its quota project", error)
        try:
            inode_flags.set_fat(descriptor, metadata.flags, self._fat)
            inode_flags.set_chattr(descriptor, metadata.flags, self._chattr)
            read_only = self._subvolumes & metadata.flags & feature.WITH_SUBVOLUME_RO
            if read_only and get_subvolume(descriptor, os.fstat(descriptor).st_ino):
                set_subvolume_read_only(descriptor, True)
        except OSError as error:
            self._shortfall.fail(path(), "set its attributes", error)


_NAMES: Final = {
    posix_acl.ACCESS_XATTR: "access control list",
    posix_acl.DEFAULT_XATTR: "default access control list",
    _FCAPS_XATTR: "capabilities",
    _SELINUX_XATTR: "SELinux label",
}


def _set_xattr(node: int | str | bytes, key: str, value: bytes, *, follow: bool = True) -> None:
    if not _HAVE_XATTRS:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    os.setxattr(node, key, value, follow_symlinks=follow)


def _get_xattr(node: int | str, key: str) -> bytes:
    value = os.getxattr(node, key)
    return value.rstrip(b"\0") if key == _SELINUX_XATTR else value


def _list_xattrs(node: int | str) -> set[str]:
    if not _HAVE_XATTRS:
        return set()
    try:
        return set(os.listxattr(node))
    except OSError:
        return set()  # Whatever has to be set fails, and says so.
