# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests of the desync command as a process: start-up, signals, pipes, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .command_line import Outcome, command, desync_process, process_environ

_EMPTY_INDEX = b"".join(
    number.to_bytes(8, "little")
    for number in (
        *(48, 0x96824D9C7B129FF9, 0xA000000000000000, 16384, 65536, 262144),
        *(0xFFFFFFFFFFFFFFFF, 0xE75B9E112F17417D),
        *(0, 0, 48, 104 - 48 - 0, 0x4B4F050E5549ECD1),
    )
)


def _modules(*args: str) -> set[str]:
    """Run a command, and list the modules that were imported for it."""
    script = (
        "import sys, os\n"
        "from desync.cli.main import main\n"
        "main(sys.argv[1:], standalone=False)\n"
        "sys.stderr.write(' '.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *args],
        capture_output=True,
        env=process_environ(),
        timeout=60,
        check=True,
    )
    return set(done.stderr.decode().split())


class StartUpTests(SynchronousTestCase):
    """What isn't needed isn't imported."""

    # What costs more than it's worth when a command on local files starts.
    costly = frozenset(
        {"twisted", "zope.interface", "attr", "attrs", "dataclasses", "tqdm", "asyncio"}
    )

    def index(self) -> str:
        """Write an index of nothing, and give its path."""
        path: str = self.mktemp()
        Path(path).write_bytes(_EMPTY_INDEX)
        return path

    def test_help(self) -> None:
        """--help imports no command, and nothing that commands need."""
        modules = _modules("--help")
        self.assertEqual(modules & {*self.costly, "zstandard", "json"}, set())
        self.assertNotIn("desync.cli.list_chunks", modules)
        self.assertNotIn("desync.formats.index", modules)

    def test_list_chunks(self) -> None:
        """Reading an index imports no Twisted, and nothing that's for chunks."""
        modules = _modules("list-chunks", self.index())
        self.assertIn("desync.cli.list_chunks", modules)
        self.assertEqual(modules & {*self.costly, "zstandard", "json"}, set())

    def test_other_commands(self) -> None:
        """The commands about the program itself import no Twisted either."""
        for args in (["version"], ["config"], ["completion", "bash"]):
            self.assertEqual(_modules(*args) & self.costly, set(), args)


