# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tar streams in (``tar --input-format=tar``) and out (``untar --output-format=gnu-tar``)."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterable

from desync.formats import catar, posix_acl
from desync.formats.catar import Acl, AclEntry, DefaultAcl, Event, Metadata
from desync.formats.catar_decoder import CatarDecoder
from desync.formats.posix_acl import PosixAcl
from desync.trees.restoring import Shortfall
from desync.trees.tar_writing import TarWriter

from . import command_line
from .archives import ALL_FLAGS, TIME, archive, device, directory, fifo, file, socket, symlink
from .command_case import CommandCase, sample

Member = tuple[str, bytes | None, dict[str, object]]


def tar_of(members: Iterable[Member], format: int = tarfile.GNU_FORMAT) -> bytes:
    """
    Make a tar stream with Python's tarfile.

    :param members: of each the name, the content if it is a file, and what else is set.
    """
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as made:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            made.addfile(info, None if content is None else io.BytesIO(content))
    return out.getvalue()


ROOT: Member = ("./", None, {})


def nodes(data: bytes) -> dict[str, tuple[Metadata, object]]:
    """List an archive: the metadata of each node, and the content of a file or target of a link."""
    decoder = CatarDecoder()
    path: list[str] = []
    found: dict[str, tuple[Metadata, object]] = {}
    here = ""
    for event in decoder.feed(data):
        if isinstance(event, catar.Payload):
            metadata, content = found[here]
            assert isinstance(content, bytes)
            found[here] = metadata, content + bytes(event.data)
            continue
        if isinstance(event, catar.EndDirectory):
            path.pop()
            continue
        here = "/".join([*path[1:], os.fsdecode(event.name)])
        assert here not in found, here
        if isinstance(event, catar.Directory):
            path.append(os.fsdecode(event.name))
        content = b"" if isinstance(event, catar.File) else None
        if isinstance(event, catar.Symlink):
            content = event.target
        if isinstance(event, catar.Device):
            content = (event.major, event.minor)
        found[here] = event.metadata, content
    decoder.finish()
    return found


class TarCase(CommandCase):
    """A test case that packs tar streams."""

    def pack(
        self, data: bytes, *flags: str, pipe: bool = False
    ) -> dict[str, tuple[Metadata, object]]:
        """Pack a tar stream, from a file or from stdin, and list the archive."""
        source = "-" if pipe else self.write("in.tar", data)
        args = ["tar", "--input-format=tar", *flags, self.path("x.catar"), source]
        self.run_command(*args, stdin=data)
        return nodes(self.read("x.catar"))

    def refused(self, data: bytes, *parts: str, flags: Iterable[str] = ()) -> None:
        """Make sure that a tar stream is refused from both, and no archive left behind."""
        for source in ("-", self.write("in.tar", data)):
            outcome = command_line.desync(
                "tar", "--input-format=tar", *flags, self.path("bad.catar"), source, stdin=data
            )
            name = "standard input" if source == "-" else source
            self.assert_error(outcome, name, *parts)
            self.assertFalse(os.path.exists(self.path("bad.catar")))


