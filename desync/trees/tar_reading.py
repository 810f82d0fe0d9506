# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Reading a tar stream as an archive's events.

Archives go through a tree depth first. So does GNU tar, and the order is kept then. bsdtar writes
the entries of all that a directory has first, and what its subdirectories have later: entries of
directories are held back until then, and the empty ones come last. A file is looked through to tell
which it is; of a pipe, the format decides. A stream that comes back to a directory that it had left
is refused; no program that packs a tree makes such.

Hard links, which archives don't know, become files of their own.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from desync.errors import InvalidArchive
from desync.formats import catar
from desync.formats.catar import Event, Metadata

from .tar_links import Offsets, Spool
from .tar_members import TarMembers
from .tar_metadata import metadata_of, to_bytes

_KINDS: Final = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
}

#: The label of a volume. It is no file.
_VOLUME: Final = b"V"


class TarOptions(NamedTuple):
    """
    How a tar stream is read.

    :ivar add_root: whether it may lack an entry for the root.
    :ivar xattrs_only: whether access control lists and capabilities are wanted as xattrs.
    :ivar spool_limit: how many bytes of files from a pipe are kept for hard links to them.
    :ivar no_time: whether all nodes get the time 0.
    """

    add_root: bool = False
    xattrs_only: bool = False
    spool_limit: int = 256 << 20
    no_time: bool = False


def tar_events(
    members: TarMembers, options: TarOptions, left_out: Callable[[bytes, str], object]
) -> Iterator[Event]:
    """
    Give the events of the tree in a tar stream.

    :param left_out: told the path of a member that isn't in the archive, and why.
    :raises InvalidArchive: if it is no tar stream, or none of a tree.
    """
    return _Tree(members, options, left_out).events()


class _OpenDirectory:
    """
    A directory that members are being added to.

    :ivar closed: the names of directories in it that were left.
    :ivar held_back: those whose entry came, but nothing in them yet.
    """

    __slots__ = ("closed", "held_back", "name")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.closed: set[bytes] = set()
        self.held_back: dict[bytes, Metadata] = {}


