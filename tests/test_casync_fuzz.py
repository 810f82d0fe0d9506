# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""A short run of :mod:`tests.casync_fuzz`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from .casync_fuzz import Fuzz


class FuzzTests(SynchronousTestCase):
    """Random conversations."""

    def test_some(self) -> None:
        """Whatever is said, sessions end in order, and stores hold nothing bad."""
        for seed in range(400):
            Fuzz(seed).run_once()
