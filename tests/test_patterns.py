# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for desync.patterns."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.patterns import BadPattern, match

# Pattern, name, whether it matches: by the documented syntax of Go's path.Match.
_CASES = [
    ("abc", "abc", True),
    ("*", "abc", True),
    ("*", "", True),
    ("**", "", True),
    ("", "", True),
    ("", "a", False),
    ("*c", "abc", True),
    ("a*", "a", True),
    ("a*", "abc", True),
    ("a*", "ab/c", False),
    ("a*/b", "abc/b", True),
    ("a*/b", "a/c/b", False),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False),
    ("a*b?c*x", "abxbbxdbxebxczzx", True),
    ("a*b?c*x", "abxbbxdbxebxczzy", False),
    ("ab[c]", "abc", True),
    ("ab[b-d]", "abc", True),
    ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False),
    ("ab[^b-d]", "abc", False),
    ("ab[^e-g]", "abc", True),
    ("a\\*b", "a*b", True),
    ("a\\*b", "ab", False),
    ("a?b", "a\u263ab", True),
    ("a[^a]b", "a\u263ab", True),
    ("a???b", "a\u263ab", False),
    ("[a-\u03b6]*", "\u03b1", True),
    ("*[a-\u03b6]", "A", False),
    ("a?b", "a/b", False),
    ("a*b", "a/b", False),
    ("[\\]a]", "]", True),
    ("[\\-]", "-", True),
    ("[x\\-]", "x", True),
    ("[x\\-]", "-", True),
    ("[x\\-]", "z", False),
    ("[\\-x]", "-", True),
    ("[a^]", "^", True),
    ("*x", "xxx", True),
    ("*.example.com", "a.example.com", True),
    ("a-b", "a-b", True),
    ("a]b", "a]b", True),
]
_BAD = ["[", "[^", "[]", "[^]", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[^bc", "a[", "\\", "a\\"]
_BAD += ["[\\", "[a-\\", "a/b[", "*["]


class MatchTests(SynchronousTestCase):
    """Go's glob patterns."""

    def test_matches_what_go_matches(self) -> None:
        """Each pattern of Go's syntax matches the names that Go says it does."""
        for pattern, name, expected in _CASES:
            self.assertIs(match(pattern, name), expected, (pattern, name))

    def test_refuses_bad_patterns(self) -> None:
        """A malformed pattern is an error, whatever it's matched against."""
        for pattern in _BAD:
            for name in ("", "a", "zz"):
                self.assertRaises(BadPattern, match, pattern, name)

    def test_many_stars_take_no_time(self) -> None:
        """A pattern full of stars doesn't take exponential time to fail."""
        self.assertFalse(match("*a" * 60 + "b", "a" * 200))

    @given(
        st.lists(st.sampled_from(["*", "?", "a", "b", "/", "[ab]", "[^a]", "\\*"]), max_size=9),
        st.text("ab/*", max_size=12),
    )
    def test_agrees_with_a_regular_expression(self, parts: list[str], name: str) -> None:
        """Any pattern matches what the regular expression of the same meaning matches."""
        meaning = {"*": "[^/]*", "?": "[^/]", "\\*": "[*]"}
        expression = "".join(meaning.get(part, part) for part in parts)
        expected = re.fullmatch(expression, name) is not None
        self.assertIs(match("".join(parts), name), expected)
