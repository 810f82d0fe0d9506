# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The tree in an archive as a file system that can only be read. Nodes are found by the archive's
tables, so that only what is looked at is read.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from desync.errors import InvalidArchive
from desync.formats import catar, catar_seek, posix_acl
from desync.formats.node_acls import access_acl, default_acl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from desync.formats.catar_seek import Node

_T = TypeVar("_T")

#: How many nodes, and entries of directories, are remembered.
_NODES: Final = 20_000
_ENTRIES: Final = 200_000

_SIZE_OF_DIRECTORY: Final = 4096


class Stream(Protocol):
    """An archive, to be read by any thread at any place: :class:`.blob.Blob`, or a file."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def read(self, offset: int, size: int) -> bytes:
        """Read a part, shorter than wanted only at the end. Raises OSError."""

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read a part to somewhere, and give its length. Raises OSError."""


class ArchiveFile:
    """
    An archive in a file.

    :param descriptor: open for reading.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, size: int) -> bytes:
        """See :class:`Stream`."""
        return os.pread(self._descriptor, size, offset)

    def read_into(self, view: memoryview, offset: int) -> int:
        """See :class:`Stream`."""
        return os.preadv(self._descriptor, [view], offset)


class ArchiveTree:
    """
    The tree in an archive. See :class:`.libfuse.TreeFileSystem` for the methods.

    :param stream: the archive.
    :param where: the archive, as errors name it.
    :param say: told in a line what is wrong with it; called in any thread.
    :raises InvalidArchive: if it is none, or has no tables to be looked up in.
    """

    def __init__(self, stream: Stream, where: str, say: Callable[[str], object]) -> None:
        self._stream = stream
        self._where = where
        self._say = say
        self._lock = threading.Lock()
        self._root = catar_seek.answered(catar_seek.root_of(stream.size, where), stream.read)
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()
        self._listings: OrderedDict[bytes, dict[bytes, tuple[int, int]]] = OrderedDict()
        self._entries = 0

    def getattr(self, path: str) -> Mapping[str, int]:
        """See :class:`.libfuse.FileSystem`."""
        node = self._node(path)
        metadata = node.metadata
        size = 0
        if metadata.kind == stat.S_IFREG:
            size = node.content[1]
        elif metadata.kind == stat.S_IFLNK:
            size = len(node.target)
        elif metadata.kind == stat.S_IFDIR:
            size = _SIZE_OF_DIRECTORY
        return {
            "st_mode": metadata.mode,
            # One is what a directory has whose subdirectories aren't counted.
            "st_nlink": 1,
            "st_size": size,
            "st_blocks": -(-size // 512),
            "st_blksize": 1 << 17,
            "st_uid": metadata.uid,
            "st_gid": metadata.gid,
            "st_rdev": os.makedev(*node.device),
            "st_mtime": metadata.mtime,
            "st_ctime": metadata.mtime,
            "st_atime": metadata.mtime,
        }

    def readdir(self, path: str) -> Sequence[str]:
        """See :class:`.libfuse.FileSystem`."""
        node = self._node(path)
        if node.metadata.kind != stat.S_IFDIR:
            raise _error(errno.ENOTDIR)
        return [os.fsdecode(name) for name in self._listing(_key(path), node)]

    def open(self, path: str) -> int:
        """See :class:`.libfuse.FileSystem`. The number is where the content begins."""
        node = self._node(path)
        if node.metadata.kind != stat.S_IFREG:
            raise _error(errno.EINVAL)
        return node.content[0]

    def read_into(self, handle: int, view: memoryview, offset: int) -> int:
        """See :class:`.libfuse.FileSystem`."""
        # The record's header, right before the content, has its length.
        header = self._stream.read(handle - catar.HEADER_SIZE, 8)
        length = int.from_bytes(header, "little") - catar.HEADER_SIZE
        wanted = min(len(view), length - offset)
        if wanted <= 0:
            return 0
        got = self._stream.read_into(view[:wanted], handle + offset)
        if got < wanted:
            raise _error(errno.EIO)
        return got

    def readlink(self, path: str) -> str:
        """See :class:`.libfuse.TreeFileSystem`."""
        node = self._node(path)
        if node.metadata.kind != stat.S_IFLNK:
            raise _error(errno.EINVAL)
        return os.fsdecode(node.target)

    def xattrs(self, path: str) -> Mapping[str, bytes]:
        """See :class:`.libfuse.TreeFileSystem`."""
        metadata = self._node(path).metadata
        found = {os.fsdecode(name): value for name, value in metadata.xattrs}
        if metadata.fcaps is not None:
            found["security.capability"] = metadata.fcaps
        if metadata.selinux is not None:
            found["security.selinux"] = metadata.selinux
        access, default = access_acl(metadata), default_acl(metadata)
        if access is not None:
            found[posix_acl.ACCESS_XATTR] = posix_acl.encode(access)
        if default is not None:
            found[posix_acl.DEFAULT_XATTR] = posix_acl.encode(default)
        return found

    def _node(self, path: str) -> Node:
        key = _key(path)
        if not key:
            return self._root
        with self._lock:
            known = self._nodes.get(key)
            if known is not None:
                self._nodes.move_to_end(key)
                return known
        above, _, name = key.rpartition(b"/")
        directory = self._node("/" + os.fsdecode(above))
        if directory.metadata.kind != stat.S_IFDIR:
            raise _error(errno.ENOTDIR)
        node = self._child(above, directory, name)
        if node is None:
            raise _error(errno.ENOENT)
        with self._lock:
            self._nodes[key] = node
            while len(self._nodes) > _NODES:
                self._nodes.popitem(last=False)
        return node

    def _child(self, key: bytes, directory: Node, name: bytes) -> Node | None:
        with self._lock:
            listing = self._listings.get(key)
        if listing is None:
            return self._ask(catar_seek.lookup(directory, name, self._where))
        place = listing.get(name)
        if place is None:
            return None
        return self._ask(catar_seek.child(directory, name, *place, self._where))

    def _listing(self, key: bytes, directory: Node) -> dict[bytes, tuple[int, int]]:
        with self._lock:
            known = self._listings.get(key)
            if known is not None:
                self._listings.move_to_end(key)
                return known
        children = self._ask(catar_seek.children(directory, self._where))
        listing = {name: (start, end) for name, start, end in children}
        with self._lock:
            if key not in self._listings:
                self._listings[key] = listing
                self._entries += len(listing)
            while self._entries > _ENTRIES and len(self._listings) > 1:
                _, oldest = self._listings.popitem(last=False)
                self._entries -= len(oldest)
        return listing

    def _ask(self, reading: catar_seek.Reading[_T]) -> _T:
        try:
            return catar_seek.answered(reading, self._stream.read)
        except InvalidArchive as error:
            self._say(f"Error: {error}")
            raise _error(errno.EIO) from None


def _key(path: str) -> bytes:
    return os.fsencode(path).strip(b"/")


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
