# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync untar``."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterable

from desync.cli import untar as untar_module
from desync.formats.catar import Event
from desync.operations import untar as untar_operation
from desync.trees import writer as writer_module

from . import command_line
from .archives import ALL_FLAGS, TIME, archive, device, directory, fifo, file, symlink
from .command_case import SIZES, CommandCase, as_nobody, sample

# What a process that is nobody runs has to be imported before.
MODULES = (untar_module, untar_operation, writer_module)


def run_process(*args: str) -> command_line.Outcome:
    """Run the command in a process of its own: one with layers starts a reactor."""
    return command_line.desync_process(*args)


class UntarCase(CommandCase):
    """A test case with archives."""

    def archive(self, events: Iterable[Event], flags: int = ALL_FLAGS) -> str:
        """Write an archive, and give its path."""
        return self.write("x.catar", archive(events, flags))

    def chunked(self, events: Iterable[Event]) -> tuple[str, str]:
        """Store an archive in chunks, and give the paths of its index and its store."""
        self.sample_store(archive(events), index="x.catar.caidx")
        return self.path("x.catar.caidx"), self.path("store")

    def assert_tree(self, expected: dict[str, bytes | None], name: str = "out") -> None:
        """Make sure what is in a folder: the content of files, None for anything else."""
        root = self.folder / name
        found = {
            str(path.relative_to(root)): path.read_bytes()
            if path.is_file() and not path.is_symlink()
            else None
            for path in root.rglob("*")
        }
        self.assertEqual(expected, found)


