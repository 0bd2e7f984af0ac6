"""The learning rate of every step of a run, also of one that goes on for longer than it was to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..settings import ScheduleShape

__all__ = ["Schedule", "learning_rate"]

# A twentieth of a short run would be a handful of steps, too few for BatchNorm's running statistics and the
# momentum to settle before the peak.
_LEAST_WARM_UP = 20


def learning_rate(
    step: int, steps: int, peak: float, shape: ScheduleShape = "cosine", warm_up: float = 0.05
) -> float:
    """Return the learning rate of one step: linear warm-up, then half a cosine or a straight line down to 0.

    A warm-up takes at least 20 steps, and never more than half of them (Goyal et al. 2017, section 2.2); the
    cosine is that of Loshchilov and Hutter (2017), equation 5, without restarts.

    Parameters
    ----------
    step : int
        From 0 to ``steps - 1``.
    steps : int
        Steps of the whole schedule.
    peak : float
        The rate at the end of the warm-up.
    shape : str
        ``"cosine"`` or ``"linear"``.
    warm_up : float
        Share of the steps; 0 leaves it out.
    """
    rising = min(max(round(warm_up * steps), _LEAST_WARM_UP), steps // 2) if warm_up else 0
    if step < rising:
        return peak * (step + 1) / rising
    done = (step - rising) / (steps - rising)
    return peak * (1 - done if shape == "linear" else 0.5 * (1 + math.cos(math.pi * done)))


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
    shape, warm_up
        Of each, as `learning_rate`.
    """

    ends: Sequence[int]
    steps_per_epoch: int
    peak: float
    shape: ScheduleShape = "cosine"
    warm_up: float = 0.05

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.ends[-1] * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """Return the learning rate of one step of the run, from 0 to ``steps - 1``."""
        end = next(end for end in self.ends if step < end * self.steps_per_epoch)
        start = max((other for other in self.ends if other < end), default=0)
        first = start * self.steps_per_epoch
        steps = end * self.steps_per_epoch - first
        return learning_rate(step - first, steps, self.peak, self.shape, self.warm_up)
