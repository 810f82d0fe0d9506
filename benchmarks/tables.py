# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tables of text."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "-"


def lines(table: Sequence[Sequence[str]], rule: str = "") -> list[str]:
    """
    Align a table's columns: names on the left, figures on the right.

    :param table: its rows; the first one has the heads.
    :param rule: what lines above and below are made of; none if empty.
    """
    widths = [max(len(cells[at]) for cells in table) for at in range(len(table[0]))]
    made = []
    for cells in table:
        aligned = [cells[0].ljust(widths[0])]
        aligned += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        made.append("  ".join(aligned).rstrip())
    if rule:
        bar = "  ".join(rule * width for width in widths)
        made = [bar, made[0], bar, *made[1:], bar]
    return made
