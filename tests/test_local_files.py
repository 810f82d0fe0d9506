# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The files of a local store."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from desync import umask
from desync.chunking.digests import SHA256
from desync.errors import ChunkInvalid, ChunkMissing, StoreError
from desync.formats.chunk import Chunk
from desync.formats.ids import ChunkIds
from desync.stores.local_files import TEMPORARY_PREFIX, LocalFiles
from desync.stores.pruning import Pruned, membership
from desync.testing.samples import sample_chunk, sample_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def nothing_kept(chunk_id: bytes) -> bool:
    return False


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file become larger: the nearest thing to a full disk that any directory has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def acting_as_nobody() -> Iterator[None]:
    """Give up root's rights for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if before == 0:
            os.seteuid(before)


class LocalFilesCase(SynchronousTestCase):
    """A test of one store."""

    def setUp(self) -> None:
        self.path: str = os.path.abspath(self.mktemp())
        os.mkdir(self.path, 0o755)
        self.files = LocalFiles(self.path)

    def names(self) -> list[str]:
        """List what is in the store's subdirectories."""
        return sorted(name for _, _, names in os.walk(self.path) for name in names)

    def leave_temporary(self, name: str = ".tmp-cacnk.4711") -> str:
        """Put a temporary file where an interrupted writer would have left it."""
        directory = os.path.join(self.path, "abcd")
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, name)
        with open(path, "wb") as file:
            file.write(b"half a chunk")
        return path

    def age(self, path: str, seconds: float) -> None:
        then = time.time() - seconds
        os.utime(path, (then, then))