class ArchiveTests(UntarCase):
    """Unpacking archives."""

    def test_disk(self) -> None:
        """An archive is unpacked into a directory that is made."""
        path = self.archive([*directory(b"d", file(b"f", b"1")), *symlink(b"l", b"d")])
        self.run_command("untar", path, self.path("out"))
        self.assert_tree({"d": None, "d/f": b"1", "l": None})

    def test_features(self) -> None:
        """What --with and --without leave out isn't restored, or isn't made."""
        if os.geteuid() != 0:
            self.skipTest("only root can give files away")
        xattrs = ((b"user.k", b"v"),)
        path = self.archive(
            [
                *fifo(b"a"),
                *file(b"f", b"1", 0o666, uid=12, gid=34, xattrs=xattrs),
                *symlink(b"l", b"f"),
            ]
        )
        everything: dict[str, bytes | None] = {"a": None, "f": b"1", "l": None}
        no_fifo: dict[str, bytes | None] = {"f": b"1", "l": None}
        cases: list[tuple[tuple[str, ...], dict[str, bytes | None], str]] = [
            ((), everything, "mode time xattrs owner"),
            (("--with=best",), everything, "mode time xattrs owner"),
            (("--without=symlinks",), {"a": None, "f": b"1"}, "mode time xattrs owner"),
            (("--with=unix",), everything, "mode time owner"),
            (("--without=privileged",), everything, "mode time xattrs"),
            (("--without=sec-time",), everything, "mode time xattrs owner"),
            (("--with=nsec-time",), {"f": b"1"}, "time"),
            (("--with=unix", "--without=sec-time", "--without=fifos"), no_fifo, "mode owner"),
            (("--without=permissions", "--without=acl"), everything, "time xattrs owner"),
            (("--without=all",), {"f": b"1"}, ""),
        ]
        for number, (flags, tree, kept) in enumerate(cases):
            with self.subTest(flags=flags):
                name = f"out{number}"
                self.run_command("untar", "--same-owner", *flags, path, self.path(name))
                self.assert_tree(tree, name)
                made = self.folder / name / "f"
                found = made.stat()
                facts = {
                    "mode": stat.S_IMODE(found.st_mode) == 0o666,
                    "time": found.st_mtime_ns == TIME,
                    "xattrs": os.listxattr(made) == ["user.k"],
                    "owner": (found.st_uid, found.st_gid) == (12, 34),
                }
                self.assertEqual(kept.split(), [fact for fact, holds in facts.items() if holds])

    def test_features_and_delete(self) -> None:
        """What is in the place of a node that is left out isn't deleted."""
        path = self.archive([*file(b"f", b"1"), *symlink(b"l", b"f")])
        out = self.folder / "out"
        out.mkdir()
        for name in ("l", "other"):
            (out / name).write_bytes(b"2")
        self.run_command("untar", "--delete", "--without=symlinks", path, str(out))
        self.assert_tree({"f": b"1", "l": b"2"})

    def test_unknown_features(self) -> None:
        """A feature that there isn't is refused, and so are features of a tar file."""
        path = self.archive(file(b"f"))
        for flags, said in (
            (("--with=nosuch",), "nosuch"),
            (("--with=unix", "--output-format=gnu-tar"), "--with"),
        ):
            outcome = command_line.desync("untar", *flags, path, self.path("out"))
            self.assert_error(outcome, said)
            self.assertFalse(os.path.exists(self.path("out")))

    def test_standard_input(self) -> None:
        """An archive is read from stdin."""
        data = archive(file(b"f", sample(3_000_000)))
        self.run_command("untar", "-", self.path("out"), stdin=data)
        self.assert_tree({"f": sample(3_000_000)})

    def test_not_an_archive(self) -> None:
        """What isn't an archive is named, and nothing is made."""
        for data in (b"", b"x" * 10, b"x" * 1000, b"\0" * 1000):
            path = self.write("x.catar", data)
            self.assert_error(command_line.desync("untar", path, self.path("out")), path)
            self.assertFalse(os.path.exists(self.path("out")))
        missing = self.path("missing.catar")
        self.assert_error(
            command_line.desync("untar", missing, self.path("out")), missing, "No such file"
        )
        self.assert_error(
            command_line.desync("untar", str(self.folder), self.path("out")), "directory"
        )

    def test_standard_output(self) -> None:
        """A directory isn't written to stdout, nor into a folder that is called so."""
        path = self.archive([])
        self.assert_error(command_line.desync("untar", path, "-"), "--output-format")
        self.assertFalse(os.path.exists("-"))

    def test_delete(self) -> None:
        """Files that the archive doesn't have stay unless --delete is given."""
        path = self.archive(file(b"f", b"1"))
        os.mkdir(self.path("out"))
        self.write("out/old", b"")
        self.run_command("untar", path, self.path("out"))
        self.assert_tree({"f": b"1", "old": b""})
        self.run_command("untar", "--delete", path, self.path("out"))
        self.assert_tree({"f": b"1"})

    def test_delete_refused(self) -> None:
        """On the root of a file system nothing is deleted."""
        path = self.archive([])
        for target in ("/", "/proc"):
            if os.path.isdir(target):
                outcome = command_line.desync("untar", "--delete", path, target)
                self.assert_error(outcome, target, "--delete")

    def test_flags(self) -> None:
        """Flags that make no sense together are refused."""
        path = self.archive([])
        for args in (
            ["-i", path],
            ["-s", "x", path],
            ["--same-owner", "--no-same-owner", path],
            ["--output-format", "zip", path],
        ):
            outcome = command_line.desync("untar", *args, self.path("out"))
            self.assertEqual(1, outcome.code)
            self.assertFalse(os.path.exists(self.path("out")))


