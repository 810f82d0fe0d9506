# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for desync.cli.pflag and desync.cli.flags."""

from __future__ import annotations

import csv
import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.cli import table
from desync.cli.flags import (
    BOOLEAN,
    CASYNC_FLAGS,
    DURATION,
    GLOBAL_FLAGS,
    INTEGER,
    STORE_FLAGS,
    STRINGS,
    UNSIGNED,
    Flag,
    Kind,
    choice,
    parse_csv,
)
from desync.cli.pflag import Parsed, find_command, parse, spellings_of
from desync.cli.program import Program
from desync.errors import UsageError

_FLAGS = spellings_of(
    [
        Flag(["--number", "-n"], kind=INTEGER, default=10, minimum=1),
        Flag(["--store", "-s"], kind=STRINGS),
        Flag(["--trust", "-t"], kind=BOOLEAN),
        Flag(["--keep", "-k"], kind=BOOLEAN, default=True),
        Flag(["--name"]),
        Flag(
            ["--writable", "-w"],
            kind=BOOLEAN,
            deprecated_spellings={"--writeable": "use --writable instead"},
        ),
    ]
)


def parse_line(line: str) -> Parsed:
    """Take a command line apart whose words have no spaces in them."""
    return parse(line.split(), _FLAGS)


class ParseTests(SynchronousTestCase):
    """pflag's manners."""

    def test_values(self) -> None:
        """Each way to write a flag and its value means the same."""
        for line, values in (
            ("-n5", {"number": 5}),
            ("-n=5", {"number": 5}),
            ("-n 5", {"number": 5}),
            ("--number=5", {"number": 5}),
            ("--number 5", {"number": 5}),
            ("-n 5 -n 6", {"number": 6}),
            ("-t", {"trust": True}),
            ("-tk", {"trust": True, "keep": True}),
            ("-tn5", {"trust": True, "number": 5}),
            ("-tn 5", {"trust": True, "number": 5}),
            ("-t=false", {"trust": False}),
            ("-tk=0", {"trust": True, "keep": False}),
            ("--trust=T --keep=F", {"trust": True, "keep": False}),
            ("--trust --trust=false", {"trust": False}),
            ("-s a -sb -s=c --store=d,e", {"store": ["a", "b", "c", "d", "e"]}),
            ("--name=", {"name": ""}),
            ("--name --trust", {"name": "--trust"}),
            ("--name -- -t", {"name": "--", "trust": True}),
            ("--name -", {"name": "-"}),
            ("--name=a=b", {"name": "a=b"}),
            ("-sa=b", {"store": ["a=b"]}),
        ):
            parsed = parse_line(line)
            self.assertEqual((parsed.values, parsed.arguments), (values, []), line)

    def test_arguments(self) -> None:
        """Arguments are what isn't a flag: also between flags, a lone dash, and all after --."""
        for line, arguments in (
            ("a -t b -n 5 c", ["a", "b", "c"]),
            ("-t false", ["false"]),
            ("--trust false", ["false"]),
            ("- -t -", ["-", "-"]),
            ("a -- -t -- b", ["a", "-t", "--", "b"]),
            ("--", []),
        ):
            self.assertEqual(parse_line(line).arguments, arguments, line)
        self.assertEqual(parse(["", "-t", ""], _FLAGS).arguments, ["", ""])

    def test_refusals(self) -> None:
        """What isn't right is refused in Go desync's words."""
        for line, message in (
            ("--bogus", "unknown flag: --bogus"),
            ("--bogus=1", "unknown flag: --bogus"),
            ("--numb=1", "unknown flag: --numb"),
            ("--n=1", "unknown flag: --n"),
            ("-z", "unknown shorthand flag: 'z' in -z"),
            ("-tz", "unknown shorthand flag: 'z' in -z"),
            ("-ztk", "unknown shorthand flag: 'z' in -ztk"),
            ("-t=", "unknown shorthand flag: '=' in -="),
            ("--=x", "bad flag syntax: --=x"),
            ("---x", "bad flag syntax: ---x"),
            ("-n", "flag needs an argument: 'n' in -n"),
            ("-tn", "flag needs an argument: 'n' in -tn"),
            ("--number", "flag needs an argument: --number"),
            ("-n=", 'invalid argument "=" for "-n, --number" flag: not a whole number'),
            ("-nt5", 'invalid argument "t5" for "-n, --number" flag: not a whole number'),
            ("--trust=maybe", 'invalid argument "maybe" for "-t, --trust" flag: not true or false'),
            ("--trust=", 'invalid argument "" for "-t, --trust" flag: not true or false'),
            ("-n0", "--number must be at least 1"),
            ("-n=-5", "--number must be at least 1"),
            (
                '-sa,b -s"',
                'invalid argument """ for "-s, --store" flag: '
                'extraneous or missing " in quoted value',
            ),
        ):
            error = self.assertRaises(UsageError, parse_line, line)
            self.assertEqual(str(error), message)

    def test_deprecated_spelling(self) -> None:
        """A deprecated spelling works, and is said to be one."""
        parsed = parse_line("--writeable=false")
        self.assertEqual(parsed.values, {"writable": False})
        self.assertEqual(
            parsed.notes, ["Flag --writeable has been deprecated, use --writable instead"]
        )
        self.assertEqual(parse_line("-w --writable").notes, [])

    @given(st.lists(st.sampled_from(["-n", "5", "-t", "--", "-", "a", "--name", "-s=x", "--z"])))
    def test_refuses_or_keeps_everything(self, args: list[str]) -> None:
        """Any command line is refused with a usage error or taken apart without losing words."""
        try:
            parsed = parse(args, _FLAGS)
        except UsageError:
            return
        for word in parsed.arguments:
            self.assertIn(word, args)


