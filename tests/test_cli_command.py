# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for desync.cli.command, invocation and program, within this process."""

from __future__ import annotations

import importlib
import io
import os
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from desync.cli import table
from desync.cli.command import Command
from desync.cli.flags import GLOBAL_FLAGS
from desync.cli.main import main
from desync.cli.program import similar_to
from desync.cli.streams import OutputClosed, Streams, printable
from desync.config import StoreOptions

from .command_line import NO_HOME, Outcome, desync
from .sample_commands import SAMPLES


class SampleTestCase(SynchronousTestCase):
    """Something that runs the sample commands."""

    def setUp(self) -> None:
        self.patch(table, "COMMANDS", {**table.COMMANDS, **SAMPLES})

    def error(self, *args: str) -> str:
        """Run a command that fails, and give what it says, without the newline at its end."""
        outcome = desync(*args)
        self.assertEqual(outcome.code, 1, outcome)
        self.assertTrue(outcome.err.endswith("\n"))
        return outcome.err[:-1]

    def shown(self, *args: str) -> dict[str, str]:
        """Run the command that shows what it was given, and give that."""
        outcome = desync(*args)
        self.assertEqual(outcome.code, 0, outcome)
        return dict(line.split("=", 1) for line in outcome.text.splitlines())


class ParametersTests(SampleTestCase):
    """What a command's function is given."""

    def test_defaults(self) -> None:
        """Flags that aren't given have their defaults, optional arguments are None."""
        shown = self.shown("show", "a")
        self.assertEqual(
            shown,
            {
                "where": "'a'",
                "other": "None",
                "store": "[]",
                "wait": "1500000000",
                "length": "0",
                "writable": "False",
                "options": repr(StoreOptions()),
                "cache_repair": "True",
                "digest": "sha512-256",
            },
        )

    def test_own_flags(self) -> None:
        """Flags reach the function by name, wherever they stand."""
        line = "-s x,y show -l 5 a -s z --wait=2s b --writable"
        shown = self.shown(*line.split())
        self.assertEqual(shown["where"], "'a'")
        self.assertEqual(shown["other"], "'b'")
        self.assertEqual(shown["store"], "['x', 'y', 'z']")
        self.assertEqual(shown["wait"], "2000000000")
        self.assertEqual(shown["length"], "5")
        self.assertEqual(shown["writable"], "True")

    def test_defaults_are_not_shared(self) -> None:
        """What one run does to its list isn't in the next run's."""
        self.shown("show", "a", "-s", "x")
        self.assertEqual(self.shown("show", "a")["store"], "[]")

    def test_store_flags(self) -> None:
        """Store flags end up in the options of stores, those that weren't given don't."""
        line = "show a -n3 -t --ca-cert ca -e0 -b 1s --cache-repair=false"
        shown = self.shown(*line.split(), "--client-cert=c", "--client-key=k")
        expected = StoreOptions(
            n=3,
            client_cert="c",
            client_key="k",
            ca_cert="ca",
            trust_insecure=True,
            error_retry=0,
            error_retry_base_interval=10**9,
        )
        self.assertEqual(shown["options"], repr(expected))
        self.assertEqual(shown["cache_repair"], "False")

    def test_configuration(self) -> None:
        """The configuration is loaded, and flags that weren't given leave it alone."""
        path = self.mktemp()
        Path(path).write_text('{"store-options": {"/store": {"n": 2, "error-retry": 0}}}')
        for args in (["--config", path, "show", "a"], ["show", "a", f"--config={path}"]):
            options = self.shown(*args)["options"]
            self.assertEqual(options, repr(StoreOptions(n=10, error_retry=0)))

    def test_certificate_without_key(self) -> None:
        """A client certificate needs its key, and the other way round."""
        for flag in ("--client-cert=x", "--client-key=x"):
            self.assertEqual(
                self.error("show", "a", flag),
                "Error: --client-key and --client-cert options need to be provided together",
            )

    def test_concurrency(self) -> None:
        """No concurrency at all is refused."""
        for value in ("-n0", "-n=-1", "--concurrency=0"):
            message = self.error("show", "a", value)
            self.assertEqual(message, "Error: --concurrency must be at least 1")

    def test_digest(self) -> None:
        """The digest is one of two, before or after the command's name."""
        self.assertEqual(self.shown("--digest", "sha256", "show", "a")["digest"], "sha256")
        self.assertEqual(self.shown("show", "a", "--digest=")["digest"], "sha512-256")
        self.assertEqual(
            self.error("show", "a", "--digest", "md5"), "Error: invalid digest algorithm 'md5'"
        )

    def test_deprecated_spelling(self) -> None:
        """A deprecated spelling works and is mentioned on stderr, in Go desync's words."""
        outcome = desync("show", "a", "--writeable")
        self.assertIn("writable=True", outcome.text)
        self.assertIn("Flag --writeable has been deprecated, use --writable instead\n", outcome.err)
        self.assertNotIn("writeable", desync("show", "--help").text)

    def test_casync_flags(self) -> None:
        """What casync puts before the names of the programs it starts is accepted there."""
        for args in (
            ["--log-level=7", "--rate-limit-bps=100", "show", "a"],
            ["--log-level", "7", "show", "a"],
        ):
            self.assertEqual(self.shown(*args)["where"], "'a'")
        self.assertEqual(self.error("--log-level=7", "many"), "Error: unknown flag: --log-level")

    def test_notes(self) -> None:
        """Notes go to stderr; --quiet drops them, --verbose adds more."""
        self.assertEqual(desync("show", "a").err, "noted\n")
        self.assertEqual(desync("show", "a", "--quiet").err, "")
        self.assertEqual(desync("--verbose", "show", "a").err, "noted\nin detail\n")

    def test_deprecated_configuration(self) -> None:
        """Deprecated fields of the configuration are mentioned, unless --quiet."""
        path = self.mktemp()
        Path(path).write_text('{"http-timeout": 1}')
        warning = f"Warning: {path}: http-timeout is deprecated, use timeout in store-options"
        self.assertIn(warning, desync("--config", path, "show", "a").err)
        self.assertEqual(desync("--config", path, "show", "a", "--quiet").err, "")

    def test_names_that_are_not_utf8(self) -> None:
        """Arguments hold any bytes, and come out as they went in."""
        name = os.fsdecode(b"/tmp/\xff\xfe")
        outcome = desync("many", "a", name)
        self.assertIn(rb"\udcff\udcfe", outcome.out)


