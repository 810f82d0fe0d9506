# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The key by which clients of ``twistd desync-pull`` know the server."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.keys import BadKeyError, EncryptedKeyError, Key

from desync.errors import UsageError


def host_key(path: str) -> Key:
    """
    Read the host key, or make one and keep it there for nobody else to read.

    :raises UsageError: if it can't be read, or made.
    """
    try:
        with open(path, "rb") as file:
            key: Key = Key.fromString(file.read(1 << 16))
            if key.isPublic():
                raise BadKeyError
            return key
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    except (BadKeyError, EncryptedKeyError, ValueError, TypeError):
        raise UsageError(f"{path}: not a private key, or one with a passphrase") from None
    key = Key(Ed25519PrivateKey.generate())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(key.toString("OPENSSH", subtype="v1"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from None
    return key
