"""The images of a pack as one would look at them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import Pack
from edgeprune_runtime import PackDataset, PackLoader

__all__ = ["images_of", "pixels_of", "to_integers"]


def to_integers(images: NDArray[Any], bits: int = 8) -> NDArray[Any]:
    """Return values on [0, 1], or a little beyond, as whole numbers, uint8 or uint16."""
    peak = 2**bits - 1
    pixels: NDArray[Any] = np.clip(np.rint(images * peak), 0, peak)
    return pixels.astype(np.uint8 if bits == 8 else np.uint16)


def pixels_of(pack: Pack, **how: Any) -> NDArray[np.uint8]:
    """Return all images of a pack, uint8 [N, C, H, W], in its order; `how`: of `PackLoader`."""
    loader = PackLoader(pack, 128, targets=(), **how)
    return np.concatenate([to_integers(np.asarray(images)) for (images,) in loader])


def images_of(pack: Pack, rows: NDArray[Any], bits: int = 8, **how: Any) -> NDArray[Any]:
    """Return some images of a pack, uint8 or uint16 [n, C, H, W]; `how`: of `PackDataset`."""
    dataset = PackDataset(pack, backend="scipy", targets=(), **how)
    return to_integers(np.stack([image for (image,) in dataset.__getitems__(rows.tolist())]), bits)