class ProcessTests(SynchronousTestCase):
    """Exit codes and messages of the real program."""

    def test_exit_codes(self) -> None:
        """Success is 0; any failure, also of usage, is 1, with the message on stderr."""
        outcome = desync_process("--version")
        self.assertEqual((outcome.code, outcome.err), (0, ""))
        self.assertTrue(outcome.out.startswith(b"desync "))
        outcome = desync_process("--bogus")
        self.assertEqual(outcome, Outcome(1, b"", "Error: unknown flag: --bogus\n"))

    def test_names_that_are_not_utf8(self) -> None:
        """File names of any bytes work, and are shown escaped, also where the locale is C."""
        environs: list[dict[str, str]] = [{}, {"LC_ALL": "C"}]
        environs.append({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"})
        for environ in environs:
            directory = self.mktemp()
            os.mkdir(directory)
            path = os.fsencode(directory) + b"/\xff\xe9\xc2\x9b.caibx"
            outcome = desync_process("list-chunks", path, environ=environ)
            self.assertEqual(
                outcome,
                Outcome(
                    1, b"", f"Error: {directory}/\\xff\\xe9\\x9b.caibx: No such file or directory\n"
                ),
            )
            Path(os.fsdecode(path)).write_bytes(_EMPTY_INDEX)
            outcome = desync_process("list-chunks", path, environ=environ)
            self.assertEqual(outcome, Outcome(0, b"", ""))

    def test_reader_that_leaves(self) -> None:
        """When stdout's reader leaves, the program ends without a word."""
        reading, writing = os.pipe()
        os.close(reading)
        try:
            process = subprocess.Popen(
                command("--help"),
                stdout=writing,
                stderr=subprocess.PIPE,
                env=process_environ(),
            )
        finally:
            os.close(writing)
        self.assertEqual(process.communicate(timeout=60)[1], b"")
        self.assertEqual(process.returncode, 1)

    def test_full_disk(self) -> None:
        """When results can't be written, that's an error."""
        if not os.path.exists("/dev/full"):
            self.skipTest("there is no /dev/full")
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                command("--help"),
                stdout=full,
                stderr=subprocess.PIPE,
                env=process_environ(),
                timeout=60,
                check=False,
            )
        self.assertEqual(
            (done.returncode, done.stderr),
            (1, b"Error: standard output: No space left on device\n"),
        )

    def shell(self, line: str) -> tuple[int, bytes, bytes]:
        """Run a line of shell, in which "$@" is the command."""
        done = subprocess.run(
            ["sh", "-c", line, "sh", *command()],
            capture_output=True,
            env=process_environ(),
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def test_closed_descriptors(self) -> None:
        """Without a stdout, results are an error; without a stdin or a stderr, nothing breaks."""
        self.assertEqual(
            self.shell('"$@" --help >&-'),
            (1, b"", b"Error: standard output: Bad file descriptor\n"),
        )
        self.assertEqual(self.shell('"$@" --help 2>&- <&-')[0], 0)
        self.assertEqual(self.shell('"$@" --bogus >&- 2>&- <&-'), (1, b"", b""))


class SignalTests(SynchronousTestCase):
    """Signals."""

    script = (
        "import sys\n"
        "from desync.cli import table\n"
        "from tests.sample_commands import SAMPLES\n"
        "table.COMMANDS.update(SAMPLES)\n"
        "from desync.cli.main import main\n"
        "main()\n"
    )

    def waiting(self, *args: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start a command that waits, and give it and the file that it keeps while it does."""
        target: str = self.mktemp()
        process = subprocess.Popen(
            [sys.executable, "-c", self.script, "wait", target, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=process_environ(),
        )
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), b"%d\n" % process.pid)
        self.assertTrue(os.path.exists(target))
        return process, target

    def test_interrupted(self) -> None:
        """SIGINT and SIGTERM end the work, which is tidied up although another one comes."""
        for number in (signal.SIGINT, signal.SIGTERM):
            process, target = self.waiting()
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
            self.assertEqual((process.returncode, err), (1, b"Error: interrupted\n"))
            self.assertFalse(os.path.exists(target))

    def test_third_signal(self) -> None:
        """A third signal ends the program at once, whatever there's left to tidy up."""
        process, target = self.waiting("--signals=2")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertTrue(os.path.exists(target))

    def test_hangup(self) -> None:
        """SIGHUP, which `killall -1 desync` sends to servers, harms no other command."""
        process, _ = self.waiting()
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.communicate(timeout=60)[1], b"Error: interrupted\n")
        self.assertEqual(process.returncode, 1)

    def test_name(self) -> None:
        """The process goes by the name of desync, however it was started."""
        process, _ = self.waiting()
        try:
            comm = Path(f"/proc/{process.pid}/comm")
            if not comm.exists():
                self.skipTest("there is no /proc here")
            self.assertEqual(comm.read_text(), "desync\n")
        finally:
            process.terminate()
            process.communicate(timeout=60)


class ImportTests(SynchronousTestCase):
    """Interrupts while something is being imported."""

    script = """
import importlib.abc, os, signal, sys, threading, time
from desync.cli import main
main._prepare_process()

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "nowhere":
            os.kill(os.getpid(), signal.SIGTERM)
            end = time.monotonic() + 0.1
            while time.monotonic() < end:
                pass
            print("found", flush=True)

sys.meta_path.insert(0, Finder())
{before}
try:
    try:
        import nowhere
    except ImportError:
        print("imported", flush=True)
    time.sleep(20)
except KeyboardInterrupt:
    print("interrupted", flush=True)
thread = threading.Thread(target=lambda: __import__("colorsys"))
thread.start()
thread.join(20)
print(thread.is_alive())
"""

    def run_script(self, before: str = "") -> list[str]:
        """Run it, and give the lines that it wrote."""
        done = subprocess.run(
            [sys.executable, "-c", self.script.replace("{before}", before)],
            capture_output=True,
            env=process_environ(),
            timeout=60,
            check=True,
        )
        return done.stdout.decode().split()

    def test_import(self) -> None:
        """It is imported, then comes the interrupt, and threads can import."""
        self.assertEqual(self.run_script(), ["found", "imported", "interrupted", "False"])

    def test_other_handler(self) -> None:
        """Whoever deals with signals by then is told."""
        before = """
def told(number, frame):
    print("told", flush=True)
    raise KeyboardInterrupt
signal.setitimer(signal.ITIMER_REAL, 0)
real = os.kill
def kill(pid, number):
    real(pid, number)
    signal.signal(number, told)
os.kill = kill
"""
        lines = ["found", "imported", "told", "interrupted", "False"]
        self.assertEqual(self.run_script(before), lines)
