"""The columns of several packs, once they are in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgeprune_formats import ConfigError, Pack
from edgeprune_formats.targets import LABEL, Target
from edgeprune_runtime.loading.mixture import Mixture
from edgeprune_runtime.loading.targets import column_of

__all__ = ["joined_targets"]


def joined_targets(packs: Sequence[Pack]) -> list[Target]:
    """Return the columns that all packs have, beside the labels, one pack's values after another's.

    Raises
    ------
    ConfigError
        A pack lacks a column of another, or has it of another kind or with other classes.
    PackFormatError
        A column is damaged.
    """
    names = [set(pack.targets) - {LABEL} for pack in packs]
    for pack, own in zip(packs, names, strict=True):
        if own != names[0]:
            one, other = (pack, packs[0]) if own - names[0] else (packs[0], pack)
            name = min(set(one.targets) - set(other.targets))
            raise ConfigError(f"{one.path}: has target {name!r}, and {other.path} has not; build both alike")
    mixed, joined = Mixture(packs), []
    for name in packs[0].targets:
        if name != LABEL:
            column = column_of(mixed, name)
            if any(pack.targets[name].column.dtype != column.dtype for pack in packs):
                # As what holds all of them.
                column = replace(column, dtype="")
            values = np.concatenate([pack.targets[name].read() for pack in packs])
            joined.append(Target(column, values))
    return joined
