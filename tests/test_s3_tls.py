# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""S3 over TLS: moto with a certificate of an authority of one's own."""

from __future__ import annotations

import json
import os

from .authority import Authority
from .command_case import SIZES, CommandCase, sample
from .command_line import Outcome, desync_process
from .object_peers import moto_over_tls


class TLSTests(CommandCase):
    """Who is trusted."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority(self.folder)
        certificate, key = self.authority.issue("server")
        self.service, self.netloc = moto_over_tls(certificate, key)
        self.url = f"s3+https://{self.netloc}/{self.service.new_bucket()}"
        self.data = sample(300_000)
        self.file = self.write("v1", self.data)
        self.index_url = f"{self.url}/v1.caibx"

    def run_s3(self, *args: str, code: int = 0) -> Outcome:
        """Run a command with the user's keys, which doesn't try for long."""
        outcome = desync_process(*args, environ=self.service.environ)
        self.assertEqual(outcome.code, code, outcome)
        return outcome

    def test_authority(self) -> None:
        """It is trusted if it is named, with a flag or in the configuration."""
        ca = self.authority.path
        where = ("-m", SIZES, "-s", self.url, self.index_url, self.file)
        self.run_s3("make", "--ca-cert", ca, *where)
        options = {f"s3+https://{self.netloc}/*": {"ca-cert": ca}}
        options[f"s3+https://{self.netloc}/*/*"] = options[f"s3+https://{self.netloc}/*"]
        config = self.write("config", json.dumps({"store-options": options}).encode())
        target = self.path("copy")
        self.run_s3("extract", "--config", config, "-s", self.url, self.index_url, target)
        self.assertEqual(self.read("copy"), self.data)

    def test_insecure(self) -> None:
        """Anybody is, if that is asked for."""
        where = ("-m", SIZES, "-s", self.url, self.index_url, self.file)
        self.run_s3("make", "--trust-insecure", *where)
        self.run_s3("extract", "-t", "-s", self.url, self.index_url, self.path("copy"))
        self.assertEqual(self.read("copy"), self.data)

    def test_refused(self) -> None:
        """Otherwise nothing is sent, and nothing written; the reason is said in one line."""
        self.run_s3("make", "-t", "-m", SIZES, "-s", self.url, self.index_url, self.file)
        other = Authority(self.folder, "other").path
        for flags in (), ("--ca-cert", other):
            quick = ("-b", "1ms", *flags)
            outcome = self.run_s3("make", *quick, "-s", self.url, self.path("i"), self.file, code=1)
            self.assert_error(outcome, self.url, "certificate verify failed")
            self.assertFalse(os.path.exists(self.path("i")))
            target = self.path("copy")
            outcome = self.run_s3("extract", *quick, "-s", self.url, self.index_url, target, code=1)
            self.assert_error(outcome, "s3+https://", "certificate verify failed")
            self.assertFalse(os.path.exists(target))
