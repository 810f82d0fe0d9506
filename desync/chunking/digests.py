# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The digest algorithms that chunk ids are made with.

SHA-512/256 is the truncated form of FIPS 180-4 with initial values of its own, not the first half
of SHA-512.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from desync.errors import UsageError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from .kernels import ReadableBuffer

FLAG_SHA512_256 = 1 << 61
"""The feature flag of an index whose ids are SHA-512/256 (casync's ``CA_FORMAT_SHA512_256``)."""

_NULL_IDS_KEPT = 16


class Digest(ABC):
    """
    One algorithm. There are two, :data:`SHA512_256` and :data:`SHA256`; each gives ids of 32 bytes.

    :param name: as the command line has it.
    :param feature_flag: the bit that an index whose ids were made with it carries, or 0.
    """

    __slots__ = ("_null_ids", "feature_flag", "name")

    def __init__(self, name: str, feature_flag: int) -> None:
        self.name = name
        self.feature_flag = feature_flag
        self._null_ids: dict[int, bytes] = {}

    @staticmethod
    def named(name: str) -> Digest:
        """
        The algorithm of this name.

        :raises UsageError: there is none.
        """
        for digest in (SHA512_256, SHA256):
            if digest.name == name:
                return digest
        raise UsageError(f"invalid digest algorithm '{name}'")

    @abstractmethod
    def id_of(self, data: ReadableBuffer) -> bytes:
        """The id of one chunk, 32 bytes."""

    @abstractmethod
    def ids_of_ranges(
        self,
        buffer: ReadableBuffer,
        start: int,
        ends: ReadableBuffer,
        count: int,
        null: tuple[int, bytes] | None = None,
    ) -> bytes:
        """The ids of neighboring chunks; see :func:`.kernels.hash_ranges`."""

    @abstractmethod
    def ids_of_buffers(self, buffers: Sequence[ReadableBuffer]) -> bytes:
        """The ids of some chunks, one after the other."""

    def new(self) -> Hash:
        """Begin to hash what comes in pieces, such as a file's content: an object of hashlib's."""
        return hashlib.new(self.name.replace("-", "_"))

    def null_id(self, length: int) -> bytes:
        """
        The id of a chunk of zeros.

        :param length: in bytes; of a maximum chunk size, normally: the ids of a few lengths are
            kept.
        """
        found = self._null_ids.get(length)
        if found is None:
            found = self.id_of(bytes(length))
            if len(self._null_ids) >= _NULL_IDS_KEPT:
                self._null_ids.clear()
            self._null_ids[length] = found
        return found

    def __repr__(self) -> str:
        return f"<Digest {self.name}>"

    def __reduce__(self) -> tuple[object, ...]:
        # Digests are compared by identity: what another process sends must become the one that is
        # here.
        return (Digest.named, (self.name,))


class _SHA512_256(Digest):  # noqa: N801
    """Hashed by the kernels, many chunks at once; one chunk by OpenSSL."""

    __slots__ = ()

    def id_of(self, data: ReadableBuffer) -> bytes:
        return hashlib.new("sha512_256", data).digest()

    def ids_of_ranges(
        self,
        buffer: ReadableBuffer,
        start: int,
        ends: ReadableBuffer,
        count: int,
        null: tuple[int, bytes] | None = None,
    ) -> bytes:
        from . import kernels

        return kernels.hash_ranges(buffer, start, ends, count, null)

    def ids_of_buffers(self, buffers: Sequence[ReadableBuffer]) -> bytes:
        from . import kernels

        return kernels.hash_buffers(buffers)


class _SHA256(Digest):
    """Hashed by OpenSSL, which uses the processor's own SHA-256 instructions."""

    __slots__ = ()

    def id_of(self, data: ReadableBuffer) -> bytes:
        return hashlib.sha256(data).digest()

    def ids_of_ranges(
        self,
        buffer: ReadableBuffer,
        start: int,
        ends: ReadableBuffer,
        count: int,
        null: tuple[int, bytes] | None = None,
    ) -> bytes:
        from . import portable

        return portable.hash_ranges(buffer, start, ends, count, null, self.id_of)

    def ids_of_buffers(self, buffers: Sequence[ReadableBuffer]) -> bytes:
        return b"".join(map(self.id_of, buffers))


SHA512_256: Digest = _SHA512_256("sha512-256", FLAG_SHA512_256)
SHA256: Digest = _SHA256("sha256", 0)
