# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What users write to name a store."""

from __future__ import annotations

import contextlib
import string

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.errors import UsageError
from desync.stores.location import (
    REMOTE_SCHEMES,
    index_location,
    index_options_location,
    parse_group,
    parse_location,
)

# What Go desync says about each: the messages are its own.
MALFORMED = {
    "/tmp/100%": 'invalid URL escape "%"',
    "/tmp/%zz": 'invalid URL escape "%zz"',
    "foo%2": 'invalid URL escape "%2"',
    "//h%zz/x": 'invalid URL escape "%zz"',
    "/x#%zz": 'invalid URL escape "%zz"',
    "http://%41:8/": 'invalid URL escape "%41"',
    "1a:b": "first path segment in URL cannot contain colon",
    ":foo": "missing protocol scheme",
    "http://[::1": "missing ']' in host",
    "http://a b/": 'invalid character " " in host name',
    "http://h:port/x": 'invalid port ":port" after host',
}


class LocationTests(SynchronousTestCase):
    """Locations of chunk stores."""

    def test_paths(self) -> None:
        """Whatever has no scheme that is known is a path, taken literally."""
        for text in (
            "store",
            "/srv/store/",
            "./a b",
            "-",
            "a|b",
            "a:b",
            "C:/store",
            "ftp://host/x",
            "file:///srv/store",
            "/x?a%zz",
            "/with%20escape",
            "//host/x",
            "\udcff\udcfe",
        ):
            location = parse_location(text)
            self.assertTrue(location.is_local)
            self.assertEqual((location.path, location.shown, location.scheme), (text, text, ""))

    def test_urls(self) -> None:
        """A URL is taken apart; its scheme counts in any case."""
        location = parse_location("S3+HTTPS://key:secret@host:9000/bucket/pre%20fix?lookup=dns")
        self.assertEqual(location.scheme, "s3+https")
        self.assertEqual(location.user_info, "key:secret")
        self.assertEqual(location.host, "host:9000")
        self.assertEqual(location.path, "/bucket/pre%20fix")
        self.assertEqual(location.query, "lookup=dns")
        self.assertFalse(location.is_local)

    def test_hosts(self) -> None:
        """Hosts may be addresses and international names."""
        for host in (
            "[::1]",
            "[::1]:80",
            "[fe80::1%25en0]:80",
            "hôte",
            "h%c3%b4te",
            "h:",
            "10.0.0.1",
        ):
            self.assertEqual(parse_location(f"gs://{host}/x").host, host)

    def test_all_schemes(self) -> None:
        """Every scheme of the list is recognized."""
        for scheme in REMOTE_SCHEMES:
            self.assertEqual(parse_location(f"{scheme}://host/path").scheme, scheme)

    def test_trailing_slash(self) -> None:
        """The path of an HTTP store ends with a slash; others stay as they are."""
        for text, path in (
            ("http://host", "/"),
            ("http://host/", "/"),
            ("https://host/store", "/store/"),
            ("https://host/store?token=1", "/store/"),
            ("gs://bucket/prefix", "/prefix"),
            ("sftp://host/dir", "/dir"),
        ):
            self.assertEqual(parse_location(text).path, path)

    def test_secrets(self) -> None:
        """What is shown has no secrets in it."""
        location = parse_location("https://user:hunter2@host/store?token=hunter2")
        self.assertNotIn("hunter2", location.shown)
        self.assertIn("host/store", location.shown)

    def test_malformed(self) -> None:
        """What Go desync refuses is refused, for the same reason and in the same words."""
        for text, why in MALFORMED.items():
            error = self.assertRaises(UsageError, parse_location, text)
            beginning = f"unable to parse store location {text.partition('#')[0]}"
            self.assertTrue(str(error).startswith(beginning), str(error))
            self.assertTrue(str(error).endswith(f": {why}"), str(error))

    def test_malformed_whole(self) -> None:
        """The whole message is Go desync's."""
        error = self.assertRaises(UsageError, parse_location, "/tmp/100%")
        self.assertEqual(
            str(error),
            'unable to parse store location /tmp/100% : parse "/tmp/100%": invalid URL escape "%"',
        )

    def test_malformed_secrets(self) -> None:
        """A malformed location isn't shown with its secrets either."""
        for text in (
            "http://user:hunter2%@host/",
            "http://user:hun ter2@host/",
            "http://u:hunter2@[h",
        ):
            error = self.assertRaises(UsageError, parse_location, text)
            self.assertNotIn("ter2", str(error))

    def test_control_characters(self) -> None:
        """Control characters are refused, and never reach the terminal."""
        for text in "a\nb", "http://host/\x1b[2J", "\x7f":
            error = self.assertRaises(UsageError, parse_location, text)
            self.assertIn("invalid control character in URL", str(error))

    def test_empty(self) -> None:
        """An empty location, and a URL without a host, are refused."""
        for text in "", "http:", "http:///x", "gs:bucket", "http://user@/":
            self.assertRaises(UsageError, parse_location, text)

    def test_groups(self) -> None:
        """Members of a failover group are separated by bars."""
        found = parse_group("http://a/|/srv/b|c")
        self.assertEqual([member.text for member in found], ["http://a/", "/srv/b", "c"])
        self.assertEqual(len(parse_group("/srv/a")), 1)
        for text in "a||b", "|a", "a|", "|":
            self.assertRaises(UsageError, parse_group, text)

    @given(st.text(string.printable + "é\udcff", max_size=30))
    def test_anything(self, text: str) -> None:
        """Whatever is written is understood or refused, never anything else."""
        for candidate in text, f"http://{text}", f"sftp://host/{text}":
            for parse in parse_location, parse_group, index_location:
                with contextlib.suppress(UsageError):
                    parse(candidate)


