# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Files named ``.caexclude``: what of a directory, and of all below it, an archive leaves out.

A line is a pattern; those that are empty or begin with ``#`` are not. ``!`` in front makes it say
what is kept all the same. A pattern with a slash in it holds from this directory on, component by
component; one without matches a name at any depth below. A slash at the end matches directories
only. ``*``, ``?`` and ``[...]`` are what they are in a shell, and match no dot at the beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

NAME: Final = b".caexclude"

SIZE_LIMIT: Final = 1 << 20
"""The longest such file that is read, in bytes."""


class BadPattern(ValueError):
    """A line that is no pattern."""


class Pattern:
    """
    One line.

    :ivar keeps: whether it says what is kept.
    :ivar directories_only: whether it is about directories.
    :ivar anchored: whether it begins at the directory of its file.
    :ivar components: what matches the components of a path.
    """

    __slots__ = ("anchored", "components", "directories_only", "keeps")

    def __init__(
        self,
        keeps: bool,
        directories_only: bool,
        anchored: bool,
        components: tuple[re.Pattern[bytes], ...],
    ) -> None:
        self.keeps = keeps
        self.directories_only = directories_only
        self.anchored = anchored
        self.components = components


def parse(text: bytes) -> list[Pattern]:
    """
    Read the patterns of a file.

    :raises BadPattern: if a line has no component, or ``.`` or ``..`` for one.
    """
    patterns = []
    for number, raw in enumerate(text.split(b"\n"), 1):
        line = raw.strip(b" \t")
        if not line or line.startswith(b"#"):
            continue
        keeps = line.startswith(b"!")
        body = line[1:] if keeps else line
        anchored = b"/" in body
        directories_only = body.endswith(b"/")
        components = [component for component in body.split(b"/") if component]
        if not components or b"." in components or b".." in components or b"\0" in body:
            raise BadPattern(f"line {number} is no pattern")
        compiled = tuple(map(_translate, components))
        patterns.append(Pattern(keeps, directories_only, anchored, compiled))
    return patterns


class Rules:
    """
    The patterns that hold in a directory.

    :param patterns: those that are to be compared with the names in it.
    """

    __slots__ = ("_patterns",)

    def __init__(self, patterns: Sequence[Pattern] = ()) -> None:
        self._patterns = tuple(patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def with_file(self, patterns: Iterable[Pattern]) -> Rules:
        """Add what the directory's own file says."""
        return Rules((*self._patterns, *patterns))

    def excludes(self, name: bytes, is_directory: bool) -> bool:
        """Tell whether a node in the directory is left out."""
        excluded = False
        for pattern in self._patterns:
            if len(pattern.components) > 1 or (pattern.directories_only and not is_directory):
                continue
            if pattern.components[0].fullmatch(name):
                if pattern.keeps:
                    return False
                excluded = True
        return excluded

    def below(self, name: bytes) -> Rules:
        """Give what holds in a subdirectory."""
        if not self._patterns:
            return self
        patterns = []
        for pattern in self._patterns:
            if not pattern.anchored:
                patterns.append(pattern)
            elif len(pattern.components) > 1 and pattern.components[0].fullmatch(name):
                patterns.append(
                    Pattern(pattern.keeps, pattern.directories_only, True, pattern.components[1:])
                )
        return Rules(patterns)


def _translate(glob: bytes) -> re.Pattern[bytes]:
    """Make a regular expression of what a shell matches one component of a path with."""
    # What is between the stars.
    parts = [b""]
    at = 0
    while at < len(glob):
        character = glob[at : at + 1]
        at += 1
        if character == b"*":
            parts.append(b"")
        elif character == b"?":
            parts[-1] += b"."
        elif character == b"[":
            end = _end_of_set(glob, at)
            if end < 0:
                parts[-1] += rb"\["
                continue
            parts[-1] += _translate_set(glob[at:end])
            at = end + 1
        elif character == b"\\" and at < len(glob):
            parts[-1] += re.escape(glob[at : at + 1])
            at += 1
        else:
            parts[-1] += re.escape(character)
    expression = parts[0]
    if len(parts) > 1:
        # The first place that a part fits is as good as any later one. Without going back to it, no
        # pattern takes long.
        expression += b"".join(b"(?>.*?" + part + b")" for part in parts[1:-1] if part)
        expression += b".*" + parts[-1]
    if glob[:1] in (b"*", b"?", b"["):
        expression = rb"(?!\.)" + expression
    return re.compile(expression, re.DOTALL)


def _end_of_set(glob: bytes, at: int) -> int:
    if glob[at : at + 1] in (b"!", b"^"):
        at += 1
    # A bracket that comes first stands for itself.
    if glob[at : at + 1] == b"]":
        at += 1
    while at < len(glob):
        found = _CLASS.match(glob, at)
        if found is not None:
            at = found.end()
        elif glob[at : at + 1] == b"]":
            return at
        else:
            at += 1
    return -1


def _translate_set(content: bytes) -> bytes:
    negated = content[:1] in (b"!", b"^")
    if negated:
        content = content[1:]
    ranges = []
    at = 0
    while at < len(content):
        found = _CLASS.match(content, at)
        if found is not None:
            ranges.append(_CLASSES[found[1]])
            at = found.end()
            continue
        low = content[at]
        if content[at + 1 : at + 2] == b"-" and at + 2 < len(content):
            high = content[at + 2]
            at += 3
        else:
            high = low
            at += 1
        if low <= high:
            ranges.append(rb"\x%02x-\x%02x" % (low, high))
    if not ranges:
        return rb"[\x00-\xff]" if negated else rb"(?!)"
    return b"[" + (b"^" if negated else b"") + b"".join(ranges) + b"]"


_CLASSES: Final = {
    b"alnum": rb"0-9A-Za-z",
    b"alpha": rb"A-Za-z",
    b"blank": rb"\x20\t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": rb"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    b"space": rb"\x20\t-\r",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}
_CLASS: Final = re.compile(rb"\[:(" + b"|".join(_CLASSES) + rb"):\]")
