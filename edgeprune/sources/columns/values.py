"""From what a source holds in its columns to a target of a pack."""

from __future__ import annotations

import numbers
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.limits import MAX_CLASSES
from edgeprune_formats.targets import Column, Target, alike_names, encode_target, name_problem

from ...errors import SourceError
from .requests import TargetRequest

__all__ = ["RowName", "make_target"]

RowName = Callable[[int], str]
"""Returns what messages call an image."""
_SEPARATORS = "|;,"
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_LONG, _INT64 = 4000, 2**63
_PADDED = re.compile(r"[+-]?0[0-9]", re.ASCII)
# What rounding may change, as a share of the standard deviation, and what deviation is that of equal numbers.
_BLURRED, _EQUAL = 0.01, 1e-9
_OF_NUMBERS = ("value", "integer", "float", "probabilities")


def make_target(
    request: TargetRequest,
    columns: Sequence[NDArray[Any]],
    where: str,
    row_name: RowName,
    classes: Sequence[str] | None = None,
) -> Target:
    """Return the target of all images of a source.

    Parameters
    ----------
    request : TargetRequest
    columns : sequence of array
        Those that it names, [N] or [N, k]: numbers, or objects: text, None, or lists of these.
    where : str
        What messages call the source.
    row_name : callable
    classes : sequence of str, optional
        Their names, where the source tells them.

    Raises
    ------
    SourceError
        The values are not what the kind allows; the message names an image.
    """
    where = f"{where}: target {request.name!r}"
    # Labels in a single column of text are names, even where each image has one that is a number.
    is_named = request.kind == "multilabel" and len(columns) == 1
    columns = [
        _as_numbers(_as_text(column, where), "text" if is_named else request.kind) for column in columns
    ]
    kind = request.kind or _kind_of(columns)
    if kind not in ("value", "multilabel", "probabilities") and len(columns) > 1:
        raise SourceError(f"{where}: a {kind} is of one column; name the kind value, as in NAME=A+B:value")
    make = {"class": _classes, "multilabel": _multilabel, "probabilities": _probabilities, "value": _value}
    try:
        if kind in make:
            target = make[kind](request, columns, classes)
        else:
            target = Target(Column(request.name, kind), _metadata(kind, columns[0]))
        _require_names(target.column.classes)
        encode_target(target, len(columns[0]))
        if kind == "value":
            _warn_of_blur(where, _numbers(columns, "number"), target.values)
    except _BadValueError as error:
        place = "" if error.row is None else f"{row_name(error.row)}: "
        raise SourceError(f"{where}: {place}{error}") from None
    except ConfigError as error:
        raise SourceError(f"{where}: {str(error).partition(': ')[2] or error}") from None
    return target


class _BadValueError(ValueError):
    """A value that cannot be used; `row` is its image, or None."""

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


def _as_text(column: NDArray[Any], where: str) -> NDArray[Any]:
    """Return a column of text as objects, also where it holds bytes, and any other as it is."""
    try:
        return column.astype(str).astype(object) if column.dtype.kind in "US" else column
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: is not text in ASCII; save it as text, with dtype str") from error


def _as_numbers(column: NDArray[Any], kind: str | None) -> NDArray[Any]:
    """Return a column of text as numbers where all of it is numbers and `kind` takes them, else as it is.

    Whole numbers with needless zeros in front, such as 0012, and those beyond int64 are numbers only where
    `kind` is one of numbers.
    """
    if column.dtype != object or column.ndim != 1 or kind == "text":
        return column
    values = column.tolist()
    if not all(isinstance(value, str) and _is_number(value) for value in values):
        return column
    if not all(_INTEGER.fullmatch(value.strip()) for value in values):
        return column if kind == "class" else np.array([float(value) for value in values], np.float64)
    # Python reads no number of thousands of digits.
    whole = [int(value) for value in values] if max(map(len, values)) < _LONG else []
    in_range = bool(whole) and min(whole) >= -_INT64 and max(whole) < _INT64
    is_padded = any(_PADDED.match(value.strip()) for value in values)
    if kind not in _OF_NUMBERS and (is_padded or not in_range):
        return column
    if in_range:
        return np.array(whole, np.int64)
    return np.array([float(value) for value in values], np.float64)


def _is_number(text: str) -> bool:
    try:
        # Underscores are of Python, not of numbers in tables.
        return "_" not in text and float(text) is not None
    except ValueError:
        return False


def _kind_of(columns: Sequence[NDArray[Any]]) -> str:
    first = columns[0]
    if len(columns) > 1 or first.dtype.kind == "f":
        return "value"
    if first.dtype == object and any(map(_is_list, first)):
        items = [item for one in first if _is_list(one) for item in one]
        return "value" if _number_kind(items) == "value" else "multilabel"
    if first.dtype.kind == "b" or first.ndim == 2:
        return "multilabel" if first.dtype.kind == "b" else "value"
    if first.dtype.kind in "iu":
        return "integer"
    return (_number_kind(first.tolist()) if first.dtype == object else None) or "text"


