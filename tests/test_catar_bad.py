# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Bad archives: each is refused with one error that says why, and casync refuses them too."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from desync.errors import InvalidArchive, NotArchivable
from desync.formats import catar
from desync.formats import flags as feature
from desync.formats.catar import (
    AclEntry,
    DefaultAcl,
    Device,
    Directory,
    EndDirectory,
    Event,
    File,
    Metadata,
    Payload,
    Symlink,
)
from desync.formats.catar_decoder import CatarDecoder
from desync.formats.catar_encoder import CatarEncoder

from . import fuzz_archives
from .bad_archives import BAD_ARCHIVES, GOOD, TAKEN, entry, name, of, record, xattr
from .peers import peer
from .test_catar import decode, encode, rich_tree


class BadArchiveTests(SynchronousTestCase):
    """What the decoder makes of them."""

    def test_refused(self) -> None:
        """Each is refused, as a whole and byte by byte, with the same error."""
        for bad in BAD_ARCHIVES:
            with self.assertRaises(InvalidArchive) as whole:
                decode(bad.data)
            self.assertIn(bad.why, str(whole.exception), bad.name)
            with self.assertRaises(InvalidArchive) as split:
                decode(bad.data, range(len(bad.data)))
            self.assertEqual(str(split.exception), str(whole.exception), bad.name)

    def test_truncated(self) -> None:
        """An archive that was cut off anywhere is refused, saying how much there was."""
        for data in (GOOD, encode(rich_tree())):
            for size in range(len(data)):
                with self.assertRaises(InvalidArchive) as caught:
                    decode(data[:size])
                expected = f"it has no end after {size} bytes" if size else "it is empty"
                self.assertIn(expected, str(caught.exception))

    def test_bad_and_truncated(self) -> None:
        """Bad archives that were cut off anywhere are refused, with no other kind of error."""
        for bad in BAD_ARCHIVES:
            if len(bad.data) < 2000:
                for size in range(len(bad.data)):
                    with self.assertRaises(InvalidArchive):
                        decode(bad.data[:size])

    def test_taken(self) -> None:
        """Odd ones are taken."""
        for what, data in TAKEN.items():
            self.assertGreaterEqual(len(decode(data)), 2, what)

    def test_events_before_the_error(self) -> None:
        """What comes before the bad place is handed out, and the error after it, each time."""
        decoder = CatarDecoder("x")
        self.assertEqual(len(decoder.feed(GOOD[:-30] + bytes(30))), 5)
        for call in (lambda: decoder.feed(b""), decoder.finish):
            with self.assertRaises(InvalidArchive) as caught:
                call()
        self.assertIn("x: GOODBYE with a bad tail (at byte", str(caught.exception))

    def test_names_of_owners(self) -> None:
        """Owners may have names that casync writes but doesn't read."""
        for text in (b"a.b", b"host$", b"DOM\\user", b"1000", b"-", b"\xc3\xa4"):
            data = of(entry(0o100644, uid=1), record(catar.USER, text + b"\0"), PAYLOAD)
            file = decode(data)[1]
            assert isinstance(file, File)
            self.assertEqual(file.metadata.user, text)

    def test_microseconds(self) -> None:
        """Times are multiples of a microsecond where that is recorded, as casync writes them."""
        flags = feature.WITH_USEC_TIME
        data = of(entry(0o100666, flags=flags, mtime=5000), PAYLOAD, flags=flags, mode=0o40777)
        file = decode(data)[1]
        assert isinstance(file, File)
        self.assertEqual(file.metadata.mtime, 5000)

    def test_memory(self) -> None:
        """Extended attributes without end are refused before they take much memory."""
        data = entry(0o40755) + name(b"x") + entry(0o100644)
        decoder = CatarDecoder()
        decoder.feed(data)
        with self.assertRaises(InvalidArchive):
            for number in range(1 << 20):
                decoder.feed(xattr(b"user.%06d" % number, bytes(60_000)))

    def test_fuzz(self) -> None:
        """Damaged archives give events or one error, the same however they are split."""
        fuzz_archives.run(seconds=3, seed=0)


PAYLOAD = record(catar.PAYLOAD)


