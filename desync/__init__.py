# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Content-addressed distribution of large files, compatible with casync and desync.

The names in ``__all__`` are the library's, explained in ``docs/library.rst``. Each is imported when
it is first looked up, so ``import desync`` costs nothing and brings in no Twisted. Errors are in
:mod:`desync.errors`, interfaces in :mod:`desync.interfaces`, the contract tests of stores in
:mod:`desync.testing`.
"""

from __future__ import annotations

# As in typing, which takes longer to import than all that is needed here; the command deals with
# signals only once this is imported.
TYPE_CHECKING = False

__version__ = "0.1.0"

if TYPE_CHECKING:
    from desync.assembly.fetch import ChunkDownloads
    from desync.chunking.digests import SHA256, SHA512_256, Digest
    from desync.chunking.sizes import ChunkSizes
    from desync.config import Config
    from desync.formats.catar_decoder import CatarDecoder
    from desync.formats.catar_encoder import CatarEncoder
    from desync.formats.chunk import Chunk
    from desync.formats.ids import ChunkIds, parse_id
    from desync.formats.index import Index, IndexBuilder
    from desync.operations.cache import cache
    from desync.operations.cat import cat
    from desync.operations.chop import chop
    from desync.operations.chunk import chunk
    from desync.operations.extract import extract
    from desync.operations.info import info
    from desync.operations.make import make
    from desync.operations.prune import needed_by, prune
    from desync.operations.tar import Packing, pack, store_archive
    from desync.operations.upload import ChunkUploads
    from desync.operations.verify import verify
    from desync.operations.verify_index import verify_index
    from desync.options import StoreOptions
    from desync.progress import Progress, Tracker
    from desync.running import run
    from desync.stores.cache import Cache
    from desync.stores.failover import Failover
    from desync.stores.index_files import read_index, write_index
    from desync.stores.local import LocalStore
    from desync.stores.local_files import LocalFiles
    from desync.stores.memory import MemoryStore
    from desync.stores.opening import local_source, local_target, open_source, open_target
    from desync.stores.retry import retrying
    from desync.stores.route import Route
    from desync.stores.single_flight import SingleFlight
    from desync.workers.pool import Pool, pool_size
    from desync.workers.reactor import ReactorPool

__all__ = [
    "SHA256",
    "SHA512_256",
    "Cache",
    "CatarDecoder",
    "CatarEncoder",
    "Chunk",
    "ChunkDownloads",
    "ChunkIds",
    "ChunkSizes",
    "ChunkUploads",
    "Config",
    "Digest",
    "Failover",
    "Index",
    "IndexBuilder",
    "LocalFiles",
    "LocalStore",
    "MemoryStore",
    "Packing",
    "Pool",
    "Progress",
    "ReactorPool",
    "Route",
    "SingleFlight",
    "StoreOptions",
    "Tracker",
    "cache",
    "cat",
    "chop",
    "chunk",
    "extract",
    "info",
    "local_source",
    "local_target",
    "make",
    "needed_by",
    "open_source",
    "open_target",
    "pack",
    "parse_id",
    "pool_size",
    "prune",
    "read_index",
    "retrying",
    "run",
    "store_archive",
    "verify",
    "verify_index",
    "write_index",
]

# Where each of them is defined; tests/test_exports.py compares this with the imports above.
_HOMES = {
    "assembly.fetch": "ChunkDownloads",
    "chunking.digests": "SHA256 SHA512_256 Digest",
    "chunking.sizes": "ChunkSizes",
    "running": "run",
    "config": "Config",
    "formats.catar_decoder": "CatarDecoder",
    "formats.catar_encoder": "CatarEncoder",
    "formats.chunk": "Chunk",
    "formats.ids": "ChunkIds parse_id",
    "formats.index": "Index IndexBuilder",
    "operations.cache": "cache",
    "operations.cat": "cat",
    "operations.chop": "chop",
    "operations.chunk": "chunk",
    "operations.extract": "extract",
    "operations.info": "info",
    "operations.make": "make",
    "operations.upload": "ChunkUploads",
    "operations.prune": "needed_by prune",
    "operations.tar": "Packing pack store_archive",
    "operations.verify": "verify",
    "operations.verify_index": "verify_index",
    "options": "StoreOptions",
    "progress": "Progress Tracker",
    "stores.cache": "Cache",
    "stores.failover": "Failover",
    "stores.index_files": "read_index write_index",
    "stores.local": "LocalStore",
    "stores.local_files": "LocalFiles",
    "stores.memory": "MemoryStore",
    "stores.opening": "local_source local_target open_source open_target",
    "stores.retry": "retrying",
    "stores.route": "Route",
    "stores.single_flight": "SingleFlight",
    "workers.pool": "Pool pool_size",
    "workers.reactor": "ReactorPool",
}

if not TYPE_CHECKING:

    def __getattr__(name):
        for module, names in _HOMES.items():
            if name in names.split():
                from importlib import import_module

                value = globals()[name] = getattr(import_module(f"desync.{module}"), name)
                return value
        raise AttributeError(f"module 'desync' has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__all__})
