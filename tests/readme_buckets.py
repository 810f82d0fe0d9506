# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The S3 hosts of the README's examples: moto stands for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from desync.formats.stored import chunk_name
from desync.stores.location import parse_location
from desync.stores.s3_places import parse_place
from tests.command_line import desync_process
from tests.object_peers import moto
from tests.readme_sandbox import (
    PROVIDERS,
    Given,
    Provider,
    Result,
    Sandbox,
    Then,
    WrongOutcome,
)


def _address(sandbox: Sandbox, host: str) -> str:
    return f"s3+http://{moto().netloc}/"


def _folder(sandbox: Sandbox, host: str) -> Path:
    raise WrongOutcome(f"{host} has buckets, and no folder")


PROVIDERS["s3"] = Provider(_address, _folder)


def has_bucket(name: str, of: str = "") -> Given:
    """There is a bucket with the chunks of a file if one is named, and nothing else."""

    def make(sandbox: Sandbox) -> None:
        moto().new_bucket(name)
        moto().empty(name)
        if of:
            index = sandbox.index_of(of)
            content = sandbox.original(of)
            file, made = sandbox.work / "in-bucket", sandbox.work / "in-bucket.caibx"
            file.write_bytes(content)
            made.write_bytes(index.to_bytes())
            store = f"s3+http://{moto().netloc}/{name}"
            outcome = desync_process(
                "chop", "-s", store, str(made), str(file), environ=moto().environ
            )
            if outcome.code:
                raise WrongOutcome(outcome.err)

    return make


def has_keys(sandbox: Sandbox) -> None:
    """The keys are configured."""
    service = moto()
    keys = {"access-key": service.access_key, "secret-key": service.secret_key}
    path = sandbox.path("../home/.config/desync/config.json")
    path.write_text(json.dumps({"s3-credentials": {f"http://{service.netloc}": keys}}))


def bucket_holds(name: str, of: str) -> Then:
    """A bucket holds the chunks of a file."""

    def check(sandbox: Sandbox, result: Result) -> None:
        for _, _, chunk_id in sandbox.index_of(of):
            if moto().get(name, chunk_name(chunk_id, ".cacnk")) is None:
                raise WrongOutcome(f"{name} lacks {chunk_id.hex()} of {of}")

    return check


def asks_for(urls: Mapping[str, str]) -> Then:
    """Stores of these locations ask for objects at these URLs."""

    def check(sandbox: Sandbox, result: Result) -> None:
        for text, url in urls.items():
            place, prefix = parse_place(parse_location(text))
            if place.url(f"{prefix}chunk") != url:
                raise WrongOutcome(f"{text}: {place.url(f'{prefix}chunk')}")

    return check
