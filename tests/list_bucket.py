# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Lists the store that its argument names, and prints how many chunks there are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from desync.interfaces import IChunkRemover
from desync.options import S3Credentials, StoreOptions
from desync.running import run_with_reactor
from desync.stores.opening import open_target

if TYPE_CHECKING:
    from desync.formats.ids import ChunkIds


async def list_bucket(reactor: Any) -> None:
    """Do so."""
    options = StoreOptions(s3=S3Credentials("key", "secret"))
    store = open_target(sys.argv[1], lambda _: options, reactor)
    count = 0

    def take(ids: ChunkIds) -> None:
        nonlocal count
        count += len(ids)

    await IChunkRemover(store).list_ids(take)
    await store.close()
    print(count)


if __name__ == "__main__":
    run_with_reactor(list_bucket)
