"""How pixels become what a network takes: less the mean of their channel, over its standard deviation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune_formats import ConfigError

__all__ = ["Normalization"]


@dataclass(frozen=True)
class Normalization:
    """The mean and the standard deviation of each channel, for pixels on [0, 1].

    Attributes
    ----------
    mean, std : sequence of float
        Given as any sequence or array, kept as a tuple of float.

    Raises
    ------
    ConfigError
        They are not numbers, not equally many, not finite, or a standard deviation is not positive.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        try:
            mean, std = (tuple(map(float, values)) for values in (self.mean, self.std))
        except (TypeError, ValueError):
            raise ConfigError("mean and std must be sequences of numbers") from None
        if not mean or len(mean) != len(std):
            raise ConfigError(f"mean has {len(mean)} numbers and std {len(std)}; each needs one a channel")
        if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise ConfigError(f"mean {mean} must be finite, and std {std} finite and positive")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)
