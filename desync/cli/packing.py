# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""The flags that say what of a tree is recorded in an archive, as casync has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from desync.errors import UsageError

from .flags import BOOLEAN, STRINGS, UNSIGNED, choice, flag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from desync.operations.tar import Packing

    from .invocation import Invocation

#: How many ids a container has. casync's default for ids that are shifted.
_SHIFTED_RANGE = 1 << 16


def feature_flags(with_help: str, without_help: str) -> Callable[[Any], Any]:
    """Declare the flags for :func:`chosen_features`."""
    including = flag("--with", "features", kind=STRINGS, help=with_help)
    excluding = flag("--without", "left_features", kind=STRINGS, help=without_help)
    return lambda function: including(excluding(function))


_FLAGS = (
    feature_flags(
        "what is recorded, by casync's names, such as unix, acl, xattrs, 32bit-uids or best",
        "what isn't; with this or --with the archive is what casync makes of it",
    ),
    flag(
        "--exclude-nodump",
        kind=choice("yes", "no"),
        help="leave out what chattr +d marks (default yes with --with or --without)",
    ),
    flag(
        "--exclude-submounts",
        kind=choice("yes", "no"),
        help="leave out what is mounted in the tree (default no)",
    ),
    flag(
        "--exclude-file",
        kind=choice("yes", "no"),
        help="leave out what .caexclude files name (default yes with --with or --without)",
    ),
    flag("--uid-shift", help="number to take from the ids of all owners; yes is 0"),
    flag(
        "--uid-range",
        kind=UNSIGNED,
        help="keep the ids of owners modulo this number (default 65536 with --uid-shift)",
    ),
    flag(
        "--one-file-system",
        "-x",
        kind=BOOLEAN,
        help="leave out what is on other file systems than the directory itself",
    ),
    flag("--no-time", kind=BOOLEAN, help="set all times to 0"),
)

PACKING_NAMES = (
    "features",
    "left_features",
    "exclude_nodump",
    "exclude_submounts",
    "exclude_file",
    "uid_shift",
    "uid_range",
    "one_file_system",
    "no_time",
)


def packing_flags(function: Any) -> Any:
    """Declare the flags for :func:`packing_of`, which come as keywords."""
    for each in reversed(_FLAGS):
        function = each(function)
    return function


def packing_of(invocation: Invocation, flags: dict[str, Any]) -> Packing:
    """
    Say how a tree is packed.

    :param flags: the values of the flags by name.
    :raises UsageError: if they can't be used.
    """
    from desync.formats import flags as feature
    from desync.operations.tar import Packing
    from desync.trees.walking import Selection

    values = {name: flags[name] for name in PACKING_NAMES}
    as_casync = bool(values["features"] or values["left_features"])
    selection = Selection(
        nodump=_is_yes(values["exclude_nodump"], as_casync),
        exclude_files=_is_yes(values["exclude_file"], as_casync),
        submounts=_is_yes(values["exclude_submounts"], False),
        one_file_system=values["one_file_system"],
    )
    shift, uid_range = _uid_shift(values["uid_shift"]), values["uid_range"] or None
    if shift is not None and uid_range is None:
        uid_range = _SHIFTED_RANGE
    packing = Packing(
        selection=selection,
        no_time=values["no_time"],
        uid_shift=shift or 0,
        uid_range=uid_range,
    )
    if not as_casync:
        return packing
    word = chosen_features(values["features"], values["left_features"])
    if selection.nodump:
        word |= feature.EXCLUDE_NODUMP
    if selection.exclude_files:
        word |= feature.EXCLUDE_FILE
    if selection.submounts:
        word |= feature.EXCLUDE_SUBMOUNTS
    word = feature.normalize(word | invocation.digest.feature_flag)
    return packing._replace(flags=word, as_go=False)


def chosen_features(features: Sequence[str], left_features: Sequence[str]) -> int:
    """
    Combine the features that some flags name.

    :param features: names given with ``--with``; all, if there are none.
    :param left_features: names given with ``--without``, which always win.
    :return: bits of a feature word, not normalized.
    :raises UsageError: if a name is unknown.
    """
    from desync.formats import flags as feature

    word = _combined(features, "--with") if features else feature.ALL_WITH
    return word & ~_combined(left_features, "--without")


def _is_yes(text: str | None, default: bool) -> bool:
    return default if text is None else text == "yes"


def _uid_shift(text: str | None) -> int | None:
    """Give the number; None where ids are left alone."""
    if text is None or text in ("", "no"):
        return None
    if text == "yes":
        return 0
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 32:
        raise UsageError(f'invalid argument "{text}" for "--uid-shift" flag: not an id')
    return int(text)


def _combined(names: Sequence[str], flag_name: str) -> int:
    from desync.formats import flags as feature

    word = 0
    for name in names:
        bits = feature.NAMES.get(name) or feature.SETS.get(name)
        if bits is None:
            known = ", ".join([*feature.SETS, *feature.NAMES])
            raise UsageError(
                f'invalid argument "{name}" for "{flag_name}" flag: no such feature;'
                f" there are {known}"
            )
        word |= bits
    return word
