# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Archives made by hand for tests, also such as no program makes."""

from __future__ import annotations

import stat
from collections.abc import Iterable

from desync.formats import catar
from desync.formats import flags as feature
from desync.formats.catar import (
    Device,
    Directory,
    EndDirectory,
    Event,
    Fifo,
    File,
    Metadata,
    Payload,
    Socket,
    Symlink,
)
from desync.formats.catar_encoder import CatarEncoder

ALL_FLAGS = 0xB0000001FFEFFE26
"""What casync records unless it is told otherwise."""

PLAIN_FLAGS = feature.normalize(
    feature.WITH_32BIT_UIDS
    | feature.WITH_NSEC_TIME
    | feature.WITH_PERMISSIONS
    | feature.WITH_SYMLINKS
    | feature.WITH_DEVICE_NODES
    | feature.WITH_FIFOS
    | feature.WITH_SOCKETS
    | feature.SHA512_256
)
"""Modes, owners, times, nodes of all types; no xattrs."""

TIME = 1_000_000_000_123_456_789


def archive(events: Iterable[Event], flags: int = ALL_FLAGS) -> bytes:
    """Make an archive of the events of the root's children; the root is added."""
    encoder = CatarEncoder(flags)
    root = Directory(b"", meta(stat.S_IFDIR | 0o755))
    return b"".join(map(bytes, map(encoder.encode, [root, *events, EndDirectory()])))


def meta(mode: int, **more: object) -> Metadata:
    """Give the metadata of a node at the tests' time."""
    return Metadata(mode, mtime=TIME)._replace(**more)  # type: ignore[arg-type]


def file(name: bytes, data: bytes = b"", mode: int = 0o644, **more: object) -> list[Event]:
    """Give the events of a regular file."""
    events: list[Event] = [File(name, meta(stat.S_IFREG | mode, **more), len(data))]
    return [*events, Payload(data)] if data else events


def directory(
    name: bytes, children: Iterable[Event] = (), mode: int = 0o755, **more: object
) -> list[Event]:
    """Give the events of a directory."""
    return [Directory(name, meta(stat.S_IFDIR | mode, **more)), *children, EndDirectory()]


def symlink(name: bytes, target: bytes, **more: object) -> list[Event]:
    """Give the event of a symbolic link."""
    return [Symlink(name, meta(stat.S_IFLNK | 0o777, **more), target)]


def fifo(name: bytes, mode: int = 0o644, **more: object) -> list[Event]:
    """Give the event of a named pipe."""
    return [Fifo(name, meta(stat.S_IFIFO | mode, **more))]


def socket(name: bytes, mode: int = 0o644, **more: object) -> list[Event]:
    """Give the event of a socket."""
    return [Socket(name, meta(stat.S_IFSOCK | mode, **more))]


def device(
    name: bytes, kind: int, major: int, minor: int, mode: int = 0o600, **more: object
) -> list[Event]:
    """Give the event of a device."""
    return [Device(name, meta(kind | mode, **more), major, minor)]


__all__ = [
    "ALL_FLAGS",
    "PLAIN_FLAGS",
    "TIME",
    "archive",
    "catar",
    "device",
    "directory",
    "fifo",
    "file",
    "meta",
    "socket",
    "symlink",
]
