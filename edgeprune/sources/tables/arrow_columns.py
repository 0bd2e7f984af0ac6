"""The columns of Arrow and Parquet tables: which hold images and labels, and what they hold."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import types

from ...errors import SourceError
from ..columns.requests import parse_targets
from ..decoding.encoded import Content
from ..naming.labels import LabelError, Labels
from ..naming.options import SourceOptions
from .column_names import IMAGE_NAMES, LABEL_NAMES, SPLIT_NAME, only_one, refuse_repeated

__all__ = ["Columns", "add_labels", "content_of", "find_columns", "texts_of", "values_of"]


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read.

    Attributes
    ----------
    image : str
    label, split : str or None
        There need not be labels where targets are named.
    class_names : tuple of str or None
        Those that Hugging Face's feature ClassLabel gives the integers of `label`.
    target_names : mapping of str to tuple of str
        Those that it gives the integers of other columns, or those within their lists.
    """

    image: str
    label: str | None
    split: str | None
    class_names: tuple[str, ...] | None
    target_names: Mapping[str, tuple[str, ...]]


def find_columns(schema: pa.Schema, options: SourceOptions, where: str, info: Mapping[str, Any]) -> Columns:
    """Find the columns of images, labels and splits: those that are named, or by type and usual names.

    Parameters
    ----------
    schema : pyarrow.Schema
    options : SourceOptions
    where : str
        The file, for messages.
    info : mapping
        Hugging Face's ``dataset_info.json``; what the schema itself says of features comes first.

    Raises
    ------
    SourceError
        A column is missing, of a wrong type, or one of several that could be meant.
    """
    features = _features(schema, info)
    kinds = {field.name: str(field.type) for field in schema}

    def require(kind: str, name: str) -> None:
        refuse_repeated(name, schema.names, where)
        if name not in kinds:
            raise SourceError(f"{where}: has no column {name!r} of {kind}; its columns are {_listed(kinds)}")

    image = options.image_column or _image_column(schema, features, kinds, where)
    require("images", image)
    if not (_is_image(schema.field(image).type) or _is_text(schema.field(image).type)):
        raise SourceError(
            f"{where}: column {image} is {kinds[image]}, neither encoded images nor their paths; "
            "name another with `image_column`"
        )
    targets = [name for request in parse_targets(options.target) for name in request.columns]
    for name in targets:
        require("a target", name)
    label = options.label_column
    if label is None:
        label = _label_column(schema, features, kinds, {image, *targets}, where, is_needed=not targets)
    if label is not None:
        require("labels", label)
        kind = _value_type(schema.field(label).type)
        if not (types.is_integer(kind) or _is_text(kind)):
            raise SourceError(f"{where}: column {label} is {kinds[label]}; labels are integers or text")
    split = options.split_column or (SPLIT_NAME if SPLIT_NAME in kinds else None)
    if split is not None:
        require("splits", split)
        if not _is_text(_value_type(schema.field(split).type)):
            if options.split_column is not None:
                raise SourceError(f"{where}: column {split} is {kinds[split]}; the names of splits are text")
            split = None
    names = {name: _class_names(_innermost(features.get(name))) for name in targets}
    known = {name: classes for name, classes in names.items() if classes is not None}
    return Columns(image, label, split, _class_names(features.get(label or "")), known)


def _features(schema: pa.Schema, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return Hugging Face's features by name."""
    try:
        own = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = own.get("info", {}).get("features") or info.get("features")
    except (ValueError, AttributeError, RecursionError):
        features = None
    return (
        {key: value for key, value in features.items() if isinstance(value, dict)}
        if isinstance(features, dict)
        else {}
    )


def _innermost(feature: Any) -> dict[str, Any] | None:
    """Return the feature of the items of a list, or the feature itself."""
    inner = feature.get("feature") if isinstance(feature, dict) else None
    return inner if isinstance(inner, dict) else feature


def _class_names(feature: dict[str, Any] | None) -> tuple[str, ...] | None:
    if feature is None or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names) if len(set(names)) == len(names) else None
    return None


def _image_column(schema: pa.Schema, features: dict[str, Any], kinds: dict[str, str], where: str) -> str:
    found = [name for name, feature in features.items() if feature.get("_type") == "Image" and name in kinds]
    found = found or [field.name for field in schema if _is_image(field.type)]
    found = found or [name for name in schema.names if name.lower() in IMAGE_NAMES]
    return only_one(found, ("image", "img"), kinds, where, "images", "image_column")