class LayoutTests(LocalFilesCase):
    """Where chunks are, and how they are written."""

    def test_layout(self) -> None:
        """A chunk is in the subdirectory that its id begins with; its extension tells its form."""
        chunk = sample_chunk()
        text = chunk.chunk_id.hex()
        self.files.put_chunk(chunk)
        LocalFiles(self.path, extension="").put_chunk(chunk)
        directory = os.path.join(self.path, text[:4])
        self.assertEqual(os.listdir(self.path), [text[:4]])
        self.assertEqual(sorted(os.listdir(directory)), [text, f"{text}.cacnk"])
        with open(os.path.join(directory, text), "rb") as file:
            self.assertEqual(file.read(), chunk.plain)

    def test_modes(self) -> None:
        """Modes are subject to the umask at the start, whatever it is when a chunk is written."""
        chunk = sample_chunk()
        before = os.umask(0o777)
        try:
            self.files.put_chunk(chunk)
        finally:
            os.umask(before)
        path = self.files.path_of(chunk.chunk_id)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o644 & ~umask.START)
        directory = os.path.dirname(path)
        self.assertEqual(stat.S_IMODE(os.stat(directory).st_mode), 0o755 & ~umask.START)

    def test_own_umask(self) -> None:
        """A process that has the umask it started with leaves modes to the system."""
        chunk = sample_chunk()
        before = os.umask(0o077)
        try:
            LocalFiles(self.path, set_modes=False).put_chunk(chunk)
        finally:
            os.umask(before)
        path = self.files.path_of(chunk.chunk_id)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode), 0o700)

    def test_group(self) -> None:
        """Subdirectories of a store whose group is inherited hand that on."""
        os.chmod(self.path, 0o2775)
        chunk = sample_chunk()
        self.files.put_chunk(chunk)
        directory = os.path.dirname(self.files.path_of(chunk.chunk_id))
        self.assertTrue(os.stat(directory).st_mode & stat.S_ISGID)

    def test_replaced_as_a_whole(self) -> None:
        """Whoever has opened a chunk that is replaced goes on reading the old one."""
        chunk = sample_chunk()
        self.files.put(chunk.chunk_id, b"the old bytes")
        with open(self.files.path_of(chunk.chunk_id), "rb") as reader:
            self.files.put_chunk(chunk)
            self.assertEqual(reader.read(), b"the old bytes")
        self.assertEqual(self.files.get(chunk.chunk_id).plain, chunk.plain)
        self.assertEqual(len(self.names()), 1)

    def test_disk_full(self) -> None:
        """A chunk that can't be written whole leaves nothing behind, and the error names it."""
        chunk = sample_chunk(size=100_000)
        with largest_file(10_000):
            error = self.assertRaises(StoreError, self.files.put_chunk, chunk)
        self.assertEqual(
            str(error),
            f"{self.path}: chunk {chunk.chunk_id.hex()} can't be stored: File too large",
        )
        self.assertEqual(self.names(), [])
        self.files.put_chunk(chunk)
        self.assertEqual(self.files.get(chunk.chunk_id).plain, chunk.plain)

    def test_interrupted(self) -> None:
        """A write that is interrupted leaves nothing behind."""

        def interrupt(*args: object) -> None:
            raise KeyboardInterrupt

        for function in "rename", "write", "chmod":
            with self.subTest(function):
                patched = self.patch(os, function, interrupt)
                self.assertRaises(KeyboardInterrupt, self.files.put_chunk, sample_chunk())
                patched.restore()
                self.assertEqual(self.names(), [])

    def test_put_invalid(self) -> None:
        """What isn't the chunk that its id says isn't written."""
        self.assertRaises(ChunkInvalid, self.files.put_chunk, Chunk(bytes(32), b"data"))
        self.assertEqual(os.listdir(self.path), [])

    def test_parallel_writers(self) -> None:
        """Several processes may write the same chunks at the same time."""
        program = (
            "import sys\n"
            "from desync.stores.local_files import LocalFiles\n"
            "from desync.testing.samples import sample_chunks\n"
            "files = LocalFiles(sys.argv[1])\n"
            "chunks = sample_chunks(100)\n"
            "sys.stdin.read(1)\n"
            "for _ in range(3):\n"
            "    for chunk in chunks:\n"
            "        files.put_chunk(chunk)\n"
            "        files.get(chunk.chunk_id)\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", program, self.path],
                env=environment,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for _ in range(3)
        ]
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write(b"x")
            writer.stdin.flush()
        for writer in writers:
            _, errors = writer.communicate()
            self.assertEqual((writer.returncode, errors), (0, b""))
        chunks = sample_chunks(100)
        self.assertEqual(self.names(), sorted(f"{c.chunk_id.hex()}.cacnk" for c in chunks))
        for chunk in chunks:
            self.assertEqual(self.files.get(chunk.chunk_id).plain, chunk.plain)

    def test_settings(self) -> None:
        """Another process, or thread, opens the same store from plain values."""
        files = LocalFiles(
            self.path,
            location="shown",
            extension="",
            level=7,
            digest=SHA256,
            skip_verify=True,
            sync_each=True,
        )
        for other in LocalFiles.from_settings(files.settings()), files.twin():
            self.assertEqual(other.settings(), files.settings())
            self.assertIs(other.digest, SHA256)
            self.assertEqual(other.local_files(), (other,))

    def test_strange_path(self) -> None:
        """A path needn't be UTF-8, nor without a slash at its end."""
        for name in b"\xff\xfe", b"with slash/", b"-n":
            path = os.fsdecode(os.path.join(os.fsencode(self.path), name))
            os.mkdir(path)
            files = LocalFiles.from_settings(LocalFiles(path).settings())
            files.check(writing=True)
            chunk = sample_chunk()
            files.put_chunk(chunk)
            self.assertEqual(files.get(chunk.chunk_id).plain, chunk.plain)
            self.assertEqual(len(list(files.all_files())), 1)

    def test_sync(self) -> None:
        """Syncing works, all at the end or each chunk, and says if the store is gone."""
        files = LocalFiles(self.path, sync_each=True)
        files.put_chunk(sample_chunk())
        files.sync()
        os.rename(self.path, self.path + ".gone")
        if sys.platform == "linux":
            self.assertRaises(StoreError, files.sync)