class ArgumentsTests(SampleTestCase):
    """How many arguments there are."""

    def test_exact(self) -> None:
        """A command with a fixed number of arguments takes just that many."""
        self.assertEqual(self.error("fail"), "Error: accepts 1 arg(s), received 0")
        self.assertEqual(self.error("fail", "a", "b"), "Error: accepts 1 arg(s), received 2")

    def test_range(self) -> None:
        """A command with optional arguments takes from so many to so many."""
        self.assertEqual(self.error("show"), "Error: accepts between 1 and 2 arg(s), received 0")
        self.assertEqual(
            self.error("show", *"abc"), "Error: accepts between 1 and 2 arg(s), received 3"
        )

    def test_many(self) -> None:
        """A command that takes any number wants at least what it needs."""
        self.assertEqual(desync("many", *"abc").text, "('a', ('b', 'c'))\n")
        self.assertEqual(
            self.error("many", "a"), "Error: requires at least 2 arg(s), only received 1"
        )

    def test_none(self) -> None:
        """A command without arguments takes one for a command's name, as Go desync's does."""
        self.assertEqual(
            self.error("config", "x"), 'Error: unknown command "x" for "desync config"'
        )


class ErrorTests(SampleTestCase):
    """How errors are told."""

    def test_messages(self) -> None:
        """Each kind of error is one line on stderr, with nothing in it that harms a terminal."""
        for how, message in (
            ("usage", "it's wrong"),
            ("chunk", f"https://user:***@host/: chunk {'0' * 64} missing from store"),
            ("secret", "https://user:***@host/: Bearer ***"),
            ("controls", r"name\x1b[31m\n\xff\u202e"),
            ("os", r"/a\xff: No such file or directory"),
            ("bare-os", "odd"),
            ("memory", "out of memory"),
            ("interrupted", "interrupted"),
            ("keyboard", "interrupted"),
            ("pipe", "/run/socket: Broken pipe"),
        ):
            self.assertEqual(self.error("fail", how), f"Error: {message}")

    def test_show_secrets(self) -> None:
        """Secrets are shown on request."""
        self.assertIn("hunter2", self.error("fail", "secret", "--show-secrets"))

    def test_secrets_of_the_configuration(self) -> None:
        """What the configuration holds is masked wherever it turns up."""
        path = self.mktemp()
        Path(path).write_text('{"store-options": {"/a": {"http-auth": "wrong"}}}')
        self.assertEqual(self.error("--config", path, "fail", "usage"), "Error: it's ***")

    def test_defects(self) -> None:
        """Anything unexpected is one line too, without a traceback, and a hint how to see that."""
        for how, what in (
            ("defect", r"ZeroDivisionError: division\nby zero"),
            ("recursion", "RecursionError: too deep"),
            ("exit", "SystemExit: 7"),
        ):
            self.assertEqual(
                self.error("fail", how),
                f"Error: internal error: {what}\n"
                "This is a defect of desync; --verbose shows where it arose.",
            )

    def test_traceback(self) -> None:
        """--verbose shows where an error arose, with secrets masked there too."""
        message = self.error("--verbose", "fail", "secret")
        self.assertIn("Traceback (most recent call last):\n", message)
        self.assertIn("sample_commands.py", message)
        self.assertNotIn("user:hunter2", message)
        self.assertEqual(message.splitlines()[-1], "Error: https://user:***@host/: Bearer ***")

    def test_results_before_a_failure(self) -> None:
        """What was printed before the failure is printed."""
        self.assertEqual(desync("fail", "usage").out, b"before\n")

    def test_findings(self) -> None:
        """A command that returns 1 ends with that, without a message."""
        self.assertEqual(desync("fail", "quietly"), Outcome(1, b"before\n", ""))

    def test_bad_configuration(self) -> None:
        """A configuration that can't be loaded stops the commands that use it."""
        path = self.mktemp()
        message = self.error("--config", path, "show", "a")
        self.assertEqual(message, f"Error: {path}: No such file or directory")
        self.assertEqual(desync("--config", path, "version").code, 0)

    def test_closed_stderr(self) -> None:
        """When nobody listens on stderr, the exit code still tells."""
        err = io.StringIO()
        err.close()
        streams = Streams(io.BytesIO(), io.BytesIO(), err)
        code = main(["fail", "usage"], standalone=False, streams=streams, environ=NO_HOME)
        self.assertEqual(code, 1)

    def test_closed_stdout(self) -> None:
        """When nobody reads the results, the command ends without a word."""

        class Closed(io.BytesIO):
            def write(self, data: object) -> int:
                raise OutputClosed

        err = io.StringIO()
        for args in (["show", "a", "--quiet"], ["--help"], ["show", "-h"]):
            streams = Streams(io.BytesIO(), Closed(), err)
            code = main(args, standalone=False, streams=streams, environ=NO_HOME)
            self.assertEqual((code, err.getvalue()), (1, ""))


