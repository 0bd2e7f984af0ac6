"""Which networks a recipe trains and attacks, and at which scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgeprune_formats import ConfigError

__all__ = ["DATA_SETS", "RECIPES", "SCALES", "Row", "Scale", "get_recipe", "row_name"]

DATA_SETS = ("cifar10", "cifar100", "imagenet", "digits")
MOBILE = ("shufflenet_v2", "mobilenet_v2", "efficientnet_b0")


@dataclass(frozen=True)
class Row:
    """One network: what it is trained on.

    Attributes
    ----------
    label : str
        The method, as tables print it; rows with one label are averaged.
    sample_prune, freq_prune : float
        Shares of images and of components left out.
    score : str or None
        Chooses images: a name of `edgeprune.coresets.scores.SCORES`; None keeps all.
    sampling : str
        ``"ccs"`` or ``"top-k"``.
    mask : str or None
        Chooses components: ``"lf"`` (FSE-Net) or ``"energy"``; None trains from the original pixels.
    model : str or None
        Network; None stands for the scale's.
    tau : float or None
        Of joint entropy, where not the paper's.
    k, accuracy_weight, mask_lr, mask_epochs
        Of the FSE-Net, where not the scale's or the paper's.
    adversarial : str or None
        As `edgeprune_runtime.training.TrainConfig`.
    teacher : str or None
        Learn from a network of this name, trained with PGD on all images, in place of the labels.
    """

    label: str
    sample_prune: float = 0.0
    freq_prune: float = 0.0
    score: str | None = None
    sampling: str = "ccs"
    mask: str | None = None
    model: str | None = None
    tau: float | None = None
    k: int | None = None
    accuracy_weight: float | None = None
    mask_lr: float | None = None
    mask_epochs: int | None = None
    adversarial: str | None = None
    teacher: str | None = None

    @property
    def key(self) -> str:
        """Name of the folder of its runs: every setting that is not the default."""
        given = [(name, value) for name, value in asdict(self).items() if value != getattr(Row("-"), name)]
        key = "_".join(f"{name.replace('_', '')}-{value}" for name, value in given[1:])
        return key.replace(":", "-") or "natural"

    @property
    def pruned(self) -> float:
        """The ratio that tables print: of images where images are pruned, otherwise of components."""
        return self.sample_prune or self.freq_prune


def row_name(label: str, pruned: float) -> str:
    """Return a method and its pruning ratio as tables and pictures print them."""
    return f"{label} {pruned:.0%}" if pruned else label


@dataclass(frozen=True)
class Scale:
    """How much is trained, on what, and attacked by which protocol.

    Attributes
    ----------
    model : str
        The network of scoring, of masks and of all rows that name none.
    iterations, batch_size : int
        Steps of every network, whatever its coreset, and images in each.
    lr, weight_decay : float
        Of SGD with Nesterov momentum 0.9.
    score_epochs, every : int
        Of the one scoring run, whose network also teaches the FSE-Nets; epochs between records of entropies.
    mask_epochs : int
        Of an FSE-Net.
    seeds : int
        Networks trained for each row, on coresets of their own.
    ratios : tuple of float
        Pruning ratios.
    models : tuple of str
        Networks of the recipe ``transfer``.
    teacher : str
        The network that others learn from.
    protocol : str
        A name of `edgeprune_benchmarks.robustness.protocol.PROTOCOLS`.
    """

    model: str
    iterations: int
    batch_size: int
    lr: float
    weight_decay: float
    score_epochs: int
    every: int
    mask_epochs: int
    seeds: int
    ratios: tuple[float, ...]
    models: tuple[str, ...]
    teacher: str
    protocol: str


SCALES = {
    # App. B of the paper; 40,000 steps of 256 are 205 epochs of CIFAR.
    "paper": Scale(
        model="resnet18",
        iterations=40_000,
        batch_size=256,
        lr=0.1,
        weight_decay=2e-4,
        score_epochs=200,
        every=5,
        mask_epochs=300,
        seeds=5,
        ratios=(0.3, 0.5, 0.6, 0.7, 0.8, 0.9),
        models=MOBILE,
        teacher="resnet34",
        protocol="paper",
    ),
    "cpu": Scale(
        model="resnet8",
        iterations=3_000,
        batch_size=128,
        lr=0.1,
        weight_decay=2e-4,
        score_epochs=10,
        every=1,
        mask_epochs=3,
        seeds=1,
        ratios=(0.5, 0.9),
        models=("resnet8",),
        teacher="resnet8",
        protocol="cpu",
    ),
}
SCALES["trial"] = replace(
    SCALES["cpu"],
    iterations=60,
    batch_size=64,
    lr=0.05,
    score_epochs=3,
    mask_epochs=1,
    ratios=(0.5,),
    protocol="trial",
)
"""``paper``: for a CUDA GPU; ``cpu``: hours of two cores; ``trial``: a minute or two for each network, of
which nothing can be learned but that all runs."""

Rows = Callable[[Scale], Iterator[Row]]
CCSFEM = ("forgetting", "el2n", "aum")
N_FGSM, PGD = "n-fgsm:8", "pgd:8"


def _natural(scale: Scale) -> Iterator[Row]:
    yield Row("natural")


def _samples(label: str, *scores: str, sampling: str = "ccs") -> Rows:
    def rows(scale: Scale) -> Iterator[Row]:
        for ratio in scale.ratios:
            yield from (Row(label, ratio, score=score, sampling=sampling) for score in scores)

    return rows


def _components(label: str, mask: str) -> Rows:
    return lambda scale: (Row(label, freq_prune=ratio, mask=mask) for ratio in scale.ratios)


def _jelf(scale: Scale) -> Iterator[Row]:
    yield from (_half_pruned("JELF", ratio) for ratio in scale.ratios)


def _half_pruned(label: str, ratio: float, score: str = "joint_entropy") -> Row:
    return Row(label, ratio, 0.5, score, mask="lf")


def _femlf(scale: Scale) -> Iterator[Row]:
    """CCSFEM, then an FSE-Net at 50%: "Ours-FEMLF" of Table 13."""
    yield from (_half_pruned("FEMLF", ratio, score) for ratio in scale.ratios for score in CCSFEM)


def _baselines(scale: Scale) -> Iterator[Row]:
    """The rows that only Table 13 has: the hardest images by three scores, and FEMLF."""
    for name in CCSFEM:
        yield from _samples(name, name, sampling="top-k")(scale)
    yield from _femlf(scale)


def _adversarial(scale: Scale) -> Iterator[Row]:
    """Natural training, PGD and N-FGSM on all images, N-FGSM on packs and coresets, and what PGD teaches."""
    natural, random, joint, components, both = _half(scale)
    everything = replace(natural, label="all images")
    yield natural
    yield from (_perturbed("N-FGSM", row, N_FGSM) for row in (everything, both))
    yield _perturbed("PGD", everything, PGD)
    taught = _perturbed("N-FGSM and teacher", both, N_FGSM, scale.teacher)
    yield taught
    yield from (replace(taught, model=model) for model in scale.models if model != scale.model)
    yield from (_perturbed("N-FGSM", row, N_FGSM) for row in (components, random, joint))
    yield _perturbed("PGD and teacher", both, PGD, scale.teacher)


def _perturbed(name: str, row: Row, adversarial: str, teacher: str | None = None) -> Row:
    return replace(row, label=f"{name}, {row.label}", adversarial=adversarial, teacher=teacher)


def _half(scale: Scale) -> Iterator[Row]:
    for group in ("natural", "random", "je", "lf", "jelf"):
        yield from (row for row in RECIPES[group](scale) if row.pruned in (0.0, 0.5))


def _transfer(scale: Scale) -> Iterator[Row]:
    for model in scale.models:
        yield from (replace(row, model=model) for row in _half(scale))


def _all(scale: Scale) -> Iterator[Row]:
    for group in ("natural", "lf", "energy", "je", "jelf", "random", "entropy", "ccsfem"):
        yield from RECIPES[group](scale)


def _varied(name: str, values: tuple[Any, ...], called: str = "") -> Rows:
    """JELF at 50% with one setting varied: Fig. 4 and Table 11."""
    label = called or name
    return lambda scale: (replace(_half_pruned(f"{label} {v:.3g}", 0.5), **{name: v}) for v in values)


def _scores(scale: Scale) -> Iterator[Row]:
    """Every score, then an FSE-Net at 50%: Fig. 5."""
    for score in ("random", "entropy", *CCSFEM, "joint_entropy"):
        yield replace(_half_pruned(score, 0.5, score), sampling="top-k" if score == "random" else "ccs")


RECIPES: dict[str, Rows] = {
    "natural": _natural,
    "random": _samples("random", "random", sampling="top-k"),
    "entropy": _samples("entropy", "entropy", sampling="top-k"),
    "ccsfem": _samples("CCSFEM", *CCSFEM),
    "je": _samples("JE", "joint_entropy"),
    "lf": _components("LF", "lf"),
    "energy": _components("energy", "energy"),
    "jelf": _jelf,
    "all": _all,
    "baselines": _baselines,
    "half": _half,
    "adversarial": _adversarial,
    "transfer": _transfer,
    "tau": _varied("tau", (0.2, 1 / 3, 0.5, 2 / 3, 0.8)),
    "lambda": _varied("accuracy_weight", (0.0, 0.05, 0.1, 0.2, 0.5), "lambda"),
    "k": _varied("k", (0, 50, 100, 200, 400)),
    "scores": _scores,
    "mask-lr": _varied("mask_lr", (3e-5, 1e-4, 3e-4, 1e-3, 3e-3), "learning rate"),
    "mask-epochs": _varied("mask_epochs", (1, 2, 4, 8), "epochs"),
}
"""Rows by the second half of a recipe's name; ``all``: Tables 1, 3, 6 to 9, 12 and, with ``baselines``, 13;
``half``: the few for several seeds; ``adversarial``: training on perturbed images (the paper's Tables 2 and
14); ``transfer``: Table 10 at 50%; those from ``tau`` on: Figs. 4 and 5 and Table 11."""


def get_recipe(name: str) -> tuple[str, Rows]:
    """Return the data set and the rows of a recipe such as ``cifar10-lf``.

    Returns
    -------
    str
        One of `DATA_SETS`.
    callable
        From a `Scale` to an iterator of `Row`.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    data, _, group = name.partition("-")
    if data not in DATA_SETS or group not in RECIPES:
        halves = f"{', '.join(DATA_SETS)} by a hyphen with one of {', '.join(RECIPES)}"
        raise ConfigError(f"unknown recipe {name!r}; join one of {halves}")
    return data, RECIPES[group]
