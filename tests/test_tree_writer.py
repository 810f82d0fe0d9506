# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Making trees of archives: what comes of each node, and that nothing outside is touched."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Iterable
from pathlib import Path

from desync.errors import FileError, InvalidArchive
from desync.formats.catar import Acl, AclEntry, DefaultAcl, Event
from desync.formats.catar_decoder import CatarDecoder
from desync.formats.posix_acl import ACCESS_XATTR, DEFAULT_XATTR, decode
from desync.trees.restoring import Restoring, Shortfall
from desync.trees.writer import TreeWriter

from .archives import (
    ALL_FLAGS,
    PLAIN_FLAGS,
    TIME,
    archive,
    device,
    directory,
    fifo,
    file,
    socket,
    symlink,
)
from .command_case import CommandCase


class TreeCase(CommandCase):
    """A test case that unpacks archives made by hand."""

    def setUp(self) -> None:
        super().setUp()
        self.lines: list[str] = []
        self.target = self.folder / "target"

    def unpack(
        self,
        events: Iterable[Event] | bytes,
        restoring: Restoring | None = None,
        flags: int = ALL_FLAGS,
        step: int = 1 << 20,
    ) -> Shortfall:
        """Unpack an archive into the target, handed over in pieces."""
        data = events if isinstance(events, bytes) else archive(events, flags)
        restoring = Restoring(chown=os.geteuid() == 0) if restoring is None else restoring
        shortfall = Shortfall(self.lines.append)
        decoder = CatarDecoder("x.catar")
        with TreeWriter(str(self.target), restoring, shortfall) as writer:
            for start in range(0, len(data), step):
                writer.take(decoder.feed(data[start : start + step]), decoder.flags)
            decoder.finish()
        return shortfall

    def mode(self, name: str) -> int:
        """Give the permission bits of a node of the target."""
        return stat.S_IMODE(os.lstat(self.target / name).st_mode)

    def needs_root(self) -> None:
        """Skip a test of what only root can do."""
        if os.geteuid() != 0:
            self.skipTest("only root can do this")


