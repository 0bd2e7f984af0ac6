"""Where the builder's images come from: one table of kinds, one module for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from edgeprune_formats import ConfigError
from edgeprune_formats.limits import MAX_SIDE
from edgeprune_formats.targets import alike_names, name_problem

from ..errors import SourceError
from .base import Source, source_targets
from .channels import with_channels
from .check import SourceCheck, check_source, source_facts
from .cifar import open_cifar
from .decoding.encoded import EncodedSource
from .digits import open_digits
from .folders.folder import open_imagefolder
from .naming.options import SourceOptions, with_options
from .npz import open_npz
from .tables.csv_table import open_csv
from .tars.webdataset import open_webdataset

__all__ = [
    "KINDS",
    "Source",
    "SourceCheck",
    "SourceKind",
    "SourceOptions",
    "check_source",
    "is_source",
    "kind_of_file",
    "open_source",
    "source_facts",
    "source_targets",
    "with_options",
]


def _require_pyarrow(kind: str) -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{kind} needs pyarrow; pip install 'edgeprune[{kind}]'") from error


def _open_hf(spec: str, split: str, size: int | None) -> Source:
    _require_pyarrow("hf")
    from .tables.hf import open_hf

    return open_hf(spec, split, size)


def _open_parquet(spec: str, split: str, size: int | None) -> Source:
    _require_pyarrow("parquet")
    from .tables.parquet import open_parquet

    return open_parquet(spec, split, size)


class SourceKind(NamedTuple):
    """How a kind of source is opened, how it is written, and what it is."""

    open: Callable[[str, str, int | None], Source]
    form: str
    describes: str


KINDS = {
    "digits": SourceKind(open_digits, "digits", "small embedded images, the default"),
    "cifar10": SourceKind(open_cifar, "cifar10[:ROOT]", "the official files, already unpacked"),
    "cifar100": SourceKind(
        open_cifar, "cifar100[:ROOT]", "the official files of its 100 classes, already unpacked"
    ),
    "imagefolder": SourceKind(
        open_imagefolder, "imagefolder:PATH", "a folder that has one folder of images for each class"
    ),
    "npz": SourceKind(open_npz, "npz:FILE", "arrays x_train, y_train, ... or x, y"),
    "csv": SourceKind(open_csv, "csv:FILE", "a table of paths and labels"),
    "hf": SourceKind(_open_hf, "hf:FOLDER", "a data set saved or cached by Hugging Face datasets"),
    "parquet": SourceKind(_open_parquet, "parquet:FILES", "tables that hold the images"),
    "webdataset": SourceKind(open_webdataset, "webdataset:SHARDS", "tar files, as in train-{000..015}.tar"),
}
"""What the text of a source may begin with."""
_BY_SUFFIX = {".npz": "npz", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".tar": "webdataset"}


def is_source(text: str) -> bool:
    """Tell whether text is written as a source, and not as a path."""
    return ":" in text or text in KINDS


def kind_of_file(path: Path) -> str | None:
    """Return the kind of source that a file is by its name; None of others."""
    return _BY_SUFFIX.get(path.suffix.lower())


def open_source(
    spec: str,
    *,
    split: str = "train",
    size: int | None = None,
    channels: str = "as-is",
    planes: int | None = None,
    fast_jpeg: bool = False,
) -> Source:
    """Open a source of labeled images.

    Parameters
    ----------
    spec : str
        Of one of the forms in `KINDS`, such as ``imagefolder:PATH``. Tables and tar files may say which
        columns to read after a question mark, such as ``parquet:a.parquet?label-column=fine``; see
        `SourceOptions`.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        Scale the short side of every image to `size` pixels and keep the center square; None keeps the
        images as they are.
    channels : str
        ``"as-is"``, ``"gray"``, ``"rgb"`` or ``"rgba"``; see `edgeprune.sources.channels.with_channels`.
    planes : int or None
        How many channels are needed, likewise.
    fast_jpeg : bool
        Let the JPEG decoder scale large images, see `edgeprune.sources.decoding.images.decode_image`. Other
        images are read as without it.

    Returns
    -------
    Source
        Labels and names are read, and checked against each other; pixels are not (see `check_source`).

    Raises
    ------
    ConfigError
        Unknown kind of source, split or channels, a size out of range, `fast_jpeg` without a size, or a
        package that is not installed.
    SourceError
        Nothing usable is there; the message says what to do.
    """
    kind = spec.partition(":")[0]
    if kind not in KINDS:
        meant = "imagefolder" if Path(spec).is_dir() else kind_of_file(Path(spec))
        hint = f"; did you mean {meant}:{spec}?" if meant else ""
        known = ", ".join(one.form for one in KINDS.values())
        raise ConfigError(f"unknown source {spec!r}; known are {known}{hint}")
    if split not in ("train", "test"):
        raise ConfigError(f"`split` is 'train' or 'test', not {split!r}")
    if size is not None and not 1 <= size <= MAX_SIDE:
        raise ConfigError(f"`size` is 1 to {MAX_SIDE} pixels, not {size}")
    if fast_jpeg and size is None:
        raise ConfigError("`fast_jpeg` has no effect without `size`; give `size`, or leave it out")
    source = KINDS[kind].open(spec, split, size)
    _require_names(source.class_names, spec)
    source = with_channels(source, channels, planes)
    return replace(source, fast_jpeg=fast_jpeg) if isinstance(source, EncodedSource) else source


def _require_names(names: Sequence[str], spec: str) -> None:
    """Raise `SourceError` of names that a pack cannot hold, or that readers take for the same."""
    for name in names:
        if problem := name_problem(name):
            raise SourceError(
                f"{spec}: no class can be called {name[:40]!a}: {problem}; give the class another name"
            )
    alike = alike_names(names)
    if alike is None:
        return
    differ = "differ only in how Unicode composes their accents; give each class one spelling"
    if alike[0] == alike[1]:
        differ = "have the same name as text; give each class a name of its own, in UTF-8"
    raise SourceError(f"{spec}: classes {alike[0]!a} and {alike[1]!a} {differ}")
