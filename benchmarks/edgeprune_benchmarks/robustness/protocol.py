"""Which attacks a report is made of, at which budgets and on how many images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .attacks.budgets import CURVE, HEADLINE, NORMS, Budget
from .attacks.table import Effort

__all__ = ["PROTOCOLS", "Protocol"]

NO_BUDGET = Budget("L2", float("inf"))
L1, L2, L0 = Budget("L1", 12.0), Budget("L2", 0.5), Budget("L0", 20.0)


@dataclass(frozen=True)
class Protocol:
    """What is run on a trained network.

    Attributes
    ----------
    images : int
        Test images attacked: the first of a fixed, seeded order.
    slow_images : int
        Of these, how many are given to what takes thousands of passes for each that resists: AutoAttack
        below 8/255, and Square by itself.
    slow_budgets : tuple of Budget
        Where AutoAttack is run beside 8/255.
    effort : Effort
        How long attacks search that have no customary length.
    batch_size : int
        Images attacked at a time.
    norms : tuple of str
        Of the attacks on all images, out of `edgeprune_benchmarks.robustness.attacks.budgets.NORMS`.
    """

    images: int
    slow_images: int
    slow_budgets: tuple[Budget, ...]
    effort: Effort
    batch_size: int
    norms: tuple[str, ...] = tuple(NORMS)

    def in_linf(self) -> Protocol:
        """Return what the curve over eps and the controls need: Linf, AutoAttack at 8/255 alone."""
        return replace(self, norms=("Linf",), slow_budgets=())

    def cells(self) -> Iterator[tuple[str, Budget]]:
        """Yield the attacks on all images and their budgets, quick and telling ones first."""
        return ((name, budget) for name, budget in self._every_norm() if budget.norm in self.norms)

    @staticmethod
    def _every_norm() -> Iterator[tuple[str, Budget]]:
        yield from ((name, HEADLINE) for name in ("noise", "PGD-20 normalized"))
        yield from ((name, budget) for name in ("FGSM", "PGD-20", "PGD-100") for budget in CURVE)
        yield from (("PGD-100 margin", budget) for budget in CURVE)
        yield from (("AutoAttack Linf", HEADLINE), ("AutoAttack L2", L2), ("AutoAttack L1", L1))
        yield from (("L1-APGD", L1), ("C&W L2", NO_BUDGET), ("sparse", L0))


PROTOCOLS = {
    # So few at a time that the longest batch, of sparse attacks, is minutes of a GPU.
    "paper": Protocol(10_000, 1_000, CURVE[:5], Effort(), 250),
    "cpu": Protocol(250, 50, (CURVE[2],), Effort(300, 1_000, 4), 250),
    "trial": Protocol(24, 12, (CURVE[2],), Effort(20, 50, 2), 12),
}
"""``paper``: the whole test set, for a CUDA GPU; ``cpu``: minutes of two cores a row; ``trial``: less."""