def _number_kind(values: Sequence[Any]) -> str | None:
    """Return the kind of numbers some of which are None, or None where something else is among them."""
    found = [value for value in values if value is not None]
    if not found or not all(isinstance(value, numbers.Number) for value in found):
        return None
    if any(isinstance(value, bool) for value in found):
        return "multilabel"
    return "integer" if all(isinstance(value, numbers.Integral) for value in found) else "value"


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _require_names(classes: Sequence[str]) -> None:
    wrong = next((name for name in classes if name_problem(name)), None)
    if wrong is not None:
        raise _BadValueError(f"no class can be called {wrong[:40]!a}: {name_problem(wrong)}")
    alike = alike_names(classes)
    if alike is not None:
        raise _BadValueError(
            f"classes {alike[0]!a} and {alike[1]!a} differ only in how Unicode composes their accents; "
            "give each class one spelling"
        )


def _first(wrong: NDArray[np.bool_]) -> int:
    return int(np.argmax(wrong if wrong.ndim == 1 else wrong.any(axis=1)))


def _numbers(columns: Sequence[NDArray[Any]], kind: str) -> NDArray[np.float64]:
    """Return columns of numbers, or of lists of as many numbers each, side by side: float64 [N, k]."""
    wide = []
    for column in columns:
        if column.dtype == object:
            column = _from_lists(column, kind)
        if column.dtype.kind not in "iufb" or column.ndim > 2:
            raise _BadValueError(f"{column.dtype} {list(column.shape)} is no column of numbers")
        wide.append(column.reshape(len(column), -1).astype(np.float64))
    return np.concatenate(wide, axis=1)


def _from_lists(column: NDArray[Any], kind: str) -> NDArray[np.float64]:
    rows, width = [], None
    for row, value in enumerate(column.tolist()):
        items = list(value) if _is_list(value) else [value]
        width = len(items) if width is None else width
        if len(items) != width:
            raise _BadValueError(f"holds {len(items)} numbers, and those before it {width}", row)
        try:
            rows.append([float(item) for item in items])
        except (TypeError, ValueError, OverflowError):
            shown = "missing" if value is None or value == "" else f"{str(value)[:40]!r}"
            raise _BadValueError(f"is {shown}, no {kind}", row) from None
    return np.array(rows, np.float64).reshape(len(rows), -1)


def _value(request: TargetRequest, columns: Sequence[NDArray[Any]], classes: Sequence[str] | None) -> Target:
    wide = _numbers(columns, "number")
    with np.errstate(over="ignore"):
        values = wide.astype(np.float32)
    wrong = ~np.isfinite(values)
    if wrong.any():
        row = _first(wrong)
        shown = wide[row][wrong[row]][0]
        raise _BadValueError(f"is {shown}, and values are finite numbers; leave such images out", row)
    return Target(Column(request.name, "value", width=values.shape[1]), values)


def _warn_of_blur(where: str, wide: NDArray[np.float64], values: NDArray[np.float32]) -> None:
    """Warn where float32 blurs what tells the numbers apart, as it does with Unix times."""
    changed, spread = np.abs(wide - values).max(axis=0), wide.std(axis=0)
    # The deviation of equal numbers is not quite 0.
    blurred = (changed > _BLURRED * spread) & (spread > _EQUAL * np.abs(wide).max(axis=0))
    if blurred.any():
        first = int(blurred.argmax())
        warnings.warn(
            f"{where}: float32 changes numbers up to {np.abs(wide[:, first]).max():.10g} by up to "
            f"{changed[first]:.3g}, and their standard deviation is {spread[first]:.3g}; subtract a constant "
            "from all of them, such as their mean",
            stacklevel=3,
        )


def _classes(
    request: TargetRequest, columns: Sequence[NDArray[Any]], classes: Sequence[str] | None
) -> Target:
    column = columns[0]
    if column.dtype.kind in "iub" and column.ndim == 1:
        wrong = (column < 0) | (column >= MAX_CLASSES)
        if wrong.any():
            row = _first(wrong)
            raise _BadValueError(f"is {column[row]}; number the classes 0, 1, 2 and so on", row)
        labels = column.astype(np.int64)
        names = list(classes) if classes is not None else [str(n) for n in range(int(labels.max()) + 1)]
        if int(labels.max()) >= len(names):
            row = _first(labels >= len(names))
            raise _BadValueError(f"is class {labels[row]}, outside 0..{len(names) - 1}", row)
        return Target(Column(request.name, "class", tuple(names)), labels)
    texts = [_text(value, row) for row, value in enumerate(column.tolist())]
    names = list(classes) if classes is not None else sorted(set(texts))
    number = {name: place for place, name in enumerate(names)}
    for row, text in enumerate(texts):
        if text not in number:
            raise _BadValueError(f"is {text[:40]!r}, none of the {len(names)} classes", row)
    labels = np.array([number[text] for text in texts], np.int64)
    return Target(Column(request.name, "class", tuple(names)), labels)


