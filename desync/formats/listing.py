# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Archives as text: a line for each node, with its type, mode and path, or in the format mtree(5).

Events go in (:mod:`desync.formats.catar`), lines of bytes come out. In them names and targets are
escaped: spaces, control characters, whatever isn't ASCII, backslashes and number signs are three
octal digits behind a backslash.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from . import catar
from . import flags as feature
from .catar import Metadata

if TYPE_CHECKING:
    from desync.chunking.digests import Digest

Node: TypeAlias = (
    catar.Directory | catar.File | catar.Symlink | catar.Device | catar.Fifo | catar.Socket
)

_ESCAPED: Final = re.compile(rb"[^\x21-\x7e]|[\\#]")

_TYPES: Final = {
    stat.S_IFDIR: b"dir",
    stat.S_IFREG: b"file",
    stat.S_IFLNK: b"link",
    stat.S_IFCHR: b"char",
    stat.S_IFBLK: b"block",
    stat.S_IFIFO: b"fifo",
    stat.S_IFSOCK: b"socket",
}

#: The attributes that mtree has words for, in casync's order.
_WORDS: Final = (
    (feature.WITH_FLAG_HIDDEN, b"hidden"),
    (feature.WITH_FLAG_SYSTEM, b"system"),
    (feature.WITH_FLAG_ARCHIVE, b"archive"),
    (feature.WITH_FLAG_APPEND, b"sappend"),
    (feature.WITH_FLAG_NODUMP, b"nodump"),
    (feature.WITH_FLAG_IMMUTABLE, b"simmutable"),
)


def escaped(text: bytes) -> bytes:
    """Give a name in the form that it has in a line."""
    return _ESCAPED.sub(lambda found: b"\\%03o" % found[0][0], text)


class Lines:
    """
    Makes lines of events.

    :param write: takes each line, with its end.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._directories: list[bytes] = []

    def take(self, events: Iterable[catar.Event], flags: int) -> None:
        """
        Take the next events of an archive.

        :param flags: the archive's feature flags.
        """
        for event in events:
            if isinstance(event, catar.Payload):
                self._payload(event.data)
            elif isinstance(event, catar.EndDirectory):
                self._directories.pop()
            else:
                self._node(event, flags)

    def _node(self, event: Node, flags: int) -> None:
        before = self._directories[-1] if self._directories else b""
        path = before + escaped(event.name) if self._directories else b"."
        if isinstance(event, catar.Directory):
            self._directories.append(path + b"/" if self._directories else b"")
        self._line(path, event, flags)

    def _line(self, path: bytes, event: Node, flags: int) -> None:
        raise NotImplementedError

    def _payload(self, data: bytes | memoryview) -> None:
        """Take a piece of a file's content."""


class ListLines(Lines):
    """Type and permissions as ``ls`` shows them, and the path: what ``casync list`` prints."""

    def _line(self, path: bytes, event: Node, flags: int) -> None:
        self._write(stat.filemode(event.metadata.mode).encode("ascii") + b" " + path + b"\n")


class _FileLines(Lines):
    """Lines of which those of files end with the digest of the content."""

    def __init__(self, write: Callable[[bytes], object], digest: Digest | None) -> None:
        super().__init__(write)
        self._digest = digest
        self._hash: Any = None
        self._left = 0
        self._label = b""

    def _begin_file(self, line: bytes, size: int, digest: Digest) -> None:
        self._label = digest.name.replace("-", "").encode("ascii") + b"digest="
        self._hash = digest.new()
        self._begun = line
        self._left = size
        if not size:
            self._end_file()

    def _payload(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._left -= len(data)
        if not self._left:
            self._end_file()

    def _end_file(self) -> None:
        digest = self._hash.hexdigest().encode("ascii")
        self._write(b"%s %s%s\n" % (self._begun, self._label, digest))


class MtreeLines(_FileLines):
    """
    mtree(5) with Go desync's keywords in Go desync's order.

    Unlike Go's, nanoseconds have their zeros, modes their high bits, and character devices their
    type; devices are followed by their numbers.

    :param digest: of the files' content.
    """

    def __init__(self, write: Callable[[bytes], object], digest: Digest) -> None:
        super().__init__(write, digest)
        self._content_digest = digest
        write(b"#mtree v1.0\n")

    def _line(self, path: bytes, event: Node, flags: int) -> None:
        metadata = event.metadata
        mode = stat.S_IMODE(metadata.mode)
        words = [b"%s type=%s mode=%04o" % (path, _TYPES[metadata.kind], mode)]
        if isinstance(event, catar.Symlink):
            words.append(b"target=" + escaped(event.target))
        elif isinstance(event, catar.Device):
            words.append(b"device=linux,%d,%d" % (event.major, event.minor))
        words.append(b"uid=%d gid=%d" % (metadata.uid, metadata.gid))
        if isinstance(event, catar.File):
            words.append(b"size=%d" % event.size)
        words.append(b"time=%d.%09d" % divmod(metadata.mtime, 1_000_000_000))
        line = b" ".join(words)
        if isinstance(event, catar.File):
            self._begin_file(line, event.size, self._content_digest)
        else:
            self._write(line + b"\n")


class CasyncMtreeLines(_FileLines):
    """
    mtree(5) as casync writes it: only what the archive records.

    :param digest_of: gives the algorithm for the content of files, for the archive's feature flags.
    """

    def __init__(
        self, write: Callable[[bytes], object], digest_of: Callable[[int], Digest]
    ) -> None:
        super().__init__(write, None)
        self._digest_of = digest_of

    def _line(self, path: bytes, event: Node, flags: int) -> None:
        metadata = event.metadata
        mode = stat.S_IMODE(metadata.mode)
        words = [b"%s type=%s mode=%04o" % (path, _TYPES[metadata.kind], mode)]
        if isinstance(event, catar.File):
            words.append(b"size=%d" % event.size)
        elif isinstance(event, catar.Symlink):
            words.append(b"link=" + escaped(event.target))
        elif isinstance(event, catar.Device):
            words.append(b"device=linux,%d,%d" % (event.major, event.minor))
        if flags & catar.WITH_UIDS:
            words.append(b"uid=%d gid=%d" % (metadata.uid, metadata.gid))
        if flags & feature.WITH_USER_NAMES:
            words += _owner(b"uname=", metadata.user, metadata.uid)
            words += _owner(b"gname=", metadata.group, metadata.gid)
        attributes = _attributes(metadata, flags)
        if attributes:
            words.append(b"flags=" + attributes)
        if flags & catar.WITH_TIME:
            mtime = metadata.mtime & ((1 << 64) - 1)
            words.append(b"time=%d.%09d" % divmod(mtime, 1_000_000_000))
        line = b" ".join(words)
        if isinstance(event, catar.File):
            self._begin_file(line, event.size, self._digest_of(flags))
        else:
            self._write(line + b"\n")


def _owner(key: bytes, name: bytes | None, number: int) -> list[bytes]:
    if name is None and number == 0:
        name = b"root"
    return [] if name is None else [key + escaped(name)]


def _attributes(metadata: Metadata, flags: int) -> bytes:
    # casync names them all for what can have none.
    every = metadata.kind not in (stat.S_IFREG, stat.S_IFDIR)
    return b",".join(
        word if every or metadata.flags & bit else b"no" + word
        for bit, word in _WORDS
        if flags & bit
    )
