"""Which frequency components of an image are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

__all__ = ["component_count", "energy_mask"]

# The paper's counts (App. B), which its tables rest on; they differ from the rule by one or two components.
PAPER_COUNTS = {
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
    count = PAPER_COUNTS.get((height, width), {}).get(freq_prune, fallback)
    if count == 0:
        raise ConfigError(f"a frequency pruning ratio of {freq_prune} keeps nothing of {height}x{width}")
    return count


def energy_mask(coefficients: NDArray[np.floating[Any]], count: int) -> NDArray[np.bool_]:
    """Keep the `count` components of highest energy in each channel of each image (paper, §3.2).

    Energy is ``E(i, j) = |X(i, j)|^2``; ties go to the lower (row, column).

    Parameters
    ----------
    coefficients : float [n, C, H, W]
        Spectra.
    count : int
        ``1 .. H * W``.

    Returns
    -------
    bool [n, C, H, W]
        Exactly `count` true in each channel.

    Raises
    ------
    ConfigError
        `count` is out of range.
    """
    planes = np.abs(coefficients).reshape(*coefficients.shape[:2], -1)
    size = planes.shape[-1]
    if not 1 <= count <= size:
        raise ConfigError(f"{count} components cannot be kept of {size}")
    threshold = np.partition(planes, size - count, axis=-1)[..., size - count, None]
    mask: NDArray[np.bool_] = planes > threshold
    tied = planes == threshold
    missing = count - mask.sum(axis=-1, keepdims=True)
    crowded = (tied.sum(axis=-1, keepdims=True) > missing)[..., 0]
    tied[crowded] &= np.cumsum(tied[crowded], axis=-1) <= missing[crowded]
    mask |= tied
    return mask.reshape(coefficients.shape)