class EncoderTests(SynchronousTestCase):
    """What can't be written."""

    def setUp(self) -> None:
        self.encoder = CatarEncoder(feature.normalize(feature.ALL_WITH))
        self.encoder.directory(b"", Metadata(0o40755))

    def test_not_archivable(self) -> None:
        """Nodes that no archive can hold are refused."""
        file = Metadata(0o100644)
        events: list[Event] = [
            File(b"", file, 0),
            File(b"..", file, 0),
            File(b"a/b", file, 0),
            File(b"n" * 256, file, 0),
            File(b"a", file._replace(uid=65535), 0),
            File(b"a", file._replace(gid=1 << 32), 0),
            File(b"a", file._replace(mtime=(1 << 64) - 1), 0),
            File(b"a", file._replace(mtime=-1), 0),
            File(b"a", file._replace(user=b"u" * 300), 0),
            File(b"a", file._replace(xattrs=((b"user.a", bytes(70000)),)), 0),
            File(b"a", file._replace(acl=catar.Acl((AclEntry(1, 7),))), 0),
            File(b"a", file._replace(selinux=b"l" * 5000), 0),
            File(b"a", file._replace(fcaps=bytes(70000)), 0),
            Directory(
                b"a",
                Metadata(0o40755, default_acl=DefaultAcl(7, 7, 7, None, (AclEntry(1, 7),))),
            ),
            Symlink(b"a", Metadata(0o120777), b""),
            Symlink(b"a", Metadata(0o120777), b"t" * 5000),
            Device(b"a", Metadata(0o20644), 1 << 12, 0),
        ]
        for event in events:
            self.setUp()
            with self.assertRaises(NotArchivable, msg=str(event)):
                self.encoder.encode(event)

    def test_out_of_turn(self) -> None:
        """What would make a bad archive is a mistake of the caller's."""
        directory, file = Metadata(0o40755), Metadata(0o100644)
        sequences: list[list[Event]] = [
            [Directory(b"", file)],
            [File(b"a", directory, 0)],
            [Payload(b"x")],
            [File(b"a", file, 2), Payload(b"xyz")],
            [File(b"a", file, 2), EndDirectory()],
            [File(b"a", file, 2), Payload(b"x"), File(b"b", file, 0)],
            [EndDirectory(), EndDirectory()],
            [EndDirectory(), File(b"a", file, 0)],
            [Symlink(b"a", file, b"t")],
        ]
        for sequence in sequences:
            self.setUp()
            with self.assertRaises(ValueError, msg=str(sequence)):
                for event in sequence:
                    self.encoder.encode(event)
        with self.assertRaises(ValueError):
            CatarEncoder(feature.ALL_WITH)
        with self.assertRaises(ValueError):
            CatarEncoder(0).directory(b"name", directory)
        with self.assertRaises(ValueError):
            CatarEncoder(0).end_directory()
        encoder = CatarEncoder(0)
        encoder.directory(b"", directory)
        with self.assertRaises(ValueError):
            encoder.symlink(b"a", Metadata(0o120777), b"t")

    def test_depth(self) -> None:
        """64 levels can be written, 65 can't."""
        for _ in range(63):
            self.encoder.directory(b"d", Metadata(0o40755))
        with self.assertRaises(NotArchivable):
            self.encoder.directory(b"d", Metadata(0o40755))


class CasyncJudgesTests(SynchronousTestCase):
    """The real casync on the same archives."""

    def test_same(self) -> None:
        """It refuses what we refuse, and takes what we take."""
        program = peer("casync")
        folder = Path(tempfile.mkdtemp(prefix="desync-test-"))
        self.addCleanup(subprocess.run, ["rm", "-rf", str(folder)], check=True)
        path = folder / "x.catar"

        def judged(data: bytes) -> bool:
            path.write_bytes(data)
            try:
                done = subprocess.run(
                    [program, "list", str(path)], capture_output=True, timeout=3, check=False
                )
            except subprocess.TimeoutExpired:
                return False  # it waits for more, for ever
            return done.returncode == 0

        differ = [bad.name for bad in BAD_ARCHIVES if judged(bad.data) and not bad.ours_alone]
        self.assertEqual(differ, [])
        self.assertEqual([what for what, data in TAKEN.items() if not judged(data)], [])
