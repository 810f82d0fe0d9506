# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The glob patterns of the configuration file's keys.

They're those of Go's ``path.Match``, not of :mod:`fnmatch`: ``*`` and ``?`` never match a slash,
``\\`` escapes, a class is negated by ``^``, and the pattern has to match the whole name.
"""

from __future__ import annotations

from typing import NamedTuple


class BadPattern(ValueError):
    """A pattern that breaks the syntax, such as an unclosed class."""


class _Class(NamedTuple):
    negated: bool
    ranges: tuple[tuple[str, str], ...]

    def holds(self, character: str) -> bool:
        return any(low <= character <= high for low, high in self.ranges) != self.negated


class _Star(NamedTuple):
    """Any run of characters but slashes, also none."""


class _AnyOne(NamedTuple):
    """One character, not a slash."""


_Token = str | _Class | _Star | _AnyOne


def match(pattern: str, name: str) -> bool:
    """
    Tell whether the whole of a name matches a pattern.

    :raise BadPattern: when the pattern is malformed, whatever the name.
    """
    tokens = _tokens(pattern)
    # On a mismatch only the last star can give way, and only within a path segment, so this takes
    # at most len(pattern) * len(name) steps.
    at_token = at_name = 0
    star = restart = -1
    while at_name < len(name):
        token = tokens[at_token] if at_token < len(tokens) else None
        if isinstance(token, _Star):
            star, restart = at_token, at_name
            at_token += 1
        elif token is not None and _matches_one(token, name[at_name]):
            at_token += 1
            at_name += 1
        elif star >= 0 and name[restart] != "/":
            restart += 1
            at_token, at_name = star + 1, restart
        else:
            return False
    return all(isinstance(token, _Star) for token in tokens[at_token:])


def _matches_one(token: str | _Class | _AnyOne, character: str) -> bool:
    if isinstance(token, _AnyOne):
        return character != "/"
    if isinstance(token, _Class):
        return token.holds(character)
    return token == character


def _tokens(pattern: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "*":
            if not (tokens and isinstance(tokens[-1], _Star)):
                tokens.append(_Star())
            at += 1
        elif character == "?":
            tokens.append(_AnyOne())
            at += 1
        elif character == "[":
            token, at = _class(pattern, at + 1)
            tokens.append(token)
        else:
            literal, at = _literal(pattern, at)
            tokens.append(literal)
    return tokens


def _class(pattern: str, at: int) -> tuple[_Class, int]:
    negated = pattern[at : at + 1] == "^"
    if negated:
        at += 1
    ranges: list[tuple[str, str]] = []
    while True:
        if pattern[at : at + 1] == "]" and ranges:
            return _Class(negated, tuple(ranges)), at + 1
        low, at = _class_member(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _class_member(pattern, at + 1)
        ranges.append((low, high))


def _class_member(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] in ("", "-", "]"):
        raise BadPattern(f'syntax error in pattern "{pattern}"')
    return _literal(pattern, at)


def _literal(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at] == "\\":
        at += 1
        if at == len(pattern):
            raise BadPattern(f'syntax error in pattern "{pattern}"')
    return pattern[at], at + 1
