# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
'''
How to write a command.

A command is a module of its own in this package, named in :mod:`desync.cli.table`, that declares
flags and arguments and calls an operation::

    from .command import argument, command, flag, store_flags
    from .flags import BOOLEAN, STRINGS
    from .invocation import Invocation
    from desync.running import run

    @command("cat", examples=["desync cat -s /path/to/store file.caibx | sha256sum"])
    @argument("index")
    @argument("output", required=False)
    @flag("--store", "-s", kind=STRINGS, help="source store, may be given several times")
    @flag("--length", "-l", kind=INTEGER, default=0, minimum=0, help="how many bytes")
    @store_flags
    def cat(
        invocation: Invocation, index: str, output: str | None, store: list[str], length: int
    ) -> None:
        """Stream a blob to stdout or into a file."""
        from desync.operations.cat import cat
        ...
        run(cat(...))

* Import what costs time (operations, stores, zstandard) inside the function or lazily: ``desync cat
  --help`` needs none of it. Twisted is for commands that use the network, and then only through
  :func:`desync.running.run_with_reactor`.
* The function gets an :class:`~desync.cli.invocation.Invocation` and its own flags and arguments by
  name: ``str`` for text (file names hold bytes that aren't UTF-8 as surrogates, as everywhere in
  Python), ``None`` where a flag without a default isn't given, ``list[str]`` for STRINGS,
  nanoseconds for DURATION. Global flags and those of ``@store_flags`` aren't passed, the invocation
  has them: ``invocation.store_options(location)``, ``invocation.concurrency``,
  ``invocation.store_flags.cache_repair``.
* Positional arguments: ``@argument("file")``, ``@argument("output", required=False)``, and for any
  number ``@argument("indexes", nargs=-1, required=True)``, which is a tuple.
* Results go to ``invocation.out`` (bytes) or ``invocation.print()``, what else there is to say to
  ``invocation.note()``.
* It returns None, or the exit code 1 where that isn't an error to report (verify found something).
  It raises :class:`desync.errors.DesyncError` or OSError, which end the program with one line and
  exit code 1. SIGINT and SIGTERM raise KeyboardInterrupt in it: clean up in ``finally`` or
  ``except BaseException``, and let it go on.
* The docstring is the help's text; the line in the list of commands is in the table.
* Tests run it in-process with ``tests.command_line.desync("cat", "x.caibx")``.
'''

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from desync.config import Config, StoreFlags
from desync.errors import UsageError
from desync.progress import choose

from . import pflag
from .flags import (
    GLOBAL_FLAGS,
    STORE_FLAGS,
    Flag,
    casync_flags,
    concurrency_flag,
    flag,
    single_store_flags,
    store_flags,
    waiting_store_flags,
)
from .invocation import Invocation, Session
from .table import COMMANDS

__all__ = [
    "Command",
    "argument",
    "casync_flags",
    "command",
    "concurrency_flag",
    "flag",
    "single_store_flags",
    "store_flags",
    "waiting_store_flags",
]


def argument(name: str, **attributes: Any) -> Callable[[Any], Any]:
    """Declare a positional argument: ``required=False`` for the last, ``nargs=-1`` for many."""
    attributes.setdefault("metavar", f"<{name.replace('_', '-')}>")
    return click.argument(name, type=click.UNPROCESSED, **attributes)


def command(
    name: str, *, examples: Sequence[str], loads_config: bool = True
) -> Callable[[Callable[..., int | None]], Command]:
    """
    Make a command of a function.

    :param name: as in the table.
    :param examples: command lines that end the help.
    :param loads_config: whether the configuration is read before the function is called; without,
        ``invocation.config`` is an empty one.
    """

    def decorate(function: Callable[..., int | None]) -> Command:
        made = click.command(
            name, cls=Command, examples=examples, loads_config=loads_config, add_help_option=False
        )(function)
        assert isinstance(made, Command)
        return made

    return decorate


