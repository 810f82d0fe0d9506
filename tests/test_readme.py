# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``README.rst``: its commands do what it says that they do."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

import desync
from desync.cli import table
from desync.cli.flags import GLOBAL_FLAGS
from desync.config import Config
from desync.config_fields import OPTION_FIELDS

from .command_line import ROOT, process_environ

README = (ROOT / "README.rst").read_text()
PROMPT = "$ "


class Example(NamedTuple):
    """
    A command line.

    :param line: what follows the prompt.
    :param output: what is printed below it; ``...`` stands for anything.
    """

    line: str
    output: str


def literal_blocks(text: str) -> list[str]:
    """Give the indented blocks of a reST text, their indentation removed."""
    blocks = re.findall(r"(?:^|\n)((?:    .*\n|\n(?=    ))+)", text + "\n")
    return [textwrap.dedent(block).strip("\n") for block in blocks]


def examples(text: str) -> list[Example]:
    """Find the command lines of a reST text, in order."""
    found: list[Example] = []
    for block in literal_blocks(text):
        if not block.startswith(PROMPT):
            continue
        for line in block.split("\n"):
            if line.startswith(PROMPT):
                found.append(Example(line.removeprefix(PROMPT), ""))
            else:
                found[-1] = found[-1]._replace(output=found[-1].output + line + "\n")
    return found


def pattern_of(output: str) -> re.Pattern[str]:
    """Make the pattern of what a command printed."""
    return re.compile(".*".join(map(re.escape, output.split("..."))), re.DOTALL)


class CommandTests(SynchronousTestCase):
    """The command lines after a prompt, one after the other in one directory."""

    def setUp(self) -> None:
        """Make a place with a ``desync`` in the PATH and nothing configured."""
        self.work = Path(self.mktemp()).absolute()
        self.bin = self.work / "bin"
        self.bin.mkdir(parents=True)
        script = self.bin / "desync"
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m desync "$@"\n')
        script.chmod(0o755)

    def test_examples(self) -> None:
        """Each succeeds and prints what is said to be printed."""
        found = examples(README)
        self.assertGreater(len(found), 15)
        environ = process_environ(
            HOME=str(self.work), PATH=f"{self.bin}:{os.environ.get('PATH', os.defpath)}"
        )
        for each in found:
            done = subprocess.run(
                ["/bin/sh", "-c", each.line],
                cwd=self.work,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=120,
                check=False,
            )
            printed = done.stdout.decode()
            self.assertEqual(0, done.returncode, f"{each.line}: {printed}")
            if not pattern_of(each.output).fullmatch(printed):
                self.fail(f"{each.line} printed:\n{printed}and not:\n{each.output}")

    def test_parsing(self) -> None:
        """A block is split into commands with what they print; blocks without a prompt aren't."""
        text = "Words::\n\n    $ one\n    a\n\n    b\n    $ two\n\nMore::\n\n    three\n\nEnd.\n"
        self.assertEqual([Example("one", "a\n\nb\n"), Example("two", "")], examples(text))


class StatementTests(SynchronousTestCase):
    """What the text says besides."""

    def test_commands(self) -> None:
        """Every command that there is has a line in the table, and no other."""
        section = README.partition("\nCommands\n")[2].partition("\nFlags may stand")[0]
        listed = re.findall(r"^``([\w-]+)``  ", section, re.MULTILINE)
        self.assertEqual(sorted(table.available()), sorted(listed))

    def test_coming(self) -> None:
        """What is said to be coming isn't there yet."""
        section = README.partition("\nWhat is coming\n")[2].partition("\nConfiguration\n")[0]
        commands = set(re.findall(r"``([a-z][\w-]*)``", section))
        self.assertEqual(set(table.COMMANDS) - set(table.available()), commands)

    def test_global_flags(self) -> None:
        """Each long flag that is explained exists."""
        explained = re.findall(r"^--([\w-]+) [A-Z ]", README, re.MULTILINE)
        self.assertIn("digest", explained)
        known = {each.long.removeprefix("--") for each in GLOBAL_FLAGS} | {"sync"}
        self.assertLessEqual(set(explained), known)

    def test_config(self) -> None:
        """The example configuration is strict JSON, and taken without a warning."""
        block = README.partition(".. code-block:: json")[2].partition("\nKeys are")[0]
        json.loads(block)
        path = Path(self.mktemp())
        path.write_text(block)
        config = Config.load(str(path), {})
        self.assertEqual([], config.warnings)
        self.assertTrue(config.options_for("/path/to/local/cache").uncompressed)
        options = config.options_for("https://example.com/one/two/")
        self.assertEqual("Bearer dXNlcjpwYXNzd29yZA==", options.http_auth)
        self.assertEqual(
            json.loads(block).keys(), json.loads(config.to_json()).keys() - {"oci-credentials"}
        )

    def test_store_options(self) -> None:
        """Every store option that the configuration knows is explained, but for encryption's."""
        section = README.partition("The options of ``store-options``:")[2]
        section = section.partition("\nEnvironment\n")[0]
        explained = set(re.findall(r"^(?:``[\w-]+``(?:, )?)+$", section, re.MULTILINE))
        names = {name for line in explained for name in re.findall(r"``([\w-]+)``", line)}
        known = {name for name, _, _ in OPTION_FIELDS}
        self.assertEqual({name for name in known if "encryption" not in name}, names)

    def test_version(self) -> None:
        """The version that is shown is this one."""
        self.assertIn(f"desync {desync.__version__}\n", README)

    def test_scripts(self) -> None:
        """The two commands are there, and can be run."""
        for name in ("bin/demo", "bin/test"):
            self.assertIn(f"    {name}\n", README)
            self.assertTrue(os.access(ROOT / name, os.X_OK), name)
