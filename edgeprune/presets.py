"""The settings of the papers, and what follows from them for other ratios and image sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeprune_formats import ConfigError

__all__ = [
    "FAMILIES",
    "Family",
    "MaskPreset",
    "beta_exponent",
    "ccs_beta",
    "component_count",
    "coreset_size",
    "data_family",
    "je_cadence",
    "mask_preset",
]


@dataclass(frozen=True)
class Family:
    """Settings published for one data set, used for those like it.

    Attributes
    ----------
    side : int
        Height and width in pixels of the images that they are for.
    je_cadence : int
        Epochs from one record of the entropies to the next (paper, App. B).
    betas : mapping of float to float
        Sample pruning ratio to CCS's beta (Zheng et al. 2022).
    beta_exponent : float
        c_D of the Beta sampling of DUAL (Cho et al. 2025).
    masks : mapping of float to (int, float)
        Frequency pruning ratio, ascending, to (k, lambda) (paper, App. B). The counts k_total beside
        them are what `component_count` gives.
    """

    side: int
    je_cadence: int
    betas: Mapping[float, float]
    beta_exponent: float
    masks: Mapping[float, tuple[int, float]]


FAMILIES: Mapping[str, Family] = {
    "cifar10": Family(
        side=32,
        je_cadence=5,
        betas={0.3: 0.0, 0.5: 0.0, 0.7: 0.1, 0.8: 0.1, 0.9: 0.3},
        beta_exponent=5.5,
        masks={
            0.3: (100, 0.05),
            0.5: (100, 0.10),
            0.6: (100, 0.10),
            0.7: (80, 0.08),
            0.8: (50, 0.01),
            0.9: (30, 0.05),
        },
    ),
    "cifar100": Family(
        side=32,
        je_cadence=5,
        betas={0.3: 0.1, 0.5: 0.2, 0.7: 0.2, 0.8: 0.4, 0.9: 0.5},
        beta_exponent=4.0,
        masks={
            0.3: (100, 0.09),
            0.5: (100, 0.13),
            0.6: (100, 0.15),
            0.7: (80, 0.13),
            0.8: (50, 0.08),
            0.9: (30, 0.10),
        },
    ),
    "imagenet": Family(
        side=224,
        je_cadence=2,
        betas={0.3: 0.0, 0.5: 0.1, 0.7: 0.2, 0.8: 0.2, 0.9: 0.3},
        beta_exponent=11.0,
        masks={
            0.3: (1000, 0.10),
            0.5: (1000, 0.10),
            0.6: (1000, 0.10),
            0.7: (1000, 0.05),
            0.8: (1000, 0.02),
            0.9: (600, 0.05),
        },
    ),
}


@dataclass(frozen=True)
class MaskPreset:
    """How many components a learned mask keeps, and how it is learned.

    Attributes
    ----------
    k_total : int
        Components kept in each channel.
    k : int
        How many of them are those of highest energy, ``0 .. k_total``; the others are learned.
    accuracy_weight : float
        Lambda of the paper's eq. 6.
    """

    k_total: int
    k: int
    accuracy_weight: float


def data_family(classes: int, height: int, width: int) -> str:
    """Return whose settings to use for a data set.

    ``"imagenet"`` if both sides have at least 64 pixels, otherwise ``"cifar100"`` above 50 classes and
    ``"cifar10"`` up to 50. The papers do not cover other data sets: where the lines are drawn is our choice.
    """
    if min(height, width) >= 64:
        return "imagenet"
    return "cifar100" if classes > 50 else "cifar10"


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise ConfigError(f"the data family must be one of {', '.join(FAMILIES)}, not {name!r}")
    return FAMILIES[name]


def je_cadence(family: str) -> int:
    """Return the epochs from one record of the entropies to the next; raise `ConfigError` if unknown."""
    return _family(family).je_cadence


def ccs_beta(sample_prune: float, family: str) -> float:
    """Return the share of the samples that CCS drops as too hard.

    The published value where there is one; linear between them and from 0 at ratio 0, constant above 90%.

    Parameters
    ----------
    sample_prune : float
        Share of the images left out, at least 0 and below 1.
    family : str
        See `data_family`.

    Raises
    ------
    ConfigError
        The ratio is out of range, or the family unknown.
    """
    betas = {0.0: 0.0, **_family(family).betas}
    if not 0 <= sample_prune < 1:
        raise ConfigError(f"the sample pruning ratio must be at least 0 and below 1, not {sample_prune}")
    return float(np.interp(sample_prune, list(betas), list(betas.values())))


def beta_exponent(family: str) -> float:
    """Return c_D of the Beta sampling of DUAL, as published; raise `ConfigError` if the family is unknown."""
    return _family(family).beta_exponent


def mask_preset(freq_prune: float, height: int, width: int, family: str) -> MaskPreset:
    """Return the settings of the learned mask for a ratio and an image size.

    The published ones where there are any. Elsewhere k and lambda are linear in the ratio between the
    published ones, constant beyond them, and k grows with the number of pixels.

    Parameters
    ----------
    freq_prune : float
        Share of the frequency components that is dropped, at least 0 and below 1.
    height, width : int
        Size of the image in pixels.
    family : str
        See `data_family`.

    Raises
    ------
    ConfigError
        The ratio is out of range or keeps nothing at this size, or the family is unknown.
    """
    data = _family(family)
    k_total = component_count(freq_prune, height, width)
    counts, weights = zip(*data.masks.values(), strict=True)
    published = float(np.interp(freq_prune, list(data.masks), counts))
    k = round(published * height * width / data.side**2)
    return MaskPreset(k_total, min(k, k_total), float(np.interp(freq_prune, list(data.masks), weights)))


# The paper's counts (App. B), which its tables rest on; they differ from the rule by one or two components.
_PAPER_COUNTS = {
    (32, 32): {0.9: 102, 0.8: 204, 0.7: 308, 0.6: 410, 0.5: 512, 0.3: 717},
    (224, 224): {0.9: 5018, 0.8: 10036, 0.7: 15053, 0.6: 20071, 0.5: 25090, 0.3: 35123},
}


def component_count(freq_prune: float, height: int, width: int) -> int:
    """Return k_total, the components kept in each channel.

    The paper's count where it gives one (32x32 and 224x224 at 30, 50, 60, 70, 80 and 90%), otherwise
    ``round((1 - freq_prune) * height * width)``.

    Parameters
    ----------
    freq_prune : float
        Share of the components that is dropped, at least 0 and below 1.
    height, width : int
        Size of the image in pixels.

    Raises
    ------
    ConfigError
        The ratio is out of range, or keeps nothing at this size.
    """
    if not 0 <= freq_prune < 1:
        raise ConfigError(f"the frequency pruning ratio must be at least 0 and below 1, not {freq_prune}")
    fallback = round((1 - freq_prune) * height * width)
    count = _PAPER_COUNTS.get((height, width), {}).get(freq_prune, fallback)
    if count == 0:
        raise ConfigError(
            f"a frequency pruning ratio of {freq_prune} keeps nothing of {height}x{width}; lower `freq_prune`"
        )
    return count


def coreset_size(sample_prune: float, samples: int) -> int:
    """Return how many of `samples` images are kept, ``round((1 - sample_prune) * samples)``.

    Raises
    ------
    ConfigError
        The ratio is not at least 0 and below 1, or keeps no image.
    """
    if not 0 <= sample_prune < 1:
        raise ConfigError(f"the sample pruning ratio must be at least 0 and below 1, not {sample_prune}")
    count = round((1 - sample_prune) * samples)
    if count == 0:
        raise ConfigError(f"a sample pruning ratio of {sample_prune} keeps none of {samples} images")
    return count
