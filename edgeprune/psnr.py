"""The peak signal-to-noise ratio of images."""

from __future__ import annotations

import math

__all__ = ["psnr_db"]


def psnr_db(squared_error: float, values: float) -> float | None:
    """Return the PSNR in dB, ``10 log10(peak^2 values / squared_error)``; None where there is no error.

    Parameters
    ----------
    squared_error : float
        Summed over all values.
    values : float
        Their number, where they are on [0, 1]; of values on [0, peak] their number times ``peak ** 2``.
    """
    return 10 * math.log10(values / squared_error) if squared_error > 0 else None
