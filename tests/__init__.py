# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The tests of the package, for trial. ``bin/test`` runs them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How fast a busy machine makes examples, or runs one, says nothing about the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