class FindCommandTests(SynchronousTestCase):
    """Where the command's name is."""

    def test_positions(self) -> None:
        """The name is the first argument; an unknown flag before it takes the word after it."""
        flags = spellings_of(GLOBAL_FLAGS)
        for line, position in (
            ("make a b", 0),
            ("--verbose make", 1),
            ("--config c make", 2),
            ("--config=c make", 1),
            ("--verbose=false make", 1),
            ("-n 5 make", 2),
            ("-n5 make", 1),
            ("--log-level=5 pull", 1),
            ("--log-level 5 --rate-limit-bps=1 pull", 3),
            ("-h make", 1),
            ("- make", 0),
            ("", None),
            ("--help", None),
            ("-- make", None),
            ("-t make", None),
        ):
            self.assertEqual(find_command(line.split(), flags), position, line)


class KindTests(SynchronousTestCase):
    """What values may be."""

    def check(self, kind: Kind, good: dict[str, Any], bad: list[str]) -> None:
        """Expect some texts to be read as some values, and others to be refused."""
        for text, value in good.items():
            self.assertEqual(kind.parse(text), value, text)
        for text in bad:
            self.assertRaises(ValueError, kind.parse, text)

    def test_integers(self) -> None:
        """Numbers are what Go reads with base 0: signed, hexadecimal, octal, with underscores."""
        good = {
            "0": 0,
            "-5": -5,
            "+5": 5,
            "0x1F": 31,
            "0b11": 3,
            "0o17": 15,
            "017": 15,
            "1_000": 1000,
            "9223372036854775807": 2**63 - 1,
            "-9223372036854775808": -(2**63),
        }
        bad = ["", " 5", "5 ", "--5", "1e3", "1.0", "08", "x", "_1", "0x", "9223372036854775808"]
        self.check(INTEGER, good, [*bad, "\u0665", "-"])

    def test_unsigned(self) -> None:
        """An unsigned number has no sign at all."""
        self.check(UNSIGNED, {"0": 0, "7": 7}, ["-1", "+1", "-0", ""])

    def test_durations(self) -> None:
        """Durations are Go's."""
        self.check(DURATION, {"500ms": 500_000_000, "0": 0}, ["5", "", "1d"])

    def test_choices(self) -> None:
        """A choice is one of its words, exactly."""
        self.check(choice("a", "b"), {"a": "a"}, ["", "c", "A", "a "])

    def test_csv(self) -> None:
        """A value with several in it is one record of CSV."""
        for text, values in (
            ("", []),
            ("a", ["a"]),
            ("a,b", ["a", "b"]),
            (",", ["", ""]),
            ('"a,b",c', ["a,b", "c"]),
            ('"say ""hi"""', ['say "hi"']),
            ('""', [""]),
            (" a ", [" a "]),
            ("a\nb", ["a\nb"]),
        ):
            self.assertEqual(parse_csv(text), values)
        for text in ('a"b', '"a', '"a"b', '"', 'a,"'):
            self.assertRaises(ValueError, parse_csv, text)

    @given(st.lists(st.text(st.characters(exclude_characters="\r\n\x00")), min_size=2))
    def test_csv_as_others_write_it(self, values: list[str]) -> None:
        """What Python's csv module writes is read as it was."""
        out = io.StringIO()
        csv.writer(out, lineterminator="").writerow(values)
        self.assertEqual(parse_csv(out.getvalue()), values)


