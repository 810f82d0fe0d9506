# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What the benchmark program does besides measuring: data, arithmetic, bookkeeping."""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import data, machine, report
from benchmarks.__main__ import main, parse_size, room_needed
from benchmarks.commands import CASYNC, GO, OURS, Casync, Desync, Party, environment
from benchmarks.jobs import JOBS, Job, Task, WrongResult
from benchmarks.measure import TreeMemory, run
from benchmarks.place import Place
from benchmarks.rounds import measure_job


class DataTests(SynchronousTestCase):
    """Each test has a folder with little in it to make an image of."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        self.source = os.path.join(self.folder, "source")
        os.makedirs(os.path.join(self.source, "b"))
        for name, size in (("a", 100), ("b/c", 70_000), ("z", 3)):
            with open(os.path.join(self.source, name), "wb") as file:
                file.write(name[:1].encode() * size)
        os.symlink("a", os.path.join(self.source, "link"))

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def image(self, name: str, size: int, **arguments: int) -> bytes:
        data.image(self.path(name), size, self.source, **arguments)
        return self.content(name)

    def content(self, name: str) -> bytes:
        with open(self.path(name), "rb") as file:
            return file.read()

    def test_same_image(self) -> None:
        """The same source and size give the same bytes."""
        self.assertEqual(self.image("one", 500_000), self.image("two", 500_000))

    def test_image_of_other_seed(self) -> None:
        """Another seed edits the copies in other places, and leaves the tar as it is."""
        one, two = self.image("one", 500_000, seed=1), self.image("two", 500_000, seed=2)
        self.assertEqual(one[:70_000], two[:70_000])
        self.assertNotEqual(one, two)

    def test_cut(self) -> None:
        """A source that holds more than the size is cut off there."""
        short, long = self.image("short", 5000), self.image("long", 60_000)
        self.assertEqual(len(short), 5000)
        self.assertEqual(len(long), 60_000)
        self.assertTrue(long.startswith(short))

    def test_is_a_tar(self) -> None:
        """What isn't filled up is the content of the source as tar has it, in sorted order."""
        with tarfile.open(fileobj=io.BytesIO(self.image("image", 500_000))) as archive:
            self.assertEqual(archive.getnames(), [".", "a", "b", "link", "z", "b/c"])

    def test_copies_are_edited(self) -> None:
        """What fills the image up is like the original, but no stretch of 32 KiB is equal."""
        content = self.image("image", 1_000_000)
        self.assertEqual(len(content), 1_000_000)
        period = next(
            at for at in range(10240, 200_000, 10240) if content[at : at + 100] == content[:100]
        )
        block = 2 * 16 * data.KIB
        for at in range(0, period - block, block):
            original = content[at : at + block]
            copy = content[period + at : period + at + block]
            self.assertNotEqual(original, copy)
            differences = sum(one != other for one, other in zip(original, copy, strict=True))
            self.assertLess(differences, 200)

    def test_next_version(self) -> None:
        """The next version has lost about the share that was asked for, the same each time."""
        marks = [b"mark %8d" % number for number in range(16 * 1024)]
        with open(self.path("old"), "wb") as file:
            file.write(b"".join(mark.ljust(data.KIB, b".") for mark in marks))
        for name in ("new", "again"):
            data.next_version(self.path("old"), self.path(name), share=0.2)
        new = self.content("new")
        self.assertEqual(new, self.content("again"))
        kept = len(set(marks).intersection(re.findall(rb"mark [ \d]{8}", new)))
        self.assertTrue(0.7 < kept / len(marks) < 0.9, kept / len(marks))
        inserted = len(new) - len(marks) * data.KIB
        self.assertTrue(0 < inserted < 10_000, inserted)

    def test_zeros(self) -> None:
        """The file of zeros has the size, whatever that is."""
        data.zeros(self.path("zeros"), data.MIB + 5)
        self.assertEqual(self.content("zeros"), bytes(data.MIB + 5))

    def test_sparse(self) -> None:
        """The sparse file has the size, pieces of the other one, and zeros between them."""
        self.image("image", 3 * data.MIB)
        data.sparse(self.path("sparse"), 9 * data.MIB + 7, self.path("image"), one_in=2)
        content, image = self.content("sparse"), self.content("image")
        self.assertEqual(len(content), 9 * data.MIB + 7)
        for number, piece in enumerate((0, 1, 2, 0)):
            at = 2 * number * data.MIB
            pieces = image[piece * data.MIB : (piece + 1) * data.MIB]
            self.assertTrue(content[at : at + data.MIB] == pieces)
            self.assertTrue(content[at + data.MIB : at + 2 * data.MIB].strip(b"\0") == b"")

    def test_tree(self) -> None:
        """The tree has the files that were asked for, of the folder's sizes, always the same."""
        self.image("image", 100_000)
        for name in ("one", "two"):
            data.tree(self.path(name), 85, self.path("image"), self.source)
        found = sorted(
            os.path.relpath(path, self.path("one")) for path in files_of(self.path("one"))
        )
        self.assertEqual(len(found), 85)
        for name in found:
            one, two = (self.content(os.path.join(tree, name)) for tree in ("one", "two"))
            self.assertEqual(one, two)
            self.assertIn(len(one), (100, 70_000, 3))


