# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for desync.durations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.durations import format_duration, parse_duration

_SECOND = 10**9
# Text, nanoseconds: from the documentation of Go's ParseDuration and Duration.String.
_READ = [
    ("0", 0),
    ("0s", 0),
    ("+0", 0),
    ("-0", 0),
    ("5s", 5 * _SECOND),
    ("+5s", 5 * _SECOND),
    ("-5.6s", -5_600_000_000),
    ("500ms", 500_000_000),
    (".5s", 500_000_000),
    ("1.s", _SECOND),
    ("1.0004s", 1_000_400_000),
    ("10ns", 10),
    ("11us", 11_000),
    ("12\u00b5s", 12_000),
    ("12\u03bcs", 12_000),
    ("1m30s", 90 * _SECOND),
    ("3h30m", 12_600 * _SECOND),
    ("39h9m14.425s", 140_954_425_000_000),
    ("1h2m3s4ms5us6ns", 3_723_004_005_006),
    ("0.3333333333333333333h", 1_199_999_999_999),
    ("9223372036854775807ns", 2**63 - 1),
    ("-9223372036854775808ns", -(2**63)),
    ("00000000000000000000000001s", _SECOND),
]
_REFUSED = [
    ("", 'invalid duration ""'),
    ("3", 'missing unit in duration "3"'),
    ("1.5", 'missing unit in duration "1.5"'),
    ("-", 'invalid duration "-"'),
    ("s", 'invalid duration "s"'),
    (".", 'invalid duration "."'),
    (".s", 'invalid duration ".s"'),
    ("+.s", 'invalid duration "+.s"'),
    ("1d", 'unknown unit "d" in duration "1d"'),
    ("1s ", 'unknown unit "s " in duration "1s "'),
    (" 1s", 'invalid duration " 1s"'),
    ("1e3s", 'unknown unit "e" in duration "1e3s"'),
    ("9223372036854775808ns", 'invalid duration "9223372036854775808ns"'),
    ("-9223372036854775809ns", 'invalid duration "-9223372036854775809ns"'),
    ("3000000h", 'invalid duration "3000000h"'),
    ("9" * 5000 + "s", 'invalid duration "' + "9" * 5000 + 's"'),
    ("\u0663s", 'invalid duration "\u0663s"'),
]
_WRITTEN = [
    (0, "0s"),
    (1, "1ns"),
    (1_100, "1.1\u00b5s"),
    (2_200_000, "2.2ms"),
    (3_300_000_000, "3.3s"),
    (60 * _SECOND, "1m0s"),
    (245_000_000_000, "4m5s"),
    (245_001_000_000, "4m5.001s"),
    (18_367_001_000_000, "5h6m7.001s"),
    (480_000_000_001, "8m0.000000001s"),
    (-(2**63), "-2562047h47m16.854775808s"),
    (500_000_000, "500ms"),
]


class DurationTests(SynchronousTestCase):
    """Reading and writing Go's durations."""

    def test_reads_what_go_reads(self) -> None:
        """Each form that Go accepts gives the nanoseconds that Go gives."""
        for text, nanoseconds in _READ:
            self.assertEqual(parse_duration(text), nanoseconds, text)

    def test_refuses_what_go_refuses(self) -> None:
        """What isn't a duration is a ValueError that says why and quotes it."""
        for text, message in _REFUSED:
            error = self.assertRaises(ValueError, parse_duration, text)
            self.assertEqual(str(error), message)

    def test_writes_as_go_writes(self) -> None:
        """Durations come out in the units and with the digits that Go's have."""
        for nanoseconds, text in _WRITTEN:
            self.assertEqual(format_duration(nanoseconds), text)

    @given(st.integers(-(2**63), 2**63 - 1))
    def test_what_is_written_can_be_read(self, nanoseconds: int) -> None:
        """Every duration is read back as it was."""
        self.assertEqual(parse_duration(format_duration(nanoseconds)), nanoseconds)

    @given(st.text("0123456789.-+hmsun\u00b5 x"))
    def test_nothing_but_value_errors(self, text: str) -> None:
        """Any text is a duration within 64 bits or a ValueError."""
        try:
            nanoseconds = parse_duration(text)
        except ValueError:
            return
        self.assertTrue(-(2**63) <= nanoseconds < 2**63)
