"""The columns of several packs: once they are in one, and of one that is to be mixed with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeprune_formats import ConfigError, Pack
from edgeprune_formats.targets import LABEL, Column, Target
from edgeprune_runtime.class_names import with_classes
from edgeprune_runtime.loading.mixture import Mixture
from edgeprune_runtime.loading.targets import column_of

from ..sources import Source, SourceOptions, source_targets, with_options
from ..sources.columns.requests import parse_targets
from ..sources.naming.options import without_options

__all__ = ["columns_as", "joined_targets", "with_columns"]


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
            parts = [pack.targets[name].take() for pack in packs]
            if any((one.column.dtype, one.column.top) != (column.dtype, column.top) for one in parts):
                # As what holds all of them.
                column = replace(column, dtype="", top=0)
                parts = [Target(column, pack.targets[name].read()) for pack in packs]
            joined.append(Target(column, np.concatenate([one.values for one in parts])))
    return joined


def with_columns(spec: str, columns: Sequence[Column], path: Path, built_from: object = None) -> str:
    """Return the text of a source that gives the columns of a pack: those that it does not name, by name.

    A column that the pack's own source made of others, as in ``pose=x+y:value``, is made of these again.
    `built_from` is that source's text as the pack's provenance has it.

    Raises
    ------
    ConfigError
        Such a source has no columns.
    """
    if not columns:
        return spec
    given = without_options(spec)[1].target
    named = {request.name for request in parse_targets(given)}
    made = _made_of(built_from)
    missing = [
        f"{made.get(column.name, column.name)}:{column.kind}"
        for column in columns
        if column.name not in named
    ]
    options = SourceOptions(target=(*given, *missing))
    try:
        return with_options(spec, options)
    except ConfigError:
        raise ConfigError(
            f"{spec}: gives no targets, and {path} has target {columns[0].name!r}; take a source that has it"
        ) from None


def _made_of(spec: object) -> dict[str, str]:
    """Return the columns that a recorded source made of others, as ``NAME=COLUMN+COLUMN``, by name."""
    try:
        requests = parse_targets(without_options(str(spec))[1].target)
    except ConfigError:
        # The record of another release, or no text at all.
        return {}
    made = [one for one in requests if one.columns != (one.name,)]
    return {one.name: f"{one.name}={'+'.join(one.columns)}" for one in made}


def columns_as(source: Source, columns: Sequence[Column], path: Path) -> tuple[Target, ...]:
    """Return the columns of a source as a pack has them, with its classes, matched by name.

    Raises
    ------
    ConfigError
        The source lacks one or has another, or it differs in kind, or an image is of a class that the pack
        lacks.
    """
    known = {target.column.name: target for target in source_targets(source)}
    wanted = {column.name: column for column in columns}
    for name in [*wanted, *known]:
        if (name in wanted) != (name in known):
            one, other = (path, source.spec) if name in wanted else (source.spec, path)
            raise ConfigError(f"{one}: has target {name!r}, and {other} has not; give both the same targets")
    return tuple(_as_column(source.spec, known[name], column, path) for name, column in wanted.items())


def _as_column(spec: str, target: Target, column: Column, path: Path) -> Target:
    own = target.column
    if (own.kind, own.width, own.unit or column.unit) != (column.kind, column.width, column.unit):
        theirs, ours = (f"{one.kind} of {one.width} {one.unit}".strip() for one in (own, column))
        raise ConfigError(f"{spec}: target {column.name!r} is {theirs}, and {ours} in {path}")
    if column.classes:
        target, lacking = with_classes(target, column.classes)
        if lacking:
            raise ConfigError(
                f"{spec}: target {column.name!r} has images of classes that {path} lacks: "
                f"{', '.join(lacking[:5])}; only the label gets new ones, so leave these images out"
            )
    return Target(column, target.values)
