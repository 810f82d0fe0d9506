# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What the commands share that store chunks and write files: flags, and checks before the work."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from desync.errors import FileError, StoreError, UsageError

from .flags import INTEGER, STRINGS, choice, flag
from .indexes import STANDARD, is_local_index, read_index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from desync.config import StoreOptions
    from desync.formats.ids import ChunkIds
    from desync.progress import Progress
    from desync.workers.pool import Pool

    from .invocation import Invocation

LARGEST_LEVEL = 22
"""zstd's."""

LEAST_TO_CUT = 4 << 20
"""Bytes that are cut and hashed sooner than the workers are there."""

CODEC = "zstandard"
"""The module that workers compress and decompress with."""

CUTTING = "desync.jobs.cut"
"""The module that they cut and hash with."""

UPLOADING = "desync.jobs.upload"
"""The module that they get chunks ready with for a store that isn't local."""

chunk_size_flag = flag(
    "--chunk-size",
    "-m",
    default="16:64:256",
    help="min:avg:max chunk size in KiB",
)

sync_flag = flag(
    "--sync",
    kind=choice("none", "end", "each"),
    default="end",
    help="when what is written is made to last: never, once at the end, or also chunk by chunk",
)

compression_level_flag = flag(
    "--compression-level",
    kind=INTEGER,
    minimum=1,
    help=f"zstd's level for new chunks, 1 to {LARGEST_LEVEL} (default 3, or as configured)",
)


def ignore_flags(function: Any) -> Any:
    """Declare the flags that exclude chunks, for :func:`ignored_ids`."""
    function = flag(
        "--ignore-chunks", kind=STRINGS, help="text file of chunk ids to leave out, one a line"
    )(function)
    return flag("--ignore", kind=STRINGS, help="index whose chunks are left out")(function)


def ignored_ids(
    invocation: Invocation, indexes: Sequence[str], files: Sequence[str]
) -> ChunkIds | None:
    """
    Read what chunks are to be left out.

    :param indexes: values of ``--ignore``.
    :param files: values of ``--ignore-chunks``.
    :returns: sorted ids; None if none are to be left out.
    :raises InvalidId: if a line of a file isn't an id.
    """
    from desync.formats.ids import read_id_lines
    from desync.operations.prune import needed_by

    if not indexes and not files:
        return None
    ignored = needed_by(read_index(invocation, index) for index in indexes)
    for path in files:
        try:
            with open(path, "rb") as lines:
                ids = read_id_lines(lines, path)
        except OSError as error:
            raise FileError(path, error.strerror or str(error)) from None
        ignored = ignored.union(ids.sorted_unique())
    return ignored


def writing_options(invocation: Invocation, level: int | None) -> Callable[[str], StoreOptions]:
    """
    Give the store options with the compression level that was asked for.

    :param level: None for what is configured.
    """
    if level is None:
        return invocation.store_options
    if level > LARGEST_LEVEL:
        raise UsageError(f"--compression-level must be at most {LARGEST_LEVEL}")

    def options(location: str) -> StoreOptions:
        return invocation.store_options(location)._replace(compression_level=level)

    return options


def progress_beside_output(invocation: Invocation) -> Progress:
    """Give what shows progress: nothing if the results go to a terminal, where both would mix."""
    from desync.progress import Progress

    return Progress() if invocation.out.isatty() else invocation.progress


def start_pool(pool: Pool, size: int, *modules: str, least: int = 1 << 20) -> None:
    """
    Start the workers, unless there is so little to do that they would only cost time.

    :param size: bytes of the file that they are to work on.
    :param modules: what they will need for that, to be imported meanwhile.
    :param least: as many are done by this process alone.
    """
    if size > least:
        pool.start(*modules)


def size_of(path: str) -> int:
    """Say how large a file is; 0 if it can't be said, which whoever opens the file finds out."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def check_index_target(location: str) -> None:
    """
    Find out before a long work whether there is a place for the index that comes of it.

    :raises StoreError: if there certainly isn't.
    """
    if location == STANDARD:
        return
    if not is_local_index(location):
        from desync.stores.opening import check_index_scheme

        check_index_scheme(location)
        return
    try:
        target = os.path.realpath(location)
    except OSError as error:  # the working directory is gone
        raise StoreError(location, error.strerror or str(error)) from None
    directory = os.path.dirname(target)
    if not os.path.basename(location) or os.path.isdir(target):
        code = errno.EISDIR
    elif not os.path.exists(directory):
        code = errno.ENOENT
    elif not os.path.isdir(directory):
        code = errno.ENOTDIR
    elif os.path.exists(target) and not os.path.isfile(target):
        return  # a pipe or a device, which isn't replaced
    elif not os.access(directory, os.W_OK | os.X_OK):
        code = errno.EACCES
    else:
        return
    raise StoreError(location, os.strerror(code))


def check_not_same(index: str, path: str) -> None:
    """
    Make sure that the one of an index and a file that is written isn't the one that is read.

    :raises UsageError: if they are the same file, however it is named.
    """
    if index == STANDARD or not is_local_index(index):
        return
    try:
        same = index == path or os.path.samefile(index, path)
    except OSError:
        same = False
    if same:
        raise UsageError("input and output filenames match")
