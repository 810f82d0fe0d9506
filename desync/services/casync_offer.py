# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What a client of the casync protocol asks for in its command, and what it is given."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from desync.errors import UsageError
from desync.formats.protocol_session import Service

if TYPE_CHECKING:
    from desync.interfaces import IChunkSource, IChunkTarget, IIndexSource, IIndexTarget

#: The longest command that is taken, in characters.
COMMAND_LIMIT = 16384


class Asked(NamedTuple):
    """
    What a client's command names. Paths as it wrote them; empty for what isn't there.

    :param verb: ``pull`` or ``push``.
    :param stores: the store that may be written to first; to a pull all are the same.
    """

    verb: str
    archive_path: str
    index_path: str
    stores: tuple[str, ...]


def parse_command(text: str) -> Asked:
    """
    Read the command that ssh was given for the server, as casync and Go desync write it.

    What precedes ``pull`` or ``push`` is the name of the program, perhaps with variables before it
    and flags after it, and means nothing here. No shell ever sees the text.

    :raises UsageError: if it asks for anything else than a pull or a push.
    """
    if len(text) > COMMAND_LIMIT:
        raise UsageError("the command is too long")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise UsageError("the command holds control characters")
    try:
        words = shlex.split(text)
    except ValueError:  # a stray quote
        words = text.split()
    return parse_words(words)


def parse_words(words: list[str]) -> Asked:
    """
    Read the words of such a command.

    :raises UsageError: if they ask for anything else than a pull or a push.
    """
    at = next((number for number, word in enumerate(words) if word in ("pull", "push")), None)
    if at is None:
        raise UsageError("only casync's pull and push are served here")
    fields = ["" if word == "-" else word for word in words[at + 1 :]]
    if len(fields) < 4:
        raise UsageError(f"{words[at]} takes four paths or more, not {len(fields)}")
    base, archive, index, *stores = fields
    if base:
        raise UsageError("a base is not supported")
    named = tuple(store for store in stores if store)
    if words[at] == "push" and len(named) > 1:
        raise UsageError("push takes one store")
    if not (archive or index or named):
        raise UsageError("nothing to do")
    if archive and (index or named):
        raise UsageError("either an archive, or an index and stores")
    return Asked(words[at], archive, index, named)


class Offer(NamedTuple):
    """
    What one session gives or takes.

    :param source: chunks to be pulled; provides IBatch.
    :param target: where pushed chunks go.
    :param indexes: where an index is read from.
    :param index_target: where a pushed index goes.
    :param index_name: its name there.
    :param archive: path of an archive to be pulled.
    :param archive_target: path that a pushed archive gets.
    """

    source: IChunkSource | None = None
    target: IChunkTarget | None = None
    indexes: IIndexSource | None = None
    index_target: IIndexTarget | None = None
    index_name: str = ""
    archive: str = ""
    archive_target: str = ""

    @property
    def flags(self) -> Service:
        """What is said in HELLO."""
        flags = Service(0)
        if self.source is not None:
            flags |= Service.READABLE_STORE
        if self.target is not None:
            flags |= Service.WRITABLE_STORE
        if self.indexes is not None:
            flags |= Service.READABLE_INDEX
        if self.index_target is not None:
            flags |= Service.WRITABLE_INDEX
        if self.archive:
            flags |= Service.READABLE_ARCHIVE
        if self.archive_target:
            flags |= Service.WRITABLE_ARCHIVE
        return flags
