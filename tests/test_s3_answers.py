# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What S3 answers, and what pretends to be that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from desync.stores.objects import Listed
from desync.stores.s3_answers import (
    Malformed,
    Trouble,
    parse_error,
    parse_page,
    parse_removal,
    removal,
)

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
PAGE = f"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult {NAMESPACE}><Name>b</Name><EncodingType>url</EncodingType>
<Contents><Key>a%20b/%C3%BC+%2B</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified>
<Size>12</Size><ETag>x</ETag></Contents>
<Contents><Key>c</Key><LastModified>2026-01-02T03:04:05</LastModified><Size>0</Size></Contents>
<IsTruncated>true</IsTruncated><NextContinuationToken>t/=</NextContinuationToken>
</ListBucketResult>""".encode()


class AnswerTests(SynchronousTestCase):
    """Answers of S3."""

    def test_page(self) -> None:
        """A page has keys, unescaped, sizes and dates, and leads to the next."""
        page = parse_page(PAGE)
        modified = 1767323045.0
        self.assertEqual(
            list(page.objects),
            [Listed("a b/ü +", 12, modified + 0.678), Listed("c", 0, modified)],
        )
        self.assertEqual(page.token, "t/=")
        last = parse_page(PAGE.replace(b">true<", b">false<"))
        self.assertEqual(last.token, "")

    def test_bad_pages(self) -> None:
        """What isn't a page is refused."""
        for data in (
            b"",
            b"<html>",
            b"\xff\xfe\0",
            b"<Error/>",
            PAGE[:-10],
            PAGE.replace(b"<Size>12</Size>", b""),
            PAGE.replace(b">12<", b">x<"),
            PAGE.replace(b"2026-01-02", b"yesterday"),
            PAGE.replace(b"<NextContinuationToken>t/=</NextContinuationToken>", b""),
            b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaa">]>' + PAGE[39:],
        ):
            self.assertRaises(Malformed, parse_page, data)

    def test_error(self) -> None:
        """An error has a code, and perhaps says where the bucket is."""
        body = (
            b"<Error><Code>PermanentRedirect</Code><Message>not\n here</Message>"
            b"<Endpoint>b.s3.example</Endpoint><Region>r</Region><RequestId>id</RequestId></Error>"
        )
        expected = Trouble("PermanentRedirect", "not here", "r", "b.s3.example", "id")
        self.assertEqual(parse_error(body), expected)
        long = parse_error(b"<Error><Message>" + b"x" * 1000 + b"</Message></Error>")
        self.assertEqual(len(long.message), 203)
        for other in b"", b"<html></html>", b"Not found":
            self.assertEqual(parse_error(other), Trouble())

    @given(st.binary(max_size=100))
    def test_noise(self, data: bytes) -> None:
        """Whatever comes is refused or understood."""
        self.assertIsInstance(parse_error(data), Trouble)
        self.assertRaises(Malformed, parse_page, data)
        self.assertRaises(Malformed, parse_removal, data)

    def test_removal(self) -> None:
        """A removal names its keys, and the answer those that weren't removed."""
        self.assertIn(b"<Key>a&amp;b&lt;</Key>", removal(["a&b<", "c"]))
        body = (
            f"<DeleteResult {NAMESPACE}><Deleted><Key>c</Key></Deleted><Error><Key>a</Key>"
            "<Code>InternalError</Code><Message>m</Message></Error></DeleteResult>"
        )
        self.assertEqual(parse_removal(body.encode()), {"a": Trouble("InternalError", "m")})
