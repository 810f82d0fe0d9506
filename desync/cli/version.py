# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync version``, and ``desync --version``."""

from __future__ import annotations

import platform

from desync import __version__

from .command import command
from .invocation import Invocation


@command("version", examples=["desync --version"], loads_config=False)
def version(invocation: Invocation) -> None:
    """Show the version, and which code does the work on this machine."""
    from desync.chunking import kernels

    invocation.print(f"desync {__version__}")
    invocation.print(kernels.describe())
    system = f"{platform.system()} {platform.machine()}"
    invocation.print(f"Python {platform.python_version()}, {system}")
