"""From what a table or tar file says of an image's class to the number of its class."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats.limits import MAX_CLASSES

from ...errors import SourceError
from ..decoding.files import as_text

__all__ = ["LabelError", "Labels", "class_numbers", "read_class_names", "refuse_empty_classes"]

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)


class LabelError(ValueError):
    """A value that is no label; the message continues "the label".

    Attributes
    ----------
    place : int
        Which of the values that were added in one call.
    """

    def __init__(self, message: str, place: int = 0) -> None:
        super().__init__(message)
        self.place = place


class Labels:
    """Labels in the order of the images: integers, or texts, each of which is kept once.

    Attributes
    ----------
    codes : array of int64
        The integers; of texts their places in `texts`.
    texts : dict of str to int
        Empty where labels are integers.
    """

    def __init__(self) -> None:
        self.codes = array("q")
        self.texts: dict[str, int] = {}

    def append(self, value: object) -> None:
        """Add the label of the next image.

        Raises
        ------
        LabelError
            It is neither integer nor text, of another kind than those before, or out of range.
        """
        self.codes.append(self._code(value, 0))

    def extend(self, values: NDArray[np.int64], texts: Sequence[object] | None = None) -> None:
        """Add the labels of many images: integers, or places in `texts`.

        Raises
        ------
        LabelError
            As `append`.
        """
        if texts is None and len(values):
            wrong = np.flatnonzero((values < 0) | (values >= MAX_CLASSES))
            place = int(wrong[0]) if len(wrong) else 0
            self._code(int(values[place]), place)
        elif texts is not None:
            used, first = np.unique(values, return_index=True)
            codes = np.zeros(len(texts), np.int64)
            codes[used] = [
                self._code(texts[code], int(place)) for code, place in zip(used, first, strict=True)
            ]
            values = codes[values]
        self.codes.frombytes(np.ascontiguousarray(values, np.int64).tobytes())

    def _code(self, value: object, place: int) -> int:
        if isinstance(value, str):
            value = value.strip()
            if not value:
                raise LabelError("is empty", place)
            if self.codes and not self.texts:
                raise LabelError(f"{value[:40]!r} is text, and those before it are integers", place)
            return self.texts.setdefault(value, len(self.texts))
        if isinstance(value, bool) or not isinstance(value, int):
            told = "is missing" if value is None else f"{str(value)[:40]!r} is a {type(value).__name__}"
            raise LabelError(f"{told}; labels are integers from 0 on, or text", place)
        if self.texts:
            raise LabelError(f"{value} is an integer, and those before it are text", place)
        if not 0 <= value < MAX_CLASSES:
            unlabeled = " (-1 often marks images without a label)" if value == -1 else ""
            number = value if abs(value) < 10**20 else "beyond all numbers"
            raise LabelError(f"is {number}; number the classes 0, 1, 2 and so on{unlabeled}", place)
        return value

    def numbered(self) -> Labels:
        """Return integers in place of texts where every text is an integer in decimal, else the texts."""
        if not self.texts or not all(_INTEGER.fullmatch(text) for text in self.texts):
            return self
        integers = Labels()
        # What is longer is no number of a class either.
        integers.extend(np.array(self.codes, np.int64), [int(text[:30]) for text in self.texts])
        return integers


def class_numbers(
    labels: Labels,
    own: NDArray[np.bool_],
    training: NDArray[np.bool_] | None,
    names: tuple[str, ...] | None,
    *,
    refuse_empty: bool,
    names_of: str,
    where: str,
    row_name: Callable[[int], str],
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the labels of some images in ``0 .. classes - 1``, int64, and the names of the classes.

    Integers are the numbers of classes, called by `names`, or by themselves in decimal. Classes of texts
    are in the order of `names`, or sorted.

    Parameters
    ----------
    labels : Labels
        Of N images.
    own : bool [N]
        Which images are wanted.
    training : bool [N] or None
        Which ones are those of training, where others are wanted: their classes count.
    names : tuple of str or None
        The names of all classes, where they are known.
    refuse_empty : bool
        Whether each class must have an image, as in training.
    names_of, where : str
        What messages call the place of the names, and of the labels.
    row_name : callable
        Returns what messages call one of the N images.

    Raises
    ------
    SourceError
        A label is no class, or a class has no image.
    """
    codes = np.array(labels.codes, np.int64)
    known, counted = names, own if training is None else training
    if not labels.texts:
        numbers = codes
        highest = int(codes[own | counted].max())
        known = known or tuple(str(number) for number in range(highest + 1))
    else:
        texts = list(labels.texts)
        known = known or tuple(sorted(texts[code] for code in np.unique(codes[counted])))
        number_of = {name: number for number, name in enumerate(known)}
        numbers = np.array([number_of.get(text, len(known)) for text in texts], np.int64)[codes]
    wrong = np.flatnonzero(own & (numbers >= len(known)))
    if len(wrong):
        row = int(wrong[0])
        label = repr(texts[codes[row]][:60]) if labels.texts else codes[row]
        among = (
            "those of the training images" if names is None else f"the {len(known):,} that {names_of} names"
        )
        raise SourceError(f"{row_name(row)}: has label {label}, a class that is not among {among}")
    if refuse_empty:
        refuse_empty_classes(numbers[own], known, where)
    return numbers[own], known


def refuse_empty_classes(labels: NDArray[np.int64], names: tuple[str, ...], where: str) -> None:
    """Raise `SourceError` where a class has no image."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(empty):
        label = int(empty[0])
        name = "" if names[label] == str(label) else f" ({names[label]})"
        remedy = "number the classes without gaps" if not name else "give it images, or take out its name"
        raise SourceError(f"{where}: class {label}{name} has no images; {remedy}")


def read_class_names(path: str) -> tuple[str, ...]:
    """Return the names of classes in a text file (UTF-8), one in each line.

    Raises
    ------
    SourceError
        It cannot be read, a line is empty, or a name stands twice.
    """
    shown = as_text(path)
    try:
        text = Path(path).expanduser().read_text("utf-8-sig")
    except OSError as error:
        raise SourceError(f"{shown}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{shown}: is not text in UTF-8; save it as such") from error
    lines: dict[str, int] = {}
    for number, line in enumerate(text.rstrip().split("\n"), 1):
        name = line.strip()
        if not name:
            raise SourceError(f"{shown}: line {number} is empty; name one class in each line")
        if name in lines:
            raise SourceError(f"{shown}: lines {lines[name]} and {number} name the same class {name!r}")
        lines[name] = number
    return tuple(lines)