class _Tree:
    def __init__(
        self, members: TarMembers, options: TarOptions, left_out: Callable[[bytes, str], object]
    ) -> None:
        self._members = members
        self._options = options
        self._left_out = left_out
        self._open: list[_OpenDirectory] = []
        self._holds_back: bool | None = None
        self._originals = Spool(options.spool_limit) if members.file is None else Offsets()

    def events(self) -> Iterator[Event]:
        try:
            if self._members.file is not None:
                self._holds_back = not self._is_depth_first()
            for member, content in self._members:
                if self._holds_back is None:
                    self._holds_back = self._members.is_posix
                yield from self._member(member, content)
            if not self._open:
                yield from self._begin_root(None)
            while self._open:
                yield from self._leave()
        finally:
            self._originals.close()

    def _invalid(self, why: str) -> InvalidArchive:
        return self._members.invalid(why)

    def _member(self, member: tarfile.TarInfo, content: Iterator[bytes]) -> Iterator[Event]:
        if member.type == _VOLUME:
            return
        path = self._names(member.name)
        kind = _KINDS.get(member.type, stat.S_IFREG)
        if not path:
            if kind != stat.S_IFDIR:
                raise self._invalid("its root is no directory")
            if not self._open:
                yield from self._begin_root(self._metadata(member, kind))
            return
        if not self._open:
            yield from self._begin_root(None)
        if not (member.isreg() or member.islnk() or member.type in _KINDS):
            self._left_out(b"/".join(path), f"a member of type {member.type!r}")
            return
        if kind == stat.S_IFDIR and not self._holds_back:
            yield from self._enter(path, self._metadata(member, kind))
            return
        yield from self._enter(path[:-1], None)
        if kind == stat.S_IFDIR:
            self._hold_back(path, self._metadata(member, kind))
            return
        if member.islnk():
            target = self._names(member.linkname)
            yield from self._link(path, target)
            return
        yield from self._leaf(path, member, kind, content)

    def _leaf(
        self, path: list[bytes], member: tarfile.TarInfo, kind: int, content: Iterator[bytes]
    ) -> Iterator[Event]:
        event = self._event(path[-1], member, kind)
        keep = self._originals.begin(b"/".join(path), member, event)
        yield event
        for data in content:
            keep(data)
            yield catar.Payload(data)

    def _event(self, name: bytes, member: tarfile.TarInfo, kind: int) -> Event:
        metadata = self._metadata(member, kind)
        if kind == stat.S_IFLNK:
            return catar.Symlink(name, metadata, to_bytes(member.linkname))
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            return catar.Device(name, metadata, member.devmajor, member.devminor)
        if kind == stat.S_IFIFO:
            return catar.Fifo(name, metadata)
        return catar.File(name, metadata, member.size)

    def _link(self, path: list[bytes], target: list[bytes]) -> Iterator[Event]:
        """Give a hard link as the file that it is another name of."""
        shown, original = os.fsdecode(b"/".join(path)), b"/".join(target)
        found = self._originals.find(original)
        if found is None:
            why = f"{shown} is a hard link to {os.fsdecode(original)}"
            if self._originals.is_full:
                raise self._invalid(
                    f"{why}, which is not among the first {self._options.spool_limit} bytes of"
                    " files that were kept; read the stream from a file, raise --spool-limit, or"
                    " make it with tar's --hard-dereference"
                )
            raise self._invalid(f"{why}, which did not come before it")
        if isinstance(found, int):
            member, content = self._members.again(found)
            kind = _KINDS.get(member.type, stat.S_IFREG)
            yield self._event(path[-1], member, kind)
            # Links to this name are links to the first one.
            self._originals.alias(b"/".join(path), original)
            for data in content:
                yield catar.Payload(data)
            return
        event, content = found
        yield event._replace(name=path[-1])  # type: ignore[call-arg]
        self._originals.alias(b"/".join(path), original)
        for data in content:
            yield catar.Payload(data)

    def _begin_root(self, metadata: Metadata | None) -> Iterator[Event]:
        if metadata is None:
            if not self._options.add_root:
                raise self._invalid("it has no entry for its root; --tar-add-root adds one")
            metadata = Metadata(stat.S_IFDIR | 0o755)
        self._open.append(_OpenDirectory(b""))
        yield catar.Directory(b"", metadata)

    def _enter(self, path: list[bytes], metadata: Metadata | None) -> Iterator[Event]:
        """
        Leave and enter directories until one is the current one.

        :param metadata: of the directory, if the stream has come to its own entry.
        """
        common = 0
        for opened, name in zip(self._open[1:], path, strict=False):
            if opened.name != name:
                break
            common += 1
        while len(self._open) > common + 1:
            yield from self._leave()
        for depth, name in enumerate(path[common:], common + 1):
            above = self._open[-1]
            self._check_not_closed(above, path[:depth])
            own = above.held_back.pop(name, None) or Metadata(stat.S_IFDIR | 0o755)
            if depth == len(path) and metadata is not None:
                own = metadata
            self._open.append(_OpenDirectory(name))
            yield catar.Directory(name, own)

    def _leave(self) -> Iterator[Event]:
        left = self._open.pop()
        for name, metadata in left.held_back.items():
            yield catar.Directory(name, metadata)
            yield catar.EndDirectory()
        if self._open:
            self._open[-1].closed.add(left.name)
        yield catar.EndDirectory()

    def _hold_back(self, path: list[bytes], metadata: Metadata) -> None:
        above = self._open[-1]
        self._check_not_closed(above, path)
        above.held_back[path[-1]] = metadata

    def _check_not_closed(self, above: _OpenDirectory, path: list[bytes]) -> None:
        if path[-1] in above.closed:
            shown = os.fsdecode(b"/".join(path))
            raise self._invalid(f"it comes back to the directory {shown} after others")

    def _is_depth_first(self) -> bool:
        """Look through a file to tell whether a directory's content follows its entry."""
        way: list[_OpenDirectory] = [_OpenDirectory(b"")]
        for member in self._members.headers():
            path = [name for name in to_bytes(member.name).split(b"/") if name not in (b"", b".")]
            common = 0
            wanted = path if member.isdir() else path[:-1]
            for opened, name in zip(way[1:], wanted, strict=False):
                if opened.name != name:
                    break
                common += 1
            while len(way) > common + 1:
                left = way.pop()
                way[-1].closed.add(left.name)
            for name in wanted[common:]:
                if name in way[-1].closed:
                    return False
                way.append(_OpenDirectory(name))
        return True

    def _names(self, text: str) -> list[bytes]:
        """Divide a path; one that leads out of the tree is refused, one from its root taken."""
        names = [name for name in to_bytes(text).split(b"/") if name not in (b"", b".")]
        for name in names:
            bad = catar.why_bad_name(name)
            if bad is not None:
                raise self._invalid(f"a bad name in {text[:200]}: {bad}")
        return names

    def _metadata(self, member: tarfile.TarInfo, kind: int) -> Metadata:
        try:
            return metadata_of(
                member,
                kind,
                xattrs_only=self._options.xattrs_only,
                no_time=self._options.no_time,
            )
        except ValueError as error:
            raise self._invalid(f"{member.name[:200]}: {error}") from None
