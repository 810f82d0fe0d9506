# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A directory tree with everything that an archive can keep, as far as this machine allows: every type
of node, owners, modes, times, xattrs, access control lists, capabilities, attributes, odd names,
directories of many sizes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from desync.formats import flags as feature
from desync.formats import posix_acl
from desync.formats.posix_acl import PosixAcl
from desync.trees import inode_flags

MTIME = 1564850846_071751951

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
"""The value of the xattr that gives a program ``cap_net_bind_service``."""

DIRECTORY_SIZES = (*range(20), 31, 32, 33, 63, 64, 65, 200)


class SampleTree:
    """
    Makes such a tree.

    :param root: a path at which there is nothing yet.
    :ivar has: what could be made of what not every machine can: ``devices``, ``owners``,
        ``xattrs``, ``trusted``, ``acl``, ``fcaps``, ``chattr``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.has: set[str] = set()
        self._locked: list[tuple[Path, int]] = []
        root.mkdir()
        self._files()
        self._odd_names()
        self._nodes()
        self._owners()
        self._xattrs()
        self._acls()
        self._directories()
        self._times()
        self._chattr()

    def path(self, name: str) -> Path:
        """Name a place in the tree."""
        return self.root / name

    def _files(self) -> None:
        self.path("empty").touch()
        self.path("small").write_bytes(b"hello\n")
        self.path("large").write_bytes(bytes(range(256)) * 2000)
        # What root can read all the same nobody else can.
        unreadable = 0o000 if os.geteuid() == 0 else 0o400
        modes = {"setuid": 0o4755, "setgid": 0o2755, "unreadable": unreadable, "read-only": 0o444}
        for name, mode in modes.items():
            self.path(name).write_bytes(name.encode())
            self.path(name).chmod(mode)
        self.path("sticky").mkdir()
        self.path("sticky").chmod(0o1777)
        self.path("closed").mkdir()
        self.path("closed").chmod(0o500)
        os.link(self.path("small"), self.path("small-again"))

    def _odd_names(self) -> None:
        root = os.fsencode(self.root)
        names = [b"\xff\xfe", b"with space", b"new\nline", b"-dash", b"#hash", b"back\\slash"]
        for name in [*names, b"tab\t", "Größe".encode(), b"n" * 230]:
            with open(root + b"/" + name, "wb") as file:
                file.write(name)
        os.mkdir(root + b"/" + b"d" * 255)

    def _nodes(self) -> None:
        os.mkfifo(self.path("fifo"), 0o640)
        with socket.socket(socket.AF_UNIX) as made:
            here = os.getcwd()
            os.chdir(self.root)
            try:
                made.bind("socket")
            finally:
                os.chdir(here)
        os.symlink("small", self.path("link"))
        os.symlink("/nowhere/" + "x" * 3000, self.path("long-link"))
        with self._unless_refused("devices"):
            os.mknod(self.path("null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.mknod(self.path("disk"), stat.S_IFBLK | 0o660, os.makedev(4095, 1048575))

    def _owners(self) -> None:
        with self._unless_refused("owners"):
            for name, owner in (("uid", (1, 2)), ("nobody", (65534, 65534)), ("big", (100000, 5))):
                self.path(name).write_bytes(b"")
                os.chown(self.path(name), *owner)
            os.symlink("x", self.path("owned-link"))
            os.lchown(self.path("owned-link"), 3, 4)

    def _xattrs(self) -> None:
        self.path("xattrs").write_bytes(b"x")
        with self._unless_refused("xattrs"):
            for name, value in (("user.b", b"v\0w\0"), ("user.a", b""), ("user.long", b"l" * 900)):
                os.setxattr(self.path("xattrs"), name, value)
            os.setxattr(self.path("sticky"), "user.directory", b"\0")
        with self._unless_refused("trusted"):
            os.setxattr(self.path("xattrs"), "trusted.t", b"t")
        with self._unless_refused("fcaps"):
            self.path("capable").write_bytes(b"program")
            os.setxattr(self.path("capable"), "security.capability", CAPABILITY)

    def _acls(self) -> None:
        directory, file, minimal = map(self.path, ("acl-directory", "acl-file", "acl-minimal"))
        directory.mkdir()
        minimal.mkdir()
        file.write_bytes(b"acl")
        access = PosixAcl(7, 5, 0, 7, ((1, 6), (100001, 4)), ((2, 5), (7777, 1)))
        with self._unless_refused("acl"):
            for path in (directory, file):
                os.setxattr(path, posix_acl.ACCESS_XATTR, posix_acl.encode(access))
            default = PosixAcl(7, 0, 0, 5, ((1, 7),), ((2, 7),))
            os.setxattr(directory, posix_acl.DEFAULT_XATTR, posix_acl.encode(default))
            os.setxattr(minimal, posix_acl.DEFAULT_XATTR, posix_acl.encode(PosixAcl(7, 5, 1)))

    def _directories(self) -> None:
        for size in DIRECTORY_SIZES:
            directory = self.path(f"of-{size}")
            directory.mkdir()
            for number in range(size):
                (directory / f"file {number}").write_bytes(b"%d" % number)
        deep = self.root
        for level in range(30):
            deep = deep / f"level{level}"
            deep.mkdir()
        (deep / "bottom").write_bytes(b"deep")

    def _times(self) -> None:
        for at, directories, files in os.walk(os.fsencode(self.root), topdown=False):
            for number, name in enumerate([*files, *directories]):
                path = os.path.join(at, name)
                mtime = MTIME + number * 1_500_000_123
                os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
        os.utime(self.root, ns=(MTIME, MTIME))

    def _chattr(self) -> None:
        cases = {
            "chattr-noatime": feature.WITH_FLAG_NOATIME,
            "chattr-sync": feature.WITH_FLAG_SYNC,
            "chattr-immutable": feature.WITH_FLAG_IMMUTABLE,
            "chattr-append": feature.WITH_FLAG_APPEND,
            "chattr-nodump": feature.WITH_FLAG_NODUMP,
        }
        for name, bits in cases.items():
            self.path(name).write_bytes(name.encode())
            os.utime(self.path(name), ns=(MTIME, MTIME))
            with self._unless_refused("chattr"):
                self._set(self.path(name), bits)
        for name in ("chattr-dirsync", "chattr-nodump-directory"):
            self.path(name).mkdir()
            (self.path(name) / "inside").write_bytes(b"")
            os.utime(self.path(name) / "inside", ns=(MTIME, MTIME))
            os.utime(self.path(name), ns=(MTIME, MTIME))
            with self._unless_refused("chattr"):
                bit = feature.WITH_FLAG_DIRSYNC if "sync" in name else feature.WITH_FLAG_NODUMP
                self._set(self.path(name), bit)
        os.utime(self.root, ns=(MTIME, MTIME))

    def _set(self, path: Path, bits: int) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            inode_flags.set_chattr(descriptor, bits, inode_flags.CHATTR_BITS)
        finally:
            os.close(descriptor)
        self._locked.append((path, bits))

    @contextlib.contextmanager
    def _unless_refused(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.has.discard(what)
        else:
            self.has.add(what)

    def unlock(self) -> None:
        """Let the tree be removed."""
        for path, _ in self._locked:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                inode_flags.set_chattr(descriptor, 0, inode_flags.CHATTR_BITS)
            finally:
                os.close(descriptor)
        self._locked.clear()
