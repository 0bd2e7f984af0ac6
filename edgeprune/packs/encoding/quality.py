"""One scale of quality for packs that quantize."""

from __future__ import annotations

from edgeprune_formats import ConfigError

__all__ = ["DEFAULT_QUALITY", "DEFAULT_ROUNDING", "quality_of", "quantization_step"]

DEFAULT_QUALITY = 70.0
DEFAULT_ROUNDING = "rdo"


def quantization_step(quality: float, name: str = "quality") -> float:
    """Return the quantization step, for pixels on [0, 1], of a quality.

    ``(0.5 + 0.39 S) / 255`` with ``S = 5000 / quality`` below 50 and ``200 - 2 quality`` from there on, the
    scale by which the Independent JPEG Group's library multiplies its tables: 70 is a step of 24 gray levels,
    90 of 8.3, 100 of a half. A higher quality is a smaller step.

    Parameters
    ----------
    quality : float
        1 to 100.
    name : str
        Of the setting, for the message.

    Raises
    ------
    ConfigError
        It is out of range.
    """
    if not 1 <= quality <= 100:
        raise ConfigError(f"`{name}` must be between 1 and 100, not {quality:g}")
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    return (0.5 + 0.39 * scale) / 255


def quality_of(step: float) -> float:
    """Return the quality of a quantization step to six digits, or the nearest end of the scale."""
    scale = max((255 * step - 0.5) / 0.39, 0.0)
    quality = 5000 / scale if scale > 100 else (200 - scale) / 2
    return min(max(round(quality, 6), 1.0), 100.0)
