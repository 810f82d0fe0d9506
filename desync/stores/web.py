# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What can go wrong with a request over HTTP before there is an answer, in words."""

from __future__ import annotations

import os
import sys

from twisted.internet.error import ConnectError, DNSLookupError


class WebError(Exception):
    """No answer came, or not all of one. The message says why, in one line."""


class AnswerTooLarge(Exception):
    """An answer has more bytes than the caller takes."""


def describe(error: BaseException) -> str:
    """Say in one line why there was no answer."""
    reasons = getattr(error, "reasons", None)
    while reasons:
        error = reasons[0].value
        reasons = getattr(error, "reasons", None)
    if isinstance(error, DNSLookupError):
        return "there is no such host"
    if isinstance(error, ConnectError) and isinstance(error.osError, int):
        return os.strerror(error.osError)
    if "OpenSSL" in sys.modules:
        from OpenSSL import SSL
        from service_identity import VerificationError

        if isinstance(error, VerificationError):
            return "TLS failed: the server's certificate is for another name"
        if isinstance(error, SSL.Error):
            return f"TLS failed: {_tls_reason(error)}"
    words = " ".join(str(error).split())
    return words or type(error).__name__


def _tls_reason(error: Exception) -> str:
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(entry[-1] for entry in queue if entry) or "the connection was closed"
