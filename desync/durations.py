# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Lengths of time as Go writes them: ``500ms``, ``1m30s``.

The command line's durations are in this form because scripts written for Go desync use it; the
syntax is that of Go's ``time.ParseDuration`` and ``Duration.String``. All values are whole
nanoseconds, which is also what the configuration file holds.
"""

from __future__ import annotations

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek small letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_LONGEST = 2**63 - 1
_DIGITS = "0123456789"


def parse_duration(text: str) -> int:
    """
    Read a duration: an optional sign, then one or more numbers, each with a unit.

    The units are ``ns``, ``us``, ``ms``, ``s``, ``m`` and ``h``; a bare ``0`` is the only number
    that needs none.

    :return: nanoseconds; what is finer than one is cut off.
    :raise ValueError: with a message fit for a user, when the text isn't a duration or doesn't fit
        into 64 bits.
    """
    rest = text
    sign = 1
    if rest[:1] in ("-", "+"):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'invalid duration "{text}"')
    total = 0
    while rest:
        whole, rest = _digits(rest)
        fraction = ""
        if rest[:1] == ".":
            fraction, rest = _digits(rest[1:])
        if not whole and not fraction:
            raise ValueError(f'invalid duration "{text}"')
        length = 0
        while length < len(rest) and rest[length] not in "." + _DIGITS:
            length += 1
        unit, rest = rest[:length], rest[length:]
        if not unit:
            raise ValueError(f'missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise ValueError(f'unknown unit "{unit}" in duration "{text}"')
        if len(whole.lstrip("0")) > 19:
            raise ValueError(f'invalid duration "{text}"')
        scale = _UNITS[unit]
        total += int(whole or "0") * scale
        if fraction:
            digits = fraction[:20]
            total += int(digits) * scale // 10 ** len(digits)
        if total > _LONGEST + (sign < 0):
            raise ValueError(f'invalid duration "{text}"')
    return sign * total


def format_duration(nanoseconds: int) -> str:
    """
    Write a duration as Go's ``Duration.String`` does: ``0s``, ``1.5ms``, ``1m30s``, ``2h0m0.5s``.

    :param nanoseconds: the length of time; may be negative.
    """
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    value = abs(nanoseconds)
    if value < 1_000:
        return f"{sign}{value}ns"
    if value < 1_000_000:
        return f"{sign}{_decimal(value, 1_000)}\u00b5s"
    if value < 1_000_000_000:
        return f"{sign}{_decimal(value, 1_000_000)}ms"
    minutes, below = divmod(value, _UNITS["m"])
    seconds = _decimal(below, _UNITS["s"]) + "s"
    if minutes == 0:
        return sign + seconds
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{sign}{minutes}m{seconds}"
    return f"{sign}{hours}h{minutes}m{seconds}"


def _digits(text: str) -> tuple[str, str]:
    length = 0
    while length < len(text) and text[length] in _DIGITS:
        length += 1
    return text[:length], text[length:]


def _decimal(value: int, scale: int) -> str:
    whole, fraction = divmod(value, scale)
    if fraction == 0:
        return str(whole)
    places = len(str(scale)) - 1
    return f"{whole}.{fraction:0{places}d}".rstrip("0")
