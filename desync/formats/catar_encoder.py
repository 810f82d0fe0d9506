# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Writing archives: nodes in, bytes out."""

from __future__ import annotations

import stat
import struct
from typing import Final

from desync.errors import NotArchivable

from . import catar
from . import flags as feature
from .catar import Metadata
from .catar_goodbye import Children

_HEADER: Final = struct.Struct("<2Q")
_ENTRY: Final = struct.Struct("<8Q")
_ACL_ENTRY: Final = struct.Struct("<4Q")
_ACL_GROUP_OBJ: Final = struct.Struct("<3Q")
_ACL_DEFAULT: Final = struct.Struct("<6Q")
_NUMBER: Final = struct.Struct("<3Q")
_DEVICE: Final = struct.Struct("<4Q")

_U64: Final = (1 << 64) - 1
_RECORDED_NAMESPACES: Final = (b"user.", b"trusted.")
_NOTHING_MORE: Final = Metadata(0)[5:]
_MORE: Final = (
    feature.WITH_USER_NAMES
    | feature.WITH_XATTRS
    | feature.WITH_ACL
    | feature.WITH_SELINUX
    | feature.WITH_FCAPS
    | feature.WITH_QUOTA_PROJID
)


class CatarEncoder:
    """
    Makes an archive of nodes that are handed over in its order.

    ::

        encoder = CatarEncoder(flags)
        out.write(encoder.directory(b"", Metadata(0o40755)))
        out.write(encoder.file(b"motd", Metadata(0o100644), 6))
        out.write(b"hello\\n")
        encoder.payload(6)
        out.write(encoder.end_directory())

    A file's content isn't copied through the encoder: whoever has it puts it behind what
    :meth:`file` returned, and says so with :meth:`payload`. :meth:`encode` takes the same as
    events, content included.

    Of the metadata what the feature flags name is recorded, as they name it: times are rounded
    down, permissions reduced, and so on; the rest is left out. A directory's children must come
    sorted by name if the archive shall be what casync makes; any other order can be read too. It
    keeps 16 bytes for each child of the directories under way.

    Every method raises ``NotArchivable`` if a node can't be recorded, and ``ValueError`` if it is
    called out of turn; the encoder is of no use then.

    :param flags: the feature flags of the archive, normalized (:mod:`desync.formats.flags`).
    :param as_go: write what Go desync writes: a NUL behind the values of xattrs, xattrs of all
        namespaces and of symbolic links; no fifos and sockets.
    :param with_fifos: write fifos and sockets all the same.
    """

    def __init__(self, flags: int, *, as_go: bool = False, with_fifos: bool = False) -> None:
        refused = feature.why_refused(flags)
        if refused is not None:
            raise ValueError(refused)
        self.flags = flags
        self.as_go = as_go
        self._without_fifos = as_go and not with_fifos
        self._open: list[Children] = []
        self._offset = 0
        self._payload_left = 0
        self._whole_mode = bool(flags & (feature.WITH_PERMISSIONS | feature.WITH_ACL))
        self._granularity = catar.granularity(flags)
        self._node_flags = flags & catar.DIRECTORY_ENTRY_FLAGS
        self._more = flags & _MORE

    @property
    def offset(self) -> int:
        """How many bytes the archive has so far, payload that was announced included."""
        return self._offset

    @property
    def complete(self) -> bool:
        """Whether the root has ended."""
        return self._offset > 0 and not self._open

    def records(self, mode: int) -> bool:
        """
        Whether the archive records nodes of a type; others have to be left out.

        :param mode: as in ``st_mode``.
        """
        if self._without_fifos and stat.S_IFMT(mode) in (stat.S_IFIFO, stat.S_IFSOCK):
            return False
        needed = catar.feature_of_type(mode)
        return not needed or bool(self.flags & needed)

    def directory(self, name: bytes, metadata: Metadata) -> bytes:
        """
        Begin a directory.

        :param name: empty for the root, with which an archive begins.
        """
        if not stat.S_ISDIR(metadata.mode):
            raise ValueError("not a directory's mode")
        if not self._offset:
            if name:
                raise ValueError("the root has no name")
            records = self._records(metadata)
            self._open.append(Children(0))
            self._offset = len(records)
            return records
        records = self._node(name, metadata)
        self._open.append(Children(self._offset - len(records) + 17 + len(name)))
        return records

    def end_directory(self) -> bytes:
        """End the directory that began last: it has no more children."""
        self._check_turn()
        table = self._open.pop().table(self._offset)
        self._offset += len(table)
        return table

    def file(self, name: bytes, metadata: Metadata, size: int) -> bytes:
        """
        Begin a regular file.

        :param size: length in bytes of its content, which has to follow in the archive.
        """
        if not stat.S_ISREG(metadata.mode):
            raise ValueError("not a regular file's mode")
        records = self._node(name, metadata, _HEADER.pack(16 + size, catar.PAYLOAD))
        self._payload_left = size
        return records

    def payload(self, length: int) -> None:
        """
        Note that so many bytes of content have been put behind what was returned last.

        :raises ValueError: if the file has fewer.
        """
        if not 0 <= length <= self._payload_left:
            raise ValueError(f"{length} bytes of content where {self._payload_left} are due")
        self._payload_left -= length
        self._offset += length

    def symlink(self, name: bytes, metadata: Metadata, target: bytes) -> bytes:
        """Add a symbolic link."""
        if not stat.S_ISLNK(metadata.mode):
            raise ValueError("not a symbolic link's mode")
        if not 0 < len(target) <= catar.TARGET_LIMIT or b"\0" in target:
            raise NotArchivable(f"a link to a target of {len(target)} bytes can't be recorded")
        return self._node(name, metadata, _text(catar.SYMLINK, target))

    def device(self, name: bytes, metadata: Metadata, major: int, minor: int) -> bytes:
        """Add a character or block device."""
        if stat.S_IFMT(metadata.mode) not in (stat.S_IFCHR, stat.S_IFBLK):
            raise ValueError("not a device's mode")
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise NotArchivable(f"device number {major}:{minor} can't be recorded")
        return self._node(name, metadata, _DEVICE.pack(32, catar.DEVICE, major, minor))

    def fifo(self, name: bytes, metadata: Metadata) -> bytes:
        """Add a named pipe."""
        if not stat.S_ISFIFO(metadata.mode):
            raise ValueError("not a fifo's mode")
        return self._node(name, metadata)

    def socket(self, name: bytes, metadata: Metadata) -> bytes:
        """Add a socket."""
        if not stat.S_ISSOCK(metadata.mode):
            raise ValueError("not a socket's mode")
        return self._node(name, metadata)

    def encode(self, event: catar.Event) -> bytes | memoryview:
        """Give the bytes of an event: what :class:`.catar_decoder.CatarDecoder` made it of."""
        match event:
            case catar.Payload(data):
                self.payload(len(data))
                return data
            case catar.File(name, metadata, size):
                return self.file(name, metadata, size)
            case catar.Directory(name, metadata):
                return self.directory(name, metadata)
            case catar.EndDirectory():
                return self.end_directory()
            case catar.Symlink(name, metadata, target):
                return self.symlink(name, metadata, target)
            case catar.Device(name, metadata, major, minor):
                return self.device(name, metadata, major, minor)
            case catar.Fifo(name, metadata):
                return self.fifo(name, metadata)
            case catar.Socket(name, metadata):
                return self.socket(name, metadata)

    def _check_turn(self) -> None:
        if self._payload_left:
            raise ValueError(f"{self._payload_left} bytes of a file's content are still due")
        if not self._open:
            raise ValueError("the archive is complete" if self._offset else "no root yet")

    def _node(self, name: bytes, metadata: Metadata, body: bytes = b"") -> bytes:
        """Note a child of the directory under way, and give its records up to its content."""
        self._check_turn()
        bad = catar.why_bad_name(name)
        if bad is not None:
            raise NotArchivable(f"the name can't be recorded: {bad}")
        if len(self._open) >= catar.DEPTH_LIMIT:
            raise NotArchivable(f"it is deeper than {catar.DEPTH_LIMIT} levels")
        if not self.records(metadata.mode):
            raise ValueError("the archive doesn't record nodes of this type")
        records = _text(catar.FILENAME, name) + self._records(metadata) + body
        self._open[-1].add(name, self._offset)
        self._offset += len(records)
        return records

    def _records(self, metadata: Metadata) -> bytes:
        """Give the records of a node between its name and its content."""
        mode, uid, gid, mtime, flags = metadata[:5]
        kind = mode & 0o170000
        if not self._whole_mode or kind == stat.S_IFLNK:
            mode = catar.fitting_mode(mode, self.flags)
        if self.flags & catar.WITH_UIDS:
            self._check_owner(uid)
            self._check_owner(gid)
        else:
            uid = gid = 0
        mtime = self._time(mtime)
        flags = flags & self._node_flags if kind in (stat.S_IFREG, stat.S_IFDIR) else 0
        entry = _ENTRY.pack(64, catar.ENTRY, self.flags, mode, flags, uid, gid, mtime)
        if self._more and metadata[5:] != _NOTHING_MORE:
            return entry + b"".join(self._more_records(kind, metadata))
        return entry

    def _check_owner(self, number: int) -> None:
        if self.as_go:
            if not 0 <= number < 1 << 32:
                raise NotArchivable(f"owner {number} can't be recorded")
        elif self.flags & feature.WITH_16BIT_UIDS:
            if not 0 <= number < 0xFFFF:
                raise NotArchivable(f"owner {number} can't be recorded in 16 bits")
        elif not 0 <= number < 0xFFFFFFFF or number == 0xFFFF:
            raise NotArchivable(f"owner {number} can't be recorded")

    def _time(self, mtime: int) -> int:
        if not self._granularity:
            return 0
        if not -1 << 63 <= mtime < (1 << 64) - 1:
            raise NotArchivable("the modification time can't be recorded")
        mtime &= _U64
        mtime -= mtime % self._granularity
        if mtime == _U64:
            raise NotArchivable("the modification time can't be recorded")
        return mtime

    def _more_records(self, kind: int, metadata: Metadata) -> list[bytes]:
        """Give the records that only some nodes have."""
        flags = self.flags
        records = []
        if flags & feature.WITH_USER_NAMES:
            for record, name in ((catar.USER, metadata.user), (catar.GROUP, metadata.group)):
                if name:
                    if len(name) > catar.OWNER_NAME_LIMIT or b"\0" in name:
                        raise NotArchivable("the owner's name can't be recorded")
                    records.append(_text(record, name))
        if flags & feature.WITH_XATTRS and (self.as_go or kind != stat.S_IFLNK):
            self._add_xattrs(records, metadata.xattrs)
        if flags & feature.WITH_ACL and kind != stat.S_IFLNK:
            if metadata.acl is not None:
                _add_acl(records, metadata.acl)
            if metadata.default_acl is not None and kind == stat.S_IFDIR:
                _add_default_acl(records, metadata.default_acl)
        if flags & feature.WITH_SELINUX and metadata.selinux:
            if len(metadata.selinux) > catar.LABEL_LIMIT or b"\0" in metadata.selinux:
                raise NotArchivable("the SELinux label can't be recorded")
            records.append(_text(catar.SELINUX, metadata.selinux))
        if flags & feature.WITH_FCAPS and metadata.fcaps and kind == stat.S_IFREG:
            if len(metadata.fcaps) > catar.FCAPS_LIMIT:
                raise NotArchivable("the capabilities can't be recorded")
            records.append(_HEADER.pack(16 + len(metadata.fcaps), catar.FCAPS) + metadata.fcaps)
        has_project = metadata.quota_projid and kind in (stat.S_IFREG, stat.S_IFDIR)
        if flags & feature.WITH_QUOTA_PROJID and has_project:
            records.append(_NUMBER.pack(24, catar.QUOTA_PROJID, metadata.quota_projid))
        return records

    def _add_xattrs(self, records: list[bytes], xattrs: tuple[tuple[bytes, bytes], ...]) -> None:
        end = b"\0" if self.as_go else b""
        for name, value in sorted(xattrs):
            if not self.as_go and not name.startswith(_RECORDED_NAMESPACES):
                continue
            if len(name) > catar.XATTR_NAME_LIMIT or len(value) > catar.XATTR_VALUE_LIMIT:
                raise NotArchivable("an extended attribute can't be recorded: it is too long")
            body = b"".join((name, b"\0", value, end))
            records.append(_HEADER.pack(16 + len(body), catar.XATTR) + body)


