# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Mounting what indexes describe, with FUSE.

A file system is built from parts that know nothing of each other:

:mod:`.blob`
    The stream of an index as a file with random access: any thread calls
    :meth:`.blob.Blob.read_into` or :meth:`.blob.Blob.read`. It keeps decoded chunks in a bounded
    cache, fetches ahead of those who read in order, and fetches a chunk once for all who want it.
:mod:`.supply`, :mod:`.remote_supply`
    Where a blob gets chunks from: files of local stores, read by threads; stores of any other
    kind, which a reactor asks.
:mod:`.copy_on_read`
    A file in which the chunks are kept that were read once.
:mod:`.single_file`
    A file system with one file in it, the blob. Another one, such as a tree of directories over
    the blob of an archive, is a class like it: it has the methods that
    :class:`.libfuse.FileSystem` lists, which are called in libfuse's threads, and reads by
    ``Blob.read_into``.
:mod:`.libfuse`
    The binding: serves a file system until it is unmounted, which blocks a thread.
:mod:`.mount`
    A mount's life under a reactor: is the place fit for it, mounting, being told when it ends,
    unmounting it.

So a mount is::

    blob = Blob(index, LocalSupply(stores, index.digest, threads), say=note)
    mount = Mount(SingleFile(blob, "name"), "/mnt", reactor)
    await mount.begin()     # it can be used from here on
    await mount.ended       # somebody unmounted it ...
    await mount.unmount()   # ... or we do
    blob.stop()
"""
