# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Archives made by hand, nearly all of which are bad in one way."""

from __future__ import annotations

import struct
from typing import NamedTuple

from desync.formats import catar
from desync.formats import flags as feature
from desync.formats.catar_goodbye import Children

FLAGS = feature.normalize(feature.ALL_WITH | feature.SHA512_256)
"""Everything is recorded."""

FILE = 0o100644
DIRECTORY = 0o40755
SYMLINK = 0o120777
FIFO = 0o10644
DEVICE = 0o20600

WHOLE = (1 << 64) - 1


def record(kind: int, *body: int | bytes, size: int | None = None) -> bytes:
    """A record; numbers become 64 bits each."""
    packed = b"".join(each if isinstance(each, bytes) else struct.pack("<Q", each) for each in body)
    return struct.pack("<2Q", 16 + len(packed) if size is None else size, kind) + packed


def entry(
    mode: int,
    *,
    flags: int = FLAGS,
    attributes: int = 0,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
) -> bytes:
    """An ENTRY record."""
    return record(catar.ENTRY, flags, mode, attributes, uid, gid, mtime)


def name(text: bytes) -> bytes:
    """A FILENAME record."""
    return record(catar.FILENAME, text + b"\0")


def content(data: bytes = b"") -> bytes:
    """A PAYLOAD record."""
    return record(catar.PAYLOAD, data)


def directory(*nodes: tuple[bytes, bytes], begin: bytes | None = None) -> bytes:
    """
    A directory.

    :param nodes: the FILENAME record and the rest of each child.
    :param begin: its own records, an ENTRY if None.
    """
    data = entry(DIRECTORY) if begin is None else begin
    children = Children(0)
    for filename, rest in nodes:
        children.add(filename[16:-1], len(data))
        data += filename + rest
    return data + children.table(len(data))


def of(*records: bytes, flags: int = FLAGS, mode: int = DIRECTORY) -> bytes:
    """An archive with one node in it."""
    return directory((name(b"x"), b"".join(records)), begin=entry(mode, flags=flags))


def nested(depth: int) -> bytes:
    """A directory in a directory and so on."""
    data = directory()
    for _ in range(depth - 1):
        data = directory((name(b"d"), data))
    return data


SHORT = entry(FILE)
GOOD = directory((name(b"a"), SHORT + content(b"hello\n")), (name(b"b"), directory()))
TABLE_AT = len(GOOD) - 16 - 3 * 24


def text(kind: int, value: bytes) -> bytes:
    """A record with a text."""
    return record(kind, value + b"\0")


def xattr(attribute: bytes, value: bytes = b"") -> bytes:
    """An XATTR record."""
    return record(catar.XATTR, attribute + b"\0" + value)


def patched(data: bytes, at: int, value: int) -> bytes:
    """The same with one word changed; counted from the end if negative."""
    at = at + len(data) if at < 0 else at
    return data[:at] + struct.pack("<Q", value) + data[at + 8 :]


class BadArchive(NamedTuple):
    """
    An archive that has to be refused.

    :ivar name: what is bad about it.
    :ivar why: what the error says.
    :ivar ours_alone: casync takes it, or can't be asked.
    """

    name: str
    data: bytes
    why: str
    ours_alone: bool = False


NARROW = feature.WITH_16BIT_UIDS | feature.SHA512_256
NOTHING = feature.SHA512_256
SECONDS = feature.WITH_SEC_TIME | feature.SHA512_256
READ_ONLY = feature.WITH_READ_ONLY | feature.SHA512_256

_GROUP_OBJ = record(catar.ACL_GROUP_OBJ, 5)
_DEFAULT = record(catar.ACL_DEFAULT, 7, 5, 5, 7)
_LINK = text(catar.SYMLINK, b"t")

