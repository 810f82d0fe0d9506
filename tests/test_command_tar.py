# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for ``desync tar``: what it writes, what it leaves out, what it refuses."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import threading
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SkipTest

from desync.formats import catar
from desync.formats import flags as feature
from desync.formats.catar import Directory, EndDirectory, Event, File
from desync.formats.catar_decoder import CatarDecoder
from desync.jobs import pack as pack_job
from desync.operations import tar as tar_operation
from desync.trees import content, excludes

from .command_case import CommandCase, as_nobody, sample
from .command_line import desync

KNOWN_DIGEST = "17a5b31d64073bd3ee264dae2c6c67c13b19a6fcf163912f9d2e0e593051b8b3"


def events_of(data: bytes) -> list[Event]:
    """What an archive consists of."""
    decoder = CatarDecoder()
    events = decoder.feed(data)
    decoder.finish()
    return events


def names_of(data: bytes) -> list[str]:
    """The paths in an archive."""
    names: list[str] = []
    at: list[str] = []
    for event in events_of(data):
        if isinstance(event, EndDirectory):
            at.pop()
        elif not isinstance(event, catar.Payload):
            name = os.fsdecode(event.name)
            if name:
                names.append("/".join([*at[1:], name]))
            if isinstance(event, Directory):
                at.append(name)
    return names


class TarCase(CommandCase):
    """A folder with a small tree in it."""

    def setUp(self) -> None:
        super().setUp()
        self.tree = self.folder / "tree"
        (self.tree / "b").mkdir(parents=True)
        (self.tree / "a").write_bytes(b"hello\n")
        (self.tree / "b" / "l").symlink_to("a")
        self.tree.chmod(0o755)
        (self.tree / "b").chmod(0o755)
        (self.tree / "a").chmod(0o644)

    def tar(self, *args: str) -> bytes:
        """Pack the tree and give the archive."""
        self.run_command("tar", *args, self.path("o.catar"), str(self.tree))
        return self.read("o.catar")


