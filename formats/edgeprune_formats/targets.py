"""Named columns of a pack: what is known of each image beside its class, or in place of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .limits import MAX_CLASSES, MAX_OUTPUTS, MAX_TEXT_BYTES

__all__ = [
    "KINDS",
    "LABEL",
    "TRAINABLE",
    "Column",
    "Target",
    "alike_names",
    "column_problem",
    "decode_rows",
    "encode_target",
    "stored_dtypes",
    "stored_problem",
    "stored_shape",
]

TRAINABLE = ("class", "multilabel", "value", "probabilities")
"""The kinds that a network can be trained on."""
KINDS = (*TRAINABLE, "text", "integer", "float")
LABEL = "label"
"""The name of the column that the datasets ``labels`` and ``class_names`` of a pack are."""
# The first is what numbers are stored as where nothing else is said. Text has a width of its own.
_DTYPES = {
    "class": ("u1", "<u2", "<i4"),
    "multilabel": ("u1",),
    "value": ("<f4",),
    "probabilities": ("<f2", "u1"),
    "integer": ("<i8",),
    "float": ("<f8", "<f4"),
}
_NAME_BYTES = 255
# Of rows of probabilities in float16; in uint8 they sum to 255 exactly.
_SUM_TOLERANCE = 0.01
_PARTS = 255


@dataclass(frozen=True)
class Column:
    """What a column of a pack holds.

    Attributes
    ----------
    name : str
    kind : str
        One of `KINDS`: ``"class"`` (one of the classes), ``"multilabel"`` (any of them), ``"value"`` (numbers
        to predict), ``"probabilities"`` (of the classes), or metadata: ``"text"``, ``"integer"``,
        ``"float"``.
    classes : tuple of str
        Of the kinds class, multilabel and probabilities: a name for each.
    width : int
        Of the kind value: how many numbers an image has.
    unit : str
        Of the kinds value, integer and float: the unit of the numbers, such as ``"mm"``.
    dtype : str
        How numbers are stored, where there is a choice: probabilities as ``"float16"`` or ``"uint8"``, float
        as ``"float64"`` or ``"float32"``; "" for the first of these.
    top : int
        Of probabilities: how many of the likeliest classes are stored for an image, each with its probability
        in parts of 255. What is left to 255 is spread evenly over all other classes. 0 stores every class.
    """

    name: str
    kind: str
    classes: tuple[str, ...] = ()
    width: int = 1
    unit: str = ""
    dtype: str = ""
    top: int = 0

    @property
    def outputs(self) -> int:
        """How many numbers a network gives that learns it."""
        return self.width if self.kind == "value" else len(self.classes)

    def to_json(self) -> dict[str, Any]:
        """Return what the pack's description of columns holds of it."""
        facts: dict[str, Any] = {"name": self.name, "kind": self.kind}
        if self.classes:
            facts["classes"] = list(self.classes)
        if self.kind == "value":
            facts["width"] = self.width
        if self.top:
            facts["top"] = self.top
        return facts | ({"unit": self.unit} if self.unit else {})

    @classmethod
    def from_json(cls, facts: object) -> Column:
        """Return the column that `to_json` describes; raises ValueError for anything else."""
        if not isinstance(facts, Mapping):
            raise ValueError("an entry is no object")
        name, kind = facts.get("name"), facts.get("kind")
        classes, width, unit = facts.get("classes", []), facts.get("width", 1), facts.get("unit", "")
        top = facts.get("top", 0)
        texts = [name, kind, unit, *(classes if isinstance(classes, list) else [None])]
        if not all(isinstance(text, str) for text in texts) or {type(width), type(top)} != {int}:
            raise ValueError("an entry lacks its name or kind, or they are of a wrong type")
        return cls(str(name), str(kind), tuple(classes), width, str(unit), top=top)


