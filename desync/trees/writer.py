# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Making a directory tree of an archive's events.

All is done below descriptors of open directories, one name at a time (:mod:`.confined`), so nothing
outside the root is ever touched. What a name stands for that an archive has is replaced; a new file
takes its place when it is complete. Files that have the archive's content already are left as they
are, and given the archive's metadata where theirs differs.

While they are being filled, new directories and files can be used by their owner alone. A directory
gets its owner, mode and times when all that is in it is done.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import secrets
import stat
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from desync.errors import FileError, describe_os_error
from desync.formats import catar, posix_acl
from desync.formats.catar import Metadata

from . import confined
from .attributes import Attributes
from .file_systems import make_subvolume
from .restoring import Restoring, Shortfall

try:
    import fcntl
except ImportError:  # not on this system
    fcntl = None  # type: ignore[assignment]

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_PRIVATE: Final = 0o600
_TEMPORARY: Final = b".desync-untar-"

_CLONES: Final = hasattr(os, "copy_file_range")


class _OpenDirectory:
    """
    A directory that is being filled.

    :ivar found: what it was like before; None if it was made.
    :ivar has_acl: whether what is made in it may get access control lists from it.
    :ivar seen: the names that the archive has in it, where the others are to be removed.
    """

    __slots__ = ("descriptor", "found", "has_acl", "metadata", "name", "seen")

    def __init__(
        self,
        name: bytes,
        descriptor: int,
        metadata: Metadata,
        found: os.stat_result | None,
        has_acl: bool,
    ) -> None:
        self.name = name
        self.descriptor = descriptor
        self.metadata = metadata
        self.found = found
        self.has_acl = has_acl
        self.seen: set[bytes] | None = None


