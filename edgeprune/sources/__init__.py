"""Where the builder's images come from: one table of kinds, one module for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import alike_names

from ..errors import SourceError
from .base import Source, source_targets
from .channels import with_channels
from .check import SourceCheck, check_source, source_facts
from .cifar import open_cifar
from .digits import open_digits
from .folders.folder import open_imagefolder
from .naming.options import SourceOptions, with_options
from .npz import open_npz
from .tables.csv_table import open_csv
from .tars.webdataset import open_webdataset

__all__ = [
    "Source",
    "SourceCheck",
    "SourceOptions",
    "check_source",
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


_OPENERS: dict[str, Callable[[str, str, int | None], Source]] = {
    "digits": open_digits,
    "cifar10": open_cifar,
    "cifar100": open_cifar,
    "imagefolder": open_imagefolder,
    "npz": open_npz,
    "csv": open_csv,
    "hf": _open_hf,
    "parquet": _open_parquet,
    "webdataset": open_webdataset,
}
_MAX_SIDE = 2**16  # of an image in a pack
_FORMS = (
    "digits, cifar10[:ROOT], cifar100[:ROOT], imagefolder:PATH, npz:FILE, csv:FILE, hf:FOLDER, "
    "parquet:FILES, webdataset:SHARDS"
)
_BY_SUFFIX = {".npz": "npz", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".tar": "webdataset"}


def open_source(
    spec: str,
    *,
    split: str = "train",
    size: int | None = None,
    channels: str = "as-is",
    planes: int | None = None,
) -> Source:
    """Open a source of labeled images.

    Parameters
    ----------
    spec : str
        ``digits``, ``cifar10[:ROOT]``, ``cifar100[:ROOT]``, ``imagefolder:PATH``, ``npz:FILE``,
        ``csv:FILE``, ``hf:FOLDER``, ``parquet:FILES`` or ``webdataset:SHARDS``. The last four may say which
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

    Returns
    -------
    Source
        Labels and names are read, and checked against each other; pixels are not (see `check_source`).

    Raises
    ------
    ConfigError
        Unknown kind of source, split or channels, a size out of range, or a package that is not installed.
    SourceError
        Nothing usable is there; the message says what to do.
    """
    kind = spec.partition(":")[0]
    if kind not in _OPENERS:
        meant = "imagefolder" if Path(spec).is_dir() else _BY_SUFFIX.get(Path(spec).suffix.lower())
        hint = f"; did you mean {meant}:{spec}?" if meant else ""
        raise ConfigError(f"unknown source {spec!r}; known are {_FORMS}{hint}")
    if split not in ("train", "test"):
        raise ConfigError(f"`split` is 'train' or 'test', not {split!r}")
    if size is not None and not 1 <= size <= _MAX_SIDE:
        raise ConfigError(f"`size` is 1 to {_MAX_SIDE} pixels, not {size}")
    source = _OPENERS[kind](spec, split, size)
    alike = alike_names(source.class_names)
    if alike is not None:
        raise SourceError(
            f"{spec}: classes {alike[0]!a} and {alike[1]!a} differ only in how Unicode composes their "
            "accents; give each class one spelling"
        )
    return with_channels(source, channels, planes)
