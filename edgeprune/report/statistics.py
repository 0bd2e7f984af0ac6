"""Numbers over all images of a pack: classes, scores, masks and further columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from edgeprune_formats import Pack
from edgeprune_formats.coefficients import QuantizedCoefficients
from edgeprune_formats.packs.columns import StoredTarget
from edgeprune_formats.targets import LABEL

from .album import evenly
from .charts import histogram, spread
from .names import shown
from .pictures import Picture, picture
from .preview import in_color, plane_names

__all__ = ["Balance", "Counted", "Masks", "Values", "class_balance", "distribution", "masks", "target_values"]

_LISTED, _ENDS, _BINS = 40, 10, 40
_CHUNKS, _VALUES, _PLANES = 8, 2**23, 6


@dataclass(frozen=True)
class Counted:
    """How many images something is true of, and their share of the most frequent."""

    name: str
    images: int
    share: float


@dataclass(frozen=True)
class Balance:
    """How many images each class has; of many classes the ends of the list.

    Attributes
    ----------
    counted : list of Counted
        The classes in their order, or of many the largest and the smallest.
    classes : int
    least, most : int
        Images of a class.
    chart : Markup
        Of many classes how large they are; otherwise "".
    """

    counted: list[Counted]
    classes: int
    least: int
    most: int
    chart: Markup


@dataclass(frozen=True)
class Masks:
    """Which frequencies images keep.

    Attributes
    ----------
    planes : list of Picture
        Of the first planes; brighter where more images keep a frequency.
    of : int
        How many planes there are.
    chart : Markup
        How many coefficients images keep, where that differs.
    images : int
        How many were looked at.
    """

    planes: Sequence[Picture]
    of: int
    chart: Markup
    images: int


@dataclass(frozen=True)
class Values:
    """A column of a pack beside the label.

    Attributes
    ----------
    name, kind : str
    charts : list of Markup
    balance : Balance or None
        Of columns with classes.
    examples : list of str
        Of text.
    """

    name: str
    kind: str
    charts: Sequence[Markup] = ()
    balance: Balance | None = None
    examples: Sequence[str] = ()


def class_balance(names: Sequence[str], counts: NDArray[np.integer[Any]], what: str = "class") -> Balance:
    """Return how many images each class has."""
    most, order = max(1, int(counts.max())), np.arange(len(names))
    chart = Markup("")
    if len(names) > _LISTED:
        ranked = np.argsort(-counts, kind="stable")
        order = np.concatenate([ranked[:_ENDS], ranked[-_ENDS:]])
        chart = distribution(f"images of a {what}", {"": counts}, "images", "classes")
    counted = [Counted(shown(names[n]), int(counts[n]), int(counts[n]) / most) for n in order.tolist()]
    return Balance(counted, len(names), int(counts.min()), int(counts.max()), chart)


def distribution(title: str, groups: dict[str, NDArray[Any]], across: str, up: str = "images") -> Markup:
    """Draw how often values occur, of each group in a color; "" where there are none that are finite."""
    finite = {name: np.asarray(group, np.float64) for name, group in groups.items()}
    finite = {name: group[np.isfinite(group)] for name, group in finite.items()}
    every = np.concatenate(list(finite.values()))
    if not len(every):
        return Markup("")
    edges = np.linspace(*spread(float(every.min()), float(every.max())), _BINS + 1)
    counts = {name: np.histogram(group, edges)[0].tolist() for name, group in finite.items()}
    return histogram(title, counts, edges.tolist(), across, up)


def masks(pack: Pack) -> Masks:
    """Look at the coefficients of some chunks, evenly spaced in the pack."""
    header = pack.header
    most = max(1, _VALUES // (header.channels * header.height * header.width))
    total: Any = 0.0
    images, counts = 0, []
    for chunk in evenly(header.chunks, _CHUNKS).tolist():
        coefficients = pack.read_chunk(chunk)
        coefficients = coefficients.take(slice(max(1, most // _CHUNKS)))
        total = total + coefficients.kept(header).sum(axis=0, dtype=np.float64)
        images += len(coefficients)
        if isinstance(coefficients, QuantizedCoefficients):
            counts.append((coefficients.values != 0).sum(axis=(1, 2, 3)))
    share = np.rint(255 * total[:_PLANES] / images).astype(np.uint8)
    drawn = [
        picture(in_color(plane[None, None])[0], name)
        for plane, name in zip(share, plane_names(header), strict=False)
    ]
    chart = Markup("")
    if counts:
        chart = distribution(
            "coefficients other than 0 of an image", {"": np.concatenate(counts)}, "coefficients"
        )
    return Masks(drawn, header.channels, chart, images)


def target_values(pack: Pack) -> Iterator[Values]:
    """Give what each column beside the label holds.

    Raises
    ------
    PackFormatError
        One is damaged.
    """
    for name, target in pack.targets.items():
        if name != LABEL:
            yield _values(target)


def _values(target: StoredTarget) -> Values:
    column, values = target.column, target.read()
    name, unit = shown(column.name), shown(column.unit)
    kind = f"{column.kind}{f', in {unit}' if unit else ''}"
    if column.kind == "text":
        distinct = np.unique(values.astype(str))
        some = [shown(text) for text in distinct[evenly(len(distinct), _ENDS)].tolist()]
        return Values(name, f"{kind}, {len(distinct):,} different", examples=some)
    if column.kind == "class":
        counts = np.bincount(values, minlength=len(column.classes))
        return Values(name, kind, balance=class_balance(column.classes, counts))
    if column.kind == "multilabel":
        return Values(name, kind, balance=class_balance(column.classes, values.sum(axis=0), "label"))
    if column.kind == "probabilities":
        likeliest = np.bincount(values.argmax(axis=1), minlength=len(column.classes))
        return Values(
            name, f"{kind}, by the likeliest class", balance=class_balance(column.classes, likeliest)
        )
    every = values.reshape(len(values), -1)[:, :4].T
    charts = [
        distribution(f"{name}{f', number {place}' if len(every) > 1 else ''}", {"": one}, unit or "value")
        for place, one in enumerate(every, 1)
    ]
    return Values(name, kind, charts)