class InputTests(TarCase):
    """Reading tar streams."""

    def test_formats(self) -> None:
        """The formats that there are give the same tree, long names included."""
        members: list[Member] = [
            ROOT,
            ("./d/", None, {"mode": 0o750, "uid": 5, "mtime": 7}),
            ("./d/" + "n" * 120, b"content", {"mode": 0o4755, "gid": 6}),
            ("./l", b"", {"type": tarfile.SYMTYPE, "linkname": "t" * 130}),
            ("./p", b"", {"type": tarfile.FIFOTYPE}),
            ("./z", sample(700_000), {}),
        ]
        for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            for pipe in (False, True):
                with self.subTest(format=format, pipe=pipe):
                    found = self.pack(tar_of(members, format), "--with", "best", pipe=pipe)
                    self.assertEqual(["", "d", "d/" + "n" * 120, "l", "p", "z"], list(found))
                    metadata, content = found["d/" + "n" * 120]
                    self.assertEqual((0o104755, 0, 6, b"content"), (*metadata[:3], content))
                    self.assertEqual((0o40750, 5, 0, 7_000_000_000), found["d"][0][:4])
                    self.assertEqual(b"t" * 130, found["l"][1])
                    self.assertEqual(sample(700_000), found["z"][1])
        short = [each for each in members if len(each[0]) < 100 and each[0] != "./l"]
        self.assertEqual(4, len(self.pack(tar_of(short, tarfile.USTAR_FORMAT), "--with", "best")))

    def test_as_go(self) -> None:
        """Without --with the archive has Go desync's flags, and fifos are left out aloud."""
        data = tar_of([ROOT, ("a", b"1", {}), ("p", b"", {"type": tarfile.FIFOTYPE})])
        path = self.write("in.tar", data)
        outcome = command_line.desync("tar", "--input-format", "tar", self.path("x.catar"), path)
        self.assertEqual((0, "skipping 'p' : unsupported node type\n"), (outcome.code, outcome.err))
        decoder = CatarDecoder()
        decoder.feed(self.read("x.catar"))
        self.assertEqual(catar.GO_FLAGS, decoder.flags)
        self.assertEqual(["", "a"], list(nodes(self.read("x.catar"))))

    def test_root(self) -> None:
        """A stream without its root is refused, with a hint; --tar-add-root adds one."""
        data = tar_of([("a", b"1", {}), ("d/e/f", b"2", {})])
        self.refused(data, "--tar-add-root")
        found = self.pack(data, "--tar-add-root")
        self.assertEqual(["", "a", "d", "d/e", "d/e/f"], list(found))
        self.assertEqual((0o40755, 0, 0, 0), found[""][0][:4])
        rooted = self.pack(tar_of([("./", None, {"mode": 0o700})]), "--tar-add-root")
        self.assertEqual(0o40700, rooted[""][0].mode)
        self.assertEqual([""], list(self.pack(tar_of([]), "--tar-add-root")))
        outcome = command_line.desync("tar", "--tar-add-root", self.path("x"), str(self.folder))
        self.assert_error(outcome, "--tar-add-root works only with --input-format tar")

    def test_time(self) -> None:
        """Times of PAX records are read to the nanosecond, also before 1970, unless --no-time."""
        for text, expected in (
            ("1234567890.123456789", 1_234_567_890_123_456_789),
            ("-1.5", -1_500_000_000),
            ("3", 3_000_000_000),
        ):
            data = tar_of([ROOT, ("a", b"", {"pax_headers": {"mtime": text}})], tarfile.PAX_FORMAT)
            self.assertEqual(expected, self.pack(data)["a"][0].mtime)
            self.assertEqual(0, self.pack(data, "--no-time")["a"][0].mtime)

    def test_xattrs(self) -> None:
        """Extended attributes, lists of access and capabilities are taken from PAX records."""
        value = b"\0\xff\n=".decode("utf-8", "surrogateescape")
        headers = {
            "SCHILY.xattr.user.b": value,
            "LIBARCHIVE.xattr.user.a%20b": "AP8",
            "SCHILY.xattr.security.capability": "caps",
            "SCHILY.acl.access": "user::rwx,user:1000:r-x,group::r--,mask::r-x,other::---",
            "RHT.security.selinux": "a:b:c",
        }
        inner = {
            "SCHILY.acl.default": "u::rwx\nu:no-such-user:rw-:77\ng::r--\no::---\n",
        }
        data = tar_of(
            [ROOT, ("a", b"", {"pax_headers": headers}), ("d", None, {"pax_headers": inner})],
            tarfile.PAX_FORMAT,
        )
        found = self.pack(data, "--with", "best")
        metadata = found["a"][0]
        self.assertEqual(((b"user.a b", b"\0\xff"), (b"user.b", b"\0\xff\n=")), metadata.xattrs)
        self.assertEqual((b"caps", b"a:b:c"), (metadata.fcaps, metadata.selinux))
        self.assertEqual(Acl((AclEntry(1000, 5),), (), 4), metadata.acl)
        self.assertEqual(0o750, stat.S_IMODE(metadata.mode))
        self.assertEqual(DefaultAcl(7, 4, 0, 6, (AclEntry(77, 6),), ()), found["d"][0].default_acl)
        xattrs = dict(self.pack(data)["a"][0].xattrs)
        self.assertEqual(b"caps", xattrs[b"security.capability"])
        acl = posix_acl.decode(xattrs[b"system.posix_acl_access"])
        self.assertEqual(PosixAcl(7, 4, 0, 5, ((1000, 5),)), acl)

    def test_hard_links(self) -> None:
        """Hard links become files: read again from a file, kept aside from a pipe."""
        link: dict[str, object] = {"type": tarfile.LNKTYPE, "linkname": "./d/a"}
        content = sample(300_000)
        data = tar_of(
            [
                ROOT,
                ("./d", None, {}),
                ("./d/a", content, {"mode": 0o600, "mtime": 9}),
                ("./d/b", b"", {**link, "mode": 0o600}),
                ("./d/s", b"", {"type": tarfile.SYMTYPE, "linkname": "a"}),
                ("./e", b"x", {}),
                ("./f", b"", {"type": tarfile.LNKTYPE, "linkname": "d/b"}),
                ("./g", b"", {"type": tarfile.LNKTYPE, "linkname": "d/s"}),
            ]
        )
        for pipe in (False, True):
            with self.subTest(pipe=pipe):
                found = self.pack(data, pipe=pipe)
                for name in ("d/a", "d/b", "f"):
                    self.assertEqual(content, found[name][1], name)
                    self.assertEqual((0o100600, 9_000_000_000), found[name][0][::3][:2], name)
                self.assertEqual(b"a", found["g"][1])

    def test_spool_limit(self) -> None:
        """From a pipe, a hard link to what isn't kept any more is refused, with a hint."""
        link: dict[str, object] = {"type": tarfile.LNKTYPE, "linkname": "a"}
        data = tar_of([ROOT, ("a", bytes(3 << 20), {}), ("b", b"", link)])
        args = ["tar", "--input-format=tar", self.path("x.catar"), "-"]
        outcome = command_line.desync(*args, "--spool-limit=1", stdin=data)
        self.assert_error(outcome, "--hard-dereference", "--spool-limit", "b is a hard link to a")
        self.assertFalse(os.path.exists(self.path("x.catar")))
        self.run_command(*args, "--spool-limit=3", stdin=data)

    def test_dangling_links(self) -> None:
        """A hard link to what never was is refused."""
        link: dict[str, object] = {"type": tarfile.LNKTYPE, "linkname": "a"}
        self.refused(tar_of([ROOT, ("b", b"", link), ("a", b"", {})]), "b is a hard link to a")

    def test_order(self) -> None:
        """The order is kept where it is depth first."""
        members: list[Member] = [ROOT, ("z", b"", {}), ("b/", None, {}), ("a", b"", {})]
        for pipe in (False, True):
            found = self.pack(tar_of(members), pipe=pipe)
            self.assertEqual(["", "z", "b", "a"], list(found))
        found = self.pack(tar_of(members, tarfile.PAX_FORMAT))
        self.assertEqual(["", "z", "b", "a"], list(found))

    def test_breadth(self) -> None:
        """All entries of a directory may come before what is in them, as bsdtar writes them."""
        members: list[Member] = [
            ROOT,
            ("d/", None, {"mode": 0o700}),
            ("e/", None, {}),
            ("empty/", None, {"mode": 0o711}),
            ("f", b"", {}),
            ("e/x/", None, {}),
            ("e/y", b"", {}),
            ("e/x/z", b"", {}),
            ("d/a", b"", {}),
        ]
        expected = ["", "f", "e", "e/y", "e/x", "e/x/z", "d", "d/a", "empty"]
        found = self.pack(tar_of(members, tarfile.USTAR_FORMAT), pipe=True)
        self.assertEqual(expected, list(found))
        for format in (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
            found = self.pack(tar_of(members, format))
            self.assertEqual(expected, list(found))
            modes = [stat.S_IMODE(found[name][0].mode) for name in ("d", "empty")]
            self.assertEqual([0o700, 0o711], modes)

    def test_coming_back(self) -> None:
        """A stream that comes back to a directory is refused."""
        members: list[Member] = [
            ROOT,
            ("d/", None, {}),
            ("d/a", b"", {}),
            ("e/b", b"", {}),
            ("d/c", b"", {}),
        ]
        for format in (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
            self.refused(tar_of(members, format), "comes back to the directory d")

    def test_names(self) -> None:
        """Slashes at the beginning are dropped, as tar does; what leads upwards is refused."""
        found = self.pack(tar_of([ROOT, ("/d/./a", b"", {}), ("d//b", b"", {})]))
        self.assertEqual(["", "d", "d/a", "d/b"], list(found))
        for name in ("../a", "d/../../a", "a/.."):
            self.refused(tar_of([ROOT, (name, b"", {})]), "bad name")

    def test_owners(self) -> None:
        """Names of owners are recorded where the archive has them, and ids shifted."""
        member: Member = ("a", b"", {"uid": 1007, "gid": 1008, "uname": "lisa", "gname": "a:b"})
        metadata = self.pack(tar_of([ROOT, member]), "--with", "best")["a"][0]
        self.assertEqual((1007, 1008, b"lisa", None), (*metadata[1:3], *metadata[5:7]))
        root: Member = ("./", None, {"uid": 1000, "gid": 1000})
        metadata = self.pack(tar_of([root, member]), "--uid-shift=1000")["a"][0]
        self.assertEqual((7, 8), metadata[1:3])

    def test_devices(self) -> None:
        """Devices keep their type and numbers."""
        numbers = {"devmajor": 8, "devminor": 17}
        found = self.pack(
            tar_of(
                [
                    ROOT,
                    ("b", b"", {"type": tarfile.BLKTYPE, **numbers}),
                    ("c", b"", {"type": tarfile.CHRTYPE, **numbers}),
                ]
            )
        )
        self.assertEqual([0o60644, 0o20644], [found[name][0].mode for name in "bc"])
        self.assertEqual((8, 17), found["c"][1])

    def test_index(self) -> None:
        """A tar stream goes into an index and a store too, and comes back."""
        data = tar_of([ROOT, ("a", sample(500_000), {})])
        store = self.store()
        self.run_command(
            "tar", "-i", "-s", store, "--input-format=tar", self.path("x.caidx"), "-", stdin=data
        )
        self.run_command("untar", "-i", "-s", store, self.path("x.caidx"), self.path("out"))
        self.assertEqual(sample(500_000), self.read("out/a"))


class BadInputTests(TarCase):
    """Streams that are none, or broken."""

    def test_truncated(self) -> None:
        """A stream that ends early anywhere is refused, whether in a header or between two."""
        data = tar_of([ROOT, ("a", b"x" * 700, {}), ("b" * 120, b"", {})])
        end = data.rindex(b"b" * 100) // 512 * 512 + 512
        for length in {*range(0, end, 97), *range(0, end + 1, 512)}:
            with self.subTest(length=length):
                self.refused(data[:length], "not a good tar stream")
        self.pack(data[: end + 1024])

    def test_garbage(self) -> None:
        """What isn't a tar stream is refused, also in the middle of one."""
        data = tar_of([ROOT, ("a", b"x" * 700, {}), ("b", b"y", {})])
        for bad in (b"x" * 2000, b"\x1f\x8b" + bytes(1000), data[:512] + b"z" * 512 + data[1024:]):
            self.refused(bad, "not a good tar stream")

    def test_changed_bytes(self) -> None:
        """Whatever bytes of a stream are changed, the command ends in order."""
        import random

        data = tar_of(
            [
                ROOT,
                ("a", b"x" * 700, {"pax_headers": {"SCHILY.xattr.user.a": "b", "mtime": "1.5"}}),
                ("l", b"", {"type": tarfile.LNKTYPE, "linkname": "a"}),
                ("s" * 120, b"y", {}),
            ],
            tarfile.PAX_FORMAT,
        )
        generator = random.Random(7)
        for _ in range(300):
            changed = bytearray(data)
            for _ in range(generator.choice((1, 2, 8))):
                at = generator.randrange(len(data))
                changed[at] = generator.choice((0, 0xFF, 0x37, generator.randrange(256)))
            block = generator.randrange(0, len(data), 512)
            changed[block + 148 : block + 156] = checksum(bytes(changed[block : block + 512]))
            outcome = command_line.desync(
                "tar", "--input-format=tar", self.path("x.catar"), "-", stdin=bytes(changed)
            )
            self.assertNotIn("internal error", outcome.err)
            self.assertIn(outcome.code, (0, 1))

    def test_sizes(self) -> None:
        """Sizes that no stream has are refused without a byte allocated for them."""
        for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE):
            info = tarfile.TarInfo("x")
            info.type, info.size = kind, 1 << 60
            header = info.tobuf(tarfile.GNU_FORMAT)
            self.refused(tar_of([ROOT])[:512] + header + bytes(2048), "not a good tar stream")

    def test_depth(self) -> None:
        """A tree that is too deep for an archive is refused."""
        data = tar_of([ROOT, ("/".join("d" * 70), b"", {})])
        self.refused(data, "deeper than 64 levels")


def checksum(block: bytes) -> bytes:
    """Give the checksum field that fits a header."""
    total = sum(block[:148]) + sum(block[156:]) + 8 * 32
    return b"%06o\0 " % total


class OutputTests(CommandCase):
    """Writing tar streams; Python's tarfile reads them."""

    def members(
        self, events: Iterable[Event], *, pax: bool = False
    ) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
        """Write an archive as a tar stream and read it."""
        out = io.BytesIO()
        self.lines: list[str] = []
        writer = TarWriter(out.write, Shortfall(self.lines.append), pax=pax)
        decoder = CatarDecoder()
        writer.take(decoder.feed(archive(events)), decoder.flags)
        writer.finish()
        self.assertEqual(0, len(out.getvalue()) % 10240)
        out.seek(0)
        found = {}
        with tarfile.open(fileobj=out, encoding="utf-8") as stream:
            for member in stream:
                content = stream.extractfile(member) if member.isreg() else None
                found[member.name] = member, b"" if content is None else content.read()
        return found

    def test_nodes(self) -> None:
        """Nodes of all types have their type, mode, owner and time."""
        found = self.members(
            [
                *device(b"b", stat.S_IFBLK, 8, 1, 0o660),
                *device(b"c", stat.S_IFCHR, 5, 1, 0o620),
                *directory(b"d", file(b"f", b"x" * 600, 0o6755, uid=7, gid=8), mode=0o1777),
                *symlink(b"l", b"d/f"),
                *fifo(b"p", 0o600),
            ]
        )
        kinds = {name: (member.type, member.mode) for name, (member, _) in found.items()}
        self.assertEqual(
            {
                ".": (tarfile.DIRTYPE, 0o755),
                "b": (tarfile.BLKTYPE, 0o660),
                "c": (tarfile.CHRTYPE, 0o620),
                "d": (tarfile.DIRTYPE, 0o1777),
                "d/f": (tarfile.REGTYPE, 0o6755),
                "l": (tarfile.SYMTYPE, 0o777),
                "p": (tarfile.FIFOTYPE, 0o600),
            },
            kinds,
        )
        member, content = found["d/f"]
        self.assertEqual((7, 8, TIME // 10**9), (member.uid, member.gid, member.mtime))
        self.assertEqual(b"x" * 600, content)
        self.assertEqual("d/f", found["l"][0].linkname)
        self.assertEqual((5, 1), (found["c"][0].devmajor, found["c"][0].devminor))

    def test_long(self) -> None:
        """Long names, targets, numbers and owners' names are kept, with and without PAX headers."""
        name, target = b"n" * 255, b"t/" * 1000
        for pax in (False, True):
            for xattrs in ((), ((b"user.a", b"\0\xff\n"),)):
                with self.subTest(pax=pax, xattrs=xattrs):
                    deep = directory(
                        name,
                        file(name, b"1", uid=1 << 31, gid=3, user=b"u" * 60, xattrs=xattrs),
                        xattrs=xattrs,
                    )
                    found = self.members([*deep, *symlink(b"z" * 99, target)], pax=pax)
                    path = f"{name.decode()}/{name.decode()}"
                    member, content = found[path]
                    self.assertEqual((b"1", 1 << 31, 3), (content, member.uid, member.gid))
                    linkname = found["z" * 99][0].linkname
                    self.assertEqual(target.decode().rstrip("/"), linkname.rstrip("/"))
                    self.assertIn(name.decode(), found)
                    if xattrs:
                        self.assertEqual("u" * 60, member.uname)
                        value = member.pax_headers["SCHILY.xattr.user.a"]
                        self.assertEqual(b"\0\xff\n", value.encode("utf-8", "surrogateescape"))

    def test_times(self) -> None:
        """Times have whole seconds in the GNU format, and nanoseconds in PAX's."""
        events = [*file(b"a", mtime=1_500_000_000), *file(b"b", mtime=-1_500_000_000)]
        found = self.members(events)
        self.assertEqual([1, -2], [found[name][0].mtime for name in "ab"])
        found = self.members(events, pax=True)
        self.assertEqual([1.5, -1.5], [found[name][0].mtime for name in "ab"])

    def test_sockets(self) -> None:
        """A socket is left out aloud."""
        self.assertEqual(["."], list(self.members(socket(b"s"))))
        self.assertEqual(["s: left out: tar has no sockets"], self.lines)

    def test_round_trip(self) -> None:
        """What is written as a tar stream is read as the same archive."""
        acl = Acl((AclEntry(1000, 6),), (AclEntry(50, 4),), 5)
        default = DefaultAcl(7, 5, 1, 7, (AclEntry(1000, 7),))
        root = directory(
            b"d",
            [
                *file(b"f", b"x" * 513, 0o664, acl=acl, fcaps=b"\1\0\0\2" + bytes(16)),
                *file(b"\xff\xfe", b"", xattrs=((b"user.x", b"\0"), (b"user.y", b""))),
                *symlink(b"l", b"\xff"),
                *fifo(b"p"),
            ],
            default_acl=default,
            selinux=b"a:b:c:d",
        )
        data = archive(root, ALL_FLAGS)
        path = self.write("x.catar", data)
        outcome = self.run_command("untar", "--output-format=pax", path, "-")
        args = ["tar", "--input-format=tar", "--with=best", "-", "-"]
        self.assertEqual(data, self.run_command(*args, stdin=outcome.out).out)

    def test_command(self) -> None:
        """The command writes a file or stdout, the same; a broken archive leaves no file."""
        path = self.write("x.catar", archive(file(b"a", b"1")))
        flag = "--output-format=gnu-tar"
        self.run_command("untar", flag, path, self.path("x.tar"))
        self.assertEqual(self.read("x.tar"), self.run_command("untar", flag, path, "-").out)
        self.write("x.catar", self.read("x.catar")[:-1])
        outcome = command_line.desync("untar", flag, path, self.path("y.tar"))
        self.assert_error(outcome, path, "truncated")
        self.assertFalse(os.path.exists(self.path("y.tar")))
        outcome = command_line.desync("untar", flag, "--delete", path, self.path("y.tar"))
        self.assert_error(outcome, "--delete")
