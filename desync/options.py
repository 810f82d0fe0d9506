# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""How one store is used: what the configuration and the command line can say about it."""

from __future__ import annotations

from typing import NamedTuple

DEFAULT_CONCURRENCY = 10
DEFAULT_ERROR_RETRY = 3
DEFAULT_RETRY_INTERVAL = 500_000_000
"""Nanoseconds."""
DEFAULT_TIMEOUT = 60_000_000_000
"""Nanoseconds; what a timeout of 0 in :class:`StoreOptions` stands for."""
DEFAULT_COMPRESSION_LEVEL = 3


class S3Credentials(NamedTuple):
    """
    What to sign requests to one S3 server with. All empty means that the server is asked
    anonymously.

    :param credentials_file: an AWS credentials file, used when there is no access key.
    :param profile: the section of that file.
    """

    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    credentials_file: str = ""
    profile: str = ""
    region: str = ""


class StoreOptions(NamedTuple):
    """
    How to use one store. Field for field what the configuration file has under ``store-options``,
    but for the last.

    :param n: how many requests at once.
    :param client_cert: path of the certificate to show to the server, PEM; empty for none.
    :param client_key: path of its key.
    :param ca_cert: path of the authorities to trust in place of the system's.
    :param trust_insecure: take any certificate.
    :param http_auth: value of the Authorization header.
    :param http_cookie: value of the Cookie header.
    :param timeout: nanoseconds for one request; 0 is a minute, negative is without end.
    :param error_retry: how often a failed request is tried.
    :param error_retry_base_interval: nanoseconds before the first retry; the n-th waits n times
        that.
    :param skip_verify: don't check what is read.
    :param uncompressed: read and write chunks as they are, not compressed.
    :param encryption: kept for Go desync's sake, as are the next two.
    :param any_form: when a chunk isn't there in the configured form, look for the other one, on
        stores where that costs another request.
    :param single_requests: ask a server for each chunk alone, even if it offers more.
    :param compression_level: zstd's, for what is written.
    :param s3: what to sign requests to a store in S3 with, from ``s3-credentials`` or the
        environment.
    """

    n: int = DEFAULT_CONCURRENCY
    client_cert: str = ""
    client_key: str = ""
    ca_cert: str = ""
    trust_insecure: bool = False
    http_auth: str = ""
    http_cookie: str = ""
    timeout: int = 0
    error_retry: int = DEFAULT_ERROR_RETRY
    error_retry_base_interval: int = DEFAULT_RETRY_INTERVAL
    skip_verify: bool = False
    uncompressed: bool = False
    encryption: bool = False
    encryption_algorithm: str = ""
    encryption_key: str = ""
    any_form: bool = False
    single_requests: bool = False
    compression_level: int = DEFAULT_COMPRESSION_LEVEL
    s3: S3Credentials = S3Credentials()

    @property
    def patience(self) -> float | None:
        """How long one request may take, in seconds; None for without end."""
        timeout = self.timeout or DEFAULT_TIMEOUT
        return timeout / 1e9 if timeout > 0 else None


class StoreFlags(NamedTuple):
    """
    What the command line says about all stores. None is a flag that wasn't given.

    :param cache_repair: replace invalid chunks in the cache from the stores.
    """

    concurrency: int = DEFAULT_CONCURRENCY
    client_cert: str | None = None
    client_key: str | None = None
    ca_cert: str | None = None
    trust_insecure: bool | None = None
    error_retry: int | None = None
    error_retry_base_interval: int | None = None
    skip_verify: bool = False
    cache_repair: bool = True

    def over(self, options: StoreOptions) -> StoreOptions:
        """Lay the flags that were given over what's configured; the concurrency always."""
        given = {
            name: value
            for name in (
                "client_cert",
                "client_key",
                "ca_cert",
                "trust_insecure",
                "error_retry",
                "error_retry_base_interval",
            )
            if (value := getattr(self, name)) is not None
        }
        if self.skip_verify:
            given["skip_verify"] = True
        return options._replace(n=self.concurrency, **given)