class ArchiveTests(TarCase):
    """Archives as files."""

    def test_known(self) -> None:
        """A small tree becomes what Go desync makes of it, down to the digest."""
        if os.geteuid() or os.getegid():
            raise SkipTest("the files of the known archive are root's")
        found = hashlib.sha256(self.tar("--no-time")).hexdigest()
        self.assertEqual(found, KNOWN_DIGEST)

    def test_stdout(self) -> None:
        """A dash writes the archive to standard output, and says nothing else there."""
        expected = self.tar()
        self.assertEqual(self.run_command("tar", "-", str(self.tree)).out, expected)

    def test_content(self) -> None:
        """Files of every size around the buffers' come back."""
        expected = {}
        for size in (0, 1, 4096, (1 << 20) - 200, 1 << 20, (1 << 20) + 1, 3 << 20):
            expected[b"f%d" % size] = sample(size, size)
            (self.tree / f"f{size}").write_bytes(expected[b"f%d" % size])
        found: dict[bytes, bytes] = {}
        name = b""
        for event in events_of(self.tar()):
            if isinstance(event, File):
                name = event.name
                found[name] = b""
            elif isinstance(event, catar.Payload):
                found[name] += event.data
        self.assertEqual(found.pop(b"a"), b"hello\n")
        self.assertEqual(found, expected)

    def test_times_and_modes(self) -> None:
        """Nanoseconds and the high bits of modes are recorded; --no-time makes all times 0."""
        (self.tree / "a").chmod(0o4711)
        os.utime(self.tree / "a", ns=(5, 1564850846_071751951))
        os.utime(self.tree / "b", ns=(5, -5))
        by_name = {e.name: e for e in events_of(self.tar()) if isinstance(e, File | Directory)}
        self.assertEqual(by_name[b"a"].metadata.mode, stat.S_IFREG | 0o4711)
        self.assertEqual(by_name[b"a"].metadata.mtime, 1564850846_071751951)
        for event in events_of(self.tar("--no-time")):
            if isinstance(event, File | Directory):
                self.assertEqual(event.metadata.mtime, 0)

    def test_fifos_and_sockets(self) -> None:
        """By default fifos and sockets are left out, and named; casync's features keep them."""
        os.mkfifo(self.tree / "fifo")
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(self.tree / "socket"))
        outcome = desync("tar", self.path("o.catar"), str(self.tree))
        self.assertEqual(outcome.code, 0)
        self.assertEqual(
            outcome.err.splitlines(),
            [
                f"skipping '{self.tree / name}' : unsupported node type"
                for name in ("fifo", "socket")
            ],
        )
        self.assertEqual(names_of(self.read("o.catar")), ["a", "b", "b/l"])
        self.assertEqual(names_of(self.tar("--with=best")), ["a", "b", "b/l", "fifo", "socket"])
        self.assertEqual(names_of(self.tar("--with=fifos")), ["a", "b", "fifo"])

    def test_features(self) -> None:
        """The feature word is Go desync's, or what --with and --without make of it."""
        for args, expected in (
            ((), catar.GO_FLAGS),
            (("--with", "best"), 0xB0000001FFEFFE26),
            (("--with=unix",), 0xB000000000001F09),
            (("--with=fat,chattr", "--with=fat-attrs"), 0xB0000000_03EFE0C0),
            (("--without=best",), 0xB000000000000111),
            (("--without=privileged",), 0xB000000013AEBB20),
            (("--without=fuse",), 0xB0000001EC000004),
            (("--with=unix", "--without=all"), 0xB000000000000000),
            (("--with=best", "--digest=sha256"), 0x90000001FFEFFE26),
            (("--with=best", "--exclude-file=no"), 0xA0000001FFEFFE26),
            (("--with=best", "--exclude-nodump=no"), 0x30000001FFFFFE26),
            (("--with=best", "--exclude-submounts=yes"), 0xF0000001FFEFFE26),
            (("--digest=sha256",), catar.GO_FLAGS),
        ):
            self.assertEqual(feature.catar_flags(self.tar(*args)), expected, args)

    def test_output_in_the_tree(self) -> None:
        """An archive that is written into the tree doesn't contain itself."""
        target = str(self.tree / "x.catar")
        outcome = desync("tar", target, str(self.tree))
        self.assertEqual(outcome.code, 0)
        self.assertIn("it is the archive", outcome.err)
        self.assertEqual(names_of(Path(target).read_bytes()), ["a", "b", "b/l"])

    def test_names_that_are_not_text(self) -> None:
        """Names are bytes, and sorted as bytes."""
        for name in (b"\xff", b"\xc3\xa4", b"z", b"Z", b"a\n"):
            with open(os.fsencode(self.tree) + b"/" + name, "wb"):
                pass
        found = [os.fsencode(name) for name in names_of(self.tar())]
        self.assertEqual(found, [b"Z", b"a", b"a\n", b"b", b"b/l", b"z", b"\xc3\xa4", b"\xff"])

    def test_link_as_root(self) -> None:
        """A directory that is named by a link is packed as that directory."""
        (self.folder / "link").symlink_to("tree")
        self.run_command("tar", self.path("l.catar"), self.path("link"))
        self.assertEqual(self.read("l.catar"), self.tar())

    def test_deep(self) -> None:
        """64 levels are packed, paths longer than the system takes included; 65 are refused."""
        here = os.open(self.tree / "b", os.O_RDONLY)
        for level in range(62):
            os.mkdir("d" * 200, dir_fd=here)
            following = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = following
            if level == 60:
                with open(os.open("deep", os.O_CREAT | os.O_WRONLY, dir_fd=here), "wb") as file:
                    file.write(b"deep content")
        self.addCleanup(os.close, here)
        data = self.tar()
        self.assertIn(b"deep content", data)
        self.store()
        self.run_command("tar", "-i", "-s", self.path("store"), self.path("i"), str(self.tree))
        os.close(os.open("too-deep", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        outcome = desync("tar", self.path("o.catar"), str(self.tree))
        self.assert_error(outcome, "too-deep", "deeper than 64")


class LeftOutTests(TarCase):
    """What of a tree isn't packed."""

    def test_exclude_files(self) -> None:
        """What .caexclude names is left out with casync's features, or when it is asked for."""
        (self.tree / ".caexclude").write_bytes(b"# comment\n\nl\n/a\n")
        with_all = [".caexclude", "a", "b", "b/l"]
        with_some = [".caexclude", "b"]
        self.assertEqual(names_of(self.tar()), with_all)
        self.assertEqual(names_of(self.tar("--exclude-file=yes")), with_some)
        self.assertEqual(names_of(self.tar("--with=best")), with_some)
        self.assertEqual(names_of(self.tar("--with=best", "--exclude-file=no")), with_all)

    def test_bad_exclude_file(self) -> None:
        """A line that is no pattern is an error which names the file."""
        (self.tree / "b" / ".caexclude").write_bytes(b"x\n../y\n")
        outcome = desync("tar", "--with=best", self.path("o.catar"), str(self.tree))
        self.assert_error(outcome, "b/.caexclude: line 2 is no pattern")
        self.assertFalse(os.path.exists(self.path("o.catar")))

    def test_one_file_system(self) -> None:
        """With -x what is on another file system is left out, and what comes after it isn't."""
        (self.tree / "c").write_bytes(b"c")
        (self.tree / "b" / "x").write_bytes(b"x")
        other = os.stat(self.tree / "b").st_ino
        real = os.stat

        def elsewhere(*args: Any, **more: Any) -> os.stat_result:
            found = real(*args, **more)
            if found.st_ino != other:
                return found
            fields = list(found)
            fields[2] += 1
            return os.stat_result(fields)

        with mock.patch("desync.trees.walking.os.stat", elsewhere):
            self.assertEqual(names_of(self.tar("-x")), ["a", "c"])

    def test_virtual_file_systems(self) -> None:
        """Of a file system like /proc only the directory is packed."""
        device = os.stat(self.tree).st_dev
        with mock.patch("desync.trees.file_systems.mounted", lambda: {device: "proc"}):
            self.assertEqual(names_of(self.tar()), [])

    def test_patterns(self) -> None:
        """Patterns match what a shell's match, dots at the beginning aside."""
        for pattern, name, expected in (
            (b"*.o", b"x.o", True),
            (b"*.o", b".o", False),
            (b"?x", b".x", False),
            (b"[.]x", b".x", False),
            (b".*", b".x", True),
            (b"[a-c]*", b"bz", True),
            (b"[!a-c]*", b"bz", False),
            (b"[]]", b"]", True),
            (b"[x", b"[x", True),
            (b"[[:digit:]x]", b"7", True),
            (b"[[:digit:]x]", b"y", False),
            (b"[![:space:]]", b" ", False),
            (b"x\r", b"x", False),
            (b"*a" * 60 + b"b", b"a" * 255, False),
            (b"*a" * 60, b"a" * 255, True),
            (b"a*b*c", b"abcbc", True),
            (b"a*b*c", b"acb", False),
            (b" //x// ", b"x", False),
            (b"a\\*", b"a*", True),
            (b"a\\*", b"ab", False),
            (b"A", b"a", False),
            (b"x\ny", b"x", True),
        ):
            rules = excludes.Rules().with_file(excludes.parse(pattern))
            self.assertIs(rules.excludes(name, False), expected, (pattern, name))

    def test_places(self) -> None:
        """A pattern with a slash holds from its directory on; directories and exceptions count."""
        rules = excludes.Rules().with_file(excludes.parse(b"x/y\n/top\nd/\n*.c\n!keep.c\n"))
        below = rules.below(b"x")
        self.assertTrue(rules.excludes(b"top", False))
        self.assertFalse(below.excludes(b"top", False))
        self.assertTrue(below.excludes(b"y", False))
        self.assertFalse(rules.below(b"other").excludes(b"y", False))
        self.assertFalse(rules.excludes(b"x", True))
        self.assertTrue(rules.excludes(b"d", True))
        self.assertFalse(rules.excludes(b"d", False))
        self.assertTrue(below.excludes(b"a.c", False))
        self.assertFalse(below.excludes(b"keep.c", False))


class OwnerTests(TarCase):
    """Whose files they are."""

    def test_shift(self) -> None:
        """--uid-shift is taken from ids, --uid-range divides them; what is below is an error."""
        if os.geteuid():
            raise SkipTest("only root can give files away")
        os.chown(self.tree / "a", 200_001, 265_537)
        for path in (self.tree, self.tree / "b"):
            os.chown(path, 200_000, 200_000)
        os.lchown(self.tree / "b" / "l", 200_005, 200_006)
        owners = {
            event.name: (event.metadata.uid, event.metadata.gid)
            for event in events_of(self.tar("--uid-shift=200000", "--uid-range=65536"))
            if isinstance(event, File | Directory | catar.Symlink)
        }
        self.assertEqual(owners, {b"": (0, 0), b"a": (1, 1), b"b": (0, 0), b"l": (5, 6)})
        outcome = desync("tar", "--uid-shift=200001", self.path("o.catar"), str(self.tree))
        self.assert_error(outcome, str(self.tree), "below the shift")

    def test_numbers_that_cannot_be_recorded(self) -> None:
        """An owner that casync's 16 or 32 bits can't hold is an error which names the file."""
        if os.geteuid():
            raise SkipTest("only root can give files away")
        os.chown(self.tree / "a", 65535, 0)
        for features in ("unix", "best"):
            outcome = desync("tar", "--with", features, self.path("o.catar"), str(self.tree))
            self.assert_error(outcome, str(self.tree / "a"), "65535")
        self.assertIn(b"a\0", self.tar())


class IndexTests(TarCase):
    """Archives as chunks and an index."""

    def setUp(self) -> None:
        super().setUp()
        self.store()
        for number in range(300):
            (self.tree / "b" / f"file{number}").write_bytes(sample(2000 + 40 * number, number))
        (self.tree / "big").write_bytes(sample(12 << 20))

    def index_of_tree(self, *args: str) -> bytes:
        """Pack the tree into an index and give that."""
        arguments = ("-i", "-s", self.path("store"), *args, self.path("o.caidx"), str(self.tree))
        self.run_command("tar", *arguments)
        return self.read("o.caidx")

    def test_same_as_make(self) -> None:
        """The index and the chunks are what make gives for the archive, however many workers."""
        archive = self.tar()
        self.run_command("make", self.path("m.caibx"), self.path("o.catar"))
        for workers in ("1", "3"):
            self.assertEqual(self.index_of_tree("-n", workers), self.read("m.caibx"))
        self.run_command("cat", "-s", self.path("store"), self.path("o.caidx"), self.path("back"))
        self.assertEqual(self.read("back"), archive)

    def test_small(self) -> None:
        """A small tree is packed without starting a worker."""
        (self.tree / "big").unlink()
        with mock.patch("desync.workers.pool.Crew", side_effect=AssertionError):
            self.index_of_tree()

    def test_other_stores(self) -> None:
        """With a store that needs a reactor the index and the chunks are the same."""
        expected = self.index_of_tree()
        self.store("second")
        with mock.patch("desync.stores.opening.local_target", lambda *args, **more: None):
            outcome = desync_process(
                ("tar", "-i", "-s", self.path("second"), self.path("2.caidx"), str(self.tree))
            )
        self.assertEqual(outcome, b"")
        self.assertEqual(self.read("2.caidx"), expected)
        ids = {file.chunk_id for file in self.files().all_files()}
        self.assertEqual({file.chunk_id for file in self.files("second").all_files()}, ids)

    def test_flags(self) -> None:
        """An index has the archive's flags, but for the digest its ids are made with."""
        self.assertEqual(self.index_of_tree()[16:24], catar.GO_FLAGS.to_bytes(8, "little"))
        data = self.index_of_tree("--digest", "sha256")
        self.assertEqual(data[16:24], (0x9000000010001F22).to_bytes(8, "little"))
        self.run_command("list-chunks", "--digest", "sha256", self.path("o.caidx"))
        data = self.index_of_tree("--with=best")
        self.assertEqual(data[16:24], (0xB0000001FFEFFE26).to_bytes(8, "little"))

    def test_no_store(self) -> None:
        """-i needs a store."""
        outcome = desync("tar", "-i", self.path("o.caidx"), str(self.tree))
        self.assert_error(outcome, "-i requires a store (-s <location>)")

    def test_store_in_the_tree(self) -> None:
        """A store in the tree that is packed is refused before anything is done."""
        store = self.tree / "b" / "store"
        store.mkdir()
        for name in (str(store), str(self.tree), str(self.tree / "b" / ".." / "b" / "store")):
            outcome = desync("tar", "-i", "-s", name, self.path("o.caidx"), str(self.tree))
            self.assert_error(outcome, "the store is in the directory that is to be packed")
        self.assertEqual(list(store.iterdir()), [])

    def test_chunks_that_disappear(self) -> None:
        """Chunks that a prune takes meanwhile are missed at the end of a long run."""
        self.patch(tar_operation, "RECHECK_AFTER", 0.0)
        self.patch(tar_operation.store_archive, "__defaults__", (0.0,))
        self.index_of_tree()
        self.meddle(on_change=lambda tracker: self.remove_a_chunk())
        arguments = ("-i", "-s", self.path("store"), self.path("n.caidx"), str(self.tree))
        self.assert_error(desync("tar", *arguments), "chunks were removed")
        self.assertFalse(os.path.exists(self.path("n.caidx")))

    def test_interrupted(self) -> None:
        """An interrupted tar writes no index, leaves the old one, and no worker at work."""
        before = self.index_of_tree()

        def interrupt(tracker: object) -> None:
            raise KeyboardInterrupt

        self.meddle(on_change=interrupt)
        arguments = ("-i", "-s", self.path("store"), self.path("o.caidx"), str(self.tree))
        outcome = desync("tar", "--no-time", *arguments)
        self.assertEqual((outcome.code, outcome.err), (1, "Error: interrupted\n"))
        self.assertEqual(self.read("o.caidx"), before)
        self.assertEqual(self.leftovers(), [])
        names = {thread.name for thread in threading.enumerate()}
        self.assertNotIn("desync-walk", names)

    def remove_a_chunk(self) -> None:
        """Take some chunk out of the store."""
        next(path for path in Path(self.path("store")).rglob("*.cacnk")).unlink()


class BadTreeTests(TarCase):
    """Trees that can't be read, or change meanwhile."""

    def setUp(self) -> None:
        super().setUp()
        self.store()

    def assert_refused(self, *parts: str) -> None:
        """Make sure that neither form of the archive comes about, and that the file is named."""
        ways = (
            (self.path("o.catar"), ()),
            (self.path("o.caidx"), ("-i", "-s", self.path("store"))),
        )
        for target, args in ways:
            outcome = desync("tar", *args, target, str(self.tree))
            self.assert_error(outcome, *parts)
            self.assertFalse(os.path.exists(target))
        self.assertEqual([path for path in self.leftovers() if "catar" in path], [])

    def test_no_directory(self) -> None:
        """What is no directory, or isn't there, can't be packed."""
        for name in ("tree/a", "missing"):
            outcome = desync("tar", self.path("o.catar"), self.path(name))
            self.assert_error(outcome, self.path(name))

    def test_unreadable(self) -> None:
        """A file or a directory that may not be read is named."""
        for name in ("a", "b"):
            mode = (self.tree / name).stat().st_mode
            (self.tree / name).chmod(0)
            outcome = as_nobody(lambda: desync("tar", "-", str(self.tree)))
            self.assertEqual(outcome.code, 1)
            self.assertIn(f"{self.tree / name}: Permission denied", outcome.err)
            (self.tree / name).chmod(mode)

    def changing(self, change: Any) -> None:
        """Have something done just before a file's content is read."""
        real = content.open_content

        def opened(piece: content.FileContent) -> int:
            change(Path(os.fsdecode(piece.path)))
            return real(piece)

        self.patch(content, "open_content", opened)
        self.patch(pack_job, "open_content", opened)

    def test_vanishes(self) -> None:
        """A file that is gone when its content is wanted."""
        self.changing(lambda path: path.unlink(missing_ok=True))
        outcome = desync("tar", self.path("o.catar"), str(self.tree))
        self.assert_error(outcome, str(self.tree / "a"), "No such file")

    def test_grows(self) -> None:
        """A file that is longer when its content is read."""

        def grow(path: Path) -> None:
            with path.open("ab") as file:
                file.write(b"more")

        self.changing(grow)
        self.assert_refused(str(self.tree / "a"), "changed while it was being read")

    def test_shrinks(self) -> None:
        """A file that is shorter when its content is read."""
        (self.tree / "a").write_bytes(bytes(1000))
        self.changing(lambda path: os.truncate(path, max(path.stat().st_size - 1, 0)))
        self.assert_refused(str(self.tree / "a"), "shrank while it was being read")

    def test_replaced(self) -> None:
        """A file in whose place another is, or a link to elsewhere, when it is read."""

        def replace(path: Path) -> None:
            other = path.with_name("other")
            other.write_bytes(b"hello\n")
            found = path.stat()
            os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
            other.rename(path)

        self.changing(replace)
        self.assert_refused(str(self.tree / "a"), "replaced while the tree was being read")
        self.changing(lambda path: (path.unlink(), path.symlink_to("/etc/hostname")))
        outcome = desync("tar", self.path("o.catar"), str(self.tree))
        self.assert_error(outcome, str(self.tree / "a"))

    def test_bad_flags(self) -> None:
        """Features and shifts that don't exist are refused."""
        for args in (("--with=nonsense",), ("--without=unix,x",), ("--uid-shift=-1",)):
            outcome = desync("tar", *args, self.path("o.catar"), str(self.tree))
            self.assert_error(outcome, "invalid argument")


def desync_process(args: tuple[str, ...]) -> bytes:
    """Run a command in a child, as a reactor can be started once in a process; give its errors."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            outcome = desync(*args)
            os.write(writing, outcome.err.encode())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return answer
