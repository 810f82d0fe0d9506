# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The group of all commands: finds the one that is meant, runs it, and reports what went wrong.

Whatever isn't needed for the command at hand isn't imported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from desync.errors import DesyncError, Interrupted, UsageError, describe_os_error

from . import pflag, table
from .command import Command
from .flags import BOOLEAN, GLOBAL_FLAGS, Flag
from .invocation import Session
from .streams import OutputClosed

_ABOUT = """\
Content-addressed distribution of large files and directory trees: cuts them into chunks that are
kept, compressed, in chunk stores, and rebuilds them from indexes, stores, seeds and caches.
Compatible with casync and with Go desync.

\b
Store locations, in -s/--store and -c/--cache:
  /path/to/store              a local directory
  http(s)://host/path/        a chunk server
  s3+http(s)://host/bucket    an S3 bucket
  gs://bucket/prefix          a Google Cloud Storage bucket
  sftp://user@host/path       a directory over SFTP
  ssh://user@host/path        a store over the casync protocol

Commands that read from several stores ask them in the order given. "a|b" is one store with two
places: b is used when a fails.
"""

_VERSION = Flag(["--version"], kind=BOOLEAN, help="show the version and what it runs on")


def about() -> str:
    """Say what the program is, as its help does."""
    return _ABOUT


class UnknownCommand(UsageError):
    """
    There's no such command.

    :ivar similar: names of commands that may have been meant.
    """

    def __init__(self, name: str, similar: list[str]) -> None:
        super().__init__(f'unknown command "{name}" for "desync"')
        self.similar = similar


class Program(click.Group):
    """All commands, each imported when it's asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(table.available())

    def get_command(self, ctx: click.Context, cmd_name: str) -> Command | None:
        entry = table.available().get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        found = getattr(import_module(module), attribute)
        assert isinstance(found, Command)
        return found

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Tell the command's name from the flags around it."""
        spellings = pflag.spellings_of((*GLOBAL_FLAGS, _VERSION))
        at = pflag.find_command(args, spellings)
        if at is not None and args[at] == "help":
            # `desync help make` is `desync make --help`.
            args = [*args[:at], *args[at + 1 :], "--help"]
            at = pflag.find_command(args, spellings)
        if at is not None:
            ctx.args = [args[at], *args[:at], *args[at + 1 :]]
            return ctx.args
        ctx.args = []
        parsed = pflag.parse(args, spellings)
        if parsed.values.get("version") and not parsed.values.get("show_help"):
            ctx.args = ["version"]
        return ctx.args

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named, or show the help if none was."""
        session = ctx.find_object(Session)
        assert session is not None
        if not ctx.args:
            session.streams.stdout.write((self.get_help(ctx) + "\n").encode())
            return None
        name, *args = ctx.args
        found = self.get_command(ctx, name)
        if found is None:
            raise UnknownCommand(name, similar_to(name, table.available()))
        with found.make_context(name, args, parent=ctx) as sub_context:
            return found.invoke(sub_context)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[command]"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.summary) for name, each in table.available().items()])
        flags = (*GLOBAL_FLAGS, _VERSION)
        with formatter.section("Flags"):
            formatter.write_dl([row for each in flags if (row := each.get_help_record(ctx))])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write('\n"desync [command] --help" tells more about a command.\n')


def similar_to(name: str, names: Mapping[str, object]) -> list[str]:
    """List the names that a mistyped one may stand for: two edits away at most, or begun alike."""
    lower = name.lower()
    return [each for each in names if each.startswith(lower) or _distance(lower, each) <= 2]


def _distance(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        before, row[0] = row[0], number
        for at, against in enumerate(other, 1):
            change = before + (letter != against)
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, change)
    return row[-1]


def run_program(argv: Sequence[str], session: Session) -> int:
    """
    Run the command that a command line asks for, and report its errors.

    :param argv: what follows the program's name.
    :return: the exit code, 0 or 1.
    """
    try:
        program = Program(
            "desync",
            help=_ABOUT,
            invoke_without_command=True,
            add_help_option=False,
            context_settings={"obj": session},
        )
        instruction = session.environ.get("_DESYNC_COMPLETE")
        if instruction:
            from .completion import answer

            answer(program, instruction, session.streams)
            session.streams.stdout.flush()
            return 0
        with program.make_context("desync", list(argv)) as context:
            result = program.invoke(context)
        session.streams.stdout.flush()
    except OutputClosed:
        return 1
    except BaseException as error:
        return _report(error, session)
    return 1 if result else 0


def _report(error: BaseException, session: Session) -> int:
    """Say what went wrong, in one line."""
    if session.verbose:
        import traceback

        # Line by line, so that it stays readable with its control characters escaped.
        for line in "".join(traceback.format_exception(error)).splitlines():
            session.say(line)
    with contextlib.suppress(OSError, OutputClosed):
        # What was written before the failure is part of the results.
        session.streams.stdout.flush()
    if isinstance(error, (KeyboardInterrupt, Interrupted)):
        session.say(f"Error: {error if isinstance(error, Interrupted) else Interrupted()}")
    elif isinstance(error, UnknownCommand):
        session.say(f"Error: {error}")
        if error.similar:
            names = "".join(f"\t{name}\n" for name in error.similar)
            session.say_as_is(f"\nDid you mean this?\n{names}")
        session.say("Run 'desync --help' for usage.")
    elif isinstance(error, DesyncError):
        session.say(f"Error: {error}")
    elif isinstance(error, OSError):
        session.say(f"Error: {describe_os_error(error)}")
    elif isinstance(error, MemoryError):
        session.say("Error: out of memory")
    else:
        session.say(f"Error: internal error: {type(error).__name__}: {error}")
        if not session.verbose:
            session.say("This is a defect of desync; --verbose shows where it arose.")
    return 1
