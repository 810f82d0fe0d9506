# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
What tar streams say about a node: in its header, and in the PAX records that GNU tar, star and
bsdtar have for times, extended attributes, access control lists and labels.
"""

from __future__ import annotations

import base64
import stat
import tarfile
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from desync.formats import acl_text, catar, posix_acl
from desync.formats.catar import Acl, AclEntry, DefaultAcl, Metadata
from desync.formats.posix_acl import PosixAcl

_SCHILY: Final = "SCHILY.xattr."
_LIBARCHIVE: Final = "LIBARCHIVE.xattr."
_ACCESS: Final = "SCHILY.acl.access"
_DEFAULT: Final = "SCHILY.acl.default"
_SELINUX: Final = "RHT.security.selinux"
_FCAPS: Final = b"security.capability"

_FORBIDDEN: Final = frozenset(b"/:\x7f") | frozenset(range(0x21))


def to_bytes(text: str) -> bytes:
    """Give the bytes of a text that tarfile made of them."""
    return text.encode("utf-8", "surrogateescape")


def metadata_of(
    member: tarfile.TarInfo, kind: int, *, xattrs_only: bool, no_time: bool
) -> Metadata:
    """
    Give what an archive says about a member of a tar stream.

    :param kind: the type bits of its mode.
    :param xattrs_only: whether access control lists and capabilities are wanted as xattrs.
    :param no_time: whether it gets the time 0.
    :raises ValueError: if its records make no sense.
    """
    mode = kind | (0o777 if kind == stat.S_IFLNK else member.mode & 0o7777)
    records = member.pax_headers
    mtime = 0 if no_time else _nanoseconds(records.get("mtime"), member.mtime)
    metadata = Metadata(
        mode,
        member.uid,
        member.gid,
        mtime,
        user=_owner(member.uname) if member.uid else None,
        group=_owner(member.gname) if member.gid else None,
    )
    if not records:
        return metadata
    xattrs = _xattrs(records)
    fcaps = acl = default = None
    selinux = records.get(_SELINUX)
    if kind != stat.S_IFLNK:
        access = _acl(records.get(_ACCESS))
        given = _acl(records.get(_DEFAULT)) if kind == stat.S_IFDIR else None
        if xattrs_only:
            if access is not None and not access.is_minimal:
                xattrs[posix_acl.ACCESS_XATTR.encode()] = posix_acl.encode(access)
            if given is not None:
                xattrs[posix_acl.DEFAULT_XATTR.encode()] = posix_acl.encode(given)
        else:
            fcaps = xattrs.pop(_FCAPS, None) if kind == stat.S_IFREG else None
            if access is not None and access.mask is not None:
                acl = _archived_acl(access)
                mode = mode & ~0o777 | access.user_obj << 6 | access.mask << 3 | access.other
            default = None if given is None else _archived_default(given)
    return metadata._replace(
        mode=mode,
        xattrs=tuple(sorted(xattrs.items())),
        acl=acl,
        default_acl=default,
        fcaps=fcaps,
        selinux=to_bytes(selinux).rstrip(b"\0") or None if selinux else None,
    )


def _owner(name: str) -> bytes | None:
    encoded = to_bytes(name)
    if not encoded or not _FORBIDDEN.isdisjoint(encoded) or len(encoded) > catar.OWNER_NAME_LIMIT:
        return None
    return encoded


def _nanoseconds(record: str | None, seconds: float) -> int:
    """Read a time exactly, which a floating point number doesn't hold."""
    if record is not None:
        sign = -1 if record.startswith("-") else 1
        whole, _, rest = record.lstrip("-").partition(".")
        if len(whole) > 20 or not (whole + rest).isascii() or not (whole + rest).isdigit():
            raise ValueError(f"the time {record[:40]!r}")
        return sign * (int(whole or "0") * 1_000_000_000 + int(rest[:9].ljust(9, "0")))
    return int(seconds) * 1_000_000_000


def _xattrs(records: Mapping[str, str]) -> dict[bytes, bytes]:
    """Collect extended attributes, of which bsdtar writes each in two ways."""
    found: dict[bytes, bytes] = {}
    for keyword, value in records.items():
        if keyword.startswith(_LIBARCHIVE):
            name = unquote_to_bytes(keyword.removeprefix(_LIBARCHIVE))
            padded = value + "=" * (-len(value) % 4)
            found.setdefault(name, base64.b64decode(padded))
    for keyword, value in records.items():
        if keyword.startswith(_SCHILY):
            found[to_bytes(keyword.removeprefix(_SCHILY))] = to_bytes(value)
    for name in found:
        if b"\0" in name or not all(name.partition(b".")):
            raise ValueError(f"an extended attribute named {name[:40]!r}")
    return found


def _acl(text: str | None) -> PosixAcl | None:
    if not text:
        return None
    return acl_text.read(text, _uid_of, _gid_of)


def _uid_of(name: str) -> int | None:
    try:
        import pwd

        return pwd.getpwnam(name).pw_uid
    except (ImportError, KeyError):
        return None


def _gid_of(name: str) -> int | None:
    try:
        import grp

        return grp.getgrnam(name).gr_gid
    except (ImportError, KeyError):
        return None


def _archived_acl(acl: PosixAcl) -> Acl:
    return Acl(_entries(acl.users), _entries(acl.groups), acl.group_obj)


def _archived_default(acl: PosixAcl) -> DefaultAcl:
    return DefaultAcl(
        acl.user_obj,
        acl.group_obj,
        acl.other,
        acl.mask,
        _entries(acl.users),
        _entries(acl.groups),
    )


def _entries(named: tuple[tuple[int, int], ...]) -> tuple[AclEntry, ...]:
    return tuple(AclEntry(number, bits) for number, bits in named)
