# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for desync.masking."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.masking import mask_location, mask_secrets

_MASKED = [
    ("https://user:hunter2@host/store/", "https://user:***@host/store/"),
    ("https://user:hun@ter2@host/store", "https://user:***@host/store"),
    ("https://user:hun@/ter2@host/store", "https://user:***@host/store"),
    ("https://user:hun@/hunter2@host/store?x", "https://user:***@host/store?***"),
    ("https://:hunter2@host", "https://:***@host"),
    ("https://hunter2@host/", "https://***@host/"),
    ("HTTPS://hunter2@host/", "HTTPS://***@host/"),
    ("s3+https://hunter2@host/bucket", "s3+https://***@host/bucket"),
    ("ssh://bob@host/path", "ssh://bob@host/path"),
    ("sftp://bob:hunter2@host/path", "sftp://bob:***@host/path"),
    ("https://host/x?X-Amz-Signature=hunter2&y=", "https://host/x?X-Amz-Signature=***&y="),
    ("https://host/x?hunter2", "https://host/x?***"),
    ("https://host?a=hunter2", "https://host?a=***"),
    ("https://host/x#hunter2", "https://host/x#***"),
    ("https://u:hunter2@host?a=b/c@d", "https://u:***@host?a=***"),
    (
        "s3+http://127.0.0.1:9000/b/p?lookup=path&token=hunter2",
        "s3+http://127.0.0.1:9000/b/p?lookup=path&token=***",
    ),
    (
        "http://a:hunter2@x/|/local?y=1|http://b:hunter2@y/",
        "http://a:***@x/|/local?y=1|http://b:***@y/",
    ),
]
_UNTOUCHED = [
    "/path/to/store",
    "relative",
    "",
    "-",
    "/odd?name=x@y:z",
    "https://host/path/",
    "https://host:8080/path@x",
    "gs://bucket/prefix",
    "C:\\store",
    "//user:pass@share",
    "http://[::1]:80/a@b",
    "http://[::1]/a@b",
    "http://host:80/a@b",
    "1://x",
]


class MaskLocationTests(SynchronousTestCase):
    """Secrets in locations."""

    def test_hides_secrets(self) -> None:
        """Passwords, tokens and query values are hidden, everything else is kept."""
        for location, expected in _MASKED:
            self.assertEqual(mask_location(location), expected)
            self.assertNotIn("hunter2", mask_location(location))

    def test_leaves_the_rest_alone(self) -> None:
        """Paths and URLs without a secret come back as they are."""
        for location in _UNTOUCHED:
            self.assertEqual(mask_location(location), location)

    def test_masking_twice(self) -> None:
        """What is masked already doesn't change."""
        for _, expected in _MASKED:
            self.assertEqual(mask_location(expected), expected)

    @example("@/")
    @example("@?")
    @example("]?")
    @given(st.text(st.characters(exclude_characters="|"), min_size=1))
    def test_no_password_gets_through(self, password: str) -> None:
        """Nothing of a password is left, whatever it's made of, unescaped slashes included."""
        location = f"https://user:hunter2{password}hunter2@host/"
        masked = mask_location(location)
        self.assertNotIn("hunter2", masked)
        if "@" not in password:
            self.assertEqual(masked, "https://user:***@host/")


class MaskSecretsTests(SynchronousTestCase):
    """Secrets in messages."""

    def test_urls_within_text(self) -> None:
        """A URL is found within a sentence, which keeps its punctuation."""
        text = 'get "https://u:hunter2@host/x?a=hunter2": refused (http://hunter2@h/), retrying.'
        expected = 'get "https://u:***@host/x?a=***": refused (http://***@h/), retrying.'
        self.assertEqual(mask_secrets(text), expected)

    def test_groups_within_text(self) -> None:
        """The members of a failover group are masked each."""
        text = "http://a:hunter2@x/|http://b:hunter2@y/: down"
        self.assertEqual(mask_secrets(text), "http://a:***@x/|http://b:***@y/: down")

    def test_headers(self) -> None:
        """The values of headers that carry credentials are hidden."""
        self.assertEqual(
            mask_secrets("got Authorization: Bearer hunter2"), "got Authorization: ***"
        )
        self.assertEqual(mask_secrets("cookie: a=hunter2; b=c"), "cookie: ***")
        self.assertEqual(mask_secrets("refused 'Bearer hunter2=='"), "refused 'Bearer ***'")
        self.assertEqual(mask_secrets("refused Basic dXNlcjpw."), "refused Basic ***.")

    def test_known_secrets(self) -> None:
        """A secret that is known is hidden wherever it stands, the longest first."""
        text = mask_secrets("x hunter2 hunter234 y", known=["hunter2", "hunter234"])
        self.assertEqual(text, "x *** *** y")

    def test_short_known_secrets(self) -> None:
        """A secret of a letter or two doesn't make holes in every message."""
        self.assertEqual(mask_secrets("no space left", known=["", "a", "sp"]), "no space left")

    def test_plain_text(self) -> None:
        """A message without a secret comes back as it is."""
        for text in (
            "chunk 00ff missing from store /tmp/basic store: No such file or directory",
            "/Basic directory: Permission denied",
            "the server wants Basic auth: Basic authentication, not Bearer authentication",
        ):
            self.assertEqual(mask_secrets(text), text)
