"""Whether two sets of images have the same classes: by name, however Unicode composes its accents.

A name with an accent has two spellings that look alike: NFC, as most keyboards give it, and NFD, as old
file systems of macOS do. They are the same class, unless one set of images has both.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["class_numbers", "composed", "same_classes"]


def composed(names: Sequence[str]) -> tuple[str, ...]:
    """Return names with their accents composed (NFC)."""
    return tuple(unicodedata.normalize("NFC", name) for name in names)


def same_classes(some: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether these are the same classes in the same order."""
    return composed(some) == composed(others)


def class_numbers(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Return the number that each of `names` has among `known`; None where it is not there.

    A name that is there as it is spelled is that one, else the first that is the same when composed.
    """
    exact = {name: number for number, name in enumerate(known)}
    alike = {name: number for number, name in reversed(list(enumerate(composed(known))))}
    return [exact.get(name, alike.get(key)) for name, key in zip(names, composed(names), strict=True)]
