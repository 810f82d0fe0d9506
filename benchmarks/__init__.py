# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Measurements, alone and side by side with casync and Go desync: ``python -m benchmarks``."""
