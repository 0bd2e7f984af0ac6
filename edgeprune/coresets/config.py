"""How images are chosen by score. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeprune_formats import ConfigError
from edgeprune_runtime.checks import check_types

from .scores import SCORES
from .uncertainty import DUAL_EPOCHS

__all__ = ["CoresetConfig"]

SAMPLINGS = ("ccs", "top-k", "beta")


@dataclass(frozen=True)
class CoresetConfig:
    """How images are chosen by score.

    Attributes
    ----------
    score : str
        A name of `edgeprune.coresets.scores.SCORES`.
    sampling : str or None
        ``"ccs"`` (spread over the score's range, without the hardest), ``"top-k"`` (the end that the
        score says matters) or, of the score ``dual`` alone, ``"beta"`` (see
        `edgeprune.coresets.beta_sampling`); None stands for what the score was published with, see
        `sampled_by`.
    beta : float or None
        Share that CCS drops as too hard; None stands for the published value, see
        `edgeprune.presets.ccs_beta`.
    strata : int
        Bins of CCS.
    class_balance : bool
        Whether classes keep their proportions.
    tau, gamma, window : float, float, int
        Parameters of `edgeprune.coresets.scores.joint_entropy`.
    dual_epochs : int
        Of `edgeprune.coresets.uncertainty.dual`.

    Raises
    ------
    ConfigError
        A value of another type than its field, or out of range.
    """

    score: str = field(
        default="joint_entropy",
        metadata={
            "help": "Score to choose images by. "
            + "; ".join(f"{name}: {score.describes}" for name, score in SCORES.items())
            + ".",
            "choices": tuple(SCORES),
        },
    )
    sampling: str | None = field(
        default=None,
        metadata={
            "help": "How to choose images by score. ccs: over the whole range of scores, without the "
            "hardest; "
            "top-k: the most important; beta (for dual): the more images are left out, the easier the rest.",
            "choices": SAMPLINGS,
            "default_text": "ccs; top-k for dyn_unc, beta for dual",
        },
    )
    beta: float | None = field(
        default=None,
        metadata={"help": "Share of the images that ccs drops as too hard.", "default_text": "as published"},
    )
    strata: int = field(default=50, metadata={"help": "Number of bins over which ccs spreads its choice."})
    class_balance: bool = field(default=False, metadata={"help": "Keep the proportions of the classes."})
    tau: float = field(
        default=2 / 3,
        metadata={
            "help": "Share of the training that joint_entropy counts as early: variance there lowers the "
            "score.",
            "default_text": "2/3",
        },
    )
    gamma: float = field(
        default=0.99,
        metadata={"help": "Discount of each record against the one before it, for joint_entropy."},
    )
    window: int = field(default=3, metadata={"help": "Records in each local variance of joint_entropy."})
    dual_epochs: int = field(
        default=DUAL_EPOCHS, metadata={"help": "First epochs of the scoring run that dual uses."}
    )

    def __post_init__(self) -> None:
        check_types(self)
        if self.score not in SCORES:
            raise ConfigError(f"`score` must be one of {', '.join(SCORES)}, not {self.score!r}")
        if self.sampling not in (None, *SAMPLINGS):
            raise ConfigError(f"`sampling` must be one of {', '.join(SAMPLINGS)}, not {self.sampling!r}")
        if self.sampling == "beta" and self.score != "dual":
            raise ConfigError(f"`sampling` beta is for `score` dual, not {self.score}; use ccs or top-k")
        if self.beta is not None and not 0 <= self.beta < 1:
            raise ConfigError(f"`beta` must be at least 0 and below 1, not {self.beta}")
        if self.strata < 1:
            raise ConfigError(f"`strata` must be at least 1, not {self.strata}")
        if not 0 <= self.tau <= 1 or not 0 < self.gamma <= 1 or self.window < 1:
            raise ConfigError(
                f"`tau` must be in [0, 1], `gamma` in (0, 1] and `window` at least 1, "
                f"not {self.tau}, {self.gamma} and {self.window}"
            )
        if self.dual_epochs < 2:
            raise ConfigError(f"`dual_epochs` must be at least 2, not {self.dual_epochs}")

    @property
    def sampled_by(self) -> str:
        """How images are drawn: `sampling`, or what the score was published with."""
        return self.sampling or SCORES[self.score].sampling
