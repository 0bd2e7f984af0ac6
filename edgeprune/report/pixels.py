"""The images of a pack as one would look at them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import Pack
from edgeprune_runtime import PackDataset, PackLoader

from ..sources.decoding.kinds import to_integers

__all__ = ["images_of", "pixels_of"]


def pixels_of(pack: Pack, **how: Any) -> NDArray[np.uint8]:
    """Return all images of a pack, uint8 [N, C, H, W], in its order; `how`: of `PackLoader`."""
    loader = PackLoader(pack, 128, targets=(), **how)
    return np.concatenate([to_integers(np.asarray(images)) for (images,) in loader])


def images_of(pack: Pack, rows: NDArray[Any], bits: int = 8, **how: Any) -> NDArray[Any]:
    """Return some images of a pack, uint8 or uint16 [n, C, H, W]; `how`: of `PackDataset`."""
    dataset = PackDataset(pack, backend="scipy", targets=(), **how)
    return to_integers(np.stack([image for (image,) in dataset.__getitems__(rows.tolist())]), bits)
