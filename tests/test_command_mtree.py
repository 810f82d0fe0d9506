# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for the commands that show what is in an archive: ``mtree``, ``list`` and ``digest``."""

from __future__ import annotations

import hashlib
import os
import stat

from desync.chunking.digests import SHA256, SHA512_256
from desync.formats import catar
from desync.formats.catar import (
    Device,
    Directory,
    EndDirectory,
    Event,
    Fifo,
    File,
    Metadata,
    Payload,
)
from desync.formats.catar_encoder import CatarEncoder
from desync.formats.listing import CasyncMtreeLines, MtreeLines

from .command_line import desync
from .test_catar import EVERYTHING, encode, rich_tree
from .test_command_tar import TarCase

HELLO = hashlib.new("sha512_256", b"hello\n").hexdigest()


class MtreeTests(TarCase):
    """What mtree prints."""

    def setUp(self) -> None:
        super().setUp()
        os.utime(self.tree / "a", ns=(0, 1564850846_071751951))
        os.utime(self.tree / "b" / "l", ns=(0, 5), follow_symlinks=False)
        os.utime(self.tree / "b", ns=(0, 1_000_000_000))
        os.utime(self.tree, ns=(0, 0))
        found = os.stat(self.tree / "a")
        owner = f"uid={found.st_uid} gid={found.st_gid}"
        self.expected = (
            "#mtree v1.0\n"
            f". type=dir mode=0755 {owner} time=0.000000000\n"
            f"a type=file mode=0644 {owner} size=6 time=1564850846.071751951"
            f" sha512256digest={HELLO}\n"
            f"b type=dir mode=0755 {owner} time=1.000000000\n"
            f"b/l type=link mode=0777 target=a {owner} time=0.000000005\n"
        ).encode()

    def test_all_sources(self) -> None:
        """A directory, its archive, standard input and an index with its store give the same."""
        archive = self.tar()
        store = self.store()
        self.run_command("tar", "-i", "-s", store, self.path("o.caidx"), str(self.tree))
        for args in (
            (str(self.tree),),
            (self.path("o.catar"),),
            ("-i", "-s", store, self.path("o.caidx")),
            ("-s", store, self.path("o.caidx")),
        ):
            self.assertEqual(self.run_command("mtree", *args).out, self.expected, args)
        self.assertEqual(self.run_command("mtree", "-", stdin=archive).out, self.expected)

    def test_digest(self) -> None:
        """--digest says which digest of the content is printed."""
        out = self.run_command("mtree", "--digest", "sha256", str(self.tree)).out
        digest = hashlib.sha256(b"hello\n").hexdigest().encode()
        self.assertIn(b" sha256digest=" + digest + b"\n", out)

    def test_names(self) -> None:
        """Nothing in a name can be taken for something else in a line."""
        name = b" \n\\#=\xff\x7f"
        events: list[Event] = [
            Directory(b"", Metadata(0o40755)),
            Fifo(name, Metadata(0o10644)),
            Device(b"c", Metadata(0o20600), 1, 3),
            EndDirectory(),
        ]
        lines: list[bytes] = []
        MtreeLines(lines.append, SHA512_256).take(events, catar.GO_FLAGS)
        self.assertEqual(
            lines[2:],
            [
                b"\\040\\012\\134\\043=\\377\\177 type=fifo mode=0644 uid=0 gid=0"
                b" time=0.000000000\n",
                b"c type=char mode=0600 device=linux,1,3 uid=0 gid=0 time=0.000000000\n",
            ],
        )

    def test_casync(self) -> None:
        """--format=casync prints what the archive records, owners' names and attributes too."""
        lines: list[bytes] = []
        CasyncMtreeLines(lines.append, lambda flags: SHA256).take(rich_tree(), EVERYTHING)
        empty = hashlib.sha256(b"").hexdigest()
        by_name = {line.split()[0]: line.decode() for line in lines}
        self.assertEqual(
            by_name[b"nothing"],
            "nothing type=file mode=0640 size=0 uid=1 gid=2"
            " flags=nohidden,nosystem,noarchive,nosappend,nosimmutable"
            f" time=18446744072.209551616 sha256digest={empty}\n",
        )
        self.assertIn(" uname=me gname=us ", by_name[b"."])
        self.assertIn(" device=linux,4095,1048575 uid=0 gid=6 uname=root ", by_name[b"block"])
        self.assertIn(" flags=hidden,system,archive,sappend,simmutable ", by_name[b"symlink"])

    def test_content_in_pieces(self) -> None:
        """A digest is that of all pieces of the content."""
        events: list[Event] = [
            Directory(b"", Metadata(0o40755)),
            File(b"f", Metadata(0o100644), 6),
            Payload(b"hel"),
            Payload(memoryview(b"lo\n")),
            EndDirectory(),
        ]
        lines: list[bytes] = []
        MtreeLines(lines.append, SHA512_256).take(events, catar.GO_FLAGS)
        self.assertTrue(lines[-1].endswith(HELLO.encode() + b"\n"), lines)

    def test_refused(self) -> None:
        """What doesn't go together is refused, and so is what is no archive."""
        self.tar()
        store = self.store()
        archive = self.path("o.catar")
        for args, why in (
            (("-i", "-s", store, str(self.tree)), "-i can't be used with input directory"),
            (("-i", archive), "-i requires at least one store (-s <location>)"),
            (("-s", store, archive), "--store and --cache are for indexes"),
            (("--with=unix", archive), "of a directory alone"),
            (("-i", "-s", store, archive), "not an index file"),
            ((self.path("missing"),), "No such file"),
            ((str(self.tree / "a"),), "truncated"),
        ):
            for command in ("mtree", "list"):
                outcome = desync(command, *args)
                self.assertEqual(outcome.code, 1, args)
                self.assertIn(why, outcome.err)

    def test_truncated(self) -> None:
        """Of an archive that was cut off what is there is printed, and then an error."""
        data = self.tar()
        self.write("cut.catar", data[:-100])
        outcome = desync("mtree", self.path("cut.catar"))
        self.assertEqual(outcome.code, 1)
        self.assertIn(b"\na type=file", outcome.out)
        self.assertIn("cut.catar: truncated", outcome.err)


