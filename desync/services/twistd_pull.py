# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""What ``twistd desync-pull`` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.python.usage import UsageError

from desync.errors import DesyncError

from .options import ServerOptions, options_for
from .pull_service import pull_service
from .pull_settings import PULL_SERVER, PullSettings

if TYPE_CHECKING:
    from .service import ServerService

Options = options_for(PULL_SERVER, PullSettings)


def makeService(config: ServerOptions, reactor: Any = None) -> ServerService:  # noqa: N802
    """
    Make the service.

    :param config: its options.
    :param reactor: the default one if None.
    :raises UsageError: if something that they name can't be used.
    """
    if reactor is None:
        from twisted.internet import reactor
    try:
        return pull_service(config.settings(), reactor)
    except DesyncError as error:
        raise UsageError(str(error)) from None
