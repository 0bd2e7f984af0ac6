"""How often a run writes a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune_formats import ConfigError

from ...checks import check_types

__all__ = ["Cadence"]


@dataclass(frozen=True)
class Cadence:
    """How often a checkpoint is written beside the one after each epoch; it does not change the result.

    Attributes
    ----------
    steps : int, optional
        After every so many steps of the run.
    seconds : float, optional
        After a step once so much time has passed since the last one.

    Raises
    ------
    ConfigError
        If a number is not positive.
    """

    steps: int | None = None
    seconds: float | None = 300.0

    def __post_init__(self) -> None:
        check_types(self)
        for name, what, number in (("steps", "steps", self.steps), ("seconds", "time", self.seconds)):
            if number is not None and not number > 0:
                raise ConfigError(
                    f"the {what} between two checkpoints must be positive; raise `Cadence.{name}`"
                )

    def is_due(self, step: int, seconds: float) -> bool:
        """Tell whether to write one after `step` steps, so many seconds after the last one."""
        by_steps = self.steps is not None and step % self.steps == 0
        return by_steps or (self.seconds is not None and seconds >= self.seconds)
