# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
Where the keys come from that requests to S3 are signed with.

In this order: what the environment and the configuration say, which are keys, or an AWS credentials
file and a profile of it (:class:`~desync.options.S3Credentials`); then botocore's own chain, AWS's
variables, files and profiles, single sign-on, the roles of containers and instances. Where that
finds nothing, requests aren't signed. botocore blocks, so it runs in a thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import DeferredLock

from desync.errors import StoreError

from .s3_signing import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from desync.options import S3Credentials

    from .threads import Threads

#: Seconds after which a credentials file is read again, and keys that expire are looked at.
_AGE: Final = 60.0


class Credentials:
    """
    The keys of one store.

    :param given: what the configuration and the environment say.
    :param location: the store's, for errors.
    :param threads: where botocore may block.
    :param now: a clock that only goes forward, in seconds.
    """

    def __init__(
        self,
        given: S3Credentials,
        location: str,
        threads: Threads,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = given
        self._location = location
        self._threads = threads
        self._now = now
        self._lock = DeferredLock()
        self._keys: Keys | None = None
        # Until when the keys are good without asking again; None if they haven't been asked for.
        self._good_until: float | None = None
        #: botocore's own object, where the chain found some.
        self._found: Any = None
        self.region = given.region

    async def current(self) -> Keys | None:
        """
        Give the keys; None if requests aren't to be signed.

        :raises StoreError: if there should be some, and they can't be had.
        """
        if self._is_good():
            return self._keys
        async with self._lock:
            if not self._is_good():
                await self._fetch()
        return self._keys

    async def renew(self, refused: Keys | None) -> bool:
        """
        Get new keys because the service says that these have expired.

        :returns: whether there are others now.
        :raises StoreError: if they can't be had.
        """
        async with self._lock:
            if self._keys == refused:
                self._found = None
                await self._fetch()
        return self._keys != refused

    def _is_good(self) -> bool:
        if self._good_until is None:
            return False
        now = self._now()
        if now < self._good_until:
            return True
        # This only looks at the time. Long before keys expire, botocore tries to renew them.
        if self._found is None or self._found.refresh_needed():
            return False
        self._good_until = now + _AGE
        return True

    async def _fetch(self) -> None:
        given = self._given
        if given.access_key or given.secret_key:
            self._keys = Keys(given.access_key, given.secret_key, given.session_token)
            self._good_until = float("inf")
        elif given.credentials_file:
            self._keys = await self._threads.run(
                _read_file, given.credentials_file, given.profile or "default", self._location
            )
            self._good_until = self._now() + _AGE
        else:
            self._keys, self._found, region = await self._threads.run(
                _ask_chain, self._found, self._location
            )
            self.region = self.region or region
            self._good_until = float("inf") if self._found is None else self._now() + _AGE


def _read_file(path: str, profile: str, location: str) -> Keys:
    """Read a profile of an AWS credentials file. Blocks."""
    import botocore.credentials
    import botocore.exceptions

    try:
        found = botocore.credentials.SharedCredentialProvider(path, profile).load()
    except (botocore.exceptions.BotoCoreError, OSError, ValueError) as error:
        raise StoreError(location, f"{path}: {_line(error)}") from None
    if found is None:
        raise StoreError(location, f"{path}: there are no keys of the profile '{profile}'")
    return Keys(found.access_key, found.secret_key, found.token or "")


def _ask_chain(found: Any, location: str) -> tuple[Keys | None, Any, str]:
    """
    Ask botocore for keys. Blocks.

    :param found: what it gave the last time, to be refreshed; None to look everywhere again.
    :returns: the keys; what can refresh them, if anything can; the region that it would use.
    """
    import botocore.exceptions
    import botocore.session

    try:
        region = ""
        if found is None:
            session = botocore.session.Session()
            region = session.get_config_variable("region") or ""
            found = session.get_credentials()
        if found is None:
            return None, None, region
        frozen = found.get_frozen_credentials()
    except Exception as error:  # whatever a provider of the chain fails with
        raise StoreError(location, f"no credentials: {_line(error)}") from None
    keys = Keys(frozen.access_key or "", frozen.secret_key or "", frozen.token or "")
    return keys, found if hasattr(found, "refresh_needed") else None, region


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
