# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for the commands config, list-chunks, manpage and version."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from desync import __version__
from desync.chunking.digests import SHA256, SHA512_256, Digest
from desync.chunking.kernels import describe
from desync.chunking.sizes import ChunkSizes
from desync.cli import table
from desync.cli.flags import GLOBAL_FLAGS
from desync.formats.index import IndexBuilder

from .command_line import command, desync, desync_process, process_environ


def _ids(count: int) -> list[bytes]:
    """Make some ids, each third one the same."""
    return [hashlib.sha256(b"%d" % (n if n % 3 else 0)).digest() for n in range(count)]


class ListChunksTests(SynchronousTestCase):
    """desync list-chunks."""

    def index(self, count: int, digest: Digest = SHA512_256) -> str:
        """Write an index of so many chunks of 100 bytes."""
        sizes = ChunkSizes(64, 256, 1024)
        builder = IndexBuilder(sizes, digest)
        for chunk_id in _ids(count):
            builder.append(100, chunk_id)
        path: str = self.mktemp()
        Path(path).write_bytes(builder.finish(count * 100).to_bytes())
        return path

    def test_order_and_duplicates(self) -> None:
        """Ids are printed in the order of the blob, as often as they occur, any number of them."""
        for count in (0, 1, 7, 4096, 4097, 10_000):
            outcome = desync("list-chunks", self.index(count))
            self.assertEqual((outcome.code, outcome.err), (0, ""))
            self.assertEqual(outcome.text.splitlines(), [each.hex() for each in _ids(count)])

    def test_stdin(self) -> None:
        """- reads the index from stdin."""
        data = Path(self.index(7)).read_bytes()
        self.assertEqual(len(desync("list-chunks", "-", stdin=data).text.splitlines()), 7)
        outcome = desync_process("list-chunks", "-", stdin=data)
        self.assertEqual(len(outcome.text.splitlines()), 7)

    def test_no_index(self) -> None:
        """What isn't an index is refused, from stdin as soon as that shows."""
        for data in (b"", b"x", b"x" * 200, Path(self.index(7)).read_bytes()[:-1]):
            outcome = desync("list-chunks", "-", stdin=data)
            self.assertEqual((outcome.code, outcome.out), (1, b""))
            self.assertTrue(outcome.err.startswith("Error: standard input: "), outcome.err)
            path = self.mktemp()
            Path(path).write_bytes(data)
            outcome = desync("list-chunks", path)
            self.assertEqual((outcome.code, outcome.out), (1, b""))
            self.assertTrue(outcome.err.startswith(f"Error: {path}: "), outcome.err)

    def test_endless_stdin(self) -> None:
        """Input without an end is refused as well."""
        if not os.path.exists("/dev/zero"):
            self.skipTest("there is no /dev/zero")
        done = subprocess.run(
            ["sh", "-c", '"$@" < /dev/zero', "sh", *command("list-chunks", "-")],
            capture_output=True,
            env=process_environ(),
            timeout=60,
            check=False,
        )
        self.assertEqual(
            (done.returncode, done.stderr), (1, b"Error: standard input: not an index file\n")
        )

    def test_missing(self) -> None:
        """An index that isn't there is named."""
        path = self.mktemp()
        outcome = desync("list-chunks", path)
        self.assertEqual(outcome.err, f"Error: {path}: No such file or directory\n")

    def test_other_digest(self) -> None:
        """An index of the other digest needs --digest."""
        path = self.index(1, SHA256)
        self.assertEqual(
            desync("list-chunks", path).err, f"Error: {path}: index file uses SHA256\n"
        )
        self.assertEqual(desync("list-chunks", path, "--digest=sha256").code, 0)
        self.assertEqual(desync("--digest=sha256", "list-chunks", self.index(1)).code, 1)

    def test_remote(self) -> None:
        """An index where there can't be any is refused, without showing secrets."""
        outcome = desync("list-chunks", "oci+https://u:hunter2@host/x.caibx")
        self.assertEqual(
            outcome.err,
            "Error: oci+https://u:***@host: "
            "indexes over oci+https are not supported by this version\n",
        )

    def test_configured_encryption(self) -> None:
        """A configuration that wants an index's store encrypted is refused."""
        config = self.mktemp()
        Path(config).write_text('{"store-options": {".": {"encryption": true}}}')
        outcome = desync("--config", config, "list-chunks", "-", stdin=b"")
        self.assertEqual(
            outcome.err,
            'Error: store options for "-": encryption is not supported by index stores\n',
        )


