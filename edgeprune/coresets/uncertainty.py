"""Scores by how the probability of the true class varies during training."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from .records import BLOCK, check_records

__all__ = ["DUAL_EPOCHS", "dual", "dyn_unc"]

# The published J, and the T of DUAL on CIFAR, where all epochs are 200.
_WINDOW, DUAL_EPOCHS = 10, 30


def dyn_unc(probabilities: NDArray[np.floating[Any]], *, window: int = _WINDOW) -> NDArray[np.float64]:
    """Average how much p_y varies within a few epochs (Dyn-Unc, He et al. 2024, §3).

    **Higher is more important.** The mean, over all windows of `window` epochs in a row, of the standard
    deviation of p_y (divisor ``window - 1``).

    Parameters
    ----------
    probabilities : float [E, N]
        Softmax of each image's own class, one row for each epoch.
    window : int
        J, at least 2; all epochs if there are fewer.

    Returns
    -------
    float64 [N]

    Raises
    ------
    ConfigError
        `probabilities` is not 2-D, has fewer than two rows or is not finite, or `window` is out of range.
    """
    return _over_windows(probabilities, window, is_hard=False)


def dual(
    probabilities: NDArray[np.floating[Any]], *, epochs: int = DUAL_EPOCHS, window: int = _WINDOW
) -> NDArray[np.float64]:
    """Average uncertainty times difficulty early in training (DUAL, Cho et al. 2025, §3.2).

    **Higher is more important.** The mean, over all windows of `window` of the first `epochs` epochs, of
    ``(1 - mean of p_y) * standard deviation of p_y`` (divisor ``window - 1``).

    Parameters
    ----------
    probabilities : float [E, N]
        See `dyn_unc`.
    epochs : int
        T, how many of the first rows count, at least 2; all of them if there are fewer.
    window : int
        J, likewise.

    Returns
    -------
    float64 [N]

    Raises
    ------
    ConfigError
        As `dyn_unc`, or `epochs` is out of range.
    """
    if epochs < 2:
        raise ConfigError(f"`epochs` must be at least 2, not {epochs}")
    records = check_records("probabilities", probabilities)
    return _over_windows(records[:epochs], window, is_hard=True)


def _over_windows(probabilities: NDArray[Any], window: int, *, is_hard: bool) -> NDArray[np.float64]:
    records = check_records("probabilities", probabilities)
    if len(records) < 2:
        raise ConfigError("`probabilities` has one row, and how they vary takes two epochs at least")
    if window < 2:
        raise ConfigError(f"`window` must be at least 2, not {window}")
    scores = np.empty(records.shape[1])
    for start in range(0, records.shape[1], BLOCK):
        part = slice(start, start + BLOCK)
        scores[part] = _mean_over_windows(records[:, part].astype(np.float64), window, is_hard)
    return scores


def _mean_over_windows(records: NDArray[np.float64], window: int, is_hard: bool) -> NDArray[np.float64]:
    window = min(window, len(records))
    windows = [records[first : first + window] for first in range(len(records) - window + 1)]
    total = np.zeros(records.shape[1])
    for one in windows:
        varies = one.std(axis=0, ddof=1)
        # A mean of numbers in single precision may come out above 1.
        total += np.maximum(1 - one.mean(axis=0), 0) * varies if is_hard else varies
    return total / len(windows)
