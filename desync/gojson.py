# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
JSON as Go's ``encoding/json`` writes it, for output that scripts compare.

Two spaces of indent, ``": "`` after a key, ``<``, ``>`` and ``&`` and the two Unicode line
separators escaped, everything else that isn't ASCII as it is. Go writes ``null`` for a list or map
that was never made: callers pass None for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Value = str | int | bool | None | Mapping[str, "Value"] | Sequence["Value"]
"""What can be written; there are no floats in any output of desync."""

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\b": "\\b",
    "\f": "\\f",
}
_ESCAPED = "<>&\u2028\u2029"


def dumps(value: Value, indent: str = "  ") -> str:
    """
    Write a value, its mappings in the order they have.

    :param indent: for one level; empty puts everything on one line, without spaces.
    :return: the text, without a newline at its end.
    """
    parts: list[str] = []
    _write(value, "\n" if indent else "", indent, parts)
    return "".join(parts)


def _write(value: Value, newline: str, indent: str, parts: list[str]) -> None:
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, int):
        parts.append(str(int(value)))
    elif isinstance(value, str):
        parts.append(_quoted(value))
    elif isinstance(value, Mapping):
        colon = ": " if indent else ":"
        items = [(f"{_quoted(key)}{colon}", item) for key, item in value.items()]
        _write_items("{}", items, newline, indent, parts)
    else:
        _write_items("[]", [("", item) for item in value], newline, indent, parts)


def _write_items(
    brackets: str,
    items: Sequence[tuple[str, Value]],
    newline: str,
    indent: str,
    parts: list[str],
) -> None:
    parts.append(brackets[0])
    inner = newline + indent
    for number, (prefix, item) in enumerate(items):
        if number:
            parts.append(",")
        parts.append(inner)
        parts.append(prefix)
        _write(item, inner, indent, parts)
    if items:
        parts.append(newline)
    parts.append(brackets[1])


def _quoted(text: str) -> str:
    if text.isascii() and text.isalnum():  # ids and most names: nothing to escape
        return f'"{text}"'
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character < " " or character == "\x7f" or character in _ESCAPED:
        return f"\\u{ord(character):04x}"
    if "\ud800" <= character <= "\udfff":
        # A byte of a file name that isn't UTF-8; Go, too, puts the replacement character.
        return "\\ufffd"
    return character
