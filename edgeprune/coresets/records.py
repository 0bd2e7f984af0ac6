"""Checks of what a training run recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

__all__ = ["BLOCK", "check_finite", "check_records"]

# Samples whose records are expanded to double precision at a time.
BLOCK = 1 << 16


def check_finite(name: str, values: NDArray[Any], dimensions: int) -> NDArray[Any]:
    """Return `values` as an array; raise `ConfigError` unless it has as many `dimensions` of finite numbers.

    The last dimension counts samples; the error says how many of them are bad and which is the first.
    """
    array = np.asarray(values)
    if array.ndim != dimensions:
        raise ConfigError(f"`{name}` must have {dimensions} dimension(s), not the shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"`{name}` must be numbers, not {array.dtype}")
    bad = np.nonzero(~np.isfinite(array).all(axis=tuple(range(dimensions - 1))))[0]
    if len(bad):
        raise ConfigError(f"`{name}`: {len(bad)} sample(s) with values that are not finite, first {bad[0]}")
    return array


def check_records(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return `values` as an array; raise `ConfigError` unless it is finite, 2-D and has a row."""
    array = check_finite(name, values, 2)
    if not len(array):
        raise ConfigError(f"`{name}` has no rows: nothing was recorded")
    return array
