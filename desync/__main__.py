# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``python -m desync`` is the ``desync`` command."""

from __future__ import annotations

from desync.cli.main import main

main()