class IndexTests(UntarCase):
    """Unpacking archives that are stored in chunks."""

    def events(self) -> list[Event]:
        """Give the events of a small tree with files of more than a chunk."""
        return [
            *directory(b"d", file(b"f", sample(300_000), 0o600)),
            *file(b"g", sample(200_000, 1)),
        ]

    def assert_unpacked(self) -> None:
        """Make sure that the tree is there."""
        self.assert_tree({"d": None, "d/f": sample(300_000), "g": sample(200_000, 1)})

    def test_local(self) -> None:
        """Chunks come from a local store; of two, the second has what the first lacks."""
        index, store = self.chunked(self.events())
        self.store("empty")
        self.run_command(
            "untar", "-i", "-s", self.path("empty"), "-s", store, index, self.path("out")
        )
        self.assert_unpacked()

    def test_layered(self) -> None:
        """With a cache it is the same, and the cache has the chunks afterwards."""
        index, store = self.chunked(self.events())
        cache = self.store("cache")
        outcome = run_process("untar", "-i", "-s", store, "-c", cache, index, self.path("out"))
        self.assertEqual((0, ""), (outcome.code, outcome.err))
        self.assert_unpacked()
        os.rename(store, self.path("gone"))
        os.mkdir(store)
        outcome = run_process("untar", "-i", "-s", store, "-c", cache, index, self.path("again"))
        self.assertEqual((0, ""), (outcome.code, outcome.err))

    def test_without_flag(self) -> None:
        """A file that begins as an index does is taken for one."""
        index, store = self.chunked(self.events())
        self.run_command("untar", "-s", store, index, self.path("out"))
        self.assert_unpacked()
        self.assert_error(command_line.desync("untar", index, self.path("out")), "-i", "-s")

    def test_missing_chunk(self) -> None:
        """A missing chunk is named; no file is left that isn't complete."""
        index, store = self.chunked(self.events())
        ids = self.index("x.catar.caidx").ids
        victim = ids[len(ids) // 2]
        os.unlink(self.chunk_path(victim))
        for args in ([], ["-c", self.store("cache")]):
            out = f"out{len(args)}"
            outcome = run_process("untar", "-i", "-s", store, *args, index, self.path(out))
            self.assert_error(outcome, victim.hex())
            for path in (self.folder / out).rglob("*"):
                self.assertIn(path.name, ("d", "f", "g"))
                if path.is_file():
                    self.assertIn(path.stat().st_size, (300_000, 200_000))

    def chunk_path(self, chunk_id: bytes) -> str:
        """Give the path of a chunk of the store."""
        name = chunk_id.hex()
        return self.path(f"store/{name[:4]}/{name}.cacnk")

    def test_index_of_a_blob(self) -> None:
        """An index of what isn't an archive is refused, and nothing is made."""
        self.sample_store(sample(100_000))
        outcome = command_line.desync(
            "untar", "-i", "-s", self.path("store"), self.path("a.caibx"), self.path("out")
        )
        self.assert_error(outcome, "a.caibx")
        self.assertFalse(os.path.exists(self.path("out")))

    def test_sizes(self) -> None:
        """Chunks may end anywhere in the archive."""
        self.assertEqual("1:4:16", SIZES)
        data = archive([event for n in range(300) for event in file(b"f%03d" % n, b"x" * n)])
        self.write("x.catar", data)
        store = self.store()
        self.run_command(
            "make", "-m", "1:1:1", "-s", store, self.path("x.caidx"), self.path("x.catar")
        )
        self.run_command("untar", "-i", "-s", store, self.path("x.caidx"), self.path("out"))
        self.assert_tree({f"f{n:03}": b"x" * n for n in range(300)})


class SeedTests(UntarCase):
    """What the target has already isn't fetched from elsewhere."""

    def setUp(self) -> None:
        super().setUp()
        self.tree = self.folder / "tree"
        (self.tree / "d").mkdir(parents=True)
        for name, seed in (("d/a", 1), ("d/b", 2), ("z", 3)):
            (self.tree / name).write_bytes(sample(400_000, seed))
        self.old = self.packed("old")
        (self.tree / "d/b").write_bytes(sample(400_000, 4))
        (self.tree / "new").write_bytes(sample(50_000, 5))
        self.new = self.packed("new")
        self.cache = self.store("cache")

    def packed(self, name: str) -> str:
        """Pack the tree into an index and a store of its own."""
        store, index = self.store(f"{name}-store"), self.path(f"{name}.caidx")
        self.run_command("tar", "-i", "-m", SIZES, "-s", store, index, str(self.tree))
        return index

    def unpack(self, version: str, *flags: str) -> command_line.Outcome:
        """Unpack a version through a cache, which takes what had to be fetched."""
        store = self.path(f"{version}-store")
        args = ["-i", "-s", store, "-c", self.cache, *flags]
        return run_process("untar", *args, self.path(f"{version}.caidx"), self.path("out"))

    def fetched(self) -> int:
        """Count the chunks in the cache."""
        return sum(len(files) for _, _, files in os.walk(self.cache))

    def assert_new(self) -> None:
        """Make sure that the target has the new version."""
        expected = {str(path.relative_to(self.tree)): path for path in self.tree.rglob("*")}
        self.assert_tree(
            {name: path.read_bytes() if path.is_file() else None for name, path in expected.items()}
        )

    def test_update(self) -> None:
        """Over the last version, only what is new is fetched."""
        self.run_command("untar", "-i", "-s", self.path("old-store"), self.old, self.path("out"))
        outcome = self.unpack("new")
        self.assertEqual((0, ""), (outcome.code, outcome.err))
        self.assert_new()
        old, new = (set(self.index(f"{name}.caidx").ids) for name in ("old", "new"))
        self.assertLessEqual(len(new - old), self.fetched())
        self.assertLess(self.fetched(), len(new - old) + 10)
        self.assertLess(self.fetched(), len(new) // 2)

    def test_without(self) -> None:
        """It can be switched off, and then all is fetched."""
        self.run_command("untar", "-i", "-s", self.path("old-store"), self.old, self.path("out"))
        outcome = self.unpack("new", "--seed-output=false")
        self.assertEqual((0, ""), (outcome.code, outcome.err))
        self.assert_new()
        self.assertEqual(len(set(self.index("new.caidx").ids)), self.fetched())

    def test_other_content(self) -> None:
        """Whatever else is in the target, the result is the new version's."""
        out = self.folder / "out"
        (out / "d").mkdir(parents=True)
        (out / "d/a").write_bytes(sample(200_000, 1) + b"x" + sample(400_000, 1)[200_001:])
        (out / "z").mkdir()
        (out / "new").symlink_to("/nowhere")
        os.mkfifo(out / "d" / "b")
        outcome = self.unpack("new")
        self.assertEqual((0, ""), (outcome.code, outcome.err))
        self.assert_new()
        self.assertLess(self.fetched(), len(set(self.index("new.caidx").ids)))


class UnprivilegedTests(UntarCase):
    """What somebody who isn't root gets."""

    def unpack(self, events: Iterable[Event], *flags: str) -> command_line.Outcome:
        """Unpack an archive as nobody."""
        # Nobody may not be able to read Python's own modules, either.
        codecs.lookup("unicode_escape")
        path = self.archive(events)
        out = self.folder / "out"
        out.mkdir(exist_ok=True)
        os.chown(out, 65534, 65534)
        return as_nobody(lambda: command_line.desync("untar", *flags, path, str(out)))

    def test_owners(self) -> None:
        """Owners aren't tried; one line says so, and the exit code is 0."""
        outcome = self.unpack([*file(b"a", b"1", uid=1, gid=2), *file(b"b", b"2", 0o4755, uid=7)])
        self.assertEqual(0, outcome.code)
        self.assertEqual(1, outcome.err.count("\n"))
        self.assertIn("owners of 3 nodes were not restored", outcome.err)
        self.assertIn("set-id bits of 1 node were left off", outcome.err)
        found = os.stat(self.path("out/b"))
        self.assertEqual((65534, 0o755), (found.st_uid, stat.S_IMODE(found.st_mode)))

    def test_own(self) -> None:
        """Where all belongs to who unpacks it, nothing has to be said."""
        events = file(b"a", b"1", 0o4755, uid=65534, gid=65534)
        outcome = self.unpack(events)
        self.assertEqual(0, outcome.code)
        self.assertEqual(0o4755, stat.S_IMODE(os.stat(self.path("out/a")).st_mode))
        self.assertIn("owners of 1 node ", outcome.err)  # the root's

    def test_same_owner(self) -> None:
        """With --same-owner each owner that can't be set is named, and the exit code is 1."""
        outcome = self.unpack(file(b"a", b"1", uid=1), "--same-owner")
        self.assertEqual(1, outcome.code)
        self.assertIn("out/a: can't set its owner: Operation not permitted", outcome.err)

    def test_devices(self) -> None:
        """Devices that can't be made are named; everything else is unpacked; the exit code is 1."""
        outcome = self.unpack(
            [
                *device(b"c", stat.S_IFCHR, 1, 3),
                *device(b"\x1b[31m", stat.S_IFBLK, 1, 3),
                *fifo(b"p"),
                *file(b"z", b"1", xattrs=((b"trusted.x", b"1"),)),
            ]
        )
        self.assertEqual(1, outcome.code)
        self.assertIn("out/c: can't make it: Operation not permitted", outcome.err)
        self.assertIn(r"out/\x1b[31m: can't make it", outcome.err)
        self.assertIn("out/z: can't set its xattr trusted.x", outcome.err)
        self.assert_tree({"p": None, "z": b"1"})

    def test_read_only_directories(self) -> None:
        """Read-only directories are filled, and filled again."""
        events = directory(b"d", directory(b"e", file(b"f", b"1"), mode=0o500), mode=0o111)
        for _ in range(2):
            outcome = self.unpack(events)
            self.assertEqual(0, outcome.code, outcome.err)
        self.assertEqual(0o111, stat.S_IMODE(os.stat(self.path("out/d")).st_mode))
        self.assertEqual(b"1", self.read("out/d/e/f"))
