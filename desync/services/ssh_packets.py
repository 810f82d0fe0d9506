# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The packets of an SSH connection, once its keys are agreed upon.

Conch encrypts and authenticates in two passes, and puts a packet together anew for each layer. Here
it is put together once, and AES-GCM, which Conch doesn't have, does both in one pass. The layouts
are those of RFC 4253, section 6, and RFC 5647, section 7, with the names that OpenSSH has given the
ciphers of the latter.
"""

from __future__ import annotations

import hmac
import os
import struct
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from twisted.conch.ssh.transport import SSHCiphers

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The ciphers that authenticate too, and how long their keys are, in bytes.
_GCM_KEYS: Final = {b"aes128-gcm@openssh.com": 16, b"aes256-gcm@openssh.com": 32}

GCM_CIPHERS: Final = tuple(_GCM_KEYS)
CIPHERS: Final = (*GCM_CIPHERS, b"aes128-ctr", b"aes256-ctr", b"aes192-ctr")

#: What OpenSSL calls the digests, by the names of the authentication codes that use them.
_DIGESTS: Final = {b"hmac-sha2-256": "sha256", b"hmac-sha2-512": "sha512"}

CODES: Final = tuple(_DIGESTS)

#: The number of a packet, which is authenticated and not sent; the packet's length and that of its
#: padding.
_NUMBERED: Final = struct.Struct(">LLB")

#: The least padding that a packet has, in bytes, and the block that a packet sealed with GCM fills.
_LEAST_PADDING: Final = 4
_GCM_BLOCK: Final = 16

#: How large a packet may be, in bytes: as with Conch.
_LARGEST: Final = 1 << 20


class BadPacket(Exception):
    """A packet that isn't one, or isn't the peer's."""


def _padding(size: int, block: int) -> bytes:
    """Make the padding that brings so many bytes to a whole number of blocks."""
    count = block - size % block
    return os.urandom(count if count >= _LEAST_PADDING else count + block)


class Gcm:
    """
    One direction of a connection with AES-GCM.

    :param key: of 16 or 32 bytes.
    :param nonce: of the first packet, 12 bytes; the last eight are counted up with each packet.
    """

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._cipher = AESGCM(key)
        self._fixed = nonce[:4]
        self._count = int.from_bytes(nonce[4:], "big")

    def _next(self) -> bytes:
        nonce = self._fixed + self._count.to_bytes(8, "big")
        self._count = (self._count + 1) % (1 << 64)
        return nonce

    def seal(self, pieces: Sequence[bytes | memoryview], size: int) -> tuple[bytes, bytes]:
        """
        Make a packet.

        :param pieces: what is in it, its type first.
        :param size: their bytes.
        :returns: what is to be sent, in two pieces.
        """
        padding = _padding(1 + size, _GCM_BLOCK)
        count = len(padding)
        length = (1 + size + count).to_bytes(4, "big")
        packet = b"".join((bytes((count,)), *pieces, padding))
        return length, self._cipher.encrypt(self._next(), packet, length)

    def open(self, data: bytes) -> tuple[bytes, int] | None:
        """
        Find the packet that some bytes begin with.

        :returns: what is in it, its type first, and how many bytes it took; None if it isn't whole.
        :raises BadPacket: if there is something else.
        """
        if len(data) < 4:
            return None
        size = int.from_bytes(data[:4], "big")
        if not _GCM_BLOCK <= size <= _LARGEST or size % _GCM_BLOCK:
            raise BadPacket(f"a packet of {size} bytes")
        end = 4 + size + _GCM_BLOCK
        if len(data) < end:
            return None
        try:
            packet = self._cipher.decrypt(self._next(), data[4:end], data[:4])
        except InvalidTag:
            raise BadPacket("a packet that isn't the peer's") from None
        padding = packet[0]
        if not _LEAST_PADDING <= padding < size:
            raise BadPacket(f"a packet with {padding} bytes of padding")
        return packet[1:-padding], end


class Ciphers(SSHCiphers):
    """
    Both directions of a connection, as they were agreed upon.

    :ivar opening: opens what arrives, if that is for one of our own ciphers.
    """

    opening: Gcm | None = None
    _sealing: Gcm | None = None

    def setKeys(self, outIV: bytes, outKey: bytes, inIV: bytes, inKey: bytes, *rest: bytes) -> None:  # noqa: N802, N803
        """See :class:`twisted.conch.ssh.transport.SSHCiphers`."""
        super().setKeys(outIV, outKey, inIV, inKey, *rest)  # type: ignore[no-untyped-call]
        self._sealing = _gcm(self.outCipType, outKey, outIV)
        self.opening = _gcm(self.inCipType, inKey, inIV)

    def _getCipher(self, cip: bytes, iv: bytes, key: bytes) -> Any:  # noqa: N802
        # Conch knows nothing of those that are ours, and isn't asked to use them.
        known = b"none" if cip in _GCM_KEYS else cip
        return super()._getCipher(known, iv, key)  # type: ignore[no-untyped-call]

    def seal(
        self, number: int, pieces: Sequence[bytes | memoryview], size: int
    ) -> tuple[bytes, bytes]:
        """
        Make a packet.

        :param number: of the packet.
        :param pieces: what is in it, its type first.
        :param size: their bytes.
        :returns: what is to be sent, in two pieces.
        """
        if self._sealing is not None:
            return self._sealing.seal(pieces, size)
        padding = _padding(_NUMBERED.size - 4 + size, self.encBlockSize)
        count = len(padding)
        packet = b"".join((_NUMBERED.pack(number, 1 + size + count, count), *pieces, padding))
        key: bytes = self.outMAC.key  # type: ignore[attr-defined]
        code = hmac.digest(key, packet, _DIGESTS[self.outMACType])
        return self.encryptor.update(memoryview(packet)[4:]), code


def _gcm(name: bytes, key: bytes, nonce: bytes) -> Gcm | None:
    size = _GCM_KEYS.get(name)
    return None if size is None else Gcm(key[:size], nonce[:12])