class NamesTests(SampleTestCase):
    """Finding a command."""

    def test_unknown(self) -> None:
        """An unknown command is told in Go desync's words."""
        self.assertEqual(
            self.error("foo"),
            'Error: unknown command "foo" for "desync"\nRun \'desync --help\' for usage.',
        )

    def test_similar(self) -> None:
        """Commands with similar names are suggested."""
        self.assertEqual(
            self.error("list-chunk", "x"),
            'Error: unknown command "list-chunk" for "desync"\n\nDid you mean this?\n'
            "\tlist-chunks\n\nRun 'desync --help' for usage.",
        )

    def test_similar_names(self) -> None:
        """Similar is what begins alike, or is two edits away at most."""
        names = dict.fromkeys(["cat", "make", "tar", "verify", "verify-index"])
        self.assertEqual(similar_to("mak", names), ["cat", "make", "tar"])
        self.assertEqual(similar_to("maek", names), ["make"])
        self.assertEqual(similar_to("VERI", names), ["verify", "verify-index"])
        self.assertEqual(similar_to("foo", names), [])

    def test_strange_names(self) -> None:
        """A name with control characters in it is shown harmlessly."""
        self.assertTrue(self.error("\x1b[2J").startswith(r'Error: unknown command "\x1b[2J"'))

    def test_unknown_flag(self) -> None:
        """Without a command, only global flags are known."""
        self.assertEqual(self.error("--bogus"), "Error: unknown flag: --bogus")
        self.assertEqual(self.error("-z"), "Error: unknown shorthand flag: 'z' in -z")
        self.assertEqual(self.error("--config"), "Error: flag needs an argument: --config")
        self.assertEqual(self.error("show", "--version"), "Error: unknown flag: --version")

    def test_missing_module(self) -> None:
        """A command whose module doesn't exist isn't there."""
        self.assertNotIn("nowhere", desync("--help").text)
        self.assertIn('unknown command "nowhere"', self.error("nowhere"))


