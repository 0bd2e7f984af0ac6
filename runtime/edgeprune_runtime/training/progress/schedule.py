"""The learning rate of every step of a run, also of one that goes on for longer than it was to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Schedule", "learning_rate"]

_WARM_UP_FRACTION = 0.05
# A twentieth of a short run would be a handful of steps, too few for BatchNorm's running statistics and the
# momentum to settle before the peak.
_LEAST_WARM_UP = 20


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of one step: linear warm-up, then half a cosine down to 0.

    The warm-up takes a twentieth of the steps but at least 20, and never more than half of them (Goyal et
    al. 2017, section 2.2); the cosine is that of Loshchilov and Hutter (2017), equation 5, without restarts.

    Parameters
    ----------
    step : int
        From 0 to ``steps - 1``.
    steps : int
        Steps of the whole schedule.
    peak : float
        The rate at the end of the warm-up.
    """
    warm_up = min(max(round(_WARM_UP_FRACTION * steps), _LEAST_WARM_UP), steps // 2)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


@dataclass(frozen=True)
class Schedule:
    """One schedule after the other, each of `learning_rate`.

    Attributes
    ----------
    ends : sequence of int
        The epochs after which a schedule ends, ascending; the last is the end of the run.
    steps_per_epoch : int
    peak : float
        Of each.
    """

    ends: Sequence[int]
    steps_per_epoch: int
    peak: float

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.ends[-1] * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """Return the learning rate of one step of the run, from 0 to ``steps - 1``."""
        end = next(end for end in self.ends if step < end * self.steps_per_epoch)
        start = max((other for other in self.ends if other < end), default=0)
        first = start * self.steps_per_epoch
        return learning_rate(step - first, end * self.steps_per_epoch - first, self.peak)