def _sample(flag: Flag) -> list[tuple[str, Any]]:
    """Give some texts for a flag's value, with the value each means."""
    if flag.kind is STRINGS:
        return [("x", ["x"]), ("x,y", ["x", "y"])]
    if flag.kind is BOOLEAN:
        return [("true", True), ("false", False), ("1", True)]
    if flag.kind in (INTEGER, UNSIGNED):
        return [("7", 7), ("0x10", 16)]
    if flag.kind is DURATION:
        return [("250ms", 250_000_000)]
    if flag.kind.choices:
        return [(each, each) for each in flag.kind.choices]
    return [("x", "x"), ("", ""), ("-", "-"), ("a,b=c", "a,b=c")]


class EveryFlagTests(SynchronousTestCase):
    """The same manners for every flag of every command there is."""

    def flag_sets(self) -> dict[str, list[Flag]]:
        """Give the flags that each command knows."""
        import click

        program = Program("desync")
        context = click.Context(program)
        found = {}
        for name in table.available():
            command = program.get_command(context, name)
            assert command is not None
            found[name] = list(command.flags)
        found["the common ones"] = [*GLOBAL_FLAGS, *STORE_FLAGS, *CASYNC_FLAGS]
        return found

    def test_unambiguous(self) -> None:
        """No spelling and no parameter belongs to two flags of one command."""
        for name, flags in self.flag_sets().items():
            spellings = [
                each for flag in flags for each in (*flag.opts, *flag.deprecated_spellings)
            ]
            self.assertEqual(len(spellings), len(set(spellings)), name)
            self.assertEqual(len({flag.name for flag in flags}), len(flags), name)

    def test_explained(self) -> None:
        """Each flag has a long spelling, at most one short one, and, unless hidden, a help text."""
        for name, flags in self.flag_sets().items():
            for flag in flags:
                self.assertTrue(flag.long.startswith("--"), (name, flag.opts))
                self.assertLessEqual(len(flag.opts), 2, (name, flag.opts))
                self.assertTrue(flag.hidden or flag.help, (name, flag.opts))
                self.assertTrue(flag.short is None or len(flag.short) == 2, (name, flag.opts))

    def test_every_way_to_write_each(self) -> None:
        """Each flag takes its value in every way, before and after arguments, and once more."""
        for name, flags in self.flag_sets().items():
            spellings = spellings_of(flags)
            for flag in flags:
                for text, value in _sample(flag):
                    ways = [[f"{each}={text}"] for each in flag.opts if text or len(each) > 2]
                    if flag.is_switch:
                        if value is True:
                            ways += [[each] for each in flag.opts]
                    else:
                        ways += [[each, text] for each in flag.opts]
                        if flag.short and text and text[0] != "=":
                            ways.append([flag.short + text])
                    for way in ways:
                        for args in (["a", *way, "b"], [*way, "a", "b"], ["a", "b", *way]):
                            parsed = parse(args, spellings)
                            self.assertEqual(parsed.values, {flag.name: value}, (name, args))
                            self.assertEqual(parsed.arguments, ["a", "b"], (name, args))
                        parsed = parse([*way, *way], spellings)
                        twice = value * 2 if flag.kind is STRINGS else value
                        self.assertEqual(parsed.values, {flag.name: twice}, (name, way))

    def test_bad_values(self) -> None:
        """Each flag that can't take any text says so, naming itself."""
        for name, flags in self.flag_sets().items():
            for flag in flags:
                if flag.kind.label == "string" and not flag.kind.choices:
                    continue
                bad = 'x"' if flag.kind is STRINGS else "x y"
                error = self.assertRaises(
                    UsageError, parse, [f"{flag.long}={bad}"], spellings_of(flags)
                )
                # A few have messages of their own, Go desync's.
                start = f'invalid argument "{bad}" for "{flag.spellings}" flag: '
                own = flag.long in ("--digest", "--format") and bad in str(error)
                self.assertTrue(own or str(error).startswith(start), (name, str(error)))

    def test_ends(self) -> None:
        """After --, no flag is one any more."""
        for name, flags in self.flag_sets().items():
            for flag in flags:
                args = ["--", *flag.opts]
                self.assertEqual(parse(args, spellings_of(flags)).arguments, flag.opts, name)
