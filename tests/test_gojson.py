# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for desync.gojson."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.gojson import dumps

_scalars = st.none() | st.booleans() | st.integers() | st.text()
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)


class DumpsTests(SynchronousTestCase):
    """JSON in Go's shape."""

    def test_shape(self) -> None:
        """Nesting is indented by two spaces, empty containers stay on one line."""
        value = {"a": None, "b": [1, True], "c": {}, "d": [], "e": {"f": False}}
        expected = (
            '{\n  "a": null,\n  "b": [\n    1,\n    true\n  ],\n  "c": {},\n  "d": [],\n'
            '  "e": {\n    "f": false\n  }\n}'
        )
        self.assertEqual(dumps(value), expected)

    def test_compact(self) -> None:
        """Without an indent everything is on one line, without spaces."""
        self.assertEqual(dumps({"a": [1, "x"], "b": {}}, indent=""), '{"a":[1,"x"],"b":{}}')

    def test_html_escapes(self) -> None:
        """What HTML could misread is escaped as Go does, in keys too; other letters aren't."""
        written = dumps({"<&>": "\u2028\u00e9"}, indent="")
        self.assertEqual(written, '{"\\u003c\\u0026\\u003e":"\\u2028\u00e9"}')

    def test_controls(self) -> None:
        """Control characters and quotes are escaped."""
        self.assertEqual(dumps('\x00\x1b\x7f\n"\\'), '"\\u0000\\u001b\\u007f\\n\\"\\\\"')

    def test_broken_names(self) -> None:
        """A byte that isn't UTF-8 becomes the replacement character, as in Go."""
        self.assertEqual(dumps("a\udcff"), '"a\\ufffd"')

    @given(_values)
    def test_is_json(self, value: Any) -> None:
        """Whatever is written is read as the same value by any reader of JSON."""
        for indent in ("", "  "):
            self.assertEqual(json.loads(dumps(value, indent)), value)
