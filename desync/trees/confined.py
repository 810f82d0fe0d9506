# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Opening and removing what is below a directory, without ever leaving it.

Every step takes one name below an open directory and follows no symbolic link. So whatever an
archive, or another process, puts in the way, nothing outside is reached: no path is looked up
twice, and there are no paths of several names.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
DIRECTORY: Final = _DIRECTORY | os.O_NOFOLLOW
"""How a directory is opened: read, and no symbolic link followed."""

_HAS_PLACES: Final = hasattr(os, "O_PATH")
_PLACE: Final = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_NOFOLLOW | os.O_CLOEXEC


def open_root(path: str) -> tuple[int, bool]:
    """
    Open the directory below which everything happens. It and what leads to it are made if need be;
    links that lead to it are the user's, and followed.

    :returns: its descriptor, and whether it was made; nobody else may enter it yet, then.
    :raises OSError: if there can be no directory.
    """
    made = False
    try:
        return os.open(path, _DIRECTORY), False
    except FileNotFoundError:
        above = os.path.dirname(path.rstrip("/"))
        if above:
            os.makedirs(above, exist_ok=True)
        try:
            os.mkdir(path, 0o700)
            made = True
        except FileExistsError:
            pass
    return os.open(path, _DIRECTORY), made


def open_directory(name: bytes, parent: int) -> int:
    """
    Open a directory, and make it readable for its owner if it isn't.

    :param parent: the directory that it is in.
    :raises OSError: if it isn't one, a link to one included.
    """
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        place = open_place(name, parent)
        try:
            if not stat.S_ISDIR(os.fstat(place).st_mode):
                raise
            os.chmod(node_at(place), 0o700)
        finally:
            os.close(place)
    return os.open(name, DIRECTORY, dir_fd=parent)


def open_place(name: bytes, parent: int) -> int:
    """
    Take hold of a node of any type without opening it: a device isn't started, a fifo isn't waited
    for.

    :returns: a descriptor, for :func:`node_at`.
    :raises OSError: if it isn't there.
    """
    return os.open(name, _PLACE, dir_fd=parent)


def node_at(place: int) -> int | str:
    """Give what calls take for the node of a place, whatever happens to its name."""
    return f"/proc/self/fd/{place}" if _HAS_PLACES else place


def remove(name: bytes, parent: int) -> None:
    """
    Remove a node, if it is there; of a directory also all that is in it.

    :raises OSError: EBUSY for what another file system is mounted on, which stays as it is.
    """
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        # What systems other than Linux say of a directory is EPERM.
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
        _remove_directory(name, parent)


def _remove_directory(name: bytes, parent: int) -> None:
    """Remove a directory with its content; deepest first, and without recursion."""
    # For each directory on the way down: its name, where it is, and its subdirectories still to do.
    way: list[tuple[bytes, int, list[bytes]]] = []
    try:
        while True:
            descriptor = _enter(name, way[-1][1] if way else parent)
            way.append((name, descriptor, _remove_files(descriptor)))
            while not way[-1][2]:
                done, descriptor, _ = way.pop()
                os.close(descriptor)
                above = way[-1][1] if way else parent
                os.rmdir(done, dir_fd=above)
                if not way:
                    return
            name = way[-1][2].pop()
    finally:
        for _, descriptor, _ in way:
            os.close(descriptor)


def _enter(name: bytes, parent: int) -> int:
    descriptor = open_directory(name, parent)
    try:
        found = os.fstat(descriptor)
        if mount_of(descriptor) != mount_of(parent):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        if found.st_mode & 0o300 != 0o300 and found.st_uid == os.geteuid():
            os.fchmod(descriptor, 0o700)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove_files(directory: int) -> list[bytes]:
    """Remove what is no directory, and name the directories."""
    directories = []
    with os.scandir(directory) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                directories.append(name)
            else:
                os.unlink(name, dir_fd=directory)
    return directories


def mount_of(descriptor: int) -> tuple[int, bytes]:
    """
    Tell file systems that are mounted apart, the same one mounted twice included where the system
    tells.
    """
    mount = b""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb") as lines:
            for line in lines:
                if line.startswith(b"mnt_id:"):
                    mount = line
    except OSError:
        pass
    return os.fstat(descriptor).st_dev, mount


def is_mount_root(path: str) -> bool:
    """Tell whether a directory is one that a file system is mounted on, or the system's root."""
    directory = os.open(path, _DIRECTORY)
    try:
        above = os.open("..", _DIRECTORY, dir_fd=directory)
        try:
            if os.path.sameopenfile(directory, above):
                return True
            return mount_of(directory) != mount_of(above)
        finally:
            os.close(above)
    finally:
        os.close(directory)
