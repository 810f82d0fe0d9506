# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Content-addressed distribution of large files, compatible with casync and desync."""

__version__ = "0.1.0"