def _text(record: int, text: bytes) -> bytes:
    return b"".join((_HEADER.pack(17 + len(text), record), text, b"\0"))


def _add_acl(records: list[bytes], acl: catar.Acl) -> None:
    if (acl.users or acl.groups) and acl.group_obj is None:
        raise NotArchivable("an access control list without a mask can't be recorded")
    _add_acl_entries(records, catar.ACL_USER, acl.users)
    _add_acl_entries(records, catar.ACL_GROUP, acl.groups)
    if acl.group_obj is not None:
        records.append(_ACL_GROUP_OBJ.pack(24, catar.ACL_GROUP_OBJ, acl.group_obj))


def _add_default_acl(records: list[bytes], acl: catar.DefaultAcl) -> None:
    if (acl.users or acl.groups) and acl.mask is None:
        raise NotArchivable("a default access control list without a mask can't be recorded")
    mask = catar.NO_MASK if acl.mask is None else acl.mask
    records.append(
        _ACL_DEFAULT.pack(48, catar.ACL_DEFAULT, acl.user_obj, acl.group_obj, acl.other, mask)
    )
    _add_acl_entries(records, catar.ACL_DEFAULT_USER, acl.users)
    _add_acl_entries(records, catar.ACL_DEFAULT_GROUP, acl.groups)


def _add_acl_entries(
    records: list[bytes], record: int, entries: tuple[catar.AclEntry, ...]
) -> None:
    for number, name, permissions in sorted((e.id, e.name or b"", e.permissions) for e in entries):
        if len(name) > catar.OWNER_NAME_LIMIT:
            raise NotArchivable("an access control list names an owner too long to be recorded")
        text = name + b"\0" if name else b""
        records.append(_ACL_ENTRY.pack(32 + len(text), record, number, permissions) + text)
