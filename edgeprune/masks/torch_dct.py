"""The transform and its inverse on torch tensors, for what is learned through them."""

from __future__ import annotations

import functools

import numpy as np
import torch
from scipy.fft import dct

__all__ = ["dct2", "idct2"]


def dct2(images: torch.Tensor) -> torch.Tensor:
    """Return the orthonormal 2-D DCT-II of whole images (paper, §3.2).

    `edgeprune.packs.encoding.dct.dct2` up to rounding: this one is single precision, and scales no pixels.

    Parameters
    ----------
    images : float32 [..., H, W]
        Pixels on [0, 1].

    Returns
    -------
    float32 [..., H, W]
        Vertical frequency along the last axis but one, horizontal along the last.
    """
    return _both_sides(images, inverse=False)


def idct2(spectra: torch.Tensor) -> torch.Tensor:
    """Return the images of spectra: the inverse, and the transpose, of `dct2`.

    Parameters
    ----------
    spectra : float32 [..., H, W]

    Returns
    -------
    float32 [..., H, W]
        Not clipped to [0, 1], as a device does not clip what it decodes.
    """
    return _both_sides(spectra, inverse=True)


def _both_sides(planes: torch.Tensor, inverse: bool) -> torch.Tensor:
    height, width = planes.shape[-2:]
    device, dtype = planes.device, _exact_dtype(planes.device)
    rows = _basis(height, inverse, device, dtype)
    columns = _basis(width, not inverse, device, dtype)
    # Torch folds the right-hand product of a contiguous tensor into one tall one.
    return (rows @ (planes.to(dtype).contiguous() @ columns)).to(torch.float32)


def _exact_dtype(device: torch.device) -> torch.dtype:
    """Return float32, or float64 where the process lets CUDA round the factors of a product to TF32.

    TF32 keeps 10 bits of the mantissa, too few to order components by their energy. Its switch belongs to
    the whole process, and torch has two interfaces to it that refuse to be mixed, so it is read here and
    never set; products in float64 do not heed it.
    """
    if device.type != "cuda":
        return torch.float32
    matmul = torch.backends.cuda.matmul
    # From torch 2.9 on; it follows the older switch.
    precision = getattr(matmul, "fp32_precision", None)
    allowed = matmul.allow_tf32 if precision is None else precision == "tf32"
    return torch.float64 if allowed else torch.float32


@functools.lru_cache(maxsize=16)
def _basis(size: int, transposed: bool, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return the matrix of the orthonormal DCT-II, frequencies by pixels, or its transpose."""
    basis = dct(np.eye(size), axis=0, norm="ortho")
    # A tensor made in inference mode could never take part in a training step.
    with torch.inference_mode(False):
        matrix = torch.from_numpy(np.ascontiguousarray(basis.T if transposed else basis))
        return matrix.to(device, dtype)
