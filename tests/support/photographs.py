"""Images whose spectra fall off as those of photographs do."""

import numpy as np
import torch
from scipy.fft import idctn


def photographs(count, height, width, *, seed=0):
    """Random bytes whose spectra fall off as those of photographs do, uint8 ``[count, 3, height, width]``."""
    random = np.random.default_rng(seed)
    distance = 1 + np.hypot(np.arange(height)[:, None], np.arange(width)[None, :])
    spectra = random.normal(size=(count, 3, height, width)) / distance * np.sqrt(height * width) / 4
    spectra[:, :, 0, 0] = 0.5 * np.sqrt(height * width)
    pixels = idctn(spectra, axes=(2, 3), norm="ortho") * 255
    return torch.from_numpy(pixels.clip(0, 255).round().astype(np.uint8))