BAD_ARCHIVES = (
    # The beginning.
    BadArchive("no ENTRY", record(catar.GOODBYE, bytes(24)), "GOODBYE is out of order"),
    BadArchive("a FILENAME first", name(b"a") + GOOD, "FILENAME is out of order"),
    BadArchive("something else", b"#!/bin/sh\n" * 20, "not an archive"),
    BadArchive("a file as the root", SHORT + content(b"x"), "the root is no directory"),
    # Feature flags.
    BadArchive(
        "an unknown feature", directory(begin=entry(DIRECTORY, flags=FLAGS | 1 << 40)), "unknown"
    ),
    BadArchive(
        "features that contradict each other",
        directory(begin=entry(DIRECTORY, flags=FLAGS | feature.WITH_SEC_TIME)),
        "contradict",
    ),
    BadArchive("mixed features", of(entry(FILE, flags=NARROW), content()), "feature flags"),
    # Sizes.
    BadArchive("a record of no bytes", of(record(catar.USER, size=0)), "of 0 bytes"),
    BadArchive("a large ENTRY", of(record(catar.ENTRY, bytes(49))), "ENTRY of 65 bytes"),
    BadArchive("a PAYLOAD without a header", of(SHORT, record(catar.PAYLOAD, size=15)), "PAYLOAD"),
    BadArchive("an endless PAYLOAD", of(SHORT, record(catar.PAYLOAD, size=WHOLE)), "PAYLOAD of"),
    BadArchive("a PAYLOAD past 2^63", of(SHORT, record(catar.PAYLOAD, size=1 << 63)), "PAYLOAD of"),
    BadArchive("an endless USER", of(SHORT, record(catar.USER, size=WHOLE)), "USER of"),
    BadArchive("an endless XATTR", of(SHORT, record(catar.XATTR, size=1 << 40)), "XATTR of"),
    BadArchive("an endless FILENAME", entry(DIRECTORY) + record(catar.FILENAME, size=WHOLE), "of"),
    BadArchive("an endless GOODBYE", entry(DIRECTORY) + record(catar.GOODBYE, size=WHOLE), "of"),
    BadArchive("an unknown record", of(SHORT, record(1234)), "unknown record type 0x4d2"),
    # Order.
    BadArchive("ENTRY twice", of(SHORT, SHORT, content()), "ENTRY is out of order"),
    BadArchive("PAYLOAD twice", of(SHORT, content(), content()), "PAYLOAD is out of order"),
    BadArchive("FILENAME twice", of(name(b"y"), SHORT, content()), "FILENAME is out of order"),
    BadArchive("a FILENAME alone", of(), "GOODBYE is out of order"),
    BadArchive("USER before its ENTRY", of(text(catar.USER, b"u")), "USER is out of order"),
    BadArchive(
        "USER twice",
        of(entry(FILE, uid=1), text(catar.USER, b"u"), text(catar.USER, b"u"), content()),
        "USER is out of order",
    ),
    BadArchive(
        "GROUP before USER",
        of(entry(FILE, uid=1), text(catar.GROUP, b"g"), text(catar.USER, b"u"), content()),
        "USER is out of order",
    ),
    BadArchive(
        "XATTR after an ACL",
        of(SHORT, _GROUP_OBJ, xattr(b"user.a"), content()),
        "XATTR is out of order",
    ),
    BadArchive(
        "SELINUX twice",
        of(SHORT, text(catar.SELINUX, b"l"), text(catar.SELINUX, b"l"), content()),
        "SELINUX is out of order",
    ),
    # What a node must have.
    BadArchive("a file without content", of(SHORT), "a node without its content"),
    BadArchive("a link without target", of(entry(SYMLINK)), "a node without its content"),
    BadArchive("a device without numbers", of(entry(DEVICE)), "a node without its content"),
    BadArchive("a fifo with content", of(entry(FIFO), content()), "PAYLOAD in what is no"),
    BadArchive("a directory with content", of(entry(DIRECTORY), content()), "PAYLOAD in what is"),
    BadArchive("a file with a target", of(SHORT, _LINK), "SYMLINK in what is no"),
    BadArchive("a file with numbers", of(SHORT, record(catar.DEVICE, 1, 3)), "DEVICE in what is"),
    BadArchive("no target", of(entry(SYMLINK), text(catar.SYMLINK, b"")), "SYMLINK of 17 bytes"),
    BadArchive("a target without end", of(entry(SYMLINK), record(catar.SYMLINK, b"ab")), "NUL"),
    BadArchive("a target with a NUL", of(entry(SYMLINK), text(catar.SYMLINK, b"a\0b")), "NUL"),
    BadArchive("a large major", of(entry(DEVICE), record(catar.DEVICE, 1 << 12, 0)), "device"),
    BadArchive("a large minor", of(entry(DEVICE), record(catar.DEVICE, 0, 1 << 20)), "device"),
    # Names.
    BadArchive("an empty name", directory((name(b""), SHORT + content())), "FILENAME of 17"),
    BadArchive("the name .", directory((name(b"."), SHORT + content())), "a bad name"),
    BadArchive("the name ..", directory((name(b".."), SHORT + content())), "a bad name"),
    BadArchive("a name with a slash", directory((name(b"a/b"), SHORT + content())), "a bad name"),
    BadArchive("an absolute name", directory((name(b"/a"), SHORT + content())), "a bad name"),
    BadArchive("a name with a NUL", directory((name(b"a\0b"), SHORT + content())), "NUL"),
    BadArchive(
        "a name without end", directory((record(catar.FILENAME, b"ab"), SHORT + content())), "NUL"
    ),
    BadArchive(
        "a long name", directory((name(b"n" * 256), SHORT + content())), "FILENAME of 273", True
    ),
    # Modes.
    BadArchive("high bits in a mode", of(entry(FILE | 1 << 20), content()), "no known type"),
    BadArchive("no type", of(entry(0o644), content()), "no known type"),
    BadArchive("a link's permissions", of(entry(0o120755), _LINK), "mode 120755"),
    BadArchive(
        "permissions that aren't recorded",
        of(entry(0o100644, flags=NOTHING), content(), flags=NOTHING, mode=0o40777),
        "mode 100644",
    ),
    BadArchive(
        "permissions that are more than read-only",
        of(entry(0o100600, flags=READ_ONLY), content(), flags=READ_ONLY, mode=0o40777),
        "mode 100600",
    ),
    # Owners.
    BadArchive("owner 65535", of(entry(FILE, uid=65535), content()), "owner 65535"),
    BadArchive("group 2^32-1", of(entry(FILE, gid=(1 << 32) - 1), content()), "owner 4294967295"),
    BadArchive(
        "a large owner in 16 bits",
        of(entry(0o100666, flags=NARROW, uid=65535), content(), flags=NARROW, mode=0o40777),
        "owner 65535",
    ),
    BadArchive(
        "an owner that isn't recorded",
        of(entry(0o100666, flags=NOTHING, uid=1), content(), flags=NOTHING, mode=0o40777),
        "owner 1 ",
    ),
    BadArchive("a name with a slash", of(SHORT, text(catar.USER, b"a/b"), content()), "name"),
    BadArchive("an empty owner's name", of(SHORT, text(catar.USER, b""), content()), "USER of 17"),
    # Times and attributes.
    BadArchive("the time 2^64-1", of(entry(FILE, mtime=WHOLE), content()), "the time"),
    BadArchive(
        "a time between seconds",
        of(entry(0o100666, flags=SECONDS, mtime=1), content(), flags=SECONDS, mode=0o40777),
        "the time 1 ",
    ),
    BadArchive(
        "a time that isn't recorded",
        of(entry(0o100666, flags=NOTHING, mtime=1), content(), flags=NOTHING, mode=0o40777),
        "the time 1 ",
    ),
    BadArchive(
        "an attribute that isn't recorded",
        of(
            entry(0o100666, flags=NOTHING, attributes=feature.WITH_FLAG_APPEND),
            content(),
            flags=NOTHING,
            mode=0o40777,
        ),
        "attributes 0x10000",
    ),
    BadArchive("an attribute that is none", of(entry(FILE, attributes=1), content()), "attributes"),
    BadArchive(
        "attributes of a fifo",
        of(entry(FIFO, attributes=feature.WITH_FLAG_APPEND)),
        "neither a file nor a directory",
    ),
    # Extended attributes.
    BadArchive(
        "unsorted xattrs", of(SHORT, xattr(b"user.b"), xattr(b"user.a"), content()), "order"
    ),
    BadArchive("an xattr twice", of(SHORT, xattr(b"user.a"), xattr(b"user.a"), content()), "order"),
    BadArchive("an xattr without a dot", of(SHORT, xattr(b"user"), content()), "proper name"),
    BadArchive("an xattr without a name", of(SHORT, xattr(b"", b"vvv"), content()), "proper name"),
    BadArchive("an xattr of a link", of(entry(SYMLINK), xattr(b"user.a"), _LINK), "symbolic link"),
    BadArchive(
        "an xattr that isn't recorded",
        of(entry(0o100666, flags=NOTHING), xattr(b"user.a"), flags=NOTHING, mode=0o40777),
        "which the archive doesn't record",
    ),
    # Access control.
    BadArchive(
        "an ACL without a mask",
        of(SHORT, record(catar.ACL_USER, 5, 7), content()),
        "without its ACL_GROUP_OBJ",
    ),
    BadArchive(
        "an unsorted ACL",
        of(SHORT, record(catar.ACL_USER, 5, 7), record(catar.ACL_USER, 4, 7), _GROUP_OBJ),
        "order",
    ),
    BadArchive(
        "an ACL with too much", of(SHORT, record(catar.ACL_USER, 5, 8), _GROUP_OBJ), "permissions 8"
    ),
    BadArchive("an ACL of a link", of(entry(SYMLINK), _GROUP_OBJ, _LINK), "symbolic link"),
    BadArchive("a default ACL of a file", of(SHORT, _DEFAULT, content()), "no directory"),
    BadArchive(
        "a default ACL without its begin",
        directory(
            (name(b"x"), directory(begin=entry(DIRECTORY) + record(catar.ACL_DEFAULT_USER, 5, 7)))
        ),
        "without its ACL_DEFAULT",
    ),
    BadArchive(
        "a default ACL without a mask",
        directory(
            (
                name(b"x"),
                directory(
                    begin=entry(DIRECTORY)
                    + record(catar.ACL_DEFAULT, 7, 5, 5, WHOLE)
                    + record(catar.ACL_DEFAULT_USER, 5, 7)
                ),
            )
        ),
        "without a mask",
    ),
    # The rest.
    BadArchive(
        "capabilities of a fifo", of(entry(FIFO), record(catar.FCAPS, bytes(20))), "capabilities"
    ),
    BadArchive("project 0", of(SHORT, record(catar.QUOTA_PROJID, 0), content()), "project 0"),
    BadArchive(
        "project 2^32", of(SHORT, record(catar.QUOTA_PROJID, 1 << 32)), "project 4294967296"
    ),
    BadArchive("a project of a fifo", of(entry(FIFO), record(catar.QUOTA_PROJID, 1)), "project"),
    # Tables.
    BadArchive("a table without its marker", patched(GOOD, -8, 0), "bad tail"),
    BadArchive("a table of another size", patched(GOOD, -16, 64), "bad tail"),
    BadArchive("another directory's table", patched(GOOD, -24, 64), "bad tail"),
    BadArchive("a table of half an item", patched(GOOD, TABLE_AT, 16 + 60), "GOODBYE of 76 bytes"),
    BadArchive("a table without a tail", patched(GOOD, TABLE_AT, 16), "GOODBYE of 16 bytes"),
    # Depth.
    BadArchive("65 levels", nested(65), "deeper than 64"),
)

TAKEN = {
    "a good one": GOOD,
    "64 levels": nested(64),
    "unsorted names": directory((name(b"b"), directory()), (name(b"a"), directory())),
    "a name twice": directory((name(b"a"), directory()), (name(b"a"), directory())),
    "wrong hashes": patched(GOOD, TABLE_AT + 32, 5),
    "something behind it": GOOD + b"more",
}
"""Archives that are odd and have to be taken, as casync takes them."""