@dataclass(frozen=True, eq=False)
class Target:
    """A column with its values, to be written into a pack.

    Attributes
    ----------
    column : Column
    values : array
        int64 [N] (class, integer), bool [N, classes] (multilabel), float32 [N, width] (value), float32
        [N, classes] (probabilities), float64 [N] (float) or object [N] of str (text). Of probabilities with
        `Column.top` also uint8 [N, top, 2 or 3] as they are stored, see `stored_shape`.
    """

    column: Column
    values: NDArray[Any]

    def take(self, rows: Any) -> Target:
        """Return the column of some images."""
        return replace(self, values=self.values[rows])


def alike_names(names: Sequence[str]) -> tuple[str, str] | None:
    """Return two names that differ only in how Unicode composes their accents, or that are equal."""
    seen: dict[str, str] = {}
    for name in names:
        key = unicodedata.normalize("NFC", name)
        if key in seen:
            return seen[key], name
        seen[key] = name
    return None


def name_problem(name: str) -> str | None:
    """Return what is wrong with the name of a class, or None."""
    if not _is_unicode(name):
        return "a name is text in Unicode"
    if "\0" in name or _bytes(name) > MAX_TEXT_BYTES:
        return f"a name is text of at most {MAX_TEXT_BYTES:,} bytes, without zero bytes"
    return None


def column_problem(column: Column) -> str | None:
    """Return what is wrong with the description of a column, or None."""
    if not column.name or _bytes(column.name) > _NAME_BYTES or not column.name.isprintable():
        return f"a name is 1 to {_NAME_BYTES} bytes of printable text"
    if column.kind not in KINDS:
        return f"unknown kind {column.kind[:40]!r}; known are {', '.join(KINDS)}"
    if (column.kind in ("class", "multilabel", "probabilities")) != bool(column.classes):
        return "classes are named for class, multilabel and probabilities, and for no other kind"
    if len(column.classes) > (MAX_CLASSES if column.kind == "class" else MAX_OUTPUTS):
        return f"{len(column.classes)} classes are too many"
    if len(set(column.classes)) < len(column.classes):
        return "two classes have one name"
    if not all(map(_is_unicode, (*column.classes, column.unit))):
        return "the name of a class or unit is no text in Unicode"
    if max(map(_bytes, (*column.classes, column.unit))) > MAX_TEXT_BYTES:
        return f"the name of a class or unit is longer than {MAX_TEXT_BYTES} bytes"
    if not 1 <= column.width <= MAX_OUTPUTS or (column.width > 1 and column.kind != "value"):
        return f"a width of {column.width}"
    if not 0 <= column.top <= min(len(column.classes), _PARTS) or (
        column.top and column.kind != "probabilities"
    ):
        return f"the likeliest {column.top} classes are stored, of {len(column.classes)} of a {column.kind}"
    return None


