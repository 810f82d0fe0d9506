# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Puts the operator's endpoint beside a server, if its settings ask for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .figures import Rates
from .listening import endpoint_description
from .service import OperatorPart, Part

if TYPE_CHECKING:
    from .figures import Figures
    from .operator_views import View
    from .settings import CommonSettings


def operator_parts(
    settings: CommonSettings,
    title: str,
    figures: Figures,
    reactor: Any,
    view: View | None = None,
) -> list[Part]:
    """
    Make the operator's endpoint.

    :param title: what the server is.
    :param view: what is shown of the figures; by default what there is to be seen of requests.
    :returns: none, or one.
    """
    if not settings.operator:
        return []
    # Klein and what it needs are loaded by those who want it.
    from .operator_page import OperatorApp

    rates = Rates(figures, reactor)
    site = OperatorApp(title, figures, rates, view=view).site()
    # Nobody else's business, unless a host is named.
    description = endpoint_description(settings.operator, "127.0.0.1")
    return [OperatorPart(description, site, rates, reactor)]
