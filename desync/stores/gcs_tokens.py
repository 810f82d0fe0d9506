# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The tokens that requests to Google Cloud Storage carry: google-auth gets them, in a thread, because
it blocks.

They come from the file that ``GOOGLE_APPLICATION_CREDENTIALS`` names (a service account's, among
others), what ``gcloud auth application-default login`` left, or the metadata server of Google's
machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import DeferredLock

from desync.errors import StoreError

if TYPE_CHECKING:
    from .threads import Threads

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


class Tokens(Protocol):
    """Where tokens come from."""

    async def current(self) -> str:
        """
        Give a token that is good for a while; empty where none is needed.

        :raises StoreError: if there is none to be had.
        """

    async def renew(self, refused: str) -> bool:
        """
        Get another token because the service refused one.

        :returns: whether there is another now.
        :raises StoreError: if there is none to be had.
        """


class NoTokens:
    """For an emulator, which asks for none."""

    async def current(self) -> str:
        """See :class:`Tokens`."""
        return ""

    async def renew(self, refused: str) -> bool:
        """See :class:`Tokens`."""
        return False


class GoogleTokens:
    """
    Tokens by google-auth, refreshed before they expire.

    :param location: the store's, for errors.
    :param threads: where google-auth may block.
    """

    def __init__(self, location: str, threads: Threads) -> None:
        self._location = location
        self._threads = threads
        self._lock = DeferredLock()
        self._credentials: Any = None

    async def current(self) -> str:
        """See :class:`Tokens`."""
        if not self._is_good():
            async with self._lock:
                if not self._is_good():
                    await self._refresh()
        return self._token

    async def renew(self, refused: str) -> bool:
        """See :class:`Tokens`."""
        async with self._lock:
            if self._token == refused:
                await self._refresh()
        return self._token != refused

    @property
    def _token(self) -> str:
        return str(self._credentials.token) if self._credentials is not None else ""

    def _is_good(self) -> bool:
        # google-auth takes a token for expired some minutes before it is.
        return self._credentials is not None and bool(self._credentials.valid)

    async def _refresh(self) -> None:
        self._credentials = await self._threads.run(_refresh, self._credentials, self._location)


def _refresh(credentials: Any, location: str) -> Any:
    """Find credentials, if there are none yet, and get a token. Blocks."""
    import google.auth
    import google.auth.exceptions
    import google.auth.transport.urllib3
    import urllib3

    transport: Any = google.auth.transport.urllib3
    try:
        with urllib3.PoolManager() as pool:
            request = transport.Request(pool)
            if credentials is None:
                credentials, _ = google.auth.default(scopes=[_SCOPE], request=request)
            credentials.refresh(request)
    except (google.auth.exceptions.GoogleAuthError, OSError, ValueError) as error:
        what = error.args[0] if error.args else error
        why = " ".join(str(what).split()) or type(error).__name__
        raise StoreError(location, f"no credentials: {why}") from None
    return credentials