class ListTests(TarCase):
    """What list prints."""

    def test_list(self) -> None:
        """A line has the type and permissions as ls shows them, and the path."""
        os.mkfifo(self.tree / "p q")
        (self.tree / "p q").chmod(0o4640)
        (self.tree / "a").chmod(0o6751)
        expected = b"drwxr-xr-x .\n-rwsr-s--x a\ndrwxr-xr-x b\nlrwxrwxrwx b/l\nprwSr----- p\\040q\n"
        self.assertEqual(self.run_command("list", str(self.tree)).out, expected)
        self.tar("--with=best")
        self.assertEqual(self.run_command("list", self.path("o.catar")).out, expected)

    def test_every_type(self) -> None:
        """Every type of node has its letter."""
        self.write("o.catar", encode(rich_tree()))
        out = self.run_command("list", self.path("o.catar")).out
        self.assertEqual(bytes(line[0] for line in out.splitlines()), b"dbcdp--sl")


class DigestTests(TarCase):
    """What digest prints."""

    def digest_of(self, *args: str, stdin: bytes = b"") -> str:
        """Run the command and give what it prints."""
        return self.run_command("digest", *args, stdin=stdin).out.decode().strip()

    def test_archives(self) -> None:
        """An archive, its index, and the directory it is made of have the same digest."""
        data = self.tar("--with=best")
        expected = hashlib.new("sha512_256", data).hexdigest()
        store = self.store()
        target = self.path("o.caidx")
        self.run_command("tar", "-i", "--with=best", "-s", store, target, str(self.tree))
        for args in ((str(self.tree),), (self.path("o.catar"),), ("-s", store, target)):
            self.assertEqual(self.digest_of(*args), expected, args)
        self.assertEqual(self.digest_of("-", stdin=data), expected)
        # It says itself that it is the other algorithm's.
        data = self.tar("--with=best", "--digest=sha256")
        self.assertEqual(self.digest_of(self.path("o.catar")), hashlib.sha256(data).hexdigest())

    def test_files(self) -> None:
        """Any other file has the digest that --digest says, however short it is."""
        for content in (b"", b"x", bytes(64), bytes(3 << 20)):
            path = self.write("file", content)
            expected = hashlib.new("sha512_256", content).hexdigest()
            self.assertEqual(self.digest_of(path), expected)
            expected = hashlib.sha256(content).hexdigest()
            self.assertEqual(self.digest_of("--digest=sha256", path), expected)


class EncoderForListingTests(TarCase):
    """What is listed of a directory besides what would be packed."""

    def test_fifos(self) -> None:
        """Go desync's archives lack fifos, but mtree of a directory shows them."""
        os.mkfifo(self.tree / "fifo")
        self.assertIn(b"\nfifo type=fifo ", self.run_command("mtree", str(self.tree)).out)
        encoder = CatarEncoder(catar.GO_FLAGS, as_go=True, with_fifos=True)
        self.assertTrue(encoder.records(stat.S_IFIFO))
