"""What a user may say of a source beside its place: which columns to read, and the names of classes."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from urllib.parse import parse_qsl, quote, urlencode

from edgeprune_formats import ConfigError
from edgeprune_runtime.checks import check_types

from ..columns.requests import parse_targets

__all__ = ["CHANNELS", "SourceOptions", "with_options", "with_targets", "without_options"]

CHANNELS = ("as-is", "gray", "rgb", "rgba")
"""What images may be read with; ``"as-is"`` is what they have."""
_ALL = ("image_column", "label_column", "split_column", "class_names", "target")
# The fields of `SourceOptions` that a kind of source looks at.
_USED = {
    "csv": _ALL,
    "hf": _ALL,
    "parquet": _ALL,
    "webdataset": ("image_column", "label_column", "class_names", "target"),
    "npz": ("target",),
    "imagefolder": ("target",),
}
_QUERY = re.compile(r"\?([\w-]+=[^&]*(?:&[\w-]+=[^&]*)*)$")


@dataclass(frozen=True)
class SourceOptions:
    """How a table of images, or tar files of them, are to be read; None stands for what is found.

    Attributes
    ----------
    image_column : str or None
        The column with the images or their paths; of tar files the ending of the images' names.
    label_column : str or None
        The column with the labels; of tar files an ending, or a field of the JSON members.
    split_column : str or None
        The column that says of each image which split it is of.
    class_names : str or None
        A text file with the name of a class in each line.
    target : tuple of str
        Columns to take as targets beside the labels, or in their place: ``NAME``, ``NAME:KIND`` or
        ``NAME=COLUMN+COLUMN:KIND``, with a kind of `edgeprune_formats.targets.KINDS`.

    Raises
    ------
    ConfigError
        A value is no text, or empty.
    """

    image_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of the images or their paths; for webdataset, the ending of their names, e.g. "
            "left.jpg.",
            "metavar": "NAME",
            "default_text": "the only one",
        },
    )
    label_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of the labels; for webdataset, an ending, or a field of the JSON members.",
            "metavar": "NAME",
            "default_text": "label, or another usual name",
        },
    )
    split_column: str | None = field(
        default=None,
        metadata={
            "help": "Column that says which images are for training and which for test.",
            "metavar": "NAME",
            "default_text": "split, if there is one",
        },
    )
    class_names: str | None = field(
        default=None,
        metadata={
            "help": "Text file with one class name on each line, that of label 0 first.",
            "metavar": "FILE",
            "default_text": "names in the source",
        },
    )
    target: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Store this column as a target too. KIND is class, multilabel, value, probabilities, "
            "text, "
            "integer or float. Several columns: NAME=A+B:value. Can be repeated.",
            "metavar": "NAME[:KIND]",
        },
    )

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "target", tuple(self.target))
        parse_targets(self.target)
        empty = [name for name, value in asdict(self).items() if value == ""]
        if empty:
            raise ConfigError(f"`{empty[0]}` is empty; name one, or leave it out")


def with_options(spec: str, options: SourceOptions) -> str:
    """Return the text that opens a source with these options, e.g. ``parquet:a.parquet?label-column=fine``.

    Raises
    ------
    ConfigError
        The kind of source does not look at one of them.
    """
    kind = spec.partition(":")[0]
    given = {name: value for name, value in asdict(options).items() if value not in (None, ())}
    for name in given:
        if name not in _USED.get(kind, ()):
            users = ", ".join(user for user, used in _USED.items() if name in used)
            raise ConfigError(f"`{name}` has no effect with {kind}, only with {users}; leave it out")
    if not given:
        return spec
    place, own = without_options(spec)
    merged = {name: value for name, value in asdict(own).items() if value not in (None, ())} | given
    fields = {name.replace("_", "-"): value for name, value in merged.items()}
    return f"{place}?{urlencode(fields, doseq=True, safe='/:,', quote_via=quote)}"


def without_options(spec: str) -> tuple[str, SourceOptions]:
    """Return the text of a source without its options, and the options.

    They follow a ``?`` as ``name=value``, joined by ``&`` and percent-encoded as in a URL. Any other ``?``
    is a character of the path or pattern.

    Raises
    ------
    ConfigError
        An option is unknown, empty, stands twice, or means nothing to this kind of source.
    """
    found = _QUERY.search(spec)
    if found is None:
        return spec, SourceOptions()
    # A plus joins columns; in forms on web pages it would be a space.
    place, pairs = spec[: found.start()], parse_qsl(found[1].replace("+", "%2B"), keep_blank_values=True)
    names = [name.replace("-", "_") for name, _ in pairs]
    for name in names:
        if name not in _ALL or (names.count(name) > 1 and name != "target"):
            known = ", ".join(_ALL).replace("_", "-")
            raise ConfigError(f"{spec}: after the question mark come, each once: {known} (that repeatedly)")
    values = dict(zip(names, (value for _, value in pairs), strict=True))
    targets = tuple(value for name, (_, value) in zip(names, pairs, strict=True) if name == "target")
    options = SourceOptions(**{**values, "target": targets})
    with_options(place.partition(":")[0], options)
    return place, options


def with_targets(spec: str) -> tuple[str, SourceOptions]:
    """As `without_options`, of a source that takes no option but targets: any other ``?`` is of its path."""
    return without_options(spec) if "?target=" in spec else (spec, SourceOptions())
