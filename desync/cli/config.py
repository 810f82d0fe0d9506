# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``desync config``."""

from __future__ import annotations

from desync.config import Config

from .command import command, flag
from .flags import BOOLEAN
from .invocation import Invocation


@command(
    "config",
    examples=["desync config", "desync --config new.json config -w"],
    loads_config=False,
)
@flag("--write", "-w", kind=BOOLEAN, help="write the current configuration to its file")
def config(invocation: Invocation, write: bool) -> None:
    """
    Show the current configuration, or write it to its file.

    The configuration is that of the file named by --config, of $HOME/.config/desync/config.json, or
    the defaults. With -w the file is created if it doesn't exist, to be edited.

    Secrets are shown as *** unless --show-secrets is given; in the file they are what they are.
    """
    found = Config.load(invocation.config.path, invocation.environ, may_be_missing=write)
    invocation.session.config = found
    for warning in found.warnings:
        invocation.note(f"Warning: {warning}")
    if write:
        path = found.write()
        invocation.print(f"Writing config to {path}")
        invocation.print()
    else:
        invocation.print(found.to_json(show_secrets=invocation.show_secrets))
