# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync manpage``: manual pages made of what the help says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from desync import __version__

from . import table
from .command import Command, argument, command, flag
from .flags import GLOBAL_FLAGS, Flag

if TYPE_CHECKING:
    from .invocation import Invocation


@command("manpage", examples=["desync manpage --section 1 /usr/local/share/man/man1"])
@argument("output-directory")
@flag("--section", default="3", help="section of the manual")
@flag("--title", default="desync", help="title in the pages' header")
@flag("--source", default="", help="where the program is from, in the pages' footer")
@flag("--manual", default="", help="name of the manual, in the pages' header")
def manpage(
    invocation: Invocation,
    output_directory: str,
    section: str,
    title: str,
    source: str,
    manual: str,
) -> None:
    """
    Write a manual page for desync and one for each of its commands.

    The directory has to exist.
    """
    from .program import Program, about

    program = Program("desync")
    context = click.Context(program, info_name="desync")
    header = _macro("TH", title.upper(), section, "", source or f"desync {__version__}", manual)
    commands = table.available()
    summary = "content-addressed distribution of large files and directory trees"
    page = [
        header,
        *_section("NAME", [f"desync \\- {_text(summary)}"]),
        *_section("SYNOPSIS", [r"\fBdesync\fP [command] [flags]"]),
        *_section("DESCRIPTION", _paragraphs(about())),
        *_section("OPTIONS", _flags(GLOBAL_FLAGS, context)),
        *_section("SEE ALSO", _see_also(commands, section)),
    ]
    _write(output_directory, f"desync.{section}", page)
    for name, entry in commands.items():
        found = program.get_command(context, name)
        assert found is not None
        page = [header, *_command_page(found, entry.summary, context, section)]
        _write(output_directory, f"desync-{name}.{section}", page)


def _command_page(
    found: Command, summary: str, parent: click.Context, section: str
) -> Iterable[str]:
    name = str(found.name)
    context = click.Context(found, info_name=name, parent=parent)
    usage = _text(" ".join(found.collect_usage_pieces(context)))
    yield from _section("NAME", [f"{_text(f'desync-{name}')} \\- {_text(summary)}"])
    yield from _section("SYNOPSIS", [rf"\fB{_text(f'desync {name}')}\fP {usage}"])
    yield from _section("DESCRIPTION", _paragraphs(found.help or ""))
    if found.own_flags:
        yield from _section("OPTIONS", _flags(found.own_flags, context))
    yield from _section("OPTIONS OF ALL COMMANDS", _flags(GLOBAL_FLAGS, context))
    yield from _section("EXAMPLE", [".nf", *map(_text, found.examples), ".fi"])
    yield from _section("SEE ALSO", _see_also(["desync"], section))


def _section(title: str, lines: Iterable[str]) -> Iterable[str]:
    yield _macro("SH", title)
    yield from lines


def _flags(flags: Sequence[Flag], context: click.Context) -> Iterable[str]:
    for each in flags:
        record = each.get_help_record(context)
        if record is not None:
            spellings, about = record
            yield ".TP"
            yield rf"\fB{_text(spellings.strip())}\fP"
            yield _text(about)


def _paragraphs(text: str) -> Iterable[str]:
    for paragraph in text.strip().split("\n\n"):
        lines = [line.strip() for line in paragraph.splitlines()]
        if lines[0] == "\b":  # click's mark for what isn't to be wrapped
            yield from (".nf", *(_text(line) for line in paragraph.splitlines()[1:]), ".fi")
        else:
            yield from map(_text, lines)
        yield ".PP"


def _see_also(names: Iterable[str], section: str) -> Iterable[str]:
    pages = (name if name == "desync" else f"desync-{name}" for name in names)
    return [", ".join(rf"\fB{_text(page)}\fP({section})" for page in pages)]


def _macro(name: str, *arguments: str) -> str:
    quoted = (_text(each).replace('"', r"\(dq") for each in arguments)
    return " ".join((f".{name}", *(f'"{each}"' for each in quoted)))


def _text(text: str) -> str:
    """Make a line of text safe from being taken for roff."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text


def _write(directory: str, name: str, lines: Iterable[str]) -> None:
    with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
