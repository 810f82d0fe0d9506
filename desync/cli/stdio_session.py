# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What ``desync pull`` and ``desync push`` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from desync.running import run_with_reactor

if TYPE_CHECKING:
    from .invocation import Invocation


def run_session(invocation: Invocation, words: list[str]) -> None:
    """
    Serve one session on standard input and output.

    :param words: the command as a client gives it, from ``pull`` or ``push`` on.
    """
    from desync.services.casync_offer import parse_words

    asked = parse_words(words)

    async def operation(reactor: Any) -> None:
        from desync.services.casync_stdio import serve_stdio

        await serve_stdio(reactor, asked, invocation.store_options, invocation.digest)

    run_with_reactor(operation)
