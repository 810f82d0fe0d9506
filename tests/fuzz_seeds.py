# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What fuzzers have in common that hold one conversation for each seed."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable


def main(converse: Callable[[int], None]) -> None:
    """
    Run as a program, ``SECONDS [SEED]``: hold conversations for some time.

    :param converse: holds that of a seed.
    """
    seconds = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            converse(seed + count)
        except BaseException:
            print(f"seed {seed + count}", file=sys.stderr)
            raise
        count += 1
    print(f"{count} conversations, from seed {seed}")
