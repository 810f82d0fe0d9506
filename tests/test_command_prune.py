# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync prune`` on local stores."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from desync.cli import prune as prune_module
from desync.cli.indexes import read_index

from . import bad_indexes
from .command_case import CommandCase, as_nobody, sample
from .command_line import Outcome, desync, desync_process


class PruneTests(CommandCase):
    """A store with the chunks of three files, all of them old."""

    def setUp(self) -> None:
        super().setUp()
        self.data = {name: sample(50_000, number) for number, name in enumerate("abc")}
        for name, data in self.data.items():
            self.sample_store(data, f"{name}.caibx")
        self.ids = {name: set(self.index(f"{name}.caibx").ids) for name in "abc"}
        self.all = set().union(*self.ids.values())
        for file in self.files().all_files():
            os.utime(file.path, (1000, 1000))
        self.arguments = ("-s", self.path("store"), self.path("a.caibx"), self.path("b.caibx"))

    def stored(self) -> set[bytes]:
        """List the chunks in the store."""
        return {file.chunk_id for file in self.files().all_files()}

    def size_of(self, ids: set[bytes]) -> int:
        """Add up what chunks take in the store."""
        return sum(os.stat(self.files().path_of(chunk_id)).st_size for chunk_id in ids)

    def prune(self, *args: str, **more: Any) -> Outcome:
        """Prune the store of all but the first two files."""
        return desync("prune", *args, *self.arguments, **more)

    def test_removes_the_rest(self) -> None:
        """What no index names is removed, and said; everything else is left as it was."""
        kept = self.ids["a"] | self.ids["b"]
        gone = self.all - kept
        freed = self.size_of(gone)
        times = {i: os.stat(self.files().path_of(i)).st_mtime for i in kept}
        outcome = self.prune("--yes")
        said = f"{len(gone)} chunks removed, {freed} bytes; {len(kept)} kept\n"
        self.assertEqual(outcome, (0, b"", said))
        self.assertEqual(self.stored(), kept)
        self.assertEqual(times, {i: os.stat(self.files().path_of(i)).st_mtime for i in kept})
        for name in "ab":
            arguments = ("-s", self.path("store"), self.path(f"{name}.caibx"))
            self.assertEqual(self.run_command("cat", *arguments).out, self.data[name])

    def test_process(self) -> None:
        """It works as a process, quietly if that is wanted, with an index from stdin."""
        arguments = ("--quiet", "-y", "-s", self.path("store"), "-", self.path("b.caibx"))
        outcome = desync_process("prune", *arguments, stdin=self.read("a.caibx"))
        self.assertEqual(outcome, (0, b"", ""))
        self.assertEqual(self.stored(), self.ids["a"] | self.ids["b"])

    def test_young(self) -> None:
        """What is younger than the minimum age is spared, and counted."""
        gone = self.all - self.ids["a"] - self.ids["b"]
        young = set(sorted(gone)[::2])
        for chunk_id in young:
            os.utime(self.files().path_of(chunk_id))
        spared = f"; {len(young)} spared for being young, {self.size_of(young)} bytes\n"
        self.assertTrue(self.prune("-y").err.endswith(spared))
        self.assertEqual(self.stored(), self.all - gone | young)
        self.assertTrue(self.prune("-y", "--min-age=1h30m").err.endswith(spared))
        self.assertIn(f"{len(young)} chunks removed", self.prune("-y", "--min-age", "0").err)
        self.assertEqual(self.stored(), self.all - gone)

    def test_dry_run(self) -> None:
        """A dry run asks nothing, removes nothing, and says what would be freed on stdout."""
        gone = self.all - self.ids["a"] - self.ids["b"]
        (self.folder / "store/0000").mkdir(exist_ok=True)
        temporary = self.write("store/0000/.tmp-cacnk.1", b"x")
        os.utime(temporary, (1000, 1000))
        outcome = self.prune("--dry-run")
        said = f"{len(gone)} chunks would be removed, {self.size_of(gone)} bytes, and 1 temporary"
        self.assertEqual((outcome.code, outcome.err), (0, ""))
        self.assertTrue(outcome.text.startswith(said), outcome.text)
        self.assertEqual(self.stored(), self.all)
        self.assertTrue(os.path.exists(temporary))
        os.chmod(self.path("store"), 0o555)
        self.assertEqual(as_nobody(lambda: self.prune("--dry-run")), outcome)

    def test_leftovers(self) -> None:
        """What interrupted writers left is removed when it is old; other files never are."""
        folder = Path(next(self.files().all_files()).path).parent
        old = {".tmp-cacnk.1", ".tmp-cacnk4000000000", "README", "ab" * 32, "cd" * 32 + ".xyz"}
        for name in (*old, ".tmp-cacnk.young"):
            (folder / name).write_bytes(b"x")
        for name in old:
            os.utime(folder / name, (1000, 1000))
        self.assertIn("2 temporary files", self.prune("-y").err)
        left = {path.name for path in folder.iterdir() if path.suffix != ".cacnk"}
        self.assertEqual(left, {".tmp-cacnk.young", "README", "ab" * 32, "cd" * 32 + ".xyz"})
        self.assertIn("1 temporary files", self.prune("-y", "--min-age=0").err)

    def test_question(self) -> None:
        """Before anything is removed it asks, in Go desync's words, until it has an answer."""
        count = len(self.ids["a"] | self.ids["b"])
        warning = (
            f"Warning: The provided index files reference {count} unique chunks. Are you sure\n"
            f"you want to delete all other chunks from '{self.path('store')}'?\n"
        )
        for answers, asked in (
            (b"n\n", 1),
            (b"N\n", 1),
            (b"\n", 1),
            (b"maybe\nyes no\nYES\nn\n", 4),
        ):
            outcome = self.prune(stdin=answers)
            self.assertEqual(outcome, (0, (warning + "[y/N]: " * asked).encode(), ""))
            self.assertEqual(self.stored(), self.all)
        for answers in (b"y\n", b" Y \n", b"what\ny"):
            outcome = self.prune(stdin=answers)
            self.assertEqual(outcome.code, 0)
            self.assertTrue(outcome.text.startswith(warning))
            self.assertEqual(self.stored(), self.ids["a"] | self.ids["b"])

    def test_nobody_answers(self) -> None:
        """Without an answer nothing is removed."""
        for answers in (b"", b"what\n"):
            outcome = self.prune(stdin=answers)
            self.assert_error(outcome, "--yes", out=outcome.out)
        self.assertEqual(self.stored(), self.all)

    def test_bad_index(self) -> None:
        """If any index can't be read nothing is removed."""
        good = self.read("a.caibx")
        for spoil, why in bad_indexes.BAD.values():
            bad = self.write("bad.caibx", spoil(good))
            self.assert_error(self.prune("-y", bad), bad, why)
        self.assert_error(self.prune("-y", self.path("nothing")), self.path("nothing"))
        self.assert_error(self.prune("-y", "--digest", "sha256"), "index file uses SHA512-256")
        self.assertEqual(self.stored(), self.all)

    def test_refusals(self) -> None:
        """Stores, ages and concurrency that make no sense are refused."""
        index = self.path("a.caibx")
        for args, why in (
            ((index,), "no store provided"),
            (("-s", self.path("store")), "requires at least 1 arg(s), only received 0"),
            (("-s", self.path("nothing"), index), "No such file or directory"),
            (("-s", self.path("a"), index), "not a directory"),
            (("-s", "http://u:secret@host/", index), "store 'http://u:***@host/' does not support"),
            (("--min-age=-1s", *self.arguments), "--min-age must be at least 0"),
            (("--min-age=10", *self.arguments), "--min-age"),
            (("-n0", *self.arguments), "--concurrency must be at least 1"),
        ):
            self.assert_error(desync("prune", "-y", *args), why)
        self.assertEqual(self.stored(), self.all)

    def test_permissions(self) -> None:
        """A store that can't be written to is refused; so is a removal that fails."""
        outcome = as_nobody(lambda: self.prune("-y"))
        self.assert_error(outcome, self.path("store"), "it can't be written to: Permission denied")
        os.chmod(self.path("store"), 0o777)
        outcome = as_nobody(lambda: self.prune("-y"))
        self.assert_error(outcome, self.path("store"), "can't be removed: Permission denied")
        self.assertEqual(self.stored(), self.all)

    def test_interrupted(self) -> None:
        """A prune that is interrupted after it took a chunk out of the way puts it back."""
        stat_of, taken = os.stat, []

        def interrupt(path: Any, *args: Any, **more: Any) -> os.stat_result:
            if ".tmp-cacnk" in str(path):
                taken.append(path)
                raise KeyboardInterrupt
            return stat_of(path, *args, **more)

        self.patch(os, "stat", interrupt)
        outcome = self.prune("-y")
        self.assertEqual(len(taken), 1)
        self.assert_error(outcome, "interrupted")
        self.assertEqual(self.stored(), self.all)
        self.assertEqual(self.leftovers("store"), [])

    def test_renewed_meanwhile(self) -> None:
        """A chunk that somebody finds present after prune has looked at its age is spared."""
        stat_of = os.stat
        gone = self.all - self.ids["a"] - self.ids["b"]

        def renew(path: Any, *args: Any, **more: Any) -> os.stat_result:
            found = stat_of(path, *args, **more)
            if str(path).endswith(".cacnk"):
                os.utime(path)
            return found

        self.patch(os, "stat", renew)
        outcome = self.prune("-y")
        self.assertIn(f"; {len(gone)} spared for being young", outcome.err)
        self.assertEqual(self.stored(), self.all)

    def test_indexes_first(self) -> None:
        """No index is read after the question was asked."""
        events = []
        confirmed = prune_module._confirmed

        def read(*args: Any) -> Any:
            events.append("read")
            return read_index(*args)

        def ask(*args: Any) -> bool:
            events.append("ask")
            return confirmed(*args)

        self.patch(prune_module, "read_index", read)
        self.patch(prune_module, "_confirmed", ask)
        self.prune(stdin=b"n\n")
        self.assertEqual(events, ["read", "read", "ask"])
