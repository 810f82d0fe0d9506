# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
``desync completion``, and the answers to the shells that its scripts are installed in.

The scripts are click's. They run the program with :data:`VARIABLE` in its environment, which says
that it's to list what the word at the cursor may become.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from desync.errors import UsageError

from . import pflag, table
from .command import argument, command
from .flags import GLOBAL_FLAGS, Flag

if TYPE_CHECKING:
    from .invocation import Invocation
    from .program import Program
    from .streams import Streams

VARIABLE = "_DESYNC_COMPLETE"
SHELLS = ("bash", "fish", "zsh")

Items = list[CompletionItem[str]]


@command(
    "completion",
    examples=[
        "desync completion bash > /etc/bash_completion.d/desync",
        "source <(desync completion zsh)",
        "desync completion fish > ~/.config/fish/completions/desync.fish",
    ],
    loads_config=False,
)
@argument("shell", metavar="<bash|fish|zsh>", shell_complete=lambda *_: list(SHELLS))
def completion(invocation: Invocation, shell: str) -> None:
    """Print a script that makes a shell complete the commands, flags and files of desync."""
    if shell not in SHELLS:
        raise UsageError(f'no completion for shell "{shell}", only for {", ".join(SHELLS)}')
    script = _completer(shell, click.Group("desync"))
    # Not its source(), which first asks the shell for its version, whichever that is.
    invocation.print((script.source_template % script.source_vars()).rstrip("\n"))


def answer(program: Program, instruction: str, streams: Streams) -> None:
    """
    Tell a shell what may stand at the cursor.

    :param instruction: the value of :data:`VARIABLE`, such as ``bash_complete``.
    """
    shell, _, what = instruction.partition("_")
    if shell not in SHELLS or what != "complete":
        raise UsageError(f"{VARIABLE} is set to something that no completion script sets it to")
    completer = _completer(shell, program)
    args, incomplete = completer.get_completion_args()
    for item in completions(program, args, incomplete):
        line = completer.format_completion(item)
        streams.stdout.write(line.encode("utf-8", "surrogateescape") + b"\n")


def completions(program: Program, args: Sequence[str], incomplete: str) -> Items:
    """
    List what the word at the cursor may become.

    :param args: the words before it, without the program's name.
    :param incomplete: what there is of it, perhaps nothing.
    """
    global_flags = pflag.spellings_of(GLOBAL_FLAGS)
    at = pflag.find_command(args, global_flags)
    found = None if at is None else program.get_command(click.Context(program), args[at])
    flags = global_flags if found is None else pflag.spellings_of(found.flags)
    if "--" not in args:
        # bash takes "=" for a word of its own, the others don't.
        if args and args[-1] == "=":
            args = args[:-1]
        elif args and incomplete == "=":
            incomplete = ""
        elif incomplete.startswith("--") and "=" in incomplete:
            spelling, _, value = incomplete.partition("=")
            return _values(flags.get(spelling), value, f"{spelling}=")
        elif incomplete.startswith("-"):
            return _spellings(flags.values(), incomplete)
        wanting = flags.get(args[-1]) if args else None
        if wanting is not None and not wanting.is_switch:
            return _values(wanting, incomplete)
    if found is not None:
        words = [word for word in args[at or 0 :] if not word.startswith("-")]
        return _arguments(found.arguments, len(words) - 1, incomplete)
    if at is not None:
        return []
    return [
        CompletionItem(name, help=entry.summary)
        for name, entry in table.available().items()
        if name.startswith(incomplete)
    ]


def _spellings(flags: Iterable[Flag], incomplete: str) -> Items:
    return [
        CompletionItem(spelling, help=flag.help)
        for flag in dict.fromkeys(flags)
        if not flag.hidden
        for spelling in flag.opts
        if spelling.startswith(incomplete)
    ]


def _values(flag: Flag | None, incomplete: str, prefix: str = "") -> Items:
    choices = flag.kind.choices if flag is not None else ()
    if choices:
        return [CompletionItem(prefix + each) for each in choices if each.startswith(incomplete)]
    return _files(incomplete)


def _arguments(arguments: Sequence[click.Argument], position: int, incomplete: str) -> Items:
    if not arguments:
        return []
    wanted = arguments[min(position, len(arguments) - 1)]
    if position >= len(arguments) and wanted.nargs != -1:
        return []
    items = wanted.shell_complete(click.Context(click.Command(None)), incomplete)
    return [each for each in items if each.value.startswith(incomplete)] or _files(incomplete)


def _files(incomplete: str) -> Items:
    return [CompletionItem(incomplete, type="file")]


def _completer(shell: str, program: click.Group) -> ShellComplete:
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    return shell_class(program, {}, "desync", VARIABLE)
