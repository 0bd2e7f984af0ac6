"""How images are chosen by score. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune_formats import ConfigError

from ..coresets.scores import SCORES

__all__ = ["CoresetConfig"]


@dataclass(frozen=True)
class CoresetConfig:
    """How images are chosen by score.

    Attributes
    ----------
    score : str
        A name of `edgeprune.coresets.scores.SCORES`.
    sampling : str
        ``"ccs"`` (spread over the score's range, without the hardest) or ``"top-k"`` (the end that the
        score says matters).
    beta : float or None
        Share that CCS drops as too hard; None stands for the published value, see
        `edgeprune.presets.ccs_beta`.
    strata : int
        Bins of CCS.
    class_balance : bool
        Whether classes keep their proportions.
    tau, gamma, window : float, float, int
        Parameters of `edgeprune.coresets.scores.joint_entropy`.

    Raises
    ------
    ConfigError
        A value out of range.
    """

    score: str = "joint_entropy"
    sampling: str = "ccs"
    beta: float | None = None
    strata: int = 50
    class_balance: bool = False
    tau: float = 2 / 3
    gamma: float = 0.99
    window: int = 3

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise ConfigError(f"score must be one of {', '.join(SCORES)}, not {self.score!r}")
        if self.sampling not in ("ccs", "top-k"):
            raise ConfigError(f"sampling must be ccs or top-k, not {self.sampling!r}")
        if self.beta is not None and not 0 <= self.beta < 1:
            raise ConfigError(f"beta must be at least 0 and below 1, not {self.beta}")
        if self.strata < 1:
            raise ConfigError(f"strata must be at least 1, not {self.strata}")
        if not 0 <= self.tau <= 1 or not 0 < self.gamma <= 1 or self.window < 1:
            raise ConfigError(
                f"tau must be in [0, 1], gamma in (0, 1] and window at least 1, "
                f"not {self.tau}, {self.gamma} and {self.window}"
            )