def files_of(folder: str) -> list[str]:
    """All files below a folder."""
    return [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names]


class TreeMemoryTests(SynchronousTestCase):
    """Each test writes a proc file system of its own."""

    def setUp(self) -> None:
        self.proc = self.mktemp()
        os.mkdir(self.proc)
        self.write("uptime", "1 2\n")

    def write(self, name: str, content: str) -> None:
        path = os.path.join(self.proc, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(content)

    def process(self, pid: int, parent: int, group: int, pss: int = 0, name: str = "x") -> None:
        """Add a process; pss is in KiB."""
        self.write(f"{pid}/stat", f"{pid} ({name}) S {parent} {group} 1 0 -1\n")
        self.write(
            f"{pid}/smaps_rollup", f"0-1 ---p\nRss:  99999 kB\nPss:  {pss} kB\nPss_X: 1 kB\n"
        )

    def test_tree(self) -> None:
        """The process, its children and theirs count, and nobody else."""
        self.process(10, 1, 10, pss=100)
        self.process(11, 10, 10, pss=20)
        self.process(12, 11, 12, pss=3)
        self.process(13, 1, 13, pss=50_000)
        tree = TreeMemory(10, self.proc)
        self.assertEqual(tree.processes(), {10, 11, 12})
        self.assertEqual(tree.sample(), 123 * 1024)

    def test_orphan(self) -> None:
        """A process whose parent has ended still counts, by its group, and so do its children."""
        self.process(10, 1, 10, pss=1)
        self.process(11, 1, 10, pss=2)
        self.process(12, 11, 12, pss=4)
        self.assertEqual(TreeMemory(10, self.proc).sample(), 7 * 1024)

    def test_odd_name(self) -> None:
        """The name of a process may look like the rest of the line."""
        self.process(10, 1, 10, pss=1)
        self.process(11, 10, 10, pss=2, name="a) S 1 1 (b")
        self.assertEqual(TreeMemory(10, self.proc).sample(), 3 * 1024)

    def test_peak(self) -> None:
        """The peak is the largest of the sums, not the sum of the largest."""
        self.process(10, 1, 10, pss=100)
        self.process(11, 10, 10, pss=1)
        tree = TreeMemory(10, self.proc)
        tree.sample()
        self.process(10, 1, 10, pss=1)
        self.process(11, 10, 10, pss=90)
        tree.sample()
        self.assertEqual(tree.peak, 101 * 1024)
        self.assertEqual(tree.measure, "PSS")

    def test_resident_size(self) -> None:
        """Where the proportional size can't be had the resident one counts, and this is said."""
        self.process(10, 1, 10)
        os.unlink(os.path.join(self.proc, "10/smaps_rollup"))
        self.write("10/status", "Name:\tx\nVmHWM:\t 70 kB\nVmRSS:\t 60 kB\n")
        tree = TreeMemory(10, self.proc)
        self.assertEqual(tree.sample(), 60 * 1024)
        self.assertEqual(tree.measure, "RSS")

    def test_ended(self) -> None:
        """A process that has ended, but wasn't waited for, has no memory and hides nobody's."""
        self.process(10, 1, 10, pss=5)
        self.write("11/stat", "11 (x) Z 10 10 1 0 -1\n")
        self.write("11/smaps_rollup", "")
        self.write("11/status", "Name:\tx\n")
        self.assertEqual(TreeMemory(10, self.proc).sample(), 5 * 1024)

    def test_real(self) -> None:
        """This process is found, with some memory, where there is a real proc file system."""
        if not os.path.exists("/proc/self/smaps_rollup"):
            self.skipTest("no /proc here")
        tree = TreeMemory(os.getpid())
        self.assertIn(os.getpid(), tree.processes())
        self.assertGreater(tree.sample(), data.MIB)


class RunTests(SynchronousTestCase):
    """Running a command."""

    def setUp(self) -> None:
        self.folder = self.mktemp()
        os.mkdir(self.folder)
        self.output = os.path.join(self.folder, "output")

    def python(self, code: str, **arguments: float) -> tuple[int, int | None, str]:
        done = run(
            [sys.executable, "-I", "-S", "-c", code],
            environ={},
            directory=self.folder,
            stdout=self.output,
            sampled="timeout" not in arguments,
            **arguments,  # type: ignore[arg-type]
        )
        return done.code, done.peak, done.said

    def test_result(self) -> None:
        """Exit code, output and the last line of the messages are the command's."""
        code, _, said = self.python(
            "import sys; print('out'); sys.stderr.write('one\\ntwo\\n\\n'); sys.exit(3)"
        )
        self.assertEqual((code, said), (3, "two"))
        with open(self.output, encoding="ascii") as output:
            self.assertEqual(output.read(), "out\n")
        self.assertEqual(os.listdir(self.folder), ["output"])

    def test_signal(self) -> None:
        """A command that a signal ended has its number as negative exit code."""
        code, _, _ = self.python("import os; os.kill(os.getpid(), 9)")
        self.assertEqual(code, -9)

    def test_timeout(self) -> None:
        """A command that takes too long is killed with what it started."""
        code, peak, _ = self.python(
            "import os, sys; read, write = os.pipe(); os.fork(); os.read(read, 1)", timeout=0.1
        )
        self.assertEqual((code, peak), (-9, None))


class FakeParty(Party):
    """A program that says its name, or fails."""

    def __init__(self, name: str, code: int = 0) -> None:
        super().__init__(name, ["/bin/sh", "-c", f"echo no luck >&2; exit {code}"], {})


class RoundsTests(SynchronousTestCase):
    """Doing a job in turn."""

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.place = Place(folder, 1000, FakeParty(OURS))
        self.addCleanup(self.place.close)
        self.done: list[str] = []

    def prepare(self, place: Place, party: Party) -> Task | None:
        if party.name == CASYNC:
            return None
        self.done.append(party.name)
        return Task(party.program, place.fresh(), self.check)

    def check(self) -> None:
        pass

    def measure(self, *parties: Party, **job: int) -> report.Row:
        return measure_job(
            Job("job", "a job", self.prepare, 2.5, without_avx512=1.5, **job),  # type: ignore[arg-type]
            self.place,
            parties,
            2,
            memory=False,
        )

    def test_in_turn(self) -> None:
        """The programs take turns; the one that can't do the job has no part in it."""
        row = self.measure(FakeParty(OURS), FakeParty(GO), FakeParty(CASYNC))
        self.assertEqual(self.done, [OURS, GO, OURS, GO])
        self.assertEqual(list(row.parties), [OURS, GO])
        self.assertEqual([len(each.wall) for each in row.parties.values()], [2, 2])
        self.assertEqual(row.times_at_least, 2.5)

    def test_repeated(self) -> None:
        """A short job is done more often."""
        self.measure(FakeParty(OURS), repeated=3)
        self.assertEqual(len(self.done), 6)

    def test_failure(self) -> None:
        """A program that fails isn't tried again, and has no times."""
        row = self.measure(FakeParty(OURS, code=3), FakeParty(GO))
        self.assertEqual(self.done, [OURS, GO, GO])
        self.assertEqual(row.parties[OURS].failed, "exit code 3: no luck")
        self.assertIsNone(row.wall(OURS))
        self.assertIsNone(row.met)

    def test_wrong_result(self) -> None:
        """A program that says it had worked, and hasn't, has failed."""

        def check() -> None:
            raise WrongResult("nothing there")

        self.check: Callable[[], None] = check  # type: ignore[method-assign]
        row = self.measure(FakeParty(OURS))
        self.assertEqual(row.parties[OURS].failed, "nothing there")

    def test_nothing_stays(self) -> None:
        """Everything is in one folder, which is gone in the end."""
        self.measure(FakeParty(OURS))
        self.place.close()
        self.assertFalse(os.path.exists(self.place.root))


class PartyTests(SynchronousTestCase):
    """What the programs are told."""

    def desync(self, help_text: str) -> Desync:
        return Desync(OURS, ["/bin/sh", "-c", f"echo '{help_text}'", "desync"], {}, 3)

    def test_sync(self) -> None:
        """A command that can be told not to sync is told so; one that can't isn't."""
        self.assertIn("--sync=none", self.desync("  --sync string  when").make("i", "f", "s") or [])
        self.assertNotIn("--sync=none", self.desync("  --syn").make("i", "f", "s") or [])

    def test_workers(self) -> None:
        """Ours and Go desync are told how many workers to have."""
        argv = self.desync("").verify("store") or []
        self.assertEqual(argv[4:], ["verify", "-n", "3", "-s", "store"])

    def test_casync(self) -> None:
        """casync makes no index without a store, and checks nothing."""
        casync = Casync(CASYNC, ["casync"], {})
        self.assertIsNone(casync.make("index", "file", None))
        self.assertIsNone(casync.verify("store"))
        self.assertEqual(
            casync.make("index", "file", "store"),
            ["casync", "make", "--store=store", "index", "file"],
        )

    def test_environment(self) -> None:
        """Neither the user's configuration nor the other program's path reaches a program."""
        self.patch(os, "environ", {"PATH": "/bin", "HOME": "/me", "GO_DESYNC": "x"})
        os.environ["DESYNC_PROGRESSBAR_ENABLED"] = "1"
        self.assertEqual(
            environment("/nowhere", DESYNC_KERNELS="scalar"),
            {"PATH": "/bin", "HOME": "/nowhere", "DESYNC_KERNELS": "scalar"},
        )


def figures(*wall: float, failed: str = "") -> report.Figures:
    """Give figures with these wall times, twice the processor time, and 3 MiB."""
    return report.Figures(list(wall), [2 * each for each in wall], 3 * data.MIB, failed)


def sample_report() -> report.Report:
    """Give a report with a row of each kind."""
    rows = [
        report.Row("make", "to make", 2.0, None, {OURS: figures(1, 9, 2), GO: figures(4, 5, 3.9)}),
        report.Row("cat", "to cat", 1.5, None, {OURS: figures(1), GO: figures(failed="exit 1")}),
        report.Row("help", "to help", None, 0.2, {OURS: figures(0.25), CASYNC: figures(0.1)}),
        report.Row("other", "whatever", None, None, {OURS: figures(3)}),
    ]
    machine = {"processor": "a fast one", "cores": "2"}
    return report.Report(
        machine, data.GIB, 3, 2, "portable", "3.11.7", "tmpfs", "desync", rows=rows
    )


class ReportTests(SynchronousTestCase):
    """The arithmetic, and how it is shown."""

    def test_ratio(self) -> None:
        """The ratio is that of the medians."""
        row = sample_report().rows[0]
        self.assertEqual((row.wall(OURS), row.wall(GO), row.times_as_fast(GO)), (2, 4, 2))
        self.assertEqual(row.cpu(OURS), 4)
        self.assertIs(row.met, True)

    def test_met(self) -> None:
        """What isn't reached is not met; what wasn't measured is neither."""
        _, failed, slow, other = sample_report().rows
        self.assertEqual((failed.met, slow.met, other.met), (None, False, None))
        self.assertIs(report.Row("a", "", 2.01, None, sample_report().rows[0].parties).met, False)

    def test_tables(self) -> None:
        """Each program has its columns, ours first, and what isn't known is a dash."""
        self.assertEqual(
            report.times_table(sample_report()),
            [
                ["job", "ours", "Go", "casync", "x Go", "x casync", "at least", "met"],
                ["make", "2.00", "4.00", "-", "2.00", "-", "2 x", "yes"],
                ["cat", "1.00", "failed", "-", "-", "-", "1.5 x", "-"],
                ["help", "0.250", "-", "0.100", "-", "0.40", "in 0.2", "no"],
                ["other", "3.00", "-", "-", "-", "-", "-", "-"],
            ],
        )
        self.assertEqual(
            report.costs_table(sample_report())[:2],
            [
                ["job", "CPU ours", "CPU Go", "CPU casync", "MiB ours", "MiB Go", "MiB casync"],
                ["make", "4.00", "8.00", "-", "3", "3", "-"],
            ],
        )

    def test_json(self) -> None:
        """A saved report comes back as it was."""
        self.assertEqual(report.from_json(sample_report().to_json()), sample_report())

    def test_failures(self) -> None:
        """What failed is said in all forms."""
        self.assertEqual(sample_report().failures(), ["cat, Go: exit 1"])
        self.assertIn("cat, Go: exit 1", report.as_text(sample_report()))
        self.assertIn("cat, Go: exit 1", report.as_page([sample_report()]))

    def test_memory(self) -> None:
        """The most memory that ours took is named, and whether it is little enough."""
        made = sample_report()
        made.rows[2].parties[OURS].peak = 201 * data.MIB
        self.assertEqual(made.peak(), (201 * data.MIB, "help"))
        self.assertIn("201 MiB at most (help); at most 200 MiB: not met", report.as_text(made))

    def test_page(self) -> None:
        """The page is valid reStructuredText, with nothing of a row between its columns."""
        other = sample_report()
        other.kernels = "native"
        page = report.as_page([sample_report(), other])
        lines = page.split("\n")
        rules = [at for at, line in enumerate(lines) if line.startswith("====") and "  " in line]
        self.assertEqual(len(rules), 3 * 2 * 2)
        for top, bottom in zip(rules[1::3], rules[2::3], strict=True):
            ends = [at for at, sign in enumerate(lines[top]) if sign == " "]
            for line in lines[top + 1 : bottom]:
                self.assertTrue(all(line.ljust(len(lines[top]))[at] == " " for at in ends), line)
        settings = {"report_level": 1, "halt_level": 1, "warning_stream": False}
        document = import_module("docutils.core").publish_doctree(page, settings_overrides=settings)
        self.assertEqual(document.astext().count("to make"), 2)

    def test_sizes(self) -> None:
        """Sizes are shown in the unit that they are a multiple of."""
        sizes = (data.GIB, 64 * data.MIB, 3 * data.KIB, 7)
        self.assertEqual(
            [report.size_text(size) for size in sizes], ["1 GiB", "64 MiB", "3 KiB", "7 bytes"]
        )


class MachineTests(SynchronousTestCase):
    """What a measurement ran on."""

    def test_file_system(self) -> None:
        """The mount that is nearest to a folder says what it is in; of two, the later one."""
        mounts = self.mktemp()
        with open(mounts, "w", encoding="ascii") as file:
            file.write("a / ext4 rw 0 0\nb /no proc rw 0 0\nb /no/where xfs rw 0 0\n")
            file.write("c /no/where tmpfs rw 0 0\nd /no/wherever btrfs rw 0 0\n")
        kinds = [machine.file_system(p, mounts) for p in ("/no/where/x", "/no/where", "/nowhere")]
        self.assertEqual(kinds, ["tmpfs", "tmpfs", "ext4"])

    def test_no_name(self) -> None:
        """The description of the machine doesn't tell its name."""
        name = os.uname().nodename
        self.assertNotIn(name, machine.describe().values())


class ProgramTests(SynchronousTestCase):
    """The command line."""

    def program(self, *args: str) -> tuple[int, str]:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()):
            code = main(args)
        return code, out.getvalue()

    def test_list(self) -> None:
        """Every job is listed, with what ours has to reach."""
        code, out = self.program("--list")
        self.assertEqual(code, 0)
        self.assertEqual([line.split()[0] for line in out.splitlines()], list(JOBS))
        self.assertIn("verify of a store; at least 3 x", out)

    def test_sizes(self) -> None:
        """Sizes are numbers of bytes or of binary units."""
        self.assertEqual(
            [parse_size(text) for text in ("7", "64M", "1g", "2GiB", "3k")],
            [7, 64 * data.MIB, data.GIB, 2 * data.GIB, 3 * data.KIB],
        )
        for text in ("", "0", "-1", "1T", "M"):
            self.assertRaises(ValueError, parse_size, text)

    def test_unknown_job(self) -> None:
        """A job that there isn't ends the program before anything is made."""
        self.assertRaises(SystemExit, self.program, "--job", "no-such-job")

    def test_saved(self) -> None:
        """Saved figures are shown again, and make a page; what failed is in the exit code."""
        saved, page = self.mktemp(), self.mktemp()
        with open(saved, "w", encoding="utf-8") as file:
            file.write(sample_report().to_json())
        code, out = self.program("--from", saved, "--rst", page)
        self.assertEqual((code, out), (1, report.as_text(sample_report()) + "\n"))
        with open(page, encoding="utf-8") as written:
            self.assertEqual(written.read(), report.as_page([sample_report()]))

    def test_room(self) -> None:
        """Where what runs leave can't be deleted at once, each run needs its own room."""
        job = JOBS["make"]
        in_memory = room_needed([job], 1000, 3, 2, in_memory=True)
        on_disk = room_needed([job], 1000, 3, 2, in_memory=False)
        self.assertEqual(in_memory, round(1000 * (job.room + job.room_left + 1)))
        self.assertEqual(on_disk, round(1000 * (job.room + 1 + job.room_left * 8)))

    def test_small_measurement(self) -> None:
        """A job is done with the real command on a small image, and its figures are saved."""
        saved, folder = self.mktemp(), self.mktemp()
        os.mkdir(folder)
        args = ["--alone", "--size", "300k", "--runs", "1", "--dir", folder, "--no-memory"]
        jobs = ["index", "http-single", "tar-present", "untar"]
        chosen = [word for job in jobs for word in ("--job", job)]
        code, out = self.program(*args, *chosen, "--json", saved)
        self.assertEqual(code, 0, out)
        with open(saved, encoding="utf-8") as file:
            result = report.from_json(file.read())
        assert isinstance(result, report.Report)
        self.assertEqual([row.job for row in result.rows], jobs)
        for row in result.rows:
            self.assertEqual(len(row.parties[OURS].wall), 1)
        self.assertEqual(os.listdir(folder), [])