def _label_column(
    schema: pa.Schema,
    features: dict[str, Any],
    kinds: dict[str, str],
    others: set[str],
    where: str,
    *,
    is_needed: bool,
) -> str | None:
    names = [name for name in schema.names if name not in others]
    found = [name for name in names if features.get(name, {}).get("_type") == "ClassLabel"]
    found = found or [name for name in names if name.lower() in LABEL_NAMES]
    if not found and not is_needed:
        return None
    return only_one(found, ("label",), kinds, where, "labels", "label_column")


def _listed(kinds: dict[str, str]) -> str:
    return ", ".join(f"{name} ({kind[:40]})" for name, kind in kinds.items())


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def _is_image(kind: pa.DataType) -> bool:
    if types.is_struct(kind):
        fields = {kind.field(place).name: kind.field(place).type for place in range(kind.num_fields)}
        return "bytes" in fields and _is_bytes(fields["bytes"])
    return _is_bytes(kind)


def add_labels(labels: Labels, column: pa.ChunkedArray) -> None:
    """Add a column of integers or text to `labels`.

    Raises
    ------
    LabelError
        See `Labels.extend`; also a null, and integers beyond int64.
    """
    codes, texts = texts_of(column) if _is_text(_value_type(column.type)) else (_integers(column), None)
    labels.extend(codes, texts)


def texts_of(column: pa.ChunkedArray) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[str]]:
    """Return a column of text as places int64 [N] in a list of the texts that there are.

    Raises
    ------
    LabelError
        A null, or no valid text.
    """
    _refuse_null(column)
    if not len(column):
        return np.empty(0, np.int64), []
    column = column.cast(_value_type(column.type)).cast(pa.large_string())
    encoded = pc.dictionary_encode(column).combine_chunks()
    encoded = encoded if isinstance(encoded, pa.DictionaryArray) else encoded.chunk(0)
    try:
        return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()
    except UnicodeDecodeError as error:
        raise LabelError("is no text in UTF-8") from error


def values_of(column: pa.ChunkedArray, names: tuple[str, ...] | None) -> NDArray[Any]:
    """Return a column as a target is made of it: numbers, or objects of text, lists or None.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
    names : tuple of str or None
        Of classes, which take the place of integers in lists.
    """
    kind = _value_type(column.type)
    column = column.cast(kind)
    # With nulls, integers would come as floating-point numbers.
    is_whole = types.is_integer(kind) and not column.null_count
    if is_whole or types.is_boolean(kind) or types.is_floating(kind):
        return np.asarray(column.to_numpy())
    values = np.empty(len(column), object)
    values[:] = column.to_pylist()
    if names is not None:
        values[:] = [_named_items(value, names) for value in values]
    return values


def _named_items(value: Any, names: tuple[str, ...]) -> Any:
    if not isinstance(value, list):
        return value
    return [names[item] if type(item) is int and 0 <= item < len(names) else item for item in value]


def _integers(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    _refuse_null(column)
    try:
        values = column.cast(_value_type(column.type)).cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise LabelError("is beyond all numbers of classes") from error
    return np.asarray(values, np.int64)


def _refuse_null(column: pa.ChunkedArray) -> None:
    if column.null_count:
        raise LabelError("is null; leave such rows out", int(pc.index(pc.is_null(column), True).as_py()))


def content_of(value: object, folder: str, name: str) -> Content:
    """Return an image of a column as it is stored: its bytes, or else the path of its file.

    Parameters
    ----------
    value : bytes, str, dict or None
        The value in Python; a dict has ``bytes`` and perhaps ``path``.
    folder : str
        What a path is relative to.
    name : str
        What messages call the image.

    Raises
    ------
    SourceError
        It is null, or a URL.
    """
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise SourceError(f"{name}: is null, not an image")
    if "://" in value:
        raise SourceError(f"{name}: is not in the file but at {value[:80]}; nothing is downloaded here")
    if "\0" in value:
        raise SourceError(f"{name}: its path holds a NUL character")
    return f"{folder}{os.sep}{value}" if folder and not value.startswith(os.sep) else value
