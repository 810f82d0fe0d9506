# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Writing an archive's events as a tar stream.

The headers are GNU tar's. A node that has more than those can say, such as xattrs, gets a PAX
header in front of its own, which GNU tar, bsdtar and Python's tarfile read in any mixture. In the
format "pax" that is so of every time that isn't a whole second too.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Sequence
from typing import Final

from desync.formats import acl_text, catar
from desync.formats.catar import Event, Metadata
from desync.formats.node_acls import access_acl, default_acl

from .restoring import Shortfall

_BLOCK: Final = 512
_RECORD: Final = 20 * _BLOCK

#: The largest numbers that the fields of a PAX archive's header hold.
_LARGEST_ID: Final = 0o7777777
_LARGEST_SIZE: Final = 0o77777777777

_TYPES: Final = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class TarWriter:
    """
    Takes the events of an archive and writes them as tar has them. :meth:`finish` ends the stream.

    :param write: takes all of what it is given.
    :param shortfall: told what tar streams have no form for.
    :param pax: whether times are written to the nanosecond, which needs PAX headers.
    """

    def __init__(
        self, write: Callable[[bytes | memoryview], object], shortfall: Shortfall, *, pax: bool
    ) -> None:
        self._write = write
        self._shortfall = shortfall
        self._pax = pax
        self._path: list[bytes] = []
        self._written = 0
        self._left = 0
        self._padding = 0

    def take(self, events: Sequence[Event], flags: int) -> None:
        """
        Write some events.

        :param flags: the archive's feature flags; what they don't name is 0 in the stream too.
        """
        for event in events:
            match event:
                case catar.Payload(data):
                    self._payload(data)
                case catar.EndDirectory():
                    self._path.pop()
                case catar.Directory(name, metadata):
                    self._path.append(name)
                    self._member(None, metadata)
                case catar.File(name, metadata, size):
                    self._member(name, metadata, size=size)
                case catar.Symlink(name, metadata, target):
                    self._member(name, metadata, target=target)
                case catar.Device(name, metadata, major, minor):
                    self._member(name, metadata, device=(major, minor))
                case catar.Fifo(name, metadata):
                    self._member(name, metadata)
                case catar.Socket(name, _):
                    path = os.fsdecode(b"/".join([*self._path[1:], name]))
                    self._shortfall.note(path, "left out: tar has no sockets")

    def finish(self) -> None:
        """End the stream."""
        end = 2 * _BLOCK
        self._put(bytes(end + -(self._written + end) % _RECORD))

    def _put(self, data: bytes | memoryview) -> None:
        self._write(data)
        self._written += len(data)

    def _payload(self, data: bytes | memoryview) -> None:
        self._put(data)
        self._left -= len(data)
        if not self._left and self._padding:
            self._put(bytes(self._padding))

    def _member(
        self,
        name: bytes | None,
        metadata: Metadata,
        *,
        size: int = 0,
        target: bytes = b"",
        device: tuple[int, int] = (0, 0),
    ) -> None:
        path = b"/".join([*self._path[1:], *([] if name is None else [name])])
        info = tarfile.TarInfo(_text(path or b"."))
        info.type = _TYPES[metadata.kind]
        info.mode = stat.S_IMODE(metadata.mode)
        info.uid, info.gid = metadata.uid, metadata.gid
        info.uname, info.gname = _text(metadata.user or b""), _text(metadata.group or b"")
        info.size = size
        info.mtime = metadata.mtime // 1_000_000_000
        info.linkname = _text(target)
        info.devmajor, info.devminor = device
        records = self._records(metadata)
        if records:
            self._put(_with_pax_header(info, records))
        else:
            self._put(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        self._left = size
        self._padding = -size % _BLOCK

    def _records(self, metadata: Metadata) -> list[tuple[bytes, bytes]]:
        """Give what only a PAX header can say."""
        records = []
        if self._pax and metadata.mtime % 1_000_000_000:
            records.append((b"mtime", _seconds(metadata.mtime)))
        for key, value in metadata.xattrs:
            records.append((b"SCHILY.xattr." + key, value))
        if metadata.fcaps is not None:
            records.append((b"SCHILY.xattr.security.capability", metadata.fcaps))
        if metadata.selinux is not None:
            records.append((b"RHT.security.selinux", metadata.selinux))
        access, default = access_acl(metadata), default_acl(metadata)
        if access is not None:
            records.append((b"SCHILY.acl.access", acl_text.write(access).encode()))
        if default is not None:
            records.append((b"SCHILY.acl.default", acl_text.write(default).encode()))
        return records


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _seconds(nanoseconds: int) -> bytes:
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{sign}{seconds}.{rest:09}".encode()


def _with_pax_header(info: tarfile.TarInfo, records: list[tuple[bytes, bytes]]) -> bytes:
    """Give a PAX header and the member's own, moving into the one what the other can't hold."""
    records = list(records)
    name = _bytes(info.name + "/" if info.isdir() else info.name)
    # tarfile would look for a slash to divide longer names at, and there may be none.
    if len(name) > tarfile.LENGTH_NAME:
        records.append((b"path", name))
        info.name = _cut(name)
    for attribute, keyword, limit in (
        ("linkname", b"linkpath", tarfile.LENGTH_LINK),
        ("uname", b"uname", 31),
        ("gname", b"gname", 31),
    ):
        value = _bytes(getattr(info, attribute))
        if len(value) > limit:
            records.append((keyword, value))
            setattr(info, attribute, _cut(value)[:31])
    for attribute, keyword, largest in (
        ("uid", b"uid", _LARGEST_ID),
        ("gid", b"gid", _LARGEST_ID),
        ("size", b"size", _LARGEST_SIZE),
        ("mtime", b"mtime", _LARGEST_SIZE),
    ):
        number = getattr(info, attribute)
        if not 0 <= number <= largest:
            if all(key != keyword for key, _ in records):
                records.append((keyword, b"%d" % number))
            setattr(info, attribute, 0)
    body = b"".join(_record(keyword, value) for keyword, value in records)
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = tarfile.XHDTYPE
    header.size = len(body)
    return b"".join(
        (
            header.tobuf(tarfile.USTAR_FORMAT),
            body,
            bytes(-len(body) % _BLOCK),
            info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape"),
        )
    )


def _cut(value: bytes) -> str:
    # Only programs that don't know PAX headers see this.
    return value[:90].decode("ascii", "replace").replace("\ufffd", "?").rstrip("/")


def _record(keyword: bytes, value: bytes) -> bytes:
    """Give a record, whose length counts the digits that say it."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, keyword, value)
