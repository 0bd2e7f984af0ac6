"""What a network should tell of test images: a target of a pack or of a source, as the network learned it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack
from edgeprune_formats.packs.columns import StoredTarget
from edgeprune_formats.targets import LABEL, Column, Target
from edgeprune_runtime.class_names import with_classes
from edgeprune_runtime.text import count_text

from ...errors import SourceError
from .. import Source, open_source, source_targets
from ..naming.options import SourceOptions, with_options, without_options

__all__ = ["as_learned", "find_target", "open_with_target", "require_alike"]


def open_with_target(spec: str, column: Column | None, **options: Any) -> Source:
    """Open a source with a target, unless its text names targets itself.

    Parameters
    ----------
    spec : str
    column : Column or None
        None, and the label, add nothing.
    **options
        As `edgeprune.open_source`.

    Raises
    ------
    ConfigError, SourceError
        As `edgeprune.open_source`, or it has no such target.
    """
    if column is None or column.name == LABEL or without_options(spec)[1].target:
        return open_source(spec, **options)
    asked = SourceOptions(target=(f"{column.name}:{column.kind}",))
    try:
        named = with_options(spec, asked)
    except ConfigError:
        open_source(spec, **options)
        raise ConfigError(
            f"{spec}: has no targets, and the network has learned {column.name!r}; name a pack or a table"
        ) from None
    try:
        return open_source(named, **options)
    except SourceError as error:
        # Targets of test images are named in the text of their source, as no option names them.
        raise SourceError(str(error).replace("`target", "`?target")) from error


def find_target(spec: object, images: Pack | Source, name: str) -> Target:
    """Return a column of a test set.

    Raises
    ------
    ConfigError
        It has no such column.
    """
    known: Mapping[str, Target | StoredTarget]
    if isinstance(images, Pack):
        known = images.targets
    else:
        known = {target.column.name: target for target in source_targets(images)}
        if images.class_names:
            label = Column(LABEL, "class", images.class_names)
            known = {LABEL: Target(label, images.labels), **known}
    if name not in known:
        listed = ", ".join(known) or "none"
        remedy = (
            "build it with that target" if isinstance(images, Pack) else f"add target={name} to the source"
        )
        raise ConfigError(f"{spec}: has no target {name!r} to test; those it has: {listed}; {remedy}")
    found = known[name]
    return found if isinstance(found, Target) else Target(found.column, found.read())


def require_alike(spec: object, own: Column, column: Column) -> None:
    """Raise `ConfigError` unless a column is of the kind and width that was learned, and of no other unit."""
    other_unit = own.unit and column.unit and own.unit != column.unit
    if (own.kind, own.width) != (column.kind, column.width) or other_unit:
        remedy = "give the same numbers in the same unit"
        if own.kind != column.kind:
            remedy = f"give it as {column.name}:{column.kind}, in a source or when the pack is built"
        raise ConfigError(
            f"{spec}: target {column.name!r} is of kind {_text(own)}, and was trained as kind "
            f"{_text(column)}; {remedy}"
        )


def _text(column: Column) -> str:
    numbers = f", {count_text(column.width, 'number')}" if column.kind == "value" else ""
    return f"{column.kind}{numbers}{column.unit and f' in {column.unit}'}"


def as_learned(spec: object, target: Target, column: Column) -> NDArray[Any]:
    """Return the values of a test set, of its classes in the order of those that were learned.

    Raises
    ------
    ConfigError
        It is of another kind, width or unit, or images have classes that were not learned.
    """
    require_alike(spec, target.column, column)
    if column.kind == "value":
        return np.asarray(target.values, np.float32)
    matched, unknown = with_classes(target, column.classes)
    if unknown:
        more = f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
        raise ConfigError(
            f"{spec} has images of classes that the training pack lacks: {', '.join(unknown[:5])}{more}; "
            "leave them out, or train on a pack that has these classes as well"
        )
    return matched.values
