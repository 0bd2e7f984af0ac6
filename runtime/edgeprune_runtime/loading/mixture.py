"""Several packs of images of one shape, read as one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack, PackHeader, open_pack
from edgeprune_formats.limits import MAX_CLASSES
from edgeprune_formats.remote.locations import PackPath, RemoteFile

from ..checks import shortened
from ..class_names import class_numbers, same_classes, united_classes

__all__ = ["Mixture", "open_packs", "pooled_statistics"]


class Mixture:
    """Open packs whose images are numbered one pack after another.

    They may differ in classes, codec, components, tiles and chunks; images must be of one shape. Classes are
    matched by name, in the order of first appearance; names that differ only in how Unicode composes accents
    are the same. A pack may be named twice, which shows its images twice as often.

    Parameters
    ----------
    packs : sequence of Pack
        At least one.

    Attributes
    ----------
    packs : tuple of Pack
    header : PackHeader
        The first pack's, with the `samples` and classes of all, the mean and standard deviation of all images
        (see `pooled_statistics`), and a provenance with lists of the ``packs``, by name, and their
        ``provenances``. Codec, components and chunks are those of the first pack alone.
    labels : int64 [N]
        Indices into `header.class_names`.
    source_index : int64 [N]
        The row of each image in the source of its pack.

    Raises
    ------
    ConfigError
        No pack, packs that differ in shape, one with classes and one without, classes that cannot be matched
        by name, too many of them, or parts of two splits in one folder, which is what a split leaves that was
        killed while it replaced an older one.
    """

    def __init__(self, packs: Sequence[Pack]) -> None:
        if not packs:
            raise ConfigError("no pack was given")
        self.packs = tuple(packs)
        for pack in self.packs[1:]:
            _require_shape(self.packs[0], pack)
            _require_classes(self.packs[0], pack)
            _require_one_split(self.packs[0], pack)
        headers = [pack.header for pack in self.packs]
        mean, std = pooled_statistics(headers)
        provenance = {
            "packs": [f"{pack.path.name}, {len(pack)} images" for pack in self.packs],
            "provenances": [dict(pack.header.provenance) for pack in self.packs],
        }
        samples = sum(header.samples for header in headers)
        classes = united_classes([(pack.path, pack.header.class_names) for pack in self.packs])
        if len(classes) > MAX_CLASSES:
            raise ConfigError(f"the packs have {len(classes):,} classes together, above {MAX_CLASSES:,}")
        self.header = replace(
            headers[0], samples=samples, class_names=classes, mean=mean, std=std, provenance=provenance
        )
        self.labels = np.concatenate([_united_labels(pack, classes) for pack in self.packs])
        self.source_index = np.concatenate([pack.source_index for pack in self.packs])

    def __len__(self) -> int:
        return self.header.samples

    def __repr__(self) -> str:
        return f"Mixture({', '.join(map(repr, self.packs))})"

    def __enter__(self) -> Mixture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files in the calling process; reading again opens them again."""
        for pack in self.packs:
            pack.close()


def open_packs(paths: Sequence[PackPath | Pack]) -> Pack | Mixture:
    """Open one pack as it is, or several as a `Mixture`; far ones are fetched first.

    Raises
    ------
    OSError, ConfigError, PackFormatError, RemoteError
        As `edgeprune_formats.open_pack` and `Mixture`.
    """
    if isinstance(paths, str | bytes | os.PathLike | RemoteFile) or not isinstance(paths, Iterable):
        raise ConfigError(f"{shortened(paths)} is no list of packs; give a list of paths, URLs or open packs")
    packs = [path if isinstance(path, Pack) else open_pack(path) for path in paths]
    return packs[0] if len(packs) == 1 else Mixture(packs)


def pooled_statistics(headers: Sequence[PackHeader]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel over the images of several packs of one shape.

    With ``N_i`` images, mean ``m_i`` and standard deviation ``s_i`` each, ``m = sum N_i m_i / N`` and
    ``s^2 = sum N_i (s_i^2 + (m_i - m)^2) / N``. Where all packs have the same, as the parts of a split, these
    are returned bit for bit.
    """
    first = headers[0]
    if all((header.mean, header.std) == (first.mean, first.std) for header in headers):
        return first.mean, first.std
    weights = np.array([header.samples for header in headers], np.float64)
    means, stds = (np.array([getattr(header, name) for header in headers]) for name in ("mean", "std"))
    mean = np.average(means, axis=0, weights=weights)
    variance = np.average(stds**2 + (means - mean) ** 2, axis=0, weights=weights)
    return tuple(mean.tolist()), tuple(map(math.sqrt, variance))


def _require_shape(first: Pack, other: Pack) -> None:
    ours, theirs = first.header, other.header
    if theirs.channels != ours.channels:
        raise ConfigError(
            f"{other.path}: images of {theirs.channels} channels ({theirs.color_space}), and those of "
            f"{first.path} have {ours.channels} ({ours.color_space}); build both with the same `channels`"
        )
    if theirs.shape != ours.shape:
        sizes = (f"{header.height}x{header.width}" for header in (theirs, ours))
        raise ConfigError(
            f"{other.path}: images of {{}}, and those of {first.path} are {{}}; "
            "build both with the same `size`".format(*sizes)
        )


def _require_classes(first: Pack, other: Pack) -> None:
    ours, theirs = (bool(pack.header.class_names) for pack in (first, other))
    if ours != theirs:
        bare, classed = (first, other) if theirs else (other, first)
        raise ConfigError(
            f"{bare.path}: has no classes, and {classed.path} has, so they cannot be mixed; build both alike"
        )


def _united_labels(pack: Pack, classes: tuple[str, ...]) -> NDArray[np.int64]:
    own = pack.header.class_names
    if len(own) <= len(classes) and same_classes(own, classes[: len(own)]):
        return pack.labels
    return np.array(class_numbers(own, classes), np.int64)[pack.labels]


def _require_one_split(first: Pack, other: Pack) -> None:
    ours, theirs = (pack.header.provenance.get("split") for pack in (first, other))
    if not (isinstance(ours, dict) and isinstance(theirs, dict)) or first.path.parent != other.path.parent:
        return
    names, kinds = zip(*[(_parent_name(split), _plain(split)) for split in (ours, theirs)], strict=True)
    if names[0] is not None and names[0] == names[1] and kinds[0] != kinds[1]:
        raise ConfigError(
            f"{other.path} and {first.path} are parts of two different splits of {names[0]}; remove those of "
            "one of them"
        )


def _parent_name(split: dict[str, Any]) -> str | None:
    parent = split.get("parent")
    return parent.get("file") if isinstance(parent, dict) else None


def _plain(split: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in split.items() if name != "part"}