class ReadTests(LocalFilesCase):
    """What is read, and what can't be."""

    def test_forms(self) -> None:
        """The store's own form is preferred, the other one is found too."""
        both, other = sample_chunk(1), sample_chunk(2)
        uncompressed = LocalFiles(self.path, extension="")
        self.files.put_chunk(both)
        uncompressed.put_chunk(both)
        uncompressed.put_chunk(other)
        self.assertEqual(self.files.read(both.chunk_id)[1].extension, ".cacnk")
        self.assertEqual(uncompressed.read(both.chunk_id)[1].extension, "")
        self.assertEqual(self.files.read(other.chunk_id)[1].extension, "")
        self.assertEqual(self.files.get(other.chunk_id).plain, other.plain)
        self.assertFalse(self.files.has(other.chunk_id))
        self.assertFalse(self.files.renew(other.chunk_id))

    def test_read_plain(self) -> None:
        """Plain bytes must have the size that the caller knows."""
        chunk = sample_chunk(size=1000)
        self.files.put_chunk(chunk)
        self.assertEqual(self.files.read_plain(chunk.chunk_id, 1000), chunk.plain)
        for size in 999, 1001, 1:
            error = self.assertRaises(ChunkInvalid, self.files.read_plain, chunk.chunk_id, size)
            self.assertTrue(str(error).startswith(f"{self.path}: chunk {chunk.chunk_id.hex()} is"))

    def test_sizes(self) -> None:
        """Files larger than what is read at a time are read whole."""
        uncompressed = LocalFiles(self.path, extension="")
        for size in (1 << 19) - 1, 1 << 19, (1 << 19) + 1, 3 << 20:
            chunk = sample_chunk(size=size)
            uncompressed.put_chunk(chunk)
            self.assertEqual(uncompressed.get(chunk.chunk_id).plain, chunk.plain)
            self.assertEqual(uncompressed.read_plain(chunk.chunk_id, size), chunk.plain)
            self.assertEqual(uncompressed.stored_size(chunk.chunk_id), size)
        self.assertIsNone(uncompressed.stored_size(bytes(32)))

    def test_too_large(self) -> None:
        """A file larger than any chunk within the limit isn't read to its end."""
        chunk = sample_chunk(size=10)
        for size in 11, 1 << 19, 1 << 21:
            LocalFiles(self.path, extension="").put(chunk.chunk_id, bytes(size))
            for read in (
                lambda: self.files.read(chunk.chunk_id, 10),
                lambda: self.files.get(chunk.chunk_id, 10),
                lambda: self.files.read_plain(chunk.chunk_id, 10),
            ):
                error = self.assertRaises(ChunkInvalid, read)
                self.assertIn("its file is larger than 10 bytes", str(error))

    def test_skip_verify(self) -> None:
        """A store that skips verification hands out whatever is there, unverified."""
        files = LocalFiles(self.path, skip_verify=True)
        files.put(bytes(32), files.form.encode(b"wrong"))
        chunk = files.get(bytes(32))
        self.assertEqual((chunk.plain, chunk.verified), (b"wrong", False))
        self.assertRaises(ChunkInvalid, self.files.get, bytes(32))

    def test_not_a_file(self) -> None:
        """Something else in the place of a chunk is an error of the store, and never waited for."""
        directory, pipe, below_file, loop = (sample_chunk(number) for number in range(4))
        os.makedirs(self.files.path_of(directory.chunk_id))
        for chunk in pipe, loop:
            os.makedirs(os.path.dirname(self.files.path_of(chunk.chunk_id)), exist_ok=True)
        os.mkfifo(self.files.path_of(pipe.chunk_id))
        path = self.files.path_of(loop.chunk_id)
        os.symlink(path, path)
        with open(os.path.dirname(self.files.path_of(below_file.chunk_id)), "wb"):
            pass
        for chunk in directory, below_file, loop:
            error = self.assertRaises(StoreError, self.files.get, chunk.chunk_id)
            self.assertIn(chunk.chunk_id.hex(), str(error))
        self.assertRaises(ChunkInvalid, self.files.get, pipe.chunk_id)
        for chunk in below_file, loop:
            self.assertRaises(StoreError, self.files.has, chunk.chunk_id)
        for chunk in directory, below_file:
            self.assertRaises(StoreError, self.files.put_chunk, chunk)
        self.assertEqual([n for n in self.names() if n.startswith(TEMPORARY_PREFIX)], [])

    def test_symbolic_links(self) -> None:
        """The store, its subdirectories and chunks may be links when they are read."""
        chunk = sample_chunk()
        self.files.put_chunk(chunk)
        path = self.files.path_of(chunk.chunk_id)
        os.rename(path, path + ".elsewhere")
        os.symlink(path + ".elsewhere", path)
        link = self.path + ".link"
        os.symlink(self.path, link)
        directory = os.path.dirname(path)
        os.rename(directory, self.path + ".sub")
        os.symlink(self.path + ".sub", directory)
        self.assertEqual(LocalFiles(link).get(chunk.chunk_id).plain, chunk.plain)
        # Only files that really lie in the store are its own to list and remove.
        self.assertEqual(list(self.files.all_files()), [])

    def test_vanished(self) -> None:
        """A store that is gone hasn't lost its chunks: it can't tell."""
        os.rename(self.path, self.path + ".gone")
        chunk = sample_chunk()
        for operation in (
            lambda: self.files.get(chunk.chunk_id),
            lambda: self.files.has(chunk.chunk_id),
            lambda: self.files.put_chunk(chunk),
            lambda: list(self.files.all_files()),
            lambda: self.files.prune(nothing_kept, 0),
            self.files.check,
        ):
            error = self.assertRaises(StoreError, operation)
            self.assertTrue(str(error).startswith(f"{self.path}: "), str(error))
            self.assertIn("No such file or directory", str(error))

    def test_check(self) -> None:
        """A store must be a directory."""
        self.files.check(writing=True)
        file = os.path.join(self.path, "file")
        with open(file, "wb"):
            pass
        error = self.assertRaises(StoreError, LocalFiles(file).check)
        self.assertEqual(str(error), f"{file}: not a directory")

    @skipIf(os.name != "posix", "there are no such rights here")
    def test_rights(self) -> None:
        """What may not be read or written is an error of the store that says so."""
        # Trial's own directories are root's alone.
        self.path = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.path)
        self.files = LocalFiles(self.path)
        chunk, other = sample_chunk(1), sample_chunk(2)
        self.files.put_chunk(chunk)
        path = self.files.path_of(chunk.chunk_id)
        os.chmod(path, 0)
        for directory in os.path.dirname(path), self.path:
            os.chmod(directory, 0o555)
            self.addCleanup(os.chmod, directory, 0o755)
        with acting_as_nobody():
            self.files.check()
            error = self.assertRaises(StoreError, self.files.check, writing=True)
            self.assertEqual(str(error), f"{self.path}: it can't be written to: Permission denied")
            error = self.assertRaises(StoreError, self.files.get, chunk.chunk_id)
            self.assertEqual(
                str(error), f"{self.path}: chunk {chunk.chunk_id.hex()}: Permission denied"
            )
            self.assertRaises(StoreError, self.files.put_chunk, other)
            self.assertRaises(StoreError, self.files.remove, chunk.chunk_id)
            # That it can't be made young doesn't mean that it isn't there.
            self.assertTrue(self.files.renew(chunk.chunk_id))
        os.chmod(self.path, 0)
        with acting_as_nobody():
            error = self.assertRaises(StoreError, self.files.check)
            self.assertEqual(str(error), f"{self.path}: it can't be read: Permission denied")
            self.assertRaises(StoreError, self.files.has, chunk.chunk_id)
            self.assertRaises(StoreError, list, self.files.all_files())


