# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Messages of the casync protocol, arbitrary ones, for hypothesis."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from desync.formats import protocol
from desync.formats.ids import ChunkIds

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

    from desync.formats.protocol import Message

ids = st.binary(min_size=32, max_size=32)
data = st.binary(min_size=1, max_size=200)
requests = st.builds(
    protocol.Request,
    st.lists(ids, min_size=1, max_size=5).map(ChunkIds.from_iterable),
    st.booleans(),
)
chunks = st.builds(protocol.ChunkData, ids, data, st.booleans())
aborts = st.builds(
    protocol.Abort,
    st.integers(0, (1 << 31) - 2),
    st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=20),
)

messages: SearchStrategy[Message] = st.one_of(
    st.builds(protocol.Hello, st.integers(1, (1 << 64) - 2)),
    st.builds(protocol.IndexData, data),
    st.just(protocol.IndexEnd()),
    st.builds(protocol.ArchiveData, data),
    st.just(protocol.ArchiveEnd()),
    requests,
    chunks,
    st.builds(protocol.Missing, ids),
    st.just(protocol.Goodbye()),
    aborts,
)


@st.composite
def divided(draw: st.DrawFn, whole: SearchStrategy[bytes]) -> list[bytes]:
    """Some bytes, divided anyhow."""
    text = draw(whole)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    ends = [0, *cuts, len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(ends)]
