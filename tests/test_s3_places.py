# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Where buckets of S3 are, and how requests to them are written and signed."""

from __future__ import annotations

import datetime
from unittest import mock

import botocore.auth
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.errors import UsageError
from desync.stores.location import parse_location
from desync.stores.s3_places import Place, parse_place
from desync.stores.s3_signing import EMPTY, Keys, Signer

AMAZON = "s3+https://s3-eu-west-3.amazonaws.com"


def place(text: str) -> tuple[Place, str]:
    """Take apart a location."""
    return parse_place(parse_location(text))


class PlaceTests(SynchronousTestCase):
    """Locations of stores in S3."""

    def test_addressing(self) -> None:
        """Buckets of Amazon and a few others are addressed by host, unless the location says."""
        for text, url in (
            (f"{AMAZON}/store", "https://store.s3-eu-west-3.amazonaws.com/k"),
            (f"{AMAZON}/desync.bucket", "https://s3-eu-west-3.amazonaws.com/desync.bucket/k"),
            (f"{AMAZON}/store?lookup=path", "https://s3-eu-west-3.amazonaws.com/store/k"),
            (f"{AMAZON}/a.b?lookup=dns", "https://a.b.s3-eu-west-3.amazonaws.com/k"),
            (f"{AMAZON}/UPPER", "https://s3-eu-west-3.amazonaws.com/UPPER/k"),
            ("s3+http://s3.amazonaws.com/a.b", "http://a.b.s3.amazonaws.com/k"),
            ("s3+https://storage.googleapis.com/b", "https://b.storage.googleapis.com/k"),
            ("s3+http://127.0.0.1:9000/store", "http://127.0.0.1:9000/store/k"),
            ("s3+http://[::1]:9000/store", "http://[::1]:9000/store/k"),
            ("s3+https://example.com:443/b?lookup=auto", "https://example.com/b/k"),
            ("s3+http://example.com:80/b", "http://example.com/b/k"),
            ("s3+https://s3.internal/b?lookup=dns", "https://b.s3.internal/k"),
        ):
            self.assertEqual(place(text)[0].url("k"), url, text)

    def test_prefix(self) -> None:
        """What follows the bucket is the prefix of all keys, with escapes resolved."""
        for path, prefix in (
            ("/b", ""),
            ("/b/", ""),
            ("/b/x", "x/"),
            ("/b/x/y/", "x/y/"),
            ("/b/a%20b/%C3%BC+", "a b/ü+/"),
        ):
            self.assertEqual(place(f"s3+http://h{path}")[1], prefix)

    def test_refusals(self) -> None:
        """A location that names no bucket, or asks for what there isn't, is refused."""
        for text, why in (
            ("s3+http://h", "expected bucket name in path of 's3+http'"),
            ("s3+https://h//", "expected bucket name in path of 's3+https'"),
            ("s3+http://h/b?lookup=foo", 'unknown S3 bucket lookup type: "foo"'),
            ("s3+http://h/B_?lookup=dns", "can't be part of a host's name"),
            ("s3+http://h/a%2Fb", "invalid bucket name"),
            ("s3+http://h/a%0Ab", "invalid bucket name"),
        ):
            error = self.assertRaises(UsageError, place, text)
            self.assertIn(why, str(error))

    def test_escaping(self) -> None:
        """Keys and queries are escaped the way that signatures want it."""
        where = place("s3+http://h/b")[0]
        self.assertEqual(
            where.url("a b/ü+(1)*~_-.'%&=?#/x", {"prefix": "a b/", "x": "~+"}),
            "http://h/b/a%20b/%C3%BC%2B%281%29%2A~_-.%27%25%26%3D%3F%23/x?prefix=a%20b%2F&x=~%2B",
        )

    def test_region(self) -> None:
        """Amazon's names of endpoints tell the region."""
        for host, region in (
            ("s3-eu-west-3.amazonaws.com", "eu-west-3"),
            ("s3.us-west-2.amazonaws.com", "us-west-2"),
            ("s3.dualstack.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
            ("s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("s3.amazonaws.com", "us-east-1"),
            ("s3.example.com", ""),
        ):
            self.assertEqual(place(f"s3+https://{host}/b")[0].region, region)

    def test_moved(self) -> None:
        """A redirect leads to another endpoint, never from TLS to none."""
        amazon, own = place(f"{AMAZON}/b")[0], place("s3+https://h/b")[0]
        for start, region, location, url in (
            (amazon, "us-west-2", "", "https://b.s3.us-west-2.amazonaws.com/"),
            (own, "", "b.other", "https://b.other/"),
            (own, "", "https://other:81/b/key", "https://other:81/b"),
        ):
            moved = start.moved(region, location)
            assert moved is not None
            self.assertEqual(moved.url(), url)
        for location in "http://other/b", "https://h/b", "":
            self.assertIsNone(own.moved("", location))


class SigningTests(SynchronousTestCase):
    """Signatures."""

    def reference(
        self, method: str, url: str, headers: dict[str, str], body: bytes, keys: Keys
    ) -> dict[str, str]:
        """Sign with botocore as it is."""
        request = AWSRequest(method, url, headers, data=body)
        credentials = Credentials(keys.access_key, keys.secret_key, keys.session_token or None)
        now = datetime.datetime(2026, 1, 31, 23, 59, 59, tzinfo=datetime.UTC)
        with mock.patch.object(botocore.auth, "get_current_datetime", lambda: now, create=True):
            S3SigV4Auth(credentials, "s3", "eu-west-3").add_auth(request)
        return dict(request.headers.items())

    @given(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        st.dictionaries(st.text("abcü &=+~%", min_size=1), st.text("abcü &=+~%"), max_size=3),
        st.sampled_from(["", "token/+="]),
    )
    def test_as_botocore(self, key: str, query: dict[str, str], token: str) -> None:
        """Whatever the key and the query, the signature is botocore's."""
        keys = Keys("access", "secret", token)
        now = datetime.datetime(2026, 1, 31, 23, 59, 59, tzinfo=datetime.UTC).timestamp()
        signer = Signer(keys, "eu-west-3", lambda: now)
        url = place("s3+http://h:81/b")[0].url(key, query)
        headers = {"Host": "h:81", "Content-Type": "application/zstd"}
        for method in "GET", "PUT":
            expected = self.reference(method, url, headers, b"", keys)
            self.assertEqual(signer.sign(method, url, headers, EMPTY), expected)

    def test_other_day(self) -> None:
        """The key of a day isn't used on the next one."""
        seconds = 0.0
        keys = Keys("access", "secret")
        signer = Signer(keys, "us-east-1", lambda: seconds)
        headers = {"Host": "h"}
        first = signer.sign("GET", "http://h/b", headers)
        seconds = 86400.0
        second = signer.sign("GET", "http://h/b", headers)
        fresh = Signer(keys, "us-east-1", lambda: seconds).sign("GET", "http://h/b", headers)
        self.assertEqual(second, fresh)
        self.assertNotEqual(first["Authorization"], second["Authorization"])