class NodeTests(TreeCase):
    """What comes of each node."""

    def test_file(self) -> None:
        """A file gets its content, however it is cut into pieces, its mode and its time."""
        for step in (1, 7, 100_000):
            with self.subTest(step=step):
                self.unpack([*file(b"a", b"x" * 300, 0o640), *file(b"e", b"")], step=step)
                found = os.stat(self.target / "a")
                self.assertEqual(b"x" * 300, (self.target / "a").read_bytes())
                self.assertEqual((0o640, TIME), (self.mode("a"), found.st_mtime_ns))
                self.assertEqual(b"", (self.target / "e").read_bytes())
                os.unlink(self.target / "a")

    def test_directories(self) -> None:
        """A directory gets its mode and time when all that is in it is done, the root too."""
        inner = directory(b"inner", file(b"f", b"1"), mode=0o555)
        self.unpack(directory(b"outer", [*inner, *file(b"g")], mode=0o500))
        self.addCleanup(os.chmod, self.target / "outer", 0o755)
        for name, mode in (("outer", 0o500), ("outer/inner", 0o555), (".", 0o755)):
            self.assertEqual(mode, self.mode(name), name)
            self.assertEqual(TIME, os.stat(self.target / name).st_mtime_ns, name)
        self.assertEqual(b"1", (self.target / "outer/inner/f").read_bytes())

    def test_private_meanwhile(self) -> None:
        """While it is being made, a node is its owner's alone."""
        data = archive(directory(b"d", file(b"f", b"12345678", 0o666), mode=0o777))
        at = data.index(b"12345678") + 4
        decoder = CatarDecoder()
        with TreeWriter(str(self.target), Restoring(), Shortfall(self.lines.append)) as writer:
            writer.take(decoder.feed(data[:at]), decoder.flags)
            self.assertEqual([0o600, 0o700], [self.mode("d/f"), self.mode("d")])
            self.assertEqual(0o700, self.mode("."))
            writer.take(decoder.feed(data[at:]), decoder.flags)
        self.assertEqual([0o666, 0o777], [self.mode("d/f"), self.mode("d")])

    def test_interrupts(self) -> None:
        """At whatever moment an interrupt comes, no file is left that isn't complete."""
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGALRM, previous)
        names = [b"f%02d" % number for number in range(40)]
        data = archive([event for name in names for event in file(name, b"full")])
        interrupts = 0
        for turn in range(200):
            decoder = CatarDecoder()
            events = decoder.feed(data)
            self.target.mkdir()
            if turn % 2:
                for name in names:
                    (self.target / os.fsdecode(name)).write_bytes(b"older")
            try:
                with TreeWriter(str(self.target), Restoring(), Shortfall(print)) as writer:
                    signal.setitimer(signal.ITIMER_REAL, 0.000_001 * (50 + 30 * (turn // 2)))
                    writer.take(events, decoder.flags)
                # It may also come only now, or in the middle of this.
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
            for path in self.target.iterdir():
                self.assertIn(path.name.encode(), names)
                self.assertIn(path.read_bytes(), (b"full", b"older"))
            shutil.rmtree(self.target)
        self.assertGreater(interrupts, 20)

    def test_links(self) -> None:
        """A symbolic link gets its target as it is, and its own time; what it leads to doesn't."""
        outside = self.write("outside", b"")
        before = os.stat(outside)
        self.unpack([*symlink(b"l", os.fsencode(outside)), *symlink(b"m", b"../..")])
        self.assertEqual(outside, os.readlink(self.target / "l"))
        self.assertEqual("../..", os.readlink(self.target / "m"))
        self.assertEqual(TIME, os.lstat(self.target / "l").st_mtime_ns)
        self.assertEqual(before, os.stat(outside))

    def test_other_types(self) -> None:
        """Fifos and sockets are made with mode and time."""
        self.unpack([*fifo(b"f", 0o620), *socket(b"s", 0o755)])
        self.assertTrue(stat.S_ISFIFO(os.lstat(self.target / "f").st_mode))
        self.assertTrue(stat.S_ISSOCK(os.lstat(self.target / "s").st_mode))
        self.assertEqual([0o620, 0o755], [self.mode("f"), self.mode("s")])
        self.assertEqual(TIME, os.lstat(self.target / "f").st_mtime_ns)

    def test_devices(self) -> None:
        """Devices keep type, numbers, mode and owner."""
        self.needs_root()
        self.unpack(
            [
                *device(b"b", stat.S_IFBLK, 4095, 1048575, 0o660, gid=6),
                *device(b"c", stat.S_IFCHR, 5, 1, 0o620, uid=3),
            ]
        )
        found = os.lstat(self.target / "b")
        self.assertTrue(stat.S_ISBLK(found.st_mode))
        self.assertEqual(os.makedev(4095, 1048575), found.st_rdev)
        self.assertEqual((0o660, 0, 6), (self.mode("b"), found.st_uid, found.st_gid))
        self.assertTrue(stat.S_ISCHR(os.lstat(self.target / "c").st_mode))
        self.assertEqual([], self.lines)

    def test_set_id(self) -> None:
        """Root restores owners, and set-id bits survive the change of owner."""
        self.needs_root()
        self.unpack(file(b"f", b"x", 0o6755, uid=12, gid=34), flags=PLAIN_FLAGS)
        found = os.stat(self.target / "f")
        self.assertEqual((0o6755, 12, 34), (self.mode("f"), found.st_uid, found.st_gid))

    def test_capabilities(self) -> None:
        """Capabilities survive the change of owner."""
        self.needs_root()
        value = bytes.fromhex("0100000200200000000000000000000000000000")
        self.unpack(file(b"f", b"x", 0o755, uid=12, fcaps=value))
        self.assertEqual(value, os.getxattr(self.target / "f", "security.capability"))

    def test_xattrs(self) -> None:
        """Extended attributes are set, empty and binary ones too."""
        xattrs = ((b"user.a", b""), (b"user.b", b"\0\xff\0"))
        self.unpack([*file(b"f", xattrs=xattrs), *directory(b"d", xattrs=xattrs)])
        if self.lines:
            self.skipTest(self.lines[0])
        for name in ("f", "d"):
            self.assertEqual(b"", os.getxattr(self.target / name, "user.a"))
            self.assertEqual(b"\0\xff\0", os.getxattr(self.target / name, "user.b"))

    def test_foreign_xattrs(self) -> None:
        """Extended attributes that no archive of casync has are named, not set."""
        data = archive(file(b"f", xattrs=((b"trusted.abcdefghijkl", b"x"),)))
        forged = data.replace(b"trusted.abcdefghijkl", b"security.abcdefghijk")
        self.assertNotEqual(data, forged)
        shortfall = self.unpack(forged)
        self.assertEqual(1, shortfall.failed)
        self.assertIn("security.abcdefghijk", self.lines[0])
        self.assertEqual([], os.listxattr(self.target / "f"))

    def test_acls(self) -> None:
        """Access control lists are set, and what the parent's default one gave is removed."""
        acl = Acl((AclEntry(1000, 6),), (AclEntry(50, 4),), 5)
        default = DefaultAcl(7, 5, 1, 7, (AclEntry(1000, 7),))
        inside = [*file(b"f", b"", 0o664, acl=acl), *file(b"plain", b"", 0o640)]
        self.target.mkdir()
        value = b"\x02\0\0\0" + b"".join(
            bytes.fromhex(entry)
            for entry in (
                "01000700ffffffff",
                "02000700e8030000",
                "04000700ffffffff",
                "10000700ffffffff",
                "20000700ffffffff",
            )
        )
        try:
            os.setxattr(self.target, DEFAULT_XATTR, value)
        except OSError as error:
            self.skipTest(str(error))
        self.unpack([*directory(b"d", inside, 0o755, default_acl=default), *file(b"g")])
        self.assertEqual([], self.lines)
        found = decode(os.getxattr(self.target / "d/f", ACCESS_XATTR))
        self.assertEqual((6, 5, 4, 6), found[:4])
        self.assertEqual((((1000, 6),), ((50, 4),)), found[4:])
        self.assertEqual((7, 5, 1, 7), decode(os.getxattr(self.target / "d", DEFAULT_XATTR))[:4])
        for name in ("g", "d/plain"):
            self.assertNotIn(ACCESS_XATTR, os.listxattr(self.target / name), name)
        self.assertEqual(0o640, self.mode("d/plain"))
        self.assertNotIn(DEFAULT_XATTR, os.listxattr(self.target))

    def test_no_time(self) -> None:
        """A time of 0 is none in an archive as Go desync makes it, and 1970 in others."""
        from desync.formats.catar import GO_FLAGS

        self.unpack(file(b"f", mtime=0), flags=GO_FLAGS)
        self.assertGreater(os.stat(self.target / "f").st_mtime, 1_000_000_001)
        self.unpack(file(b"g", mtime=0))
        self.assertEqual(0, os.stat(self.target / "g").st_mtime_ns)

    def test_odd_names(self) -> None:
        """Names may be any bytes, and as long as the file system allows."""
        names = (b"\xff\n\x1b", b"n" * 255, b"...", b"a\\b", b" ")
        self.unpack([event for name in names for event in file(name, name)])
        self.assertEqual(set(names), set(os.listdir(os.fsencode(self.target))))


class RestoringTests(TreeCase):
    """What the flags change."""

    def test_no_same_permissions(self) -> None:
        """Without the archive's permissions the umask counts, and set-id bits are left off."""
        from desync import umask

        self.unpack(
            [*file(b"f", b"", 0o4777), *directory(b"d", mode=0o1777)],
            Restoring(permissions=False),
        )
        expected = 0o777 & ~umask.START
        self.assertEqual([expected] * 2, [self.mode("f"), self.mode("d")])

    def test_no_same_owner(self) -> None:
        """Without the archive's owners there are no xattrs and set-id bits either."""
        shortfall = self.unpack(
            file(b"f", b"", 0o6755, uid=12, gid=34, xattrs=((b"user.a", b"1"),)),
            Restoring(owner=False),
        )
        found = os.stat(self.target / "f")
        self.assertEqual((os.geteuid(), 0o755), (found.st_uid, self.mode("f")))
        self.assertEqual([], os.listxattr(self.target / "f"))
        self.assertEqual((0, 0, 1), (shortfall.failed, shortfall.owners, shortfall.set_ids))

    def test_shift(self) -> None:
        """Ids are taken modulo the range, and shifted."""
        self.needs_root()
        self.unpack(
            file(b"f", uid=65536 + 12, gid=34), Restoring(uid_shift=100_000, uid_range=65536)
        )
        found = os.stat(self.target / "f")
        self.assertEqual((100_012, 100_034), (found.st_uid, found.st_gid))

    def test_names_of_owners(self) -> None:
        """An owner's name counts where it is known here, its number elsewhere."""
        self.needs_root()
        self.unpack(
            [
                *file(b"f", uid=12345, gid=12345, user=b"daemon", group=b"no-such-group"),
            ]
        )
        import pwd

        found = os.stat(self.target / "f")
        self.assertEqual((pwd.getpwnam("daemon").pw_uid, 12345), (found.st_uid, found.st_gid))

    def test_impossible_owner(self) -> None:
        """An owner that there can't be is named."""
        self.needs_root()
        shortfall = self.unpack(file(b"f", uid=5), Restoring(uid_shift=0xFFFFFFFE))
        self.assertEqual(1, shortfall.failed)
        self.assertIn("no possible id", self.lines[0])


class ConfinementTests(TreeCase):
    """Nothing outside the target is touched."""

    def setUp(self) -> None:
        super().setUp()
        self.outside = self.folder / "outside"
        self.outside.mkdir()
        (self.outside / "f").write_bytes(b"precious")
        self.before = self.state()

    def state(self) -> list[tuple[object, ...]]:
        """Give all that can be seen of what is outside."""
        nodes: list[tuple[object, ...]] = []
        for path in sorted([self.outside, *self.outside.rglob("*")]):
            found = os.lstat(path)
            content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
            nodes.append(
                (path, found.st_mode, found.st_uid, found.st_mtime_ns, found.st_nlink, content)
            )
        return nodes

    def assert_untouched(self) -> None:
        """Make sure that what is outside is as it was."""
        self.assertEqual(self.before, self.state())

    def link(self, name: bytes = b"x") -> list[Event]:
        """Give a link that leads outside."""
        return symlink(name, os.fsencode(self.outside))

    def test_through_own_link(self) -> None:
        """A directory of the same name as a link before it replaces the link."""
        self.unpack([*self.link(), *directory(b"x", file(b"f", b"evil"), uid=1)])
        self.assert_untouched()
        self.assertFalse(os.path.islink(self.target / "x"))
        self.assertEqual(b"evil", (self.target / "x/f").read_bytes())

    def test_file_over_link(self) -> None:
        """A file of the same name as a link before it replaces the link, not its target."""
        link = symlink(b"x", os.fsencode(self.outside / "f"))
        self.unpack([*link, *file(b"x", b"evil", 0o777), *link, *fifo(b"x"), *link])
        self.assert_untouched()
        self.assertTrue(os.path.islink(self.target / "x"))

    def test_links_that_were_there(self) -> None:
        """Links in the target are replaced, never followed."""
        self.target.mkdir()
        for name in ("d", "f", "p"):
            os.symlink(self.outside / "f" if name == "f" else self.outside, self.target / name)
        self.unpack([*directory(b"d", file(b"f", b"evil")), *file(b"f", b"evil"), *fifo(b"p")])
        self.assert_untouched()
        self.assertEqual(b"evil", (self.target / "f").read_bytes())

    def test_hard_link(self) -> None:
        """A file of several names is replaced, not written into, nor given other metadata."""
        self.target.mkdir()
        os.link(self.outside / "f", self.target / "f")
        os.link(self.outside / "f", self.target / "same")
        self.before = self.state()
        self.unpack([*file(b"f", b"something", 0o777), *file(b"same", b"precious", 0o777)])
        self.assertEqual(b"precious", (self.outside / "f").read_bytes())
        found = os.stat(self.outside / "f")
        self.assertEqual(1, found.st_nlink)
        self.assertNotEqual(0o777, stat.S_IMODE(found.st_mode))
        self.assertEqual(0o777, self.mode("same"))

    def test_names(self) -> None:
        """Names that lead elsewhere are refused before anything is made of them."""
        for name in (b"abcd", b"ab"):
            good = archive(file(name, b"evil"))
            for bad in (b"../x", b"/etc", b"a/bc", b"..", b".\0"):
                if len(bad) != len(name):
                    continue
                with self.subTest(name=bad):
                    self.assertRaises(InvalidArchive, self.unpack, good.replace(name, bad))
                    self.assertEqual([], os.listdir(self.target))
        self.assert_untouched()

    def test_removal_follows_no_link(self) -> None:
        """A tree that is replaced by a file is removed without following its links."""
        tree = self.target / "x" / "deep"
        tree.mkdir(parents=True)
        os.symlink(self.outside, tree / "link")
        (tree / "file").write_bytes(b"")
        tree.chmod(0o500)
        self.unpack(file(b"x", b"new"))
        self.assert_untouched()
        self.assertEqual(b"new", (self.target / "x").read_bytes())

    def test_delete_follows_no_link(self) -> None:
        """What the archive doesn't have is removed on demand, without following links."""
        self.target.mkdir()
        (self.target / "d/e").mkdir(parents=True)
        os.symlink(self.outside, self.target / "d/link")
        os.symlink(self.outside, self.target / "d/e/link")
        (self.target / "old").write_bytes(b"")
        events = [*directory(b"d", file(b"f")), *file(b"keep")]
        self.unpack(events)
        self.assertTrue((self.target / "old").exists())
        self.unpack(events, Restoring(delete=True))
        self.assert_untouched()
        found = sorted(str(path.relative_to(self.target)) for path in self.target.rglob("*"))
        self.assertEqual(["d", "d/f", "keep"], found)


class UpdateTests(TreeCase):
    """Unpacking over what is there."""

    def inode(self, name: str) -> int:
        """Tell a file from one that replaced it."""
        return os.stat(self.target / name).st_ino

    def changed(self, name: str) -> int:
        """Give the time of a node's last change."""
        return os.stat(self.target / name).st_ctime_ns

    def test_unchanged(self) -> None:
        """What is as the archive has it is left alone."""
        events = [
            *directory(b"d", file(b"f", b"1" * 5000, 0o600)),
            *file(b"x", b"2", xattrs=((b"user.a", b"1"),)),
            *symlink(b"z", b"d/f"),
        ]
        self.unpack(events)
        before = [self.changed(name) for name in ("d/f", "x", "d", ".")]
        link = os.lstat(self.target / "z").st_ctime_ns
        self.unpack(events)
        self.assertEqual(before, [self.changed(name) for name in ("d/f", "x", "d", ".")])
        self.assertEqual(link, os.lstat(self.target / "z").st_ctime_ns)

    def test_metadata(self) -> None:
        """A file whose content is right keeps its inode, and gets the archive's metadata."""
        self.unpack(file(b"f", b"same", 0o600, xattrs=((b"user.a", b"1"), (b"user.b", b"2"))))
        inode = self.inode("f")
        self.unpack(file(b"f", b"same", 0o644, mtime=TIME - 5, xattrs=((b"user.b", b"3"),)))
        self.assertEqual((inode, 0o644), (self.inode("f"), self.mode("f")))
        self.assertEqual(TIME - 5, os.stat(self.target / "f").st_mtime_ns)
        if not self.lines:
            self.assertEqual(["user.b"], os.listxattr(self.target / "f"))
            self.assertEqual(b"3", os.getxattr(self.target / "f", "user.b"))

    def test_of_others(self) -> None:
        """A file of somebody who may have it open to write is replaced, although it is the same."""
        self.needs_root()
        self.unpack(file(b"f", b"same"))
        os.chown(self.target / "f", 1234, 1234)
        inode = self.inode("f")
        self.unpack(file(b"f", b"same"))
        self.assertNotEqual(inode, self.inode("f"))
        inode = self.inode("f")
        os.chown(self.target / "f", 1234, 1234)
        self.unpack(file(b"f", b"same", uid=1234))
        self.assertEqual(inode, self.inode("f"))

    def test_content(self) -> None:
        """A file whose content differs anywhere is replaced, whoever has it open keeps the old."""
        old = bytes(range(256)) * 40
        for at in (0, 5000, len(old) - 1):
            for step in (100, 1 << 20):
                with self.subTest(at=at, step=step):
                    self.unpack(file(b"f", old))
                    new = bytearray(old)
                    new[at] ^= 1
                    with open(self.target / "f", "rb") as held:
                        self.unpack(file(b"f", bytes(new)), step=step)
                        self.assertEqual(old, held.read())
                    self.assertEqual(new, (self.target / "f").read_bytes())
        self.assertEqual(["f"], os.listdir(self.target))

    def test_sizes(self) -> None:
        """A file that is longer or shorter than the old one is what the archive has."""
        for content in (b"abc", b"abcdef", b"", b"abcdef", b"ab"):
            self.unpack(file(b"f", content))
            self.assertEqual(content, (self.target / "f").read_bytes())

    def test_types(self) -> None:
        """A name can stand for something else than before, in any order."""
        kinds = [
            file(b"x", b"content"),
            directory(b"x", file(b"inside", b"1")),
            symlink(b"x", b"nowhere"),
            fifo(b"x"),
            socket(b"x"),
        ]
        for first in kinds:
            for second in kinds:
                self.unpack(first)
                self.unpack(second)
                expected = second[0].metadata.mode  # type: ignore[union-attr]
                found = os.lstat(self.target / "x").st_mode
                self.assertEqual(stat.S_IFMT(expected), stat.S_IFMT(found))

    def test_immutable(self) -> None:
        """What is immutable or append-only is changed all the same, and is so again afterwards."""
        self.needs_root()
        from desync.formats import flags as feature
        from desync.trees import inode_flags

        def locked(content: bytes) -> list[Event]:
            return directory(
                b"d",
                file(b"f", content, flags=feature.WITH_FLAG_IMMUTABLE),
                flags=feature.WITH_FLAG_APPEND,
            )

        self.addCleanup(self.unpack, [*directory(b"d", file(b"f"))], Restoring())
        if self.unpack(locked(b"1")).failed:
            self.skipTest(self.lines[0])
        self.assertRaises(OSError, open, self.target / "d/f", "wb")
        for content in (b"1", b"2"):
            self.unpack(locked(content))
            self.assertEqual(content, (self.target / "d/f").read_bytes())
            descriptor = os.open(self.target / "d/f", os.O_RDONLY)
            self.assertEqual(feature.WITH_FLAG_IMMUTABLE, inode_flags.get_chattr(descriptor))
            os.close(descriptor)
        self.assertEqual([], self.lines)


class FailureTests(TreeCase):
    """What is left when it goes wrong."""

    def test_truncated(self) -> None:
        """Of an archive that ends too early, no file is left that isn't complete."""
        data = archive(
            [*directory(b"d", [*file(b"a", b"1" * 40), *file(b"b", b"2" * 40)]), *file(b"e", b"3")]
        )
        whole = {"d/a": b"1" * 40, "d/b": b"2" * 40, "e": b"3"}
        for length in range(len(data)):
            self.assertRaises(InvalidArchive, self.unpack, data[:length])
            if not self.target.exists():
                continue
            for path in self.target.rglob("*"):
                if path.is_file():
                    name = str(path.relative_to(self.target))
                    self.assertEqual(whole[name], path.read_bytes())
            self.assertTrue(self.leftovers() in ([], ["."]), self.leftovers())

    def test_modes_after_failure(self) -> None:
        """Directories under way get the archive's mode, so that the next try isn't different."""
        data = archive(directory(b"d", file(b"f", b"12345"), mode=0o750))
        self.assertRaises(InvalidArchive, self.unpack, data[: data.index(b"12345") + 3])
        self.assertEqual([0o750, 0o755], [self.mode("d"), self.mode(".")])
        self.assertEqual([], os.listdir(self.target / "d"))

    def test_target_is_a_file(self) -> None:
        """A target that is no directory is named, and stays."""
        self.target.write_bytes(b"mine")
        error = self.assertRaises(FileError, self.unpack, file(b"f"))
        self.assertIn(str(self.target), str(error))
        self.assertEqual(b"mine", self.target.read_bytes())

    def test_target_in_new_folders(self) -> None:
        """A target is made with all that leads to it; links that lead to it are followed."""
        real = self.folder / "real"
        real.mkdir()
        os.symlink(real, self.folder / "way")
        self.target = Path(self.folder / "way" / "a" / "b")
        self.unpack(file(b"f", b"1"))
        self.assertEqual(b"1", (real / "a/b/f").read_bytes())
