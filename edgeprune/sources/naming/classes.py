"""The last step of opening a table or tar files: labels of the split that is read, and names of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .labels import Labels, class_numbers, read_class_names
from .options import SourceOptions
from .split_names import Division

__all__ = ["Classes", "classes_of"]

_MANY = 100


@dataclass(frozen=True)
class Classes:
    """The classes of a source.

    Attributes
    ----------
    labels : int64 [n]
        Of the images of the split that is read.
    names : tuple of str
    notes : tuple of str
        What looks wrong.
    """

    labels: NDArray[np.int64]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def classes_of(
    labels: Labels,
    division: Division,
    options: SourceOptions,
    *,
    split: str,
    own_names: tuple[str, ...] | None,
    where: str,
    row_name: Callable[[int], str],
) -> Classes:
    """Return the classes of the images of a split.

    Parameters
    ----------
    labels : Labels
        Of all N images that were looked at.
    division : Division
        Which of them are of the split.
    options : SourceOptions
    split : str
        ``"train"``, where every class must have an image, or ``"test"``.
    own_names : tuple of str or None
        The names that the source itself has for integers.
    where : str
        What messages call the labels, such as ``"a.csv: label"``.
    row_name : callable
        Returns what messages call one of the N images.

    Raises
    ------
    SourceError
        A label is no class, a class has no image, or the file with names of classes is unusable.
    """
    file = options.class_names
    names = own_names if file is None else read_class_names(file)
    numbers, known = class_numbers(
        labels,
        division.own,
        division.training,
        names,
        refuse_empty=split == "train",
        names_of=where if file is None else file,
        where=where,
        row_name=row_name,
    )
    notes = []
    if names is None and labels.texts and len(numbers) >= _MANY and 2 * len(known) > len(numbers):
        notes.append(
            f"{where}: {len(known):,} classes of {len(numbers):,} images; name the labels if they are others"
        )
    return Classes(numbers, known, tuple(notes))
