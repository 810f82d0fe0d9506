# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Short runs of :mod:`tests.casync_fuzz`, :mod:`tests.fuzz_session`, :mod:`tests.fuzz_pull`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .casync_fuzz import Fuzz
from .fuzz_pull import fuzz
from .fuzz_session import SessionFuzz
from .peers import peer


class FuzzTests(SynchronousTestCase):
    """Random conversations."""

    def test_some(self) -> None:
        """Whatever is said, sessions end in order, and stores hold nothing bad."""
        for seed in range(400):
            Fuzz(seed).run_once()

    def test_session(self) -> None:
        """Whatever is heard and said, a session has no errors but the protocol's two."""
        for seed in range(400):
            SessionFuzz(seed).run_once()

    def test_server(self) -> None:
        """For a short while the SSH server withstands them over real connections."""
        peer("ssh")
        self.assertGreater(fuzz(10, 1), 0)