def _text(value: object, row: int) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value in (None, ""):
        raise _BadValueError("has no class", row)
    raise _BadValueError(f"{str(value)[:40]!r} is no class; classes are text, or integers from 0 on", row)


def _multilabel(
    request: TargetRequest, columns: Sequence[NDArray[Any]], classes: Sequence[str] | None
) -> Target:
    column = columns[0]
    if len(columns) > 1 or column.dtype != object or _number_kind(column.tolist()):
        bits = _numbers(columns, "0 or 1")
        wrong = (bits != 0) & (bits != 1)
        if wrong.any():
            row = _first(wrong)
            raise _BadValueError(f"has {bits[row][wrong[row]][0]:g}, not 0 or 1", row)
        names = _names_of(request, bits.shape[1], classes)
        return Target(Column(request.name, "multilabel", names), bits.astype(bool))
    lists = [_labels_of(value, _separator(column), row) for row, value in enumerate(column.tolist())]
    known = {name for labels in lists for name in labels}
    names = tuple(classes) if classes is not None else tuple(sorted(known, key=_order))
    if not names:
        raise _BadValueError("no image has a label")
    number = {name: place for place, name in enumerate(names)}
    values = np.zeros((len(lists), len(names)), bool)
    for row, labels in enumerate(lists):
        for name in labels:
            if name not in number:
                raise _BadValueError(f"has label {name[:40]!r}, none of the {len(names)} classes", row)
            values[row, number[name]] = True
    return Target(Column(request.name, "multilabel", names), values)


def _order(name: str) -> tuple[int, str]:
    """Return a key by which numbers are in their order and before text."""
    return (int(name), "") if name.isdecimal() and len(name) < 18 else (10**18, name)


def _names_of(request: TargetRequest, width: int, classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is not None:
        if len(classes) != width:
            raise _BadValueError(f"{len(classes)} names for {width} classes")
        return tuple(classes)
    return request.columns if len(request.columns) == width > 1 else tuple(map(str, range(width)))


def _separator(column: NDArray[Any]) -> str:
    """Return what divides labels in text: the first of several characters that there is."""
    texts = [value for value in column.tolist() if isinstance(value, str)]
    return next((mark for mark in _SEPARATORS if any(mark in text for text in texts)), _SEPARATORS[0])


def _labels_of(value: object, separator: str, row: int) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        return [part.strip() for part in value.split(separator) if part.strip()]
    if _is_list(value):
        return [_text(item, row) for item in list(value)]  # type: ignore[call-overload]
    raise _BadValueError(f"{str(value)[:40]!r} is no list of labels", row)


def _probabilities(
    request: TargetRequest, columns: Sequence[NDArray[Any]], classes: Sequence[str] | None
) -> Target:
    rows = _numbers(columns, "probabilities")
    wrong = ~((rows >= 0) & (rows <= 1)).all(axis=1) | ~(np.abs(rows.sum(axis=1) - 1) <= 0.005)
    if wrong.any():
        row = _first(wrong)
        found = f"{rows[row].min():g} to {rows[row].max():g} with {rows[row].sum():g}"
        raise _BadValueError(f"its probabilities are not 0 to 1 with a sum of 1 but {found}", row)
    names = _names_of(request, rows.shape[1], classes)
    return Target(Column(request.name, "probabilities", names), rows.astype(np.float32))


def _metadata(kind: str, column: NDArray[Any]) -> NDArray[Any]:
    if column.ndim != 1:
        raise _BadValueError(f"is {list(column.shape)}, and {kind} is one of an image")
    if kind == "text":
        encoded = np.array([isinstance(value, bytes) for value in column.tolist()])
        if encoded.any():
            raise _BadValueError("holds bytes, no text", _first(encoded))
        texts = np.empty(len(column), object)
        texts[:] = ["" if value is None else str(value) for value in column.tolist()]
        return texts
    if column.dtype == object:
        # What is not told is NaN; an integer has no such number.
        missing = np.array([value is None or value == "" for value in column.tolist()])
        if kind == "integer" and missing.any():
            raise _BadValueError("is missing; name the kind float, where NaN stands for it", _first(missing))
        values = column.tolist()
        is_exact = all(isinstance(one, numbers.Integral) and -_INT64 <= int(one) < _INT64 for one in values)
        if kind == "integer" and is_exact:
            # A float would round it.
            return np.array(values, np.int64)
        filled = column.copy()
        filled[missing] = np.nan
        column = _from_lists(filled, kind)[:, 0]
    if kind == "float":
        return column.astype(np.float64)
    with np.errstate(invalid="ignore"):
        whole = column.astype(np.int64)
    if (whole != column).any():
        row = _first(whole != column)
        raise _BadValueError(f"is no integer of 64 bits: {column[row]}", row)
    return whole
