"""Classes of several sets of images, matched by name, however Unicode composes its accents.

A name with an accent has two spellings that look alike: NFC, as most keyboards give it, and NFD, as old
file systems of macOS do. They are the same class, unless one set of images has both.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import Target, alike_names

__all__ = ["class_numbers", "same_classes", "united_classes", "with_classes"]


def _composed(names: Sequence[str]) -> tuple[str, ...]:
    """Return names with their accents composed (NFC)."""
    return tuple(unicodedata.normalize("NFC", name) for name in names)


def same_classes(some: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether these are the same classes in the same order."""
    return _composed(some) == _composed(others)


def class_numbers(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Return the number that each of `names` has among `known`; None where it is not there.

    A name that is there as it is spelled is that one, else the first that is the same when composed.
    """
    exact = {name: number for number, name in enumerate(known)}
    alike = {name: number for number, name in reversed(list(enumerate(_composed(known))))}
    return [exact.get(name, alike.get(key)) for name, key in zip(names, _composed(names), strict=True)]


def with_classes(target: Target, classes: Sequence[str]) -> tuple[Target, tuple[str, ...]]:
    """Return a column with other classes, matched by name, and its own that images have and these lack.

    Parameters
    ----------
    target : Target
        Of the kind class, multilabel or probabilities.
    classes : sequence of str

    Returns
    -------
    target : Target
        Where a class is lacking, -1 of the kind class, and nothing of the others.
    lacking : tuple of str
        Without those of no image.
    """
    column, values = target.column, target.values
    numbers = np.array(
        [-1 if one is None else one for one in class_numbers(column.classes, classes)], np.int64
    )
    known = numbers >= 0
    if column.kind == "class":
        used = np.bincount(values, minlength=len(numbers)) > 0
        found = numbers[values]
    else:
        used = np.asarray(values.any(axis=0))
        found = np.zeros((len(values), len(classes)), values.dtype)
        found[:, numbers[known]] = values[:, known]
    lacking = tuple(column.classes[place] for place in np.nonzero(used & ~known)[0])
    return Target(replace(column, classes=tuple(classes)), found), lacking


def united_classes(lists: Sequence[tuple[object, Sequence[str]]]) -> tuple[str, ...]:
    """Return the classes of several sets of images, matched by name, in the order of first appearance.

    A class keeps the spelling that comes first.

    Parameters
    ----------
    lists : sequence of (object, sequence of str)
        Where each set comes from, for a message, and its classes.

    Raises
    ------
    ConfigError
        The lists differ, and one has two names that are the same when composed: which of them is the class of
        another list is not known.
    """
    first = tuple(lists[0][1])
    if all(same_classes(first, names) for _, names in lists[1:]):
        return first
    united: dict[str, str] = {}
    for origin, names in lists:
        if twins := alike_names(names):
            raise ConfigError(
                f"{origin}: classes {' and '.join(map(ascii, twins))} differ only in how Unicode composes "
                "them, so they cannot be matched with other classes by name; rename one, and build it again"
            )
        for key, name in zip(_composed(names), names, strict=True):
            united.setdefault(key, name)
    return tuple(united.values())
