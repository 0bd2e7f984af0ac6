"""FSE-Net, which weighs the frequencies of an image, and what it selects (paper, §3.2, App. E)."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from edgeprune_formats import ConfigError

from .components import select_components

__all__ = ["FSENet", "importance", "select"]

GRAY_LEVELS = 255


class FSENet(nn.Module):
    """Frequency-Selective Excitation Network: one weight for each frequency of an image (paper, App. E).

    A squeeze-and-excitation block whose channels are frequencies. It squeezes by averaging log-magnitudes
    over the color channels and, where there are more frequencies than `max_inputs`, over equal cells of the
    frequency plane (adjacent cells overlap by a row or column where its sides are no multiples of the
    grid's), so that its cost does not grow with the square of H * W. Magnitudes are counted in gray levels,
    ``log(1 + 255 |X|)``: below about one level a coefficient is the rounding of pixels to bytes.

    They are then standardized in each image by itself: less the straight line in the logarithm of the
    frequency that fits them best, and scaled to unit variance. The line is contrast and blur; its slope is
    much the same in all photographs, whose magnitudes fall off as a power of the frequency. Left in, it was
    most of what the network saw, and in a trial on CIFAR-10 the weights came out nearly equal for all images.

    It excites by two linear layers with a ReLU between them and a sigmoid after. The last layer starts at
    zero: every weight is then exactly 0.5, and the selection exactly the energy mask. The first step moves
    the last layer, the second both.

    Parameters
    ----------
    height, width : int
        Size of the images in pixels.
    max_inputs : int
        Largest number of cells, F.
    reduction : int
        F over the width of the hidden layer.

    Attributes
    ----------
    grid : tuple of int
        Rows and columns of the grid of cells: the frequencies themselves where they are few enough,
        otherwise about as many of both as keep the aspect ratio.

    Raises
    ------
    ConfigError
        A parameter is below 1.
    """

    def __init__(self, height: int, width: int, *, max_inputs: int = 1024, reduction: int = 4) -> None:
        super().__init__()
        settings = {"height": height, "width": width, "max_inputs": max_inputs, "reduction": reduction}
        for name, value in settings.items():
            if value < 1:
                raise ConfigError(f"`{name}` is {value}; it must be at least 1")
        self.height, self.width = height, width
        self.max_inputs, self.reduction = max_inputs, reduction
        self.grid = _grid(height, width, max_inputs)
        self.decay: torch.Tensor
        self.register_buffer("decay", _decay(height, width, self.grid))
        inputs = math.prod(self.grid)
        self.compress = nn.Linear(inputs, max(1, inputs // reduction))
        self.excite = nn.Linear(max(1, inputs // reduction), inputs)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, spectra: torch.Tensor) -> torch.Tensor:
        """Return the weights of the frequencies.

        Parameters
        ----------
        spectra : float32 [n, C, H, W]
            Orthonormal DCT-II of pixels on [0, 1]; C is any number.

        Returns
        -------
        float32 [n, 1, H, W]
            Between 0 and 1; the frequencies of a cell share theirs. That is nearest-neighbor
            interpolation: bilinear could round equal weights to unequal ones.

        Raises
        ------
        ConfigError
            The spectra are of another size.
        """
        size = self.height, self.width
        if spectra.ndim != 4 or spectra.shape[2:] != size:
            expected = f"[n, C, {self.height}, {self.width}]"
            raise ConfigError(f"this FSE-Net takes spectra {expected}, not {tuple(spectra.shape)}")
        levels = torch.log1p(GRAY_LEVELS * spectra.abs()).mean(1, keepdim=True)
        cells = functional.adaptive_avg_pool2d(levels, self.grid).flatten(1)
        # Layer normalization takes out the constant part of the line, to which `decay` is orthogonal.
        sloping = (cells @ self.decay).unsqueeze(1) * self.decay
        hidden = torch.relu(self.compress(functional.layer_norm(cells - sloping, cells.shape[1:])))
        weights = torch.sigmoid(self.excite(hidden)).view(-1, 1, *self.grid)
        return functional.interpolate(weights, size, mode="nearest-exact")


def _grid(height: int, width: int, most: int) -> tuple[int, int]:
    if height * width <= most:
        return height, width
    rows = min(max(math.isqrt(most * height // width), 1), height, most)
    return rows, min(most // rows, width)


def _decay(height: int, width: int, grid: tuple[int, int]) -> torch.Tensor:
    """Return the logarithm of 1 + frequency of each cell, less its mean, of unit length; float32 [F]."""
    rows, columns = torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32)
    # In cycles of the longer side, so that a frequency is equally high in both directions.
    side = max(height, width)
    frequency = torch.hypot(rows[:, None] * (side / height), columns[None, :] * (side / width))
    cells = functional.adaptive_avg_pool2d(torch.log1p(frequency)[None], grid).flatten()
    return functional.normalize(cells - cells.mean(), dim=0)


def importance(spectra: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the importance of each component, its weight times its magnitude.

    The paper's recalibration (§3.2): "sigmoid-normalized weights are multiplied with the original frequency
    components to assign importance scores". Equation 8 alone could be read as the weights being the scores.
    By them all images and channels with equal weights would keep the same frequencies, at the start the top
    rows of the plane, whatever the image holds there; with magnitudes the start is the energy mask, and
    training moves away from it.

    Parameters
    ----------
    spectra : float32 [n, C, H, W]
    weights : float32 [n, 1, H, W]

    Returns
    -------
    float32 [n, C, H, W]
    """
    return weights * spectra.abs()


@torch.no_grad()
def select(net: nn.Module, spectra: torch.Tensor, k: int, k_total: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the components of images by an FSE-Net (eq. 8), each image and channel on its own.

    Parameters
    ----------
    net : FSENet
    spectra : float32 [n, C, H, W]
        On the device of `net`.
    k, k_total : int
        See `edgeprune.masks.components.select_components`; here ``F = H * W``.

    Returns
    -------
    mask : bool [n, C, H, W]
        Exactly `k_total` true in each channel.
    weights : float32 [n, 1, H, W]

    Raises
    ------
    ConfigError
        A count is out of range, the spectra do not fit the network, or there is a NaN.
    """
    weights = cast(torch.Tensor, net(spectra))
    energy, scores = spectra.abs().flatten(2), importance(spectra, weights).flatten(2)
    return select_components(energy, scores, k, k_total).view(spectra.shape), weights