def _is_unicode(text: str) -> bool:
    """Tell whether a text has no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def stored_dtypes(column: Column) -> tuple[np.dtype[Any], ...]:
    """Return what types a column is stored as; none for text, which has a width of its own."""
    return tuple(np.dtype(name) for name in (("u1",) if column.top else _DTYPES.get(column.kind, ())))


def stored_shape(column: Column, samples: int) -> tuple[int, ...]:
    """Return the shape of a column as it is stored.

    With `Column.top` each of an image's likeliest classes takes 2 bytes, its number and its part of 255. Of
    more than 256 classes the number takes two bytes, little-endian.
    """
    if column.top:
        return samples, column.top, 2 + (len(column.classes) > 256)
    each = {
        "multilabel": (-(-len(column.classes) // 8),),
        "value": (column.width,),
        "probabilities": (len(column.classes),),
    }
    return (samples, *each.get(column.kind, ()))


def stored_problem(column: Column, stored: NDArray[Any]) -> str | None:
    """Return what is wrong with the values of a column as they are stored, or None."""
    kind = column.kind
    if kind == "class" and (int(stored.min()) < 0 or int(stored.max()) >= len(column.classes)):
        return f"a label outside 0..{len(column.classes) - 1}"
    if kind == "multilabel" and len(column.classes) % 8 and (stored[:, -1] >> len(column.classes) % 8).any():
        return "bits beyond its classes are not zero"
    if kind == "value" and not np.isfinite(stored).all():
        return "NaN or infinite values"
    if kind == "probabilities":
        return _top_problem(column, stored) if column.top else _probability_problem(stored)
    if kind == "text":
        try:
            for text in np.unique(stored).tolist():
                text.decode()
        except UnicodeDecodeError:
            return "not UTF-8"
    return None


def _probability_problem(stored: NDArray[Any]) -> str | None:
    if stored.dtype == np.uint8:
        wrong = stored.sum(axis=1, dtype=np.int64) != 255
    else:
        wrong = ~(np.abs(stored.sum(axis=1, dtype=np.float64) - 1) <= _SUM_TOLERANCE)
        wrong |= ~((stored >= 0) & (stored <= 1)).all(axis=1)
    if not wrong.any():
        return None
    return f"row {int(np.argmax(wrong))} holds no probabilities: they are 0 to 1, and sum to 1"


def _top_problem(column: Column, stored: NDArray[Any]) -> str | None:
    numbers, parts = _entries(stored)
    named, total = parts > 0, parts.sum(axis=1)
    # Entries without a part differ from all others.
    distinct = np.sort(np.where(named, numbers, -1 - np.arange(column.top)), axis=1)
    wrong = (np.diff(distinct, axis=1) == 0).any(axis=1) | (numbers >= len(column.classes)).any(axis=1)
    wrong |= (~named & (numbers > 0)).any(axis=1)
    wrong |= (total > _PARTS) | ((total < _PARTS) & (named.sum(axis=1) == len(column.classes)))
    if not wrong.any():
        return None
    return f"row {int(np.argmax(wrong))} holds no likeliest classes: distinct ones, with parts of 255 in all"


def _entries(stored: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return numbers of classes and parts of 255, int64 [N, top], of probabilities with `Column.top`."""
    wide = stored.astype(np.int64)
    numbers = wide[..., 0] if stored.shape[2] == 2 else wide[..., 0] + 256 * wide[..., 1]
    return numbers, wide[..., -1]


def _spread(column: Column, stored: NDArray[Any]) -> NDArray[np.float32]:
    """Return the probabilities of all classes, float32 [N, classes], of the likeliest ones."""
    numbers, parts = _entries(stored)
    others = len(column.classes) - (parts > 0).sum(axis=1)
    share = (_PARTS - parts.sum(axis=1)) / np.maximum(others, 1)
    rows: NDArray[np.float32] = np.repeat(share.astype(np.float32)[:, None], len(column.classes), axis=1)
    images, places = np.nonzero(parts)
    rows[images, numbers[images, places]] = parts[images, places]
    rows /= np.float32(_PARTS)
    return rows


def decode_rows(column: Column, stored: NDArray[Any]) -> NDArray[Any]:
    """Return the values of some images, as `Target` has them, of what is stored."""
    kind = column.kind
    if kind == "multilabel":
        bits = np.unpackbits(stored, axis=1, count=len(column.classes), bitorder="little")
        return bits.astype(bool)
    if column.top:
        return _spread(column, stored)
    if kind == "probabilities":
        parts: NDArray[np.float32] = stored.astype(np.float32)
        return parts / np.float32(255) if stored.dtype == np.uint8 else parts
    if kind == "text":
        texts = np.empty(len(stored), object)
        texts[:] = [text.decode() for text in stored.tolist()]
        return texts
    wanted = {"class": np.int64, "value": np.float32, "integer": np.int64, "float": np.float64}[kind]
    return stored.astype(wanted)


