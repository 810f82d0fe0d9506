# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for desync.cli.completion."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from desync.cli import table
from desync.cli.completion import VARIABLE, completions
from desync.cli.program import Program

from .command_line import desync, desync_process, process_environ
from .sample_commands import SAMPLES


def complete(line: str) -> list[str]:
    """
    List what the last word of a command line may become.

    Files, which the shell itself knows, are listed as ``<file>``.
    """
    *args, incomplete = line.split(" ")
    items = completions(Program("desync"), args, incomplete)
    return [f"<{item.type}>" if item.type != "plain" else item.value for item in items]


class CompletionsTests(SynchronousTestCase):
    """What may stand at the cursor."""

    def setUp(self) -> None:
        self.patch(table, "COMMANDS", {**table.COMMANDS, **SAMPLES})

    def test_commands(self) -> None:
        """The first word is a command's name, after global flags too."""
        self.assertEqual(complete(""), list(table.available()))
        self.assertEqual(complete("sho"), ["show"])
        self.assertEqual(complete("--verbose sho"), ["show"])
        self.assertEqual(complete("--config x sho"), ["show"])
        self.assertEqual(complete("zzz"), [])

    def test_flags(self) -> None:
        """Flags are the command's and the global ones, but no hidden or deprecated ones."""
        self.assertEqual(complete("--ver"), ["--verbose"])
        self.assertEqual(complete("show --s"), ["--store", "--show-secrets"])
        self.assertEqual(complete("show --writ"), ["--writable"])
        self.assertEqual(complete("show --log"), [])
        self.assertIn("-n", complete("show a -"))
        self.assertNotIn("--store", complete("--st"))

    def test_values(self) -> None:
        """A flag's value is one of its choices, or a file."""
        self.assertEqual(complete("show --progress "), ["auto", "none", "bar", "lines", "json"])
        self.assertEqual(complete("show --progress j"), ["json"])
        self.assertEqual(complete("--digest sha5"), ["sha512-256"])
        self.assertEqual(complete("show --store "), ["<file>"])
        self.assertEqual(complete("show -s /t"), ["<file>"])

    def test_values_after_an_equals_sign(self) -> None:
        """bash hands over the = as a word of its own, other shells the whole word."""
        self.assertEqual(complete("show --progress = j"), ["json"])
        self.assertEqual(complete("show --progress ="), ["auto", "none", "bar", "lines", "json"])
        self.assertEqual(complete("show --progress=j"), ["--progress=json"])
        self.assertEqual(complete("show --store=x"), ["<file>"])

    def test_arguments(self) -> None:
        """Arguments are files as long as the command takes more; a switch has no value."""
        self.assertEqual(complete("show "), ["<file>"])
        self.assertEqual(complete("show a --writable "), ["<file>"])
        self.assertEqual(complete("show a b "), [])
        self.assertEqual(complete("show -s x a b "), [])
        self.assertEqual(complete("many a b c "), ["<file>"])
        self.assertEqual(complete("version "), [])
        self.assertEqual(complete("completion "), ["bash", "fish", "zsh"])
        self.assertEqual(complete("completion z"), ["zsh"])

    def test_after_the_end_of_flags(self) -> None:
        """After -- there are no flags."""
        self.assertEqual(complete("show -- --s"), ["<file>"])

    def test_unknown_command(self) -> None:
        """An unknown command has nothing to offer but what all have."""
        self.assertEqual(complete("zzz "), [])

    def test_half_written_lines(self) -> None:
        """Nothing that's wrong with the line before the cursor is an error."""
        for line in (
            "show --bogus ",
            "show -n x -",
            "-z ",
            "show --store=",
            "= x",
            "--= ",
            "show -- ",
        ):
            complete(line)


class ScriptTests(SynchronousTestCase):
    """The scripts, and what they ask."""

    def test_scripts(self) -> None:
        """There's a script for each of three shells, which names the program and the variable."""
        for shell in ("bash", "fish", "zsh"):
            outcome = desync("completion", shell)
            self.assertEqual((outcome.code, outcome.err), (0, ""))
            self.assertIn(f"{VARIABLE}={shell}_complete", outcome.text)
            self.assertIn("_desync_completion", outcome.text)

    def test_other_shells(self) -> None:
        """Other shells are refused, by name."""
        outcome = desync("completion", "tcsh")
        self.assertEqual(outcome.code, 1)
        self.assertEqual(
            outcome.err, 'Error: no completion for shell "tcsh", only for bash, fish, zsh\n'
        )

    def test_answers(self) -> None:
        """Each shell gets its answer in the form that its script reads."""
        for shell, answer in (
            ("bash", "plain,list-chunks\n"),
            ("zsh", f"plain\nlist-chunks\n{table.COMMANDS['list-chunks'].summary}\n"),
            ("fish", f"plain,list-chunks\t{table.COMMANDS['list-chunks'].summary}\n"),
        ):
            words = "desync" if shell == "fish" else "desync list-c"
            cursor = "list-c" if shell == "fish" else "1"
            environ = {"COMP_WORDS": words, "COMP_CWORD": cursor, VARIABLE: f"{shell}_complete"}
            outcome = desync_process(environ=environ)
            self.assertEqual((outcome.code, outcome.text, outcome.err), (0, answer, ""), shell)

    def test_nonsense(self) -> None:
        """A variable that no script of ours has set is refused."""
        outcome = desync_process(environ={VARIABLE: "source"})
        self.assertEqual((outcome.code, outcome.out), (1, b""))

    def test_in_bash(self) -> None:
        """bash, with the script in place, completes a command and a flag's value."""
        bash = shutil.which("bash")
        if bash is None:
            self.skipTest("there is no bash")
        directory = Path(self.mktemp())
        directory.mkdir()
        program = directory / "desync"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m desync "$@"\n')
        program.chmod(0o755)
        (directory / "script").write_text(desync("completion", "bash").text)
        for words, expected in (
            (["desync", "list-ch"], ["list-chunks"]),
            (["desync", "config", "--progress", "=", "js"], ["json"]),
        ):
            line = (
                'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1));'
                ' _desync_completion desync; printf "%s\\n" "${COMPREPLY[@]}"'
            )
            done = subprocess.run(
                [bash, "--norc", "-c", line, "bash", str(directory / "script"), *words],
                capture_output=True,
                env=process_environ(PATH=f"{directory.absolute()}:{os.environ['PATH']}"),
                timeout=60,
                check=False,
            )
            self.assertEqual(done.stdout.decode().split(), expected, done.stderr)
