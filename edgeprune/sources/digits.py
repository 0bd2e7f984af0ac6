"""The handwritten digits that scikit-learn carries: real images without a download."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeprune_formats import ConfigError

from .arrays import ArraySource

__all__ = ["open_digits"]

_LICENSE = "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits, doi:10.24432/C50P49)"
_SIDE = 32
_SPLIT_SEED = 1797


def open_digits(spec: str, split: str, size: int | None) -> ArraySource:
    """Open the 1797 digits of scikit-learn, 8x8 gray scaled to 32x32 RGB.

    Gray levels 0..16 become 0..255 (times 255/16, rounded), then Pillow's bicubic filter enlarges the
    image. One fifth of each class, rounded, is the test split: the same images on every machine.

    Parameters
    ----------
    spec : str
        ``"digits"``.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        Side to which `ArraySource.read` scales the 32x32 images.

    Raises
    ------
    ConfigError
        `spec` has an argument, or scikit-learn is not installed.
    """
    if spec != "digits":
        raise ConfigError(f"{spec}: digits takes no argument; write just digits")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError("digits needs scikit-learn; pip install 'edgeprune[build]'") from error
    digits = load_digits()
    labels = digits.target.astype(np.int64)
    rows = np.flatnonzero(_is_test(labels) == (split == "test"))
    pixels = _enlarged(digits.images[rows])
    names = tuple(str(digit) for digit in range(10))
    return ArraySource(spec, split, _LICENSE, names, labels[rows], pixels, size, f"digits {split}")


def _is_test(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    # NumPy promises to keep raw bit streams; it does not promise that of permutation() or random().
    draws = np.random.PCG64(_SPLIT_SEED).random_raw(len(labels))
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        chosen[rows[np.argsort(draws[rows])][: round(len(rows) / 5)]] = True
    return chosen


def _enlarged(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    gray = np.rint(images * (255 / 16)).astype(np.uint8)
    side = (_SIDE, _SIDE)
    large = [np.asarray(Image.fromarray(one).resize(side, Image.Resampling.BICUBIC)) for one in gray]
    return np.repeat(np.stack(large)[:, np.newaxis], 3, axis=1)
