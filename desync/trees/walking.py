# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Going through a directory tree on disk, as the bytes of an archive and the files in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from desync.errors import FileError, NotArchivable
from desync.formats import catar
from desync.formats import flags as feature
from desync.formats.catar_encoder import CatarEncoder

from . import excludes, file_systems
from .content import DIRECTORY, FILE, LONGEST_PATH, FileContent, shown
from .excludes import Rules
from .inode_flags import get_chattr
from .reading import MetadataReader


class Selection(NamedTuple):
    """
    What of a tree is left out.

    :ivar nodump: files and directories with the attribute of this name.
    :ivar exclude_files: what files named ``.caexclude`` name.
    :ivar submounts: what is mounted in the tree, mount points included.
    :ivar one_file_system: what is on another file system than the root.
    """

    nodump: bool = False
    exclude_files: bool = False
    submounts: bool = False
    one_file_system: bool = False


class TreeWalk:
    """
    Reads a tree and encodes it.

    :param root: a directory.
    :param encoder: a fresh one.
    :param reader: of what nodes have.
    :param skipped: told the path of a node, and why it is left out although nobody asked for that.
    :param output: device and inode of the file that the archive is written to, which may be in the
        tree, and is left out then.
    """

    def __init__(
        self,
        root: bytes,
        encoder: CatarEncoder,
        reader: MetadataReader,
        selection: Selection,
        skipped: Callable[[bytes, str], object],
        output: tuple[int, int] | None = None,
    ) -> None:
        self._root = root
        self._encoder = encoder
        self._reader = reader
        self._selection = selection
        self._skipped = skipped
        self._output = output
        self._virtual = {
            device
            for device, name in file_systems.mounted().items()
            if name in file_systems.VIRTUAL
        }
        self._open_files = reader.needs_descriptor or selection.nodump or selection.submounts
        self._device = 0
        self._mount = b""

    def pieces(self) -> Iterator[bytes | FileContent]:
        """
        Give the archive piece by piece, in its order.

        :raises FileError: if something can't be read or recorded; the archive is of no use then.
        """
        # Each directory under way: its descriptor, its path with a slash, its names backwards.
        levels: list[tuple[int, bytes, list[bytes], Rules]] = []
        encoder = self._encoder
        path = self._root
        try:
            try:
                descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                levels.append((descriptor, b"", [], Rules()))
                found = os.fstat(descriptor)
                self._device = found.st_dev
                if self._selection.submounts:
                    self._mount = _mount_of(descriptor)
                # By its descriptor, in case the root was given as a link.
                metadata = self._reader.read(
                    b"/proc/self/fd/%d/." % descriptor if _HAS_PROC else path, found, descriptor
                )
                yield encoder.directory(b"", metadata)
                levels[0] = self._level(descriptor, path, Rules(), found)
                while levels:
                    descriptor, before, names, rules = levels[-1]
                    if not names:
                        path = before
                        yield encoder.end_directory()
                        os.close(levels.pop()[0])
                        continue
                    name = names.pop()
                    path = before + name
                    found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    kind = found.st_mode & 0o170000
                    if kind == stat.S_IFREG and not self._open_files:
                        if rules and rules.excludes(name, False):
                            continue
                        at = path
                        if len(path) > LONGEST_PATH:
                            at = b"/proc/self/fd/%d/%s" % (descriptor, name)
                        metadata = self._reader.read(at, found)
                        yield from self._file(name, path, found, metadata)
                        continue
                    pieces = self._node(name, path, descriptor, found, rules)
                    if isinstance(pieces, int):
                        levels.append((pieces, b"", [], Rules()))
                        at = path
                        if len(path) > LONGEST_PATH:
                            at = b"/proc/self/fd/%d/." % pieces
                        yield encoder.directory(name, self._reader.read(at, found, pieces))
                        levels[-1] = self._level(pieces, path, rules.below(name), found)
                    elif pieces is not None:
                        yield from pieces
            finally:
                for level in levels:
                    os.close(level[0])
        except OSError as error:
            raise FileError(shown(path), error.strerror or str(error)) from None
        except NotArchivable as error:
            raise FileError(shown(path), str(error)) from None

    def _level(
        self, descriptor: int, path: bytes, rules: Rules, found: os.stat_result
    ) -> tuple[int, bytes, list[bytes], Rules]:
        """List an open directory."""
        before = path if path.endswith(b"/") else path + b"/"
        if found.st_dev in self._virtual:
            return descriptor, before, [], rules
        names = [os.fsencode(name) for name in os.listdir(descriptor)]
        names.sort(reverse=True)
        if self._selection.exclude_files and excludes.NAME in names:
            rules = self._with_exclude_file(descriptor, before, rules)
        return descriptor, before, names, rules

    def _with_exclude_file(self, directory: int, before: bytes, rules: Rules) -> Rules:
        path = before + excludes.NAME
        try:
            descriptor = os.open(excludes.NAME, FILE, dir_fd=directory)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise FileError(shown(path), "it isn't a regular file")
                with os.fdopen(os.dup(descriptor), "rb") as file:
                    text = file.read(excludes.SIZE_LIMIT + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise FileError(shown(path), error.strerror or str(error)) from None
        if len(text) > excludes.SIZE_LIMIT:
            raise FileError(shown(path), f"it has more than {excludes.SIZE_LIMIT} bytes")
        try:
            return rules.with_file(excludes.parse(text))
        except excludes.BadPattern as error:
            raise FileError(shown(path), str(error)) from None

    def _node(
        self, name: bytes, path: bytes, parent: int, found: os.stat_result, rules: Rules
    ) -> int | Iterator[bytes | FileContent] | None:
        """
        Begin a node that isn't a plain case.

        :returns: the descriptor of a directory to go into, the pieces of anything else, None for
            what is left out.
        """
        kind = found.st_mode & 0o170000
        if rules and rules.excludes(name, kind == stat.S_IFDIR):
            return None
        if self._selection.one_file_system and found.st_dev != self._device:
            return None
        encoder = self._encoder
        if kind == stat.S_IFDIR:
            descriptor = os.open(name, DIRECTORY, dir_fd=parent)
            try:
                if self._is_left_out(descriptor, path, found):
                    os.close(descriptor)
                    return None
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor
        at = path if len(path) <= LONGEST_PATH else b"/proc/self/fd/%d/%s" % (parent, name)
        if kind == stat.S_IFREG:
            return self._opened_file(name, path, at, parent, found)
        try:
            records = encoder.records(found.st_mode)
        except ValueError:
            self._skipped(path, "unsupported node type")
            return None
        if not records:
            if encoder.as_go:
                self._skipped(path, "unsupported node type")
            return None
        metadata = self._reader.read(at, found)
        if kind == stat.S_IFLNK:
            target = os.readlink(name, dir_fd=parent)
            return iter((encoder.symlink(name, metadata, target),))
        if kind == stat.S_IFIFO:
            return iter((encoder.fifo(name, metadata),))
        if kind == stat.S_IFSOCK:
            return iter((encoder.socket(name, metadata),))
        number = found.st_rdev
        return iter((encoder.device(name, metadata, os.major(number), os.minor(number)),))

    def _is_left_out(self, descriptor: int, path: bytes, found: os.stat_result) -> bool:
        opened = os.fstat(descriptor)
        if (opened.st_dev, opened.st_ino) != (found.st_dev, found.st_ino):
            raise FileError(shown(path), "it was replaced while it was being read")
        if self._selection.submounts and _mount_of(descriptor) != self._mount:
            return True
        if not self._selection.nodump:
            return False
        return bool(get_chattr(descriptor) & feature.WITH_FLAG_NODUMP)

    def _opened_file(
        self, name: bytes, path: bytes, at: bytes, parent: int, found: os.stat_result
    ) -> Iterator[bytes | FileContent] | None:
        """Begin a regular file that has to be opened for what it has."""
        descriptor = os.open(name, FILE, dir_fd=parent)
        try:
            if self._is_left_out(descriptor, path, found):
                return None
            metadata = self._reader.read(at, found, descriptor)
        finally:
            os.close(descriptor)
        return self._file(name, path, found, metadata)

    def _file(
        self, name: bytes, path: bytes, found: os.stat_result, metadata: catar.Metadata
    ) -> Iterator[bytes | FileContent]:
        if self._selection.one_file_system and found.st_dev != self._device:
            return
        if (found.st_dev, found.st_ino) == self._output:
            self._skipped(path, "it is the archive")
            return
        size = 0 if found.st_dev in self._virtual else found.st_size
        yield self._encoder.file(name, metadata, size)
        if size:
            self._encoder.payload(size)
            yield FileContent(path, size, found.st_mtime_ns, found.st_dev, found.st_ino)


_HAS_PROC: Final = os.path.isdir("/proc/self/fd")


def _mount_of(descriptor: int) -> bytes:
    """Name the mount that an open directory is on."""
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as lines:
        for line in lines:
            if line.startswith(b"mnt_id:"):
                return line.split()[1]
    return b""