class Command(click.Command):
    """A command whose flags are parsed as pflag does. Made by :func:`command`."""

    def __init__(
        self, name: str, *, examples: Sequence[str], loads_config: bool, **attributes: Any
    ) -> None:
        super().__init__(name, **attributes)
        self.examples = examples
        self.loads_config = loads_config
        self.own_flags = [param for param in self.params if isinstance(param, Flag)]
        self.arguments = [param for param in self.params if isinstance(param, click.Argument)]
        self.flags = [*self.own_flags, *GLOBAL_FLAGS]
        if name in COMMANDS:
            self.short_help = COMMANDS[name].summary

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Fill the context's parameters from what followed the command's name."""
        parsed = pflag.parse(args, pflag.spellings_of(self.flags))
        for each in self.flags:
            name = str(each.name)
            given = name in parsed.values
            ctx.params[name] = parsed.values[name] if given else _copy(each.when_absent)
            source = click.core.ParameterSource
            ctx.set_parameter_source(name, source.COMMANDLINE if given else source.DEFAULT)
        for note in parsed.notes:
            _session(ctx).say(note)
        if not ctx.params["show_help"]:
            self._take_arguments(ctx, parsed.arguments)
        ctx.args = []
        return []

    def _take_arguments(self, ctx: click.Context, given: list[str]) -> None:
        least = sum(1 for each in self.arguments if each.required)
        most: int | None = len(self.arguments)
        if any(each.nargs == -1 for each in self.arguments):
            most = None
        count = len(given)
        if most is None:
            if count < least:
                raise UsageError(f"requires at least {least} arg(s), only received {count}")
        elif most == 0 and count:
            raise UsageError(f'unknown command "{given[0]}" for "{ctx.command_path}"')
        elif least == most and count != most:
            raise UsageError(f"accepts {most} arg(s), received {count}")
        elif not least <= count <= most:
            raise UsageError(f"accepts between {least} and {most} arg(s), received {count}")
        rest = list(given)
        for each in self.arguments:
            name = str(each.name)
            if each.nargs == -1:
                ctx.params[name], rest = tuple(rest), []
            else:
                ctx.params[name] = rest.pop(0) if rest else None

    def invoke(self, ctx: click.Context) -> int | None:
        """Run the command, or show its help."""
        session = _session(ctx)
        params = dict(ctx.params)
        if params.pop("show_help"):
            session.streams.stdout.write((self.get_help(ctx) + "\n").encode())
            return None
        session.verbose = params.pop("verbose")
        session.show_secrets = params.pop("show_secrets")
        quiet = params.pop("quiet")
        progress = choose(
            params.pop("progress"), session.streams.stderr, session.environ, quiet=quiet
        )
        path = params.pop("config")
        if self.loads_config:
            config = Config.load(path, session.environ)
        else:
            config = Config(path, session.environ)
        session.config = config
        invocation = Invocation(
            str(self.name),
            session,
            config,
            digest_name=params.pop("digest"),
            progress=progress,
            quiet=quiet,
            store_flags=_store_flags(ctx, params),
        )
        for warning in config.warnings:
            invocation.note(f"Warning: {warning}")
        params.pop("log_level", None)
        params.pop("rate_limit_bps", None)
        assert self.callback is not None
        result: int | None = ctx.invoke(self.callback, invocation, **params)
        return result

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*(_usage(each) for each in self.arguments), "[flags]"]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*self.arguments, *self.flags]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, flags in (("Flags", self.own_flags), ("Global flags", list(GLOBAL_FLAGS))):
            rows = [row for each in flags if (row := each.get_help_record(ctx)) is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=40)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for example in self.examples:
                # Not wrapped: it's there to be copied.
                formatter.write(" " * formatter.current_indent + example + "\n")


def _usage(each: click.Argument) -> str:
    text = str(each.metavar)
    if each.nargs == -1:
        text += "..."
    return text if each.required else f"[{text}]"


def _copy(value: Any) -> Any:
    return list(value) if isinstance(value, list) else value


def _session(ctx: click.Context) -> Session:
    session = ctx.find_object(Session)
    assert session is not None
    return session


def _store_flags(ctx: click.Context, params: dict[str, Any]) -> StoreFlags:
    """Take the store flags out of the parameters; those that weren't given come out as None."""
    values = {}
    for each in STORE_FLAGS:
        name = str(each.name)
        if name not in params:
            continue
        value = params.pop(name)
        given = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given or name in ("concurrency", "cache_repair"):
            values[name] = value
    flags = StoreFlags(**values)
    if bool(flags.client_cert) != bool(flags.client_key):
        raise UsageError("--client-key and --client-cert options need to be provided together")
    return flags
