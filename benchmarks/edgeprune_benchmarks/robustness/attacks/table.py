"""Every attack under its name: its norm, and the stages it runs one after the other on what still resists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from edgeprune_formats import ConfigError

from .auto_attack import Perturb, auto_attack_stages, l1_apgd
from .budgets import Budget
from .gradient import carlini_wagner, cross_entropy, fgsm, margin, pgd, sign_noise
from .sparse import sparse_pgd, sparse_rs
from .victim import PrunedVictim

__all__ = ["ATTACKS", "Attack", "Effort", "Perturb", "Setting", "Stage", "get_attack", "label"]

Stage = tuple[str, Perturb]


@dataclass(frozen=True)
class Effort:
    """How long attacks search that have no customary length.

    Attributes
    ----------
    sparse_steps : int
        Gradients of each of the two sparse-PGD.
    sparse_queries : int
        Forward passes of Sparse-RS. The papers' own figure is 10,000 of either.
    searches : int
        Constants that C&W tries, with 100 steps of Adam for each.
    """

    sparse_steps: int = 10_000
    sparse_queries: int = 10_000
    searches: int = 9


@dataclass(frozen=True)
class Setting:
    """What the stages of an attack are made from.

    Attributes
    ----------
    victim : torch.nn.Module
        Images on [0, 1] to logits, in evaluation mode.
    eps : float
        The size of the budget, see `Budget`.
    seed : int
        Of every batch.
    device : torch.device
    effort : Effort
    classes : int
        That the victim tells apart.
    """

    victim: nn.Module
    eps: float
    seed: int
    device: torch.device
    effort: Effort
    classes: int


@dataclass(frozen=True)
class Attack:
    """An attack.

    Attributes
    ----------
    name : str
        As reports print it.
    norm : str
        Of its budget.
    stages : callable
        From a `Setting` to names and functions; each maps float32 images [n, C, H, W] on [0, 1] and int64
        labels [n] to perturbed images, and is given the images that resisted the stages before.
    cites : str
        Where it comes from.
    reaches_budget : bool
        Whether it goes to the edge of the budget by its nature; where it then does not, the budget was not
        counted in pixels.
    exact : bool
        Whether it must run in float32 alone, to be what its library is.
    uses : tuple of str
        Attributes of `Effort` that it heeds.
    """

    name: str
    norm: str
    stages: Callable[[Setting], list[Stage]]
    cites: str
    reaches_budget: bool = False
    exact: bool = True
    uses: tuple[str, ...] = ()


def _noise(at: Setting) -> list[Stage]:
    return [("signs", lambda images, _: sign_noise(images, at.eps, seed=at.seed))]


def _fgsm(at: Setting) -> list[Stage]:
    return [("step", lambda images, labels: fgsm(at.victim, images, labels, at.eps))]


def _pgd(steps: int, on: str = "ce") -> Callable[[Setting], list[Stage]]:
    loss = {"ce": cross_entropy, "margin": margin}[on]

    def stages(at: Setting) -> list[Stage]:
        def run(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return pgd(at.victim, images, labels, at.eps, steps=steps, seed=at.seed, loss=loss)

        return [("ascent", run)]

    return stages


def _normalized_pgd(at: Setting) -> list[Stage]:
    """PGD-20 whose budget is counted after normalization: eps times a channel's deviation in pixels."""
    deviation = getattr(at.victim, "std", None)
    if not isinstance(deviation, torch.Tensor):
        raise ConfigError("an attack in normalized units needs a victim that knows its normalization")

    def run(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return pgd(at.victim, images, labels, at.eps * deviation, steps=20, seed=at.seed)

    return [("ascent", run)]


def _unaware_pgd(at: Setting) -> list[Stage]:
    """PGD-100 on the network behind a pruning victim: all steps, as nothing tells it when to stop."""
    if not isinstance(at.victim, PrunedVictim):
        raise ConfigError("an attack unaware of pruning needs a victim that prunes")
    bare = at.victim.victim

    def run(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return pgd(bare, images, labels, at.eps, steps=100, seed=at.seed, stops=False)

    return [("ascent", run)]


def _carlini_wagner(at: Setting) -> list[Stage]:
    def run(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return carlini_wagner(at.victim, images, labels, searches=at.effort.searches)

    return [("search", run)]


def _auto_attack(norm: str) -> Callable[[Setting], list[Stage]]:
    return lambda at: auto_attack_stages(at.victim, norm, at.eps, at.seed, at.device, at.classes)


def _component(name: str) -> Callable[[Setting], list[Stage]]:
    def stages(at: Setting) -> list[Stage]:
        every = auto_attack_stages(at.victim, "Linf", at.eps, at.seed, at.device, at.classes)
        return [stage for stage in every if stage[0] == name]

    return stages


def _l1_apgd(at: Setting) -> list[Stage]:
    return l1_apgd(at.victim, at.eps, at.seed, at.device, at.classes)


def _sparse(at: Setting) -> list[Stage]:
    def gradients(projected: bool) -> Perturb:
        def run(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return sparse_pgd(
                at.victim,
                images,
                labels,
                int(at.eps),
                steps=at.effort.sparse_steps,
                seed=at.seed,
                projected=projected,
            )

        return run

    def search(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        queries = at.effort.sparse_queries
        return sparse_rs(at.victim, images, labels, int(at.eps), queries=queries, seed=at.seed)

    return [("unprojected", gradients(False)), ("projected", gradients(True)), ("random-search", search)]


_SPARSE = "Zhong et al., 2024; Croce et al., 2022"
_AA = "pyautoattack; Croce and Hein, 2020"

ATTACKS = {
    attack.name: attack
    for attack in (
        Attack("noise", "Linf", _noise, "signs at random", True),
        Attack("FGSM", "Linf", _fgsm, "Goodfellow et al., 2015", True),
        Attack("PGD-20", "Linf", _pgd(20), "Madry et al., 2018", True, False),
        Attack("PGD-100", "Linf", _pgd(100), "Madry et al., 2018", True, False),
        Attack("PGD-100 margin", "Linf", _pgd(100, "margin"), "Carlini and Wagner, 2017, f_6", True, False),
        Attack("PGD-20 normalized", "Linf", _normalized_pgd, "the suspected protocol", False, False),
        Attack("PGD-100 unaware", "Linf", _unaware_pgd, "Madry et al., 2018", True),
        Attack("APGD", "Linf", _component("apgd-ce"), _AA, True),
        Attack("Square", "Linf", _component("square"), "pyautoattack; Andriushchenko et al., 2020"),
        Attack("AutoAttack Linf", "Linf", _auto_attack("Linf"), _AA),
        Attack("AutoAttack L2", "L2", _auto_attack("L2"), _AA),
        Attack("AutoAttack L1", "L1", _auto_attack("L1"), "pyautoattack; Croce and Hein, 2021"),
        Attack("L1-APGD", "L1", _l1_apgd, "pyautoattack; Croce and Hein, 2021"),
        Attack("C&W L2", "L2", _carlini_wagner, "Carlini and Wagner, 2017", uses=("searches",)),
        Attack("sparse", "L0", _sparse, _SPARSE, uses=("sparse_steps", "sparse_queries")),
    )
}


def get_attack(name: str) -> Attack:
    """Return an attack by its name.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    try:
        return ATTACKS[name]
    except KeyError:
        raise ConfigError(f"unknown attack {name!r}; choose one of {', '.join(ATTACKS)}") from None


def label(name: str, budget: Budget) -> str:
    """Return an attack and its budget as people write them, the norm once."""
    return f"{name.removesuffix(' ' + budget.norm)} {budget}"
