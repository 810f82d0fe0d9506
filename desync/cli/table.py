# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Which commands there are, where each is written, and what each does in a line.

``desync --help`` is made from this alone: a command's module is imported when that command runs.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple


class Entry(NamedTuple):
    """
    A command.

    :param target: ``module:attribute``.
    :param summary: what it does, without a full stop.
    """

    target: str
    summary: str


COMMANDS = {
    "cache": Entry("desync.cli.cache:cache", "Read indexes and copy the chunks that they refer to"),
    "cat": Entry("desync.cli.cat:cat", "Stream a blob to stdout or into a file"),
    "chop": Entry("desync.cli.chop:chop", "Store the chunks of a file according to an index"),
    "chunk": Entry("desync.cli.chunk:chunk", "Print where a file would be cut, and the chunk ids"),
    "chunk-server": Entry("desync.cli.chunk_server:chunk_server", "Serve chunks over HTTP(S)"),
    "completion": Entry("desync.cli.completion:completion", "Print a shell completion script"),
    "config": Entry("desync.cli.config:config", "Show or write the configuration"),
    "digest": Entry("desync.cli.digest:digest", "Print the digest of an archive or a directory"),
    "extract": Entry("desync.cli.extract:extract", "Read an index and build its blob"),
    "index-server": Entry("desync.cli.index_server:index_server", "Serve indexes over HTTP(S)"),
    "info": Entry("desync.cli.info:info", "Show figures about an index"),
    "inspect-chunks": Entry(
        "desync.cli.inspect_chunks:inspect_chunks", "Print the chunks of an index with their sizes"
    ),
    "list": Entry("desync.cli.list:list", "Print what is in an archive"),
    "list-chunks": Entry("desync.cli.list_chunks:list_chunks", "Print the chunk ids in an index"),
    "make": Entry("desync.cli.make:make", "Chunk a file and write its index"),
    "manpage": Entry("desync.cli.manpage:manpage", "Write manual pages"),
    "mount": Entry("desync.cli.mount:mount", "Mount the tree in an archive with FUSE"),
    "mount-index": Entry("desync.cli.mount_index:mount_index", "Mount an index's blob with FUSE"),
    "mtree": Entry("desync.cli.mtree:mtree", "Print an archive or a directory in mtree format"),
    "prune": Entry("desync.cli.prune:prune", "Remove unreferenced chunks from a store"),
    "pull": Entry("desync.cli.pull:pull", "Serve chunks over the casync protocol on stdio"),
    "push": Entry("desync.cli.push:push", "Take chunks over the casync protocol on stdio"),
    "tar": Entry("desync.cli.tar:tar", "Store a directory tree in an archive or an index"),
    "untar": Entry("desync.cli.untar:untar", "Unpack a directory tree from an archive or an index"),
    "verify": Entry("desync.cli.verify:verify", "Check the chunks of a local store"),
    "verify-index": Entry(
        "desync.cli.verify_index:verify_index", "Check that an index matches a file"
    ),
    "version": Entry("desync.cli.version:version", "Show the version and what it runs on"),
}


def available() -> dict[str, Entry]:
    """Give the commands whose module exists, sorted by name. No module of a command is imported."""
    return {
        name: entry
        for name, entry in sorted(COMMANDS.items())
        if find_spec(entry.target.partition(":")[0]) is not None
    }
