# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The desync command, with stores "on other machines" that need no machines.

Run as ``python -m tests.remote_program ARGUMENTS...``. A store ``http://files/PATH`` is the local
directory of that path; ``http://slow/...`` never answers, and says on stderr that it was asked.
"""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import unquote

from desync.stores.opening import REMOTE_OPENERS


def open_remote(location: Any, options: Any, digest: Any, reactor: Any) -> Any:
    """Open one of these stores."""
    from twisted.internet.defer import Deferred

    from desync.stores.local import LocalStore
    from desync.stores.local_files import LocalFiles

    def wait(*args: Any) -> Any:
        sys.stderr.write("asked\n")
        sys.stderr.flush()
        return Deferred()

    path = unquote(location.path).rstrip("/")
    files = LocalFiles(
        path, location=location.shown, digest=digest, level=options.compression_level
    )
    store = LocalStore(files, reactor)
    if location.host == "slow":
        for name in "get", "get_many", "missing", "put":
            setattr(store, name, wait)
    return store


if __name__ == "__main__":
    for scheme in "http", "sftp":
        REMOTE_OPENERS[scheme] = "tests.remote_program:open_remote"
    from desync.cli.main import main

    main()
