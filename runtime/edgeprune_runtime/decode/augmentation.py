"""Crops and flips: drawn here once for every backend, applied by each in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from .recipes import PRESETS, Preset, uniform

__all__ = [
    "AUGMENTS",
    "LOADER_AUGMENTS",
    "Augment",
    "Augmentation",
    "LoaderAugment",
    "augment_name",
    "draw",
    "geometry",
    "loader_augment",
]

Augment = Literal["none", "crop", "flip", "crop+flip"]
AUGMENTS: tuple[Augment, ...] = get_args(Augment)
Short = Literal["short"]
LoaderAugment = Augment | Short | Preset
LOADER_AUGMENTS: tuple[LoaderAugment, ...] = (*AUGMENTS, "short", *PRESETS)
"""What a loader can do: also what needs torch, see `edgeprune_runtime.decode.recipes`."""


@dataclass(frozen=True)
class Augmentation:
    """Where each image of a batch is cropped and whether it is mirrored.

    Attributes
    ----------
    rows : int64 [n, h]
        The source row of each row of the result; a crop out of the image padded by reflection.
    columns : int64 [n, w]
        The source column of each column of the result, reversed where the image is mirrored.
    mirrored : bool [n] or None
        Which images are mirrored, where that is all that is done; None where they are cropped.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    mirrored: NDArray[np.bool_] | None = None

    def take(self, places: NDArray[np.int64]) -> Augmentation:
        """Return what is done to the images at these places of the batch."""
        mirrored = None if self.mirrored is None else self.mirrored[places]
        return Augmentation(self.rows[places], self.columns[places], mirrored)


def augment_name(augment: bool | Augment) -> Augment:
    """Return which of `AUGMENTS` is meant; True stands for both, False for none.

    Raises
    ------
    ConfigError
        None of them.
    """
    if not isinstance(augment, str):
        return "crop+flip" if augment else "none"
    if augment not in AUGMENTS:
        raise ConfigError(f"unknown augmentation {augment!r}; known: {', '.join(AUGMENTS)}")
    return augment


def loader_augment(augment: bool | LoaderAugment) -> LoaderAugment:
    """Return which of `LOADER_AUGMENTS` is meant, as `augment_name`.

    Raises
    ------
    ConfigError
        None of them.
    """
    if augment in PRESETS or augment == "short":
        return augment
    if augment not in (*AUGMENTS, True, False, None):
        raise ConfigError(f"unknown augmentation {augment!r}; known: {', '.join(LOADER_AUGMENTS)}")
    return augment_name(augment)


def geometry(augment: LoaderAugment) -> Augment | Short:
    """Return what of an augmentation decoders do: nothing of a preset, which follows the decoding."""
    return "none" if augment == "light" or augment == "strong" else augment


def _reflected(size: int, pad: int) -> NDArray[np.int64]:
    inside = np.abs(np.arange(-pad, size + pad))
    return np.where(inside >= size, 2 * (size - 1) - inside, inside)


def draw(
    augment: Augment | Short,
    *,
    seed: int,
    epoch: int,
    batch: int,
    count: int,
    height: int,
    width: int,
    images: NDArray[np.int64] | None = None,
) -> Augmentation | None:
    """Draw crop and flip for one batch: pad an eighth of the side by reflection, crop, mirror half.

    At 32x32 this is the usual crop with 4 pixels of padding. ``"short"`` pads half of that, and mirrors each
    image in every second epoch, half of them in the first (alternating flip; Jordan, 2024, section 3.6).
    Depends on nothing but its arguments, so that a resumed epoch is augmented as the uninterrupted one.

    Parameters
    ----------
    augment : str
        One of `AUGMENTS`, or ``"short"``; None is returned for ``"none"``.
    seed, epoch, batch : int
        Non-negative.
    count : int
        Images in the batch.
    height, width : int
        Their size in pixels.
    images : int64 [count], optional
        Their numbers, which ``"short"`` goes by.
    """
    if augment == "none":
        return None
    random = np.random.default_rng([seed, epoch, batch, 1])
    share = 16 if augment == "short" else 8
    pad_rows, pad_columns = (0, 0) if augment == "flip" else (height // share, width // share)
    top = random.integers(0, 2 * pad_rows + 1, (count, 1))
    left = random.integers(0, 2 * pad_columns + 1, (count, 1))
    if augment == "short":
        assert images is not None
        mirror = (uniform(seed, 0, images, 1) < 0.5) ^ bool(epoch % 2)
    else:
        mirror = (random.random((count, 1)) < 0.5) & ("flip" in augment)
    across = np.arange(width)
    rows = _reflected(height, pad_rows)[top + np.arange(height)]
    columns = _reflected(width, pad_columns)[left + np.where(mirror, across[::-1], across)]
    return Augmentation(rows, columns, None if pad_rows or pad_columns else mirror[:, 0])