class IndexLocationTests(SynchronousTestCase):
    """Locations of indexes."""

    def test_paths(self) -> None:
        """The last part of a path is the name, taken literally."""
        for text, directory, name in (
            ("os.caibx", ".", "os.caibx"),
            ("/os.caibx", "/", "os.caibx"),
            ("a/b/os.caibx", "a/b", "os.caibx"),
            ("a/b%20c", "a", "b%20c"),
            ("-", ".", "-"),
            ("ftp://host/x", "ftp://host", "x"),
        ):
            store, found = index_location(text)
            self.assertEqual((store.path, found, store.is_local), (directory, name, True))

    def test_urls(self) -> None:
        """The last part of a URL's path is the name, decoded; the rest names the store."""
        store, name = index_location("https://u:p@host:8/dir%20a/os%201.caibx?token=1#frag")
        self.assertEqual(name, "os 1.caibx")
        self.assertEqual(store.text, "https://u:p@host:8/dir%20a?token=1")
        self.assertEqual((store.path, store.query), ("/dir%20a/", "token=1"))
        store, name = index_location("http://host/os.caibx")
        self.assertEqual((store.path, name), ("/", "os.caibx"))

    def test_query_with_slash(self) -> None:
        """A slash in the query is no part of the path."""
        store, name = index_location("http://host/dir/os.caibx?path=/a/b")
        self.assertEqual((store.path, store.query, name), ("/dir/", "path=/a/b", "os.caibx"))

    def test_no_name(self) -> None:
        """A location without a name, or with a slash hidden in it, is refused."""
        for text in "dir/", "/", "http://host", "http://host/", "http://host/a%2Fb", "":
            self.assertRaises(UsageError, index_location, text)

    def test_options(self) -> None:
        """Options are looked up by all that comes before the last slash, or backslash."""
        for text, expected in (
            ("os.caibx", ""),
            ("-", ""),
            ("/os.caibx", ""),
            ("a/b/os.caibx", "a/b"),
            ("http://host/dir/os.caibx", "http://host/dir"),
            ("a\\b\\os.caibx", "a\\b"),
            ("a/b\\os.caibx", "a"),
        ):
            self.assertEqual(index_options_location(text), expected)
