"""What the presets of augmentation do, and the random numbers of each image; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRESETS", "RECIPES", "Preset", "Recipe", "uniform"]

Preset = Literal["light", "strong"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


@dataclass(frozen=True)
class Recipe:
    """Operations on the images of a batch, in this order.

    Attributes
    ----------
    area : (float, float)
        Random resized crop: share of the image's area that is cut out and scaled to the whole image,
        bilinear; mirrored half of the times (Szegedy et al., 2015).
    ratio : (float, float)
        Width of the crop over its height, for square images; logarithms are uniform.
    jitter : float
        Color jitter: brightness, contrast and saturation are multiplied by factors from 1 - jitter to
        1 + jitter, in this order.
    operations, magnitude : int
        RandAugment: so many of its operations, at this magnitude of 0 to 30 (Cubuk et al., 2020).
    erase : float
        Random erasing: how often a rectangle of 2% to 33% of the area becomes the mean (Zhong et al., 2020).
    mixup, cutmix : float
        The alpha of Beta(alpha, alpha), from which the share of the other image is drawn, once a batch
        (Zhang et al., 2018; Yun et al., 2019). With both, each batch is given to one of them by equal
        chance. 0 is none.
    """

    area: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: float = 0.0
    operations: int = 0
    magnitude: int = 9
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


# Crops of 8% of a photograph of 224x224 are usual; of an image of 32x32 they are 9 pixels wide.
RECIPES: dict[Preset, Recipe] = {
    "light": Recipe(area=(0.5, 1.0), jitter=0.2, erase=0.1),
    "strong": Recipe(area=(0.25, 1.0), operations=2, magnitude=9, erase=0.1, mixup=0.2, cutmix=1.0),
}


def uniform(seed: int, epoch: int, rows: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return random numbers in [0, 1) that depend on seed, epoch and image alone, not on the batch it is in.

    SplitMix64 (Steele et al., 2014), with the image's number in the key.

    Parameters
    ----------
    seed, epoch : int
        Non-negative.
    rows : int64 [n]
        Numbers of the images.
    count : int
        How many for each.

    Returns
    -------
    float64 [n, count]
    """
    (key,) = np.random.SeedSequence([seed, epoch, 2]).generate_state(1, np.uint64)
    step = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    start = _mixed(rows.astype(np.uint64) ^ key)
    found: NDArray[np.float64] = (_mixed(start[:, None] + step) >> np.uint64(11)) * 2.0**-53
    return found


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits
