"""Which components of spectra are kept: those of highest energy, and of highest importance.

On numpy arrays and on torch tensors alike. Needs no torch for arrays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["check_counts", "energy_mask", "select_components", "unchecked_selection"]

# Values that a selection works on at a time: it then takes some 20 bytes for each of them, however many
# images it is given.
CHUNK_VALUES = 2 * 2**20


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
    mask: NDArray[np.bool_] = unchecked_selection(planes, planes, count, count)
    return mask.reshape(coefficients.shape)


@overload
def select_components(
    energy: NDArray[Any], importance: NDArray[Any], k: int, k_total: int
) -> NDArray[np.bool_]: ...
@overload
def select_components(
    energy: torch.Tensor, importance: torch.Tensor, k: int, k_total: int
) -> torch.Tensor: ...
def select_components(energy: Any, importance: Any, k: int, k_total: int) -> Any:
    """Keep the `k` components of highest energy, and those of highest importance among the others (eq. 8).

    Ties, in either, go to the lower index: of a flattened plane, to the lower (row, column). Only the order
    of the values matters, so a magnitude may stand for an energy.

    Parameters
    ----------
    energy, importance : float [..., F], both numpy arrays or both torch tensors of one device
        Of each component. Infinities are ordered like other values.
    k : int
        Components kept for their energy, ``0 .. k_total``.
    k_total : int
        Components kept in all, ``1 .. F``.

    Returns
    -------
    bool [..., F]
        Exactly `k_total` true along the last axis; an array or a tensor, as given.

    Raises
    ------
    ConfigError
        A count is out of range, the shapes differ, or there is a NaN.
    """
    if isinstance(energy, np.ndarray) != isinstance(importance, np.ndarray):
        raise ConfigError("`energy` and `importance` must both be numpy arrays or both torch tensors")
    if energy.shape != importance.shape or not energy.shape:
        shapes = f"{tuple(energy.shape)} and {tuple(importance.shape)}"
        raise ConfigError(f"`energy` and `importance` must have one shape [..., F], not {shapes}")
    check_counts(k, k_total, energy.shape[-1])
    for name, values in (("energy", _in_place(energy)), ("importance", _in_place(importance))):
        # A value is unequal to itself only if it is NaN.
        if bool((values != values).any()):
            raise ConfigError(f"`{name}` holds NaN, which has no place in an order")
    return unchecked_selection(energy, importance, k, k_total)


def check_counts(k: int, k_total: int, components: int) -> None:
    """Raise `ConfigError` unless ``0 <= k <= k_total <= components`` and `k_total` is at least 1."""
    if not 1 <= k_total <= components:
        raise ConfigError(f"`k_total` is {k_total}; it must be within 1 and the {components} components")
    if not 0 <= k <= k_total:
        raise ConfigError(f"`k` is {k}; it must be within 0 and `k_total`, which is {k_total}")


def unchecked_selection(energy: Any, importance: Any, k: int, k_total: int) -> Any:
    """Return what `select_components` does; takes the arguments as right, so waits for no device."""
    mask = _select_by_chunks(_in_place(energy), _in_place(importance), k, k_total)
    if isinstance(energy, np.ndarray) or not energy.is_cpu:
        return mask
    import torch

    return torch.from_numpy(mask)


def _in_place(values: Any) -> Any:
    """Return a CPU tensor as an array over the same memory, anything else as it is."""
    # np.partition finds a threshold several times faster there than torch.topk.
    return values if isinstance(values, np.ndarray) or not values.is_cpu else values.detach().numpy()


def _select_by_chunks(energy: Any, importance: Any, k: int, k_total: int) -> Any:
    size = energy.shape[-1]
    energies, importances = energy.reshape(-1, size), importance.reshape(-1, size)
    mask = energies > math.inf
    planes = max(1, CHUNK_VALUES // size)
    for start in range(0, len(mask), planes):
        chunk = slice(start, start + planes)
        if k:
            mask[chunk] = _with_best(energies[chunk], k, mask[chunk])
        if k < k_total:
            mask[chunk] = _with_best(importances[chunk], k_total, mask[chunk])
    return mask.reshape(energy.shape)


def _with_best(values: Any, count: int, kept: Any) -> Any:
    """Return `kept`, bool [n, F], with the largest other `values` added until each row has `count`."""
    on_host = isinstance(values, np.ndarray)
    values = np.where(kept, math.inf, values) if on_host else values.masked_fill(kept, math.inf)
    threshold = _kth_largest(values, count)
    chosen = kept | (values > threshold)
    # Others may be infinite too, hence not simply what equals the threshold.
    tied = (values == threshold) & ~kept
    return chosen | _first(tied, count - chosen.sum(axis=-1, keepdims=True))


def _kth_largest(values: Any, k: int) -> Any:
    """Return the `k`-th largest value of each row, [n, 1]."""
    if isinstance(values, np.ndarray):
        return np.partition(values, -k, axis=-1)[:, -k, None]
    return values.topk(k, dim=-1, sorted=False).values.amin(-1, keepdim=True)


def _first(tied: Any, counts: Any) -> Any:
    """Return the first `counts`, int [n, 1], of the true values in each row of `tied`, bool [n, F]."""
    if not isinstance(tied, np.ndarray):
        import torch

        return tied & (tied.cumsum(-1, dtype=torch.int32) <= counts)
    crowded = (np.count_nonzero(tied, axis=-1, keepdims=True) > counts)[:, 0]
    tied[crowded] &= np.cumsum(tied[crowded], axis=-1) <= counts[crowded]
    return tied
