# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Flags: what one is, what its values may be, and those that many commands share.

The rules for values are those of pflag, Go's library that Go desync's command line is made with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from desync.durations import format_duration, parse_duration
from desync.errors import UsageError
from desync.options import DEFAULT_CONCURRENCY, DEFAULT_ERROR_RETRY, DEFAULT_RETRY_INTERVAL
from desync.progress import MODES

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class Kind:
    """
    What a flag's value is.

    :param label: how the help calls a value.
    :param parse: makes a value of the text; ValueError says what is wrong with it.
    :param show: makes text of a default.
    :param choices: all there are, where they're words.
    """

    __slots__ = ("choices", "label", "parse", "show")

    def __init__(
        self,
        label: str,
        parse: Callable[[str], Any],
        show: Callable[[Any], str] = str,
        choices: tuple[str, ...] = (),
    ) -> None:
        self.label = label
        self.parse = parse
        self.show = show
        self.choices = choices


def _parse_boolean(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("not true or false")


def _parse_integer(text: str) -> int:
    # Go reads numbers with base 0: 0x1f, 0b11, 0o17, 017, 1_000.
    digits = text[1:] if text[:1] in ("-", "+") else text
    try:
        if not digits.isascii() or not digits[:1].isdigit() or not digits[-1:].isalnum():
            raise ValueError
        plain_octal = len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567_"
        value = int(digits, 8 if plain_octal else 0)
    except ValueError:
        raise ValueError("not a whole number") from None
    value = -value if text[0] == "-" else value
    if not -(2**63) <= value < 2**63:
        raise ValueError("out of range")
    return value


def _parse_unsigned(text: str) -> int:
    value = _parse_integer(text)
    if text[:1] in ("-", "+"):
        raise ValueError("not a whole number without a sign")
    return value


def parse_csv(text: str) -> list[str]:
    """
    Split a value into several at its commas, as one record of CSV.

    A value with a comma in it goes into double quotes, a double quote inside those is doubled.

    :raise ValueError: for quotes out of place.
    """
    if not text:
        return []
    values = []
    at = 0
    while True:
        if text[at : at + 1] == '"':
            value, at = _quoted(text, at + 1)
            if at < len(text) and text[at] != ",":
                raise ValueError('extraneous or missing " in quoted value')
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            value, at = text[at:end], end
            if '"' in value:
                raise ValueError('bare " in unquoted value')
        values.append(value)
        if at == len(text):
            return values
        at += 1


def _quoted(text: str, at: int) -> tuple[str, int]:
    value = ""
    while True:
        end = text.find('"', at)
        if end < 0:
            raise ValueError('extraneous or missing " in quoted value')
        value += text[at:end]
        if text[end + 1 : end + 2] != '"':
            return value, end + 1
        value += '"'
        at = end + 2


TEXT = Kind("string", str)
BOOLEAN = Kind("", _parse_boolean, lambda value: "true" if value else "false")
INTEGER = Kind("int", _parse_integer)
UNSIGNED = Kind("uint", _parse_unsigned)
DURATION = Kind("duration", parse_duration, format_duration)
STRINGS = Kind("strings", parse_csv, ",".join)


def choice(*values: str) -> Kind:
    """Make the kind of a value that is one of a few words."""

    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return text

    return Kind("|".join(values), parse, choices=values)


def _parse_digest(text: str) -> str:
    # Go desync takes an empty one for the default, and has a message of its own for others.
    if text not in ("", "sha512-256", "sha256"):
        raise UsageError(f"invalid digest algorithm '{text}'")
    return text or "sha512-256"


class Flag(click.Option):
    """
    A flag of a command.

    :param declarations: the long spelling and perhaps the short one; a plain word among them names
        the parameter of the command's function.
    :param kind: what its value is. Values of STRINGS are lists; the flag can be repeated.
    :param default: the value when the flag isn't given; for STRINGS an empty list.
    :param minimum: the smallest number that makes sense.
    :param deprecated_spellings: long spelling -> what to use instead; they work, aren't listed, and
        say so on stderr.
    """

    def __init__(
        self,
        declarations: list[str],
        *,
        kind: Kind = TEXT,
        default: Any = None,
        minimum: int | None = None,
        help: str = "",
        hidden: bool = False,
        deprecated_spellings: Mapping[str, str] | None = None,
    ) -> None:
        is_switch = kind is BOOLEAN
        super().__init__(
            declarations,
            is_flag=True if is_switch else None,
            multiple=kind is STRINGS,
            default=default,
            help=help,
            hidden=hidden,
            type=click.UNPROCESSED,
        )
        self.kind = kind
        self.is_switch = is_switch
        self.minimum = minimum
        self.deprecated_spellings = deprecated_spellings or {}
        self.when_absent = False if is_switch and default is None else default
        if kind is STRINGS:
            self.when_absent = list(default or ())

    @property
    def long(self) -> str:
        """The long spelling, with its dashes."""
        return next(spelling for spelling in self.opts if spelling.startswith("--"))

    @property
    def short(self) -> str | None:
        """The short spelling, with its dash."""
        return next((spelling for spelling in self.opts if not spelling.startswith("--")), None)

    @property
    def spellings(self) -> str:
        """How messages and the help call it: ``-n, --concurrency``."""
        return f"{self.short}, {self.long}" if self.short else self.long

    def value_of(self, text: str) -> Any:
        """
        Make a value of what was written.

        :raise UsageError: naming the flag and what is wrong.
        """
        try:
            value = self.kind.parse(text)
        except ValueError as error:
            raise UsageError(
                f'invalid argument "{text}" for "{self.spellings}" flag: {error}'
            ) from error
        if self.minimum is not None and value < self.minimum:
            raise UsageError(f"{self.long} must be at least {self.minimum}")
        return value

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        if self.hidden:
            return None
        label = f" {self.kind.label}" if self.kind.label else ""
        about = self.help or ""
        if self.when_absent not in (None, False, "", []):
            about += f" (default {self.kind.show(self.when_absent)})"
        indent = "" if self.short else "    "
        return f"{indent}{self.spellings}{label}", about


def flag(*declarations: str, **attributes: Any) -> Callable[[Any], Any]:
    """Declare a flag of the command that is decorated. See :class:`Flag` for the attributes."""
    return click.option(*declarations, cls=Flag, **attributes)


GLOBAL_FLAGS = (
    Flag(["--config"], help="configuration file (default $HOME/.config/desync/config.json)"),
    Flag(
        ["--digest"],
        kind=Kind("string", _parse_digest, choices=("sha512-256", "sha256")),
        default="sha512-256",
        help="digest algorithm of chunk ids, sha512-256 or sha256",
    ),
    Flag(
        ["--progress"],
        kind=choice(*MODES),
        default="auto",
        help="how progress is shown on stderr; auto is a bar on a terminal",
    ),
    Flag(["--quiet"], kind=BOOLEAN, help="say nothing but results and errors"),
    Flag(["--show-secrets"], kind=BOOLEAN, help="don't hide passwords and tokens in what is shown"),
    Flag(["--verbose"], kind=BOOLEAN, help="say more, also where in the program an error arose"),
    Flag(["--help", "-h", "show_help"], kind=BOOLEAN, help="show this help"),
)


def _concurrency(default: int) -> Flag:
    return Flag(
        ["--concurrency", "-n"],
        kind=INTEGER,
        default=default,
        minimum=1,
        help="how many chunks are worked on, or asked for, at once",
    )


CONCURRENCY = _concurrency(DEFAULT_CONCURRENCY)
STORE_FLAGS = (
    CONCURRENCY,
    Flag(["--client-cert"], help="certificate to show to TLS servers, PEM; needs --client-key"),
    Flag(["--client-key"], help="key of that certificate, PEM"),
    Flag(["--ca-cert"], help="authorities to trust, PEM, in place of the system's"),
    Flag(["--trust-insecure", "-t"], kind=BOOLEAN, help="trust any certificate"),
    Flag(
        ["--cache-repair", "-r"],
        kind=BOOLEAN,
        default=True,
        help="replace invalid chunks in the cache from the stores",
    ),
    Flag(
        ["--error-retry", "-e"],
        kind=INTEGER,
        default=DEFAULT_ERROR_RETRY,
        help="how often a request that failed is tried",
    ),
    Flag(
        ["--error-retry-base-interval", "-b"],
        kind=DURATION,
        default=DEFAULT_RETRY_INTERVAL,
        help="wait before the first retry; each further one waits that much longer",
    ),
)

WAITING_CONCURRENCY = 64
"""With 20 ms from a question to its answer, 3200 chunks a second: some 200 MB."""

# casync puts these before the name of the command that it runs on a server.
CASYNC_FLAGS = (
    Flag(["--log-level"], hidden=True),
    Flag(["--rate-limit-bps"], hidden=True),
)


def store_flags(function: Any) -> Any:
    """Declare the flags that say how stores are used, for :meth:`Invocation.store_options`."""
    return _declare(function, STORE_FLAGS)


def single_store_flags(function: Any) -> Any:
    """Declare the same but for those about caches, for a command that uses none."""
    return _declare(function, tuple(each for each in STORE_FLAGS if each.name != "cache_repair"))


def waiting_store_flags(function: Any) -> Any:
    """
    Declare the same for a command that can have somebody wait for each single chunk: more are asked
    for at once.
    """
    flags = [each for each in STORE_FLAGS if each is not CONCURRENCY]
    return _declare(function, (_concurrency(WAITING_CONCURRENCY), *flags))


def casync_flags(function: Any) -> Any:
    """Declare the flags that casync gives to the programs it starts on servers; they're ignored."""
    return _declare(function, CASYNC_FLAGS)


def concurrency_flag(function: Any) -> Any:
    """Declare ``-n`` alone, for a command that uses no remote store."""
    return _declare(function, (CONCURRENCY,))


def _declare(function: Any, flags: tuple[Flag, ...]) -> Any:
    # The list that click.option() adds to; it's read back to front.
    if not hasattr(function, "__click_params__"):
        function.__click_params__ = []
    function.__click_params__.extend(reversed(flags))
    return function