def encode_target(target: Target, samples: int) -> NDArray[Any]:
    """Return the values of a column as they are stored.

    Raises
    ------
    ConfigError
        The column is not sound, or its values are of another length, or not what its kind allows.
    """
    column = target.column
    where = f"target {column.name!r}"
    problem = column_problem(column)
    if problem is not None:
        raise ConfigError(f"{where}: {problem}")
    values = np.asarray(target.values)
    is_stored = column.top > 0 and values.dtype == np.uint8
    if len(values) != samples:
        raise ConfigError(f"{where}: {len(values)} values for {samples} images")
    shape = (samples, *stored_shape(column, samples)[1:])
    if column.kind == "multilabel" or (column.top and not is_stored):
        shape = (samples, len(column.classes))
    kinds = {"multilabel": "b", "class": "iu", "integer": "iu", "text": "OUT"}.get(column.kind, "iuf")
    if values.shape != shape or values.dtype.kind not in kinds:
        raise ConfigError(f"{where}: {values.dtype} {values.shape} is no {column.kind} of {shape}")
    stored = values if is_stored else _encoded(column, values, where)
    problem = stored_problem(column, stored)
    if problem is not None:
        raise ConfigError(f"{where}: {problem}")
    return stored


def _encoded(column: Column, values: NDArray[Any], where: str) -> NDArray[Any]:
    if column.kind == "multilabel":
        return np.packbits(values, axis=1, bitorder="little")
    if column.kind == "text":
        return _texts(values, where)
    if column.kind == "class":
        # Checked before it is narrowed, which would wrap.
        if int(values.min()) < 0 or int(values.max()) >= len(column.classes):
            raise ConfigError(f"{where}: a label outside 0..{len(column.classes) - 1}")
        return values.astype(next(t for t in stored_dtypes(column) if values.max() <= np.iinfo(t).max))
    dtype = np.dtype(column.dtype or stored_dtypes(column)[0]).newbyteorder("<")
    if dtype not in stored_dtypes(column):
        raise ConfigError(f"{where}: {column.kind} is not stored as {column.dtype}")
    if column.top:
        return _likeliest(column, values)
    if dtype == np.uint8:
        return _to_255(values)
    if dtype.kind == "i" and int(values.max()) > np.iinfo(dtype).max:
        raise ConfigError(f"{where}: {int(values.max())} is beyond {dtype.name}")
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def _likeliest(column: Column, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the likeliest classes of probabilities [N, classes], as they are stored."""
    problem = _probability_problem(np.asarray(values, np.float64))
    if problem is not None:
        raise ConfigError(problem)
    numbers = np.argsort(-values, axis=1, kind="stable")[:, : column.top]
    chosen = np.take_along_axis(values, numbers, axis=1).astype(np.float64)
    rest = np.maximum(values.sum(axis=1, dtype=np.float64) - chosen.sum(axis=1), 0)
    if column.top == len(column.classes):
        rest[:] = 0
    parts = _to_255(np.column_stack([chosen, rest]))[:, :-1]
    numbers[parts == 0] = 0
    size = stored_shape(column, 0)[2] - 1
    return np.dstack([*((numbers >> 8 * place & 255) for place in range(size)), parts]).astype(np.uint8)


def _to_255(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return rows of probabilities in parts of 255, which they sum to: the largest remainders go up."""
    problem = _probability_problem(np.asarray(values, np.float64))
    if problem is not None:
        raise ConfigError(problem)
    scaled = values.astype(np.float64)
    scaled *= 255 / scaled.sum(axis=1, keepdims=True)
    # What was in whole parts already stays, whatever single precision made of it.
    down = np.floor(scaled + 1e-4)
    missing = 255 - down.sum(axis=1).astype(np.int64)
    rank = np.argsort(np.argsort(down - scaled, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(down + (rank < missing[:, None]), np.uint8)


def _texts(values: NDArray[Any], where: str) -> NDArray[np.bytes_]:
    try:
        raw = [str(text).encode() for text in values.tolist()]
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where}: text that is not Unicode ({error.reason})") from error
    width = max(1, *(len(text) for text in raw))
    if width > MAX_TEXT_BYTES or any(b"\0" in text for text in raw):
        raise ConfigError(f"{where}: text is at most {MAX_TEXT_BYTES} B, without zero bytes")
    return np.array(raw, f"S{width}")