class HelpTests(SampleTestCase):
    """Help."""

    def test_program(self) -> None:
        """Bare, with -h, --help or help, all commands are listed with a line each."""
        texts = {desync(*args).text for args in ([], ["-h"], ["--help"], ["help"], ["--", "x"])}
        self.assertEqual(len(texts), 1)
        text = texts.pop()
        for name, entry in table.available().items():
            self.assertIn(f"  {name} ", text)
            self.assertIn(entry.summary, text)
        for flag in GLOBAL_FLAGS:
            self.assertIn(flag.long, text)

    def test_command(self) -> None:
        """-h, --help and help show a command's help, with arguments or without, right or wrong."""
        texts = {
            desync(*line.split()).text
            for line in (
                "show -h",
                "show --help",
                "help show",
                "-h show",
                "--help show",
                "show a -h",
                "show a b c d --help",
            )
        }
        self.assertEqual(len(texts), 1)
        text = texts.pop()
        self.assertTrue(text.startswith("Usage: desync show <where> [<other>] [flags]\n"), text)
        self.assertIn("  -s, --store strings ", text)
        self.assertIn("      --wait duration ", text)
        self.assertIn("(default 1.5s)", text)
        self.assertNotIn("log-level", text)

    def test_flags_are_checked_first(self) -> None:
        """A wrong flag is an error in spite of -h, as in Go desync."""
        self.assertEqual(self.error("show", "-h", "--bogus"), "Error: unknown flag: --bogus")

    def test_every_command(self) -> None:
        """Each command's help says how it's called, what it does, and ends with an example."""
        for name, entry in table.available().items():
            outcome = desync(name, "--help")
            self.assertEqual(outcome.code, 0, outcome)
            text = outcome.text
            self.assertTrue(text.startswith(f"Usage: desync {name} "), text)
            examples = text.partition("\nExamples:\n")[2].splitlines()
            self.assertTrue(examples, name)
            for example in examples:
                self.assertTrue(example.startswith("  "), (name, example))
                self.assertIn("desync", example)
            self.assertTrue(entry.summary and not entry.summary.endswith("."), name)

    def test_help_of_nothing(self) -> None:
        """Help about an unknown command is an error."""
        self.assertIn('unknown command "foo"', self.error("help", "foo"))


class TableTests(SynchronousTestCase):
    """The table of commands."""

    def test_targets(self) -> None:
        """What the table says of each command is where the command is, under that name."""
        for name, entry in table.available().items():
            module, _, attribute = entry.target.partition(":")
            command = getattr(importlib.import_module(module), attribute)
            self.assertIsInstance(command, Command)
            self.assertEqual(command.name, name)
            self.assertEqual(module, "desync.cli." + name.replace("-", "_"))

    def test_listing_imports_nothing(self) -> None:
        """Finding out which commands there are imports none of them."""
        for name in list(sys.modules):
            if name == "desync.cli.manpage":
                self.patch(sys, "modules", {k: v for k, v in sys.modules.items() if k != name})
        self.assertIn("manpage", table.available())
        self.assertNotIn("desync.cli.manpage", sys.modules)


class PrintableTests(SynchronousTestCase):
    """Text for terminals."""

    def test_printable(self) -> None:
        """What is printable is left alone, the rest is escaped."""
        for text, expected in (
            ("plain \u00e9 \u65e5\u672c", "plain \u00e9 \u65e5\u672c"),
            ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
            ("a\tb\r\nc", r"a\tb\r\nc"),
            ("\x7f\x9b", r"\x7f\x9b"),
            ("\udc80\udcff", r"\x80\xff"),
            ("\u202e\u2066", r"\u202e\u2066"),
            ("\ud800", r"\ud800"),
            ("\u2028", r"\u2028"),
        ):
            self.assertEqual(printable(text), expected)