class PruneTests(LocalFilesCase):
    """Removing what nobody needs, while others write."""

    def test_prune(self) -> None:
        """Old chunks that aren't kept go; kept ones, other forms and foreign files stay."""
        chunks = sample_chunks(10)
        for chunk in chunks:
            self.files.put_chunk(chunk)
            self.age(self.files.path_of(chunk.chunk_id), 1000)
        LocalFiles(self.path, extension="").put_chunk(sample_chunk(99))
        foreign = os.path.join(self.path, "abcd", "README")
        os.makedirs(os.path.dirname(foreign), exist_ok=True)
        with open(foreign, "wb"):
            pass
        self.age(foreign, 1000)
        keep = {chunk.chunk_id for chunk in chunks[:4]}
        outcome = self.files.prune(keep.__contains__, 600)
        self.assertEqual((outcome.kept, outcome.removed, outcome.spared), (4, 6, 0))
        left = {file.chunk_id for file in self.files.all_files()}
        self.assertEqual(left, keep)
        self.assertEqual(len(self.names()), 6)

    def test_misplaced(self) -> None:
        """A chunk file in a wrong subdirectory, or deeper, is removed from where it is."""
        chunk = sample_chunk()
        for directory in "0000", "0000/deeper":
            os.mkdir(os.path.join(self.path, directory))
            with open(f"{self.path}/{directory}/{chunk.chunk_id.hex()}.cacnk", "wb"):
                pass
        self.assertEqual(len(list(self.files.all_files())), 2)
        self.assertEqual(self.files.prune(nothing_kept, 0).removed, 2)
        self.assertEqual(self.names(), [])

    def test_temporary_files(self) -> None:
        """What interrupted writers left goes when it is old, ours and Go desync's."""
        ours = self.leave_temporary(".tmp-cacnk.12345678900001234000001")
        theirs = self.leave_temporary(".tmp-cacnk.4711")
        young = self.leave_temporary(".tmp-cacnk.4712")
        for path in ours, theirs:
            self.age(path, 1000)
        self.assertEqual(self.files.prune(nothing_kept, 600, dry_run=True).leftovers, 2)
        self.assertEqual(self.files.prune(nothing_kept, 600), Pruned(leftovers=2))
        self.assertTrue(os.path.exists(young))
        self.assertEqual(self.files.prune(nothing_kept, 0), Pruned(leftovers=1))
        self.assertEqual(self.names(), [])

    def test_from_the_future(self) -> None:
        """A chunk whose time lies in the future is young, unless no age is asked for."""
        chunk = sample_chunk()
        self.files.put_chunk(chunk)
        self.age(self.files.path_of(chunk.chunk_id), -5000)
        self.assertEqual(self.files.prune(nothing_kept, 1).spared, 1)
        self.assertEqual(self.files.prune(nothing_kept, 0).removed, 1)

    def prune_meanwhile(self, something: Callable[[], object], result: Pruned) -> None:
        """Do something after a prune has found a chunk old, and before it removes it."""
        calls = 0

        def now() -> float:
            nonlocal calls
            calls += 1
            if calls == 1:
                something()
            return time.time()

        self.assertEqual(self.files.prune(nothing_kept, 600, now=now), result)
        self.assertGreater(calls, 0)

    def old_chunk(self) -> tuple[Chunk, int]:
        chunk = sample_chunk()
        self.files.put_chunk(chunk)
        path = self.files.path_of(chunk.chunk_id)
        self.age(path, 1000)
        return chunk, os.stat(path).st_size

    def test_renewed_meanwhile(self) -> None:
        """A chunk that a writer finds present after the prune found it old is spared."""
        chunk, size = self.old_chunk()
        writer = LocalFiles(self.path)
        self.prune_meanwhile(
            lambda: self.assertTrue(writer.renew(chunk.chunk_id)),
            Pruned(spared=1, spared_bytes=size),
        )
        self.assertEqual(self.files.get(chunk.chunk_id).plain, chunk.plain)
        self.assertEqual(len(self.names()), 1)

    def test_replaced_meanwhile(self) -> None:
        """A chunk that a writer puts again after the prune found it old is spared."""
        chunk, size = self.old_chunk()
        self.prune_meanwhile(
            lambda: LocalFiles(self.path).put_chunk(chunk), Pruned(spared=1, spared_bytes=size)
        )
        self.assertEqual(self.files.get(chunk.chunk_id).plain, chunk.plain)

    def test_removed_meanwhile(self) -> None:
        """A chunk that somebody else removes is no matter."""
        chunk, _ = self.old_chunk()
        self.prune_meanwhile(lambda: LocalFiles(self.path).remove(chunk.chunk_id), Pruned())

    def test_two_prunes(self) -> None:
        """Two prunes may run at the same time, and each chunk is removed once."""
        _, size = self.old_chunk()
        other = LocalFiles(self.path)
        gone = Pruned(removed=1, removed_bytes=size)
        self.prune_meanwhile(
            lambda: self.assertEqual(other.prune(nothing_kept, 600), gone), Pruned()
        )
        self.assertEqual(self.names(), [])

    def test_interrupted(self) -> None:
        """A prune that is interrupted at any step leaves the chunk there or removed."""
        chunk, _ = self.old_chunk()

        def interrupt(*args: object, **more: object) -> None:
            raise KeyboardInterrupt

        for function in "unlink", "rename":
            patched = self.patch(os, function, interrupt)
            self.assertRaises(KeyboardInterrupt, self.files.prune, nothing_kept, 600)
            patched.restore()
            self.assertLessEqual(len(self.names()), 1)
            if function == "unlink":
                self.assertEqual(self.files.get(chunk.chunk_id).plain, chunk.plain)

    def test_reused_by_make(self) -> None:
        """An unreferenced chunk that a make reuses survives a prune before its index is written."""
        reused, unused = sample_chunk(1), sample_chunk(2)
        for chunk in reused, unused:
            self.files.put_chunk(chunk)
            self.age(self.files.path_of(chunk.chunk_id), 5000)
        self.assertTrue(LocalFiles(self.path).renew(reused.chunk_id))
        outcome = self.files.prune(nothing_kept, 600)
        self.assertEqual((outcome.removed, outcome.spared), (1, 1))
        self.assertTrue(self.files.has(reused.chunk_id))
        self.assertFalse(self.files.has(unused.chunk_id))

    def test_stopped(self) -> None:
        """What the caller's function raises ends a prune."""
        for number in range(4):
            self.files.put_chunk(sample_chunk(number))
        seen = []

        def pause(done: int) -> None:
            seen.append(done)
            if done >= 2:
                raise InterruptedError

        self.assertRaises(InterruptedError, self.files.prune, nothing_kept, 0, pause=pause)
        self.assertEqual((seen, len(self.names())), ([0, 1, 2], 2))

    def test_remove(self) -> None:
        """A chunk is removed in the store's own form, and is missing then."""
        chunk = sample_chunk()
        self.files.put_chunk(chunk)
        LocalFiles(self.path, extension="").put_chunk(chunk)
        self.files.remove(chunk.chunk_id)
        self.assertEqual(self.names(), [chunk.chunk_id.hex()])
        self.assertRaises(ChunkMissing, self.files.remove, chunk.chunk_id)

    def test_membership(self) -> None:
        """Which ids are kept is told in any order of asking."""
        chunks = [sample_chunk(number) for number in range(300)]
        extremes = [bytes(32), b"\xff" * 32, b"\x00\x01" + bytes(30), b"\x00\x01" + b"\xff" * 30]
        inside = [*extremes, *(chunk.chunk_id for chunk in chunks[::2])]
        is_kept = membership(ChunkIds.from_iterable(sorted(inside)))
        outside = [bytes([chunk.chunk_id[0] ^ 1]) + chunk.chunk_id[1:] for chunk in chunks]
        for chunk_id in [*inside, *(chunk.chunk_id for chunk in chunks), *outside, *inside]:
            self.assertEqual(is_kept(chunk_id), chunk_id in inside)
        self.assertFalse(membership(ChunkIds(b""))(bytes(32)))