class TreeWriter:
    """
    Takes the events of an archive and makes the tree that they describe::

        with TreeWriter("target", Restoring(), shortfall) as writer:
            writer.take(decoder.feed(piece), decoder.flags)

    After an error, a file that isn't complete is gone, and the directories under way have the
    archive's modes as far as possible.

    :param target: the directory to be filled; it is made if it isn't there.
    :param restoring: what of the metadata is to be restored.
    :param shortfall: told what couldn't be.
    """

    def __init__(self, target: str, restoring: Restoring, shortfall: Shortfall) -> None:
        self.target = target
        self._restoring = restoring
        self._shortfall = shortfall
        self._attributes: Attributes | None = None
        self._open: list[_OpenDirectory] = []
        self._parent = -1
        self._has_acl = False
        self._seen: set[bytes] | None = None
        # The file that is being written.
        self._name = b""
        self._file = -1
        self._opened: list[int] = []
        self._temporary: bytes | None = None
        self._metadata = Metadata(0)
        self._left = 0
        self._offset = 0
        # What it replaces, while that may turn out to be the same.
        self._old = -1
        self._old_found: os.stat_result | None = None
        self._same = False
        self._take_event = {
            catar.Directory: self._directory,
            catar.EndDirectory: self._end_directory,
            catar.File: self._begin_file,
            catar.Payload: self._payload,
            catar.Symlink: self._symlink,
            catar.Device: self._device,
            catar.Fifo: self._node,
            catar.Socket: self._node,
        }

    def __enter__(self) -> TreeWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._abandon_file()
        # What goes wrong from here on isn't the first thing that does.
        if self._attributes is not None and self._open:
            quiet = Attributes(
                self._flags, self._restoring._replace(delete=False), Shortfall(lambda line: None)
            )
            for each in reversed(self._open):
                with contextlib.suppress(OSError):
                    self._complete(each, quiet)
        while self._open:
            os.close(self._open.pop().descriptor)

    def take(self, events: Sequence[catar.Event], flags: int) -> None:
        """
        Do what some events say.

        :param flags: the archive's feature flags.
        :raises FileError: if something can't be made, or what it replaces can't be removed.
        """
        if not events:
            return  # The flags may not be known yet.
        if self._attributes is None:
            self._flags = flags
            self._attributes = Attributes(flags, self._restoring, self._shortfall)
            for kind in self._restoring.left_out():
                self._take_event[kind] = self._leave_out
        take_event = self._take_event
        try:
            for event in events:
                take_event[type(event)](event)  # type: ignore[operator]
        except OSError as error:
            where = self._path() if self._open else self.target
            raise FileError(where, error.strerror or describe_os_error(error)) from None

    def _path(self) -> str:
        """Give the path of the node that is being made."""
        return self._path_of([*(each.name for each in self._open[1:]), self._name])

    def _path_of(self, names: list[bytes]) -> str:
        return "/".join([self.target.rstrip("/"), *map(os.fsdecode, filter(None, names))])

    # -- directories

    def _directory(self, event: catar.Directory) -> None:
        name, metadata = event
        self._name = name
        if not self._open:
            descriptor, made = confined.open_root(self.target)
        else:
            self._note(name)
            descriptor, made = self._make_directory(name, metadata)
        try:
            found = None if made else os.fstat(descriptor)
            has_acl = self._has_acl
            if found is not None:
                self._prepare_old(descriptor, found, metadata)
                has_acl = self._gives_acls(descriptor)
            elif not self._open:
                has_acl = self._gives_acls(descriptor)
            opened = _OpenDirectory(name, descriptor, metadata, found, has_acl)
            if self._restoring.delete and found is not None:
                opened.seen = set()
        except BaseException:
            os.close(descriptor)
            raise
        self._open.append(opened)
        self._enter(opened)

    def _enter(self, directory: _OpenDirectory) -> None:
        self._parent = directory.descriptor
        self._has_acl = directory.has_acl
        self._seen = directory.seen

    def _make_directory(self, name: bytes, metadata: Metadata) -> tuple[int, bool]:
        parent = self._parent
        try:
            return self._mkdir(name, metadata), True
        except FileExistsError:
            pass
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return confined.open_directory(name, parent), False
        self._clear(name)
        return self._mkdir(name, metadata), True

    def _mkdir(self, name: bytes, metadata: Metadata) -> int:
        assert self._attributes is not None
        parent = self._parent
        if self._attributes.is_subvolume(metadata) and make_subvolume(name, parent):
            descriptor = os.open(name, confined.DIRECTORY, dir_fd=parent)
            os.fchmod(descriptor, 0o700)
            return descriptor
        os.mkdir(name, 0o700, dir_fd=parent)
        return os.open(name, confined.DIRECTORY, dir_fd=parent)

    def _prepare_old(self, descriptor: int, found: os.stat_result, metadata: Metadata) -> None:
        """Make sure that a directory can be filled, and that nobody sees more than they may."""
        assert self._attributes is not None
        self._attributes.unlock(descriptor)
        _remove_leftovers(descriptor)
        mode = stat.S_IMODE(found.st_mode)
        fitting = mode
        if self._restoring.permissions:
            fitting &= self._attributes.lowest_mode(metadata) | 0o7000
        fitting |= 0o700
        if fitting != mode:
            # Whoever may neither do this nor write finds out by what follows.
            with contextlib.suppress(OSError):
                os.fchmod(descriptor, fitting)

    def _gives_acls(self, descriptor: int) -> bool:
        assert self._attributes is not None
        if not self._attributes.has_acls:
            return False
        try:
            return posix_acl.DEFAULT_XATTR in os.listxattr(descriptor)
        except (OSError, AttributeError):
            return False

    def _end_directory(self, event: catar.EndDirectory) -> None:
        directory = self._open[-1]
        self._name = b""
        assert self._attributes is not None
        if directory.seen is not None:
            self._remove_others(directory.descriptor, directory.seen)
        self._complete(directory, self._attributes)
        self._open.pop()
        os.close(directory.descriptor)
        if self._open:
            self._enter(self._open[-1])

    def _complete(self, directory: _OpenDirectory, attributes: Attributes) -> None:
        names = [each.name for each in self._open[1 : self._open.index(directory) + 1]]

        def path() -> str:
            return self._path_of(names)

        found = directory.found
        if found is None:
            attributes.for_new_file(
                directory.descriptor, directory.metadata, path, directory.has_acl
            )
            attributes.lock(directory.descriptor, directory.metadata, path)
        else:
            attributes.for_old_file(directory.descriptor, directory.metadata, path, found)

    def _remove_others(self, directory: int, seen: set[bytes]) -> None:
        with os.scandir(directory) as entries:
            others = [name for entry in entries if (name := os.fsencode(entry.name)) not in seen]
        for name in others:
            self._name = name
            try:
                confined.remove(name, directory)
            except OSError as error:
                self._shortfall.fail(self._path(), "remove it", error)
        self._name = b""

    # -- regular files

    def _begin_file(self, event: catar.File) -> None:
        name, metadata, size = event
        self._name = name
        self._metadata = metadata
        self._left = size
        self._offset = 0
        self._note(name)
        try:
            self._open_new(name)
        except FileExistsError:
            self._begin_beside(name, size)
        if not size:
            self._end_file()

    def _begin_beside(self, name: bytes, size: int) -> None:
        """Begin a file where something of its name is already."""
        with contextlib.suppress(OSError):
            self._old = self._open_regular(name)
        if self._old >= 0:
            self._old_found = os.fstat(self._old)
            self._same = self._old_found.st_size == size
        if not self._same:
            self._open_temporary()

    def _open_regular(self, name: bytes) -> int:
        found = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            return -1
        return os.open(name, _OLD, dir_fd=self._parent)

    def _open_temporary(self) -> None:
        temporary = _TEMPORARY + secrets.token_hex(8).encode()
        # First of all, so that an interrupt never takes the old file for the unfinished one.
        self._temporary = temporary
        self._open_new(temporary)
        _lock(self._file)

    def _open_new(self, name: bytes) -> None:
        create = functools.partial(os.open, flags=_NEW, mode=_PRIVATE, dir_fd=self._parent)
        # An interrupt comes after a call, so one call both makes the file and notes it.
        self._opened.extend(map(create, (name,)))
        self._file = self._opened[0]
        if self._metadata.flags:
            assert self._attributes is not None
            self._attributes.before_content(self._file, self._metadata, self._path)

    def _payload(self, event: catar.Payload) -> None:
        data = event.data
        if self._old >= 0:
            self._payload_over_old(memoryview(data))
        else:
            written = os.write(self._file, data)
            if written != len(data):
                self._write(memoryview(data)[written:])
        self._offset += len(data)
        self._left -= len(data)
        if not self._left:
            self._end_file()

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._file, data) :]

    def _payload_over_old(self, data: memoryview) -> None:
        """Take content that may be what the file has at this place already."""
        equal = os.pread(self._old, len(data), self._offset) == data
        if self._same:
            if equal:
                return
            self._same = False
            self._open_temporary()
            self._copy_old(0, self._offset)
        if equal:
            self._copy_old(self._offset, len(data))
        else:
            self._write(data)

    def _copy_old(self, offset: int, length: int) -> None:
        """Take over a part of the old file, which a file system that can do it shares."""
        while length:
            copied = 0
            if _CLONES:
                with contextlib.suppress(OSError):
                    copied = os.copy_file_range(self._old, self._file, length, offset)
            if not copied:
                data = os.pread(self._old, min(length, 1 << 20), offset)
                if not data:
                    raise OSError(errno.ESTALE, "it changed meanwhile")
                self._write(memoryview(data))
                copied = len(data)
            offset += copied
            length -= copied

    def _end_file(self) -> None:
        attributes = self._attributes
        assert attributes is not None
        found = self._old_found
        if self._same and found is not None:
            if self._keep_old(found):
                return
            self._same = False
            self._open_temporary()
            self._copy_old(0, self._offset)
        attributes.for_new_file(self._file, self._metadata, self._path, self._has_acl)
        descriptor = self._file
        if self._temporary is not None:
            self._install(self._temporary, self._name)
        # From here on there is nothing unfinished.
        self._opened.clear()
        self._temporary = None
        attributes.lock(descriptor, self._metadata, self._path)
        os.close(descriptor)
        self._close_old()

    def _keep_old(self, found: os.stat_result) -> bool:
        """Keep the file that has the right content, if it may be kept."""
        assert self._attributes is not None
        if not self._attributes.may_keep(self._metadata, found):
            return False
        self._attributes.unlock(self._old)
        self._attributes.for_old_file(self._old, self._metadata, self._path, found)
        self._close_old()
        return True

    def _close_old(self) -> None:
        old, self._old = self._old, -1
        if old >= 0:
            os.close(old)
        self._old_found = None
        self._same = False

    def _install(self, temporary: bytes, name: bytes) -> None:
        parent = self._parent
        try:
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            # A directory, or what must not be changed.
            self._clear(name)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)

    def _abandon_file(self) -> None:
        if self._opened:
            os.close(self._opened.pop())
            unfinished = self._name if self._temporary is None else self._temporary
            with contextlib.suppress(OSError):
                os.unlink(unfinished, dir_fd=self._parent)
            self._temporary = None
        self._close_old()

    # -- everything else

    def _symlink(self, event: catar.Symlink) -> None:
        name, metadata, target = event
        self._name = name
        self._note(name)
        assert self._attributes is not None
        try:
            os.symlink(target, name, dir_fd=self._parent)
        except FileExistsError:
            found = os.stat(name, dir_fd=self._parent, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode) or self._target(name) != target:
                self._clear(name)
                os.symlink(target, name, dir_fd=self._parent)
            elif self._attributes.is_right_symlink(metadata, found):
                return
        self._attributes.for_symlink(name, self._parent, metadata, self._path)

    def _target(self, name: bytes) -> bytes:
        return os.readlink(name, dir_fd=self._parent)

    def _device(self, event: catar.Device) -> None:
        self._make_node(event.name, event.metadata, os.makedev(event.major, event.minor))

    def _node(self, event: catar.Fifo | catar.Socket) -> None:
        self._make_node(event.name, event.metadata, 0)

    def _make_node(self, name: bytes, metadata: Metadata, number: int) -> None:
        self._name = name
        self._note(name)
        kind = stat.S_IFMT(metadata.mode)
        parent = self._parent
        try:
            try:
                os.mknod(name, kind | _PRIVATE, number, dir_fd=parent)
            except FileExistsError:
                found = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if (stat.S_IFMT(found.st_mode), found.st_rdev) != (kind, number):
                    self._clear(name)
                    os.mknod(name, kind | _PRIVATE, number, dir_fd=parent)
        except PermissionError as error:
            # Only root may make devices. Nothing else depends on this one.
            self._shortfall.fail(self._path(), "make it", error)
            return
        place = confined.open_place(name, parent)
        try:
            if stat.S_IFMT(os.fstat(place).st_mode) != kind:
                raise OSError(errno.ESTALE, "it was replaced meanwhile")
            assert self._attributes is not None
            self._attributes.for_special(place, metadata, self._path, self._has_acl)
        finally:
            os.close(place)

    def _leave_out(self, event: catar.Symlink | catar.Device | catar.Fifo | catar.Socket) -> None:
        # Nor is what has its name in the target to be deleted.
        self._note(event.name)

    def _note(self, name: bytes) -> None:
        if self._seen is not None:
            self._seen.add(name)

    def _clear(self, name: bytes) -> None:
        """Remove what has a name, so that something else can have it."""
        try:
            confined.remove(name, self._parent)
        except PermissionError:
            assert self._attributes is not None
            old = self._open_regular(name)
            if old < 0:
                raise
            self._attributes.unlock(old)
            os.close(old)
            confined.remove(name, self._parent)


def _lock(descriptor: int) -> bool:
    """Mark a file as one that is being written; say whether nobody else does."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_leftovers(directory: int) -> None:
    """Remove the files that were being written when their writer was killed."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        leftovers = [
            name for entry in entries if (name := os.fsencode(entry.name)).startswith(_TEMPORARY)
        ]
        for name in leftovers:
            with contextlib.suppress(OSError):
                descriptor = os.open(name, _OLD, dir_fd=directory)
                try:
                    if stat.S_ISREG(os.fstat(descriptor).st_mode) and _lock(descriptor):
                        os.unlink(name, dir_fd=directory)
                finally:
                    os.close(descriptor)