class ConfigTests(SynchronousTestCase):
    """desync config."""

    def test_defaults(self) -> None:
        """Without a configuration, the empty one is shown."""
        outcome = desync("config")
        expected = {"s3-credentials": None, "oci-credentials": None, "store-options": None}
        self.assertEqual((outcome.code, json.loads(outcome.out)), (0, expected))

    def test_secrets(self) -> None:
        """Secrets are hidden unless asked for."""
        path = self.mktemp()
        Path(path).write_text('{"store-options": {"http://h/": {"http-auth": "hunter2"}}}')
        for args in (["--config", path, "config"], ["config", "--config", path]):
            self.assertNotIn("hunter2", desync(*args).text)
            self.assertIn("hunter2", desync(*args, "--show-secrets").text)

    def test_missing_file(self) -> None:
        """A file that's named and isn't there can't be shown."""
        path = self.mktemp()
        outcome = desync("--config", path, "config")
        self.assertEqual(outcome.err, f"Error: {path}: No such file or directory\n")
        self.assertEqual((outcome.code, outcome.out), (1, b""))

    def test_create(self) -> None:
        """-w creates the file that --config names, or the default one, and says where."""
        path = self.mktemp()
        outcome = desync("--config", path, "config", "-w")
        self.assertEqual((outcome.code, outcome.text), (0, f"Writing config to {path}\n\n"))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        home = self.mktemp()
        desync("config", "--write", environ={"HOME": home})
        text = Path(home, ".config/desync/config.json").read_text()
        self.assertEqual(text, Path(path).read_text())

    def test_rewrite(self) -> None:
        """-w keeps what is there, secrets and explicit zeros included."""
        path = self.mktemp()
        entry = {"http-auth": "hunter2", "error-retry": 0}
        Path(path).write_text(json.dumps({"store-options": {"http://h/": entry}}))
        desync("--config", path, "config", "-w")
        written = json.loads(Path(path).read_text())["store-options"]["http://h/"]
        self.assertEqual(written["http-auth"], "hunter2")
        self.assertEqual(written["error-retry"], 0)

    def test_broken_file(self) -> None:
        """-w doesn't overwrite a file that it can't read."""
        path = self.mktemp()
        Path(path).write_text('{"store-options": {"/a": {"uncompressed": true},}}')
        outcome = desync("--config", path, "config", "-w")
        self.assertEqual(outcome.code, 1)
        self.assertTrue(outcome.err.startswith(f"Error: reading {path}: "), outcome.err)
        self.assertIn("uncompressed", Path(path).read_text())

    def test_no_home(self) -> None:
        """Without a home directory there's nowhere to write to."""
        outcome = desync("config", "-w", environ={})
        self.assertEqual(outcome.err, "Error: HOME is not set; name a file with --config\n")
        self.assertEqual(desync("config", environ={}).code, 0)


class VersionTests(SynchronousTestCase):
    """desync version."""

    def test_version(self) -> None:
        """--version and version print the version, and which kernels do the work."""
        text = desync("--version").text
        self.assertEqual(text, desync("version").text)
        self.assertEqual(text.splitlines()[0], f"desync {__version__}")
        self.assertIn(describe(), text)


class ManpageTests(SynchronousTestCase):
    """desync manpage."""

    def test_pages(self) -> None:
        """There's a page for the program and one for each command, with all its flags."""
        directory = self.mktemp()
        os.mkdir(directory)
        args = ["--section=1", "--title", 'a "b"', "--source=s", "--manual=m"]
        outcome = desync("manpage", directory, *args)
        self.assertEqual((outcome.code, outcome.err), (0, ""))
        names = {f"desync-{name}.1" for name in table.available()} | {"desync.1"}
        self.assertEqual(set(os.listdir(directory)), names)
        for name in names:
            page = Path(directory, name).read_text()
            self.assertTrue(page.startswith(r'.TH "A \(dqB\(dq" "1" "" "s" "m"'), page[:80])
            for flag in GLOBAL_FLAGS:
                self.assertIn(flag.long.replace("-", r"\-"), page)

    def test_correct_roff(self) -> None:
        """The pages are formatted without a warning."""
        groff = shutil.which("groff")
        if groff is None:
            self.skipTest("there is no groff")
        directory = self.mktemp()
        os.mkdir(directory)
        desync("manpage", directory)
        for name in os.listdir(directory):
            path = os.path.join(directory, name)
            done = subprocess.run(
                [groff, "-man", "-Tutf8", "-ww", path], capture_output=True, timeout=60, check=True
            )
            self.assertEqual(done.stderr, b"", name)
            self.assertIn(b"desync", done.stdout)

    def test_no_directory(self) -> None:
        """The directory has to exist."""
        directory = self.mktemp()
        outcome = desync("manpage", directory)
        self.assertEqual(outcome.err, f"Error: {directory}/desync.3: No such file or directory\n")
