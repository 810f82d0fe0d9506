# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Telling flags from arguments the way Go's pflag does, because scripts written for Go desync rely on
it.

``-n5 -n=5 -n 5 --name=v --name v``, short switches in a bundle (``-tk``), ``--switch=false`` but
never ``--switch false``, flags after arguments, ``--`` to end flags, and ``-`` alone is an
argument. Long names aren't abbreviated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from desync.errors import UsageError

from .flags import STRINGS, Flag


class Parsed:
    """
    A command line, taken apart.

    :ivar values: parameter name -> value, of the flags that were given.
    :ivar arguments: what isn't a flag.
    :ivar notes: lines for the user: flags that are deprecated.
    """

    __slots__ = ("arguments", "notes", "values")

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.arguments: list[str] = []
        self.notes: list[str] = []

    def take(self, flag: Flag, text: str) -> None:
        """
        Give a flag a value; repeated ones add up if the flag takes several and else replace.

        :raise UsageError: if the flag can't have that value.
        """
        value = flag.value_of(text)
        if flag.kind is STRINGS and flag.name in self.values:
            value = self.values[flag.name] + value
        self.values[str(flag.name)] = value


def spellings_of(flags: Iterable[Flag]) -> dict[str, Flag]:
    """Index flags by every spelling that they have, dashes included."""
    return {
        spelling: flag for flag in flags for spelling in (*flag.opts, *flag.deprecated_spellings)
    }


def parse(args: Sequence[str], flags: Mapping[str, Flag]) -> Parsed:
    """
    Take a command line apart.

    :param args: what follows the program's name, without the command's.
    :param flags: by spelling.
    :raise UsageError: for the first flag that isn't right.
    """
    parsed = Parsed()
    rest = list(reversed(args))
    while rest:
        arg = rest.pop()
        if arg == "--":
            parsed.arguments.extend(reversed(rest))
            break
        if arg.startswith("--"):
            _take_long(arg, rest, flags, parsed)
        elif arg.startswith("-") and len(arg) > 1:
            _take_short(arg, rest, flags, parsed)
        else:
            parsed.arguments.append(arg)
    return parsed


def _take_long(arg: str, rest: list[str], flags: Mapping[str, Flag], parsed: Parsed) -> None:
    spelling, equals, value = arg.partition("=")
    if len(spelling) < 3 or spelling[2] == "-":
        raise UsageError(f"bad flag syntax: {arg}")
    flag = flags.get(spelling)
    if flag is None:
        raise UsageError(f"unknown flag: {spelling}")
    if not equals:
        if flag.is_switch:
            value = "true"
        elif rest:
            value = rest.pop()
        else:
            raise UsageError(f"flag needs an argument: {spelling}")
    parsed.take(flag, value)
    if spelling in flag.deprecated_spellings:
        advice = flag.deprecated_spellings[spelling]
        parsed.notes.append(f"Flag {spelling} has been deprecated, {advice}")


def _take_short(arg: str, rest: list[str], flags: Mapping[str, Flag], parsed: Parsed) -> None:
    letters = arg[1:]
    while letters:
        letter, after = letters[0], letters[1:]
        flag = flags.get(f"-{letter}")
        if flag is None:
            raise UsageError(f"unknown shorthand flag: '{letter}' in -{letters}")
        letters = ""
        if len(after) > 1 and after[0] == "=":
            value = after[1:]
        elif flag.is_switch:
            value, letters = "true", after
        elif after:
            value = after
        elif rest:
            value = rest.pop()
        else:
            raise UsageError(f"flag needs an argument: '{letter}' in {arg}")
        parsed.take(flag, value)


def find_command(args: Sequence[str], flags: Mapping[str, Flag]) -> int | None:
    """
    Find where the command's name is on the command line: it's the first argument.

    Flags may stand before it, the command's own too. As long as the command isn't known, a flag
    that isn't global and has no ``=`` is taken to be followed by its value, which is what Go desync
    does.

    :param flags: the global ones by spelling.
    :return: its position, None if there's no argument.
    """
    at = 0
    while at < len(args):
        arg = args[at]
        if arg == "--":
            return None
        if not arg.startswith("-") or arg == "-":
            return at
        alone = arg.startswith("--") or len(arg) == 2
        flag = flags.get(arg)
        if alone and "=" not in arg and not (flag is not None and flag.is_switch):
            at += 1
        at += 1
    return None
