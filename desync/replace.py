# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Replacing a whole file at once: whoever opens it finds the old content or all of the new."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from desync import umask
from desync.errors import FileError

if TYPE_CHECKING:
    from types import TracebackType

#: How much of the target's name its temporary file's name repeats, in bytes: names of 255 are
#: possible.
_NAME_PART: Final = 200

_RANDOM_BYTES: Final = 8

#: For whoever writes it, who may have to open it again, and for nobody else. What the old file
#: allows and denies is the new file's only once it is in place.
_WORKING_MODE: Final = 0o600


class Replacement:
    """
    A file that is about to take another's place; made by :func:`replacing`.

    :ivar path: where it will be.
    :ivar has_content: whether it begins with what an earlier run left of it.
    """

    def __init__(
        self,
        path: str,
        mode: int | None,
        sync: str,
        shown: str | None,
        regular: bool,
        resume: bool = False,
    ) -> None:
        self.path = path
        self.has_content = False
        self._resume = resume
        self._regular = regular
        self._shown = path if shown is None else shown
        self._sync = sync != "none"
        self._mode = mode
        self._descriptor = -1
        self._target = ""
        self._temporary: str | None = None

    def fileno(self) -> int:
        """Give the descriptor, open for writing."""
        return self._descriptor

    @property
    def working_path(self) -> str:
        """Where the content is while it is being written: for others who write parts of it."""
        return self.path if self._temporary is None else self._temporary

    @property
    def is_regular(self) -> bool:
        """
        Whether it is a file with places to write to; a pipe or a terminal, which is written to
        directly, isn't.
        """
        return self._temporary is not None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """
        Append all of some bytes.

        :raises FileError: if they can't be written.
        """
        rest = memoryview(data).cast("B")
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise self._error(error) from None

    def __enter__(self) -> Replacement:
        try:
            self._open()
        except OSError as error:
            self._discard()
            raise self._error(error) from None
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._finish()
        except OSError as error:
            self._discard()
            raise self._error(error) from None
        except BaseException:
            self._discard()
            raise

    def _open(self) -> None:
        if not os.path.basename(self.path):
            code = errno.EISDIR if self.path else errno.ENOENT
            raise OSError(code, os.strerror(code))
        mode = umask.file_mode(0o666) if self._mode is None else self._mode
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            pass
        else:
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(found.st_mode):
                if self._regular:
                    raise FileError(self._shown, "it isn't a regular file")
                # A terminal, a pipe, /dev/null: nothing to put another file in place of.
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
                self._sync = False
                return
            if self._mode is None:
                # The new file may be another's than the old one: it gets nobody's privileges.
                mode = found.st_mode & 0o777
        # As a truncating writer would, follow links: the file they lead to is what is replaced.
        self._target = os.path.realpath(self.path)
        directory, name = os.path.split(self._target)
        part = os.fsdecode(os.fsencode(name)[:_NAME_PART])
        left = self._take_over(directory, part) if self._resume else False
        _remove_stale(directory, part)
        while not left:
            self._temporary = os.path.join(directory, f".{part}.{os.urandom(_RANDOM_BYTES).hex()}")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(self._temporary, flags, _WORKING_MODE)
            lock = lock_for_workers if self._resume else _lock
            if lock(self._descriptor) and os.fstat(self._descriptor).st_nlink:
                break
            # Somebody who looks for stale files took it for one before it was locked.
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
        # The umask may have taken even that.
        umask.set_mode(self._descriptor, _WORKING_MODE)
        self._mode = mode

    def _take_over(self, directory: str, part: str) -> bool:
        """Go on with the newest of what killed runs have left, if there is anything."""
        found = []
        for path in _temporary_files(directory, part):
            with contextlib.suppress(OSError):
                found.append((os.lstat(path).st_mtime_ns, path))
        for _, path in sorted(found, reverse=True):
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            try:
                descriptor = os.open(path, flags)
            except OSError:
                continue
            there = os.fstat(descriptor)
            # Nobody else can have written to it, nor will.
            ours = stat.S_ISREG(there.st_mode) and there.st_uid == os.geteuid()
            ours = ours and stat.S_IMODE(there.st_mode) == _WORKING_MODE
            if ours and lock_for_workers(descriptor) and os.fstat(descriptor).st_nlink == 1:
                self._descriptor, self._temporary = descriptor, path
                self.has_content = there.st_size > 0
                return True
            os.close(descriptor)
        return False

    def _finish(self) -> None:
        if self._temporary is not None and self._mode is not None:
            umask.set_mode(self._descriptor, self._mode)
        if self._sync:
            os.fsync(self._descriptor)
        # The lock lasts until the last descriptor is closed, and that long nobody takes the file
        # for a stale one. Closing the first says whether all was written, if that is not known yet.
        locked = os.dup(self._descriptor)
        try:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
            if self._temporary is not None:
                os.rename(self._temporary, self._target)
                self._temporary = None
                if self._sync:
                    _sync_directory(os.path.dirname(self._target))
        finally:
            os.close(locked)

    def _discard(self) -> None:
        # The first error is the one to tell.
        if self._temporary is not None and not self._resume:
            try:
                self._remove()
            except BaseException:
                # A signal, and there is no other chance to remove it.
                self._remove()
                raise
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _remove(self) -> None:
        assert self._temporary is not None
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)

    def _error(self, error: OSError) -> FileError:
        return FileError(self._shown, error.strerror or str(error))


