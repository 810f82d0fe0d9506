# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
from twisted.application.service import ServiceMaker

chunk_server = ServiceMaker(
    "desync-chunk-server",
    "desync.services.twistd_servers.chunk_server",
    "Serve chunks.",
    "desync-chunk-server",
)
index_server = ServiceMaker(
    "desync-index-server",
    "desync.services.twistd_servers.index_server",
    "Serve indexes.",
    "desync-index-server",
)
pull = ServiceMaker(
    "desync-pull", "desync.services.twistd_pull", "Serve casync over SSH.", "desync-pull"
)