def replacing(
    path: str,
    mode: int | None = None,
    sync: str = "end",
    *,
    shown: str | None = None,
    regular: bool = False,
    resume: bool = False,
) -> Replacement:
    """
    Write a file that replaces another, or appears, only once it is complete::

        with replacing("os.caibx") as out:
            out.write(data)

    The temporary file is beside the target, named ``.<its name>.<random>``, and removed if the body
    or anything else fails. A target that isn't a regular file (``/dev/stdout``, a pipe) is written
    to directly.

    Until the file is put in place nobody else can read it.

    :param path: the target; symbolic links are followed.
    :param mode: permission bits of the new file. If None: the old file's, or else 0666 less the
        umask.
    :param sync: ``"none"``: leave it to the system when the content and the new name reach the
        disk; anything else: wait for both.
    :param shown: how errors name the target; its path if None.
    :param regular: refuse a target that isn't a regular file, instead of writing to it.
    :param resume: go on with the temporary file that an earlier run left, if there is one, and
        leave it when something fails.
    :raises FileError: if the file can't be written or put in place.
    """
    return Replacement(path, mode, sync, shown, regular, resume)


def _lock(descriptor: int) -> bool:
    """
    Lock a file for as long as it is open here. Where there are no locks, or not on this file
    system, all is well too.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def lock_for_workers(descriptor: int) -> bool:
    """
    Lock a file that has been opened for writing here, and that workers will open too.

    :func:`share_lock` is for them: the file stays locked as long as one of them has it open, should
    this process be killed.

    :returns: False if somebody else is writing it. Where there are no locks, all is well.
    """
    return _lock(descriptor) and share_lock(descriptor)


def share_lock(descriptor: int) -> bool:
    """Take part in the lock of somebody who has :func:`lock_for_workers`."""
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def _temporary_files(directory: str, part: str) -> list[str]:
    """List the temporary files of a target, whoever writes them or has left them."""
    try:
        names = os.listdir(directory or ".")
    except OSError:
        return []
    begin = f".{part}."
    digits = frozenset("0123456789abcdef")
    return [
        os.path.join(directory, name)
        for name in names
        if name.startswith(begin)
        and len(name) == len(begin) + 2 * _RANDOM_BYTES
        and digits.issuperset(name[len(begin) :])
    ]


def _remove_stale(directory: str, part: str) -> None:
    """
    Remove what was left by others who wrote the same target and were killed.

    Whoever is still writing holds a lock on its file; where files can't be locked, nothing is
    removed.
    """
    try:
        import fcntl
    except ImportError:
        return
    for path in _temporary_files(directory, part):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
        except OSError:
            pass
        finally:
            os.close(descriptor)


def _sync_directory(path: str) -> None:
    try:
        descriptor = os.open(path or ".", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return  # one that files may be put into, but that may not be read
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
