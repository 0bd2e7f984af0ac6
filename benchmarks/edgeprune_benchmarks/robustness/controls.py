"""What a report must pass to be called valid; each control can fail it, and none passes for want of data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from .attacks.auto_attack import flags_before
from .attacks.budgets import CURVE, HEADLINE, Budget
from .attacks.gradient import cross_entropy, input_gradient, margin
from .attacks.table import get_attack
from .attacks.victim import weights_hash
from .evaluation import Evaluator, classify
from .verdicts import Verdicts, read_verdicts

__all__ = ["CONTROLS", "Control", "Evidence", "half_budget", "judge"]

Key = tuple[str, Budget]
SLACK = 1e-6
STRENGTH = ("AutoAttack Linf", "PGD-100", "PGD-20", "FGSM")


@dataclass(frozen=True)
class Control:
    """The outcome of one control.

    Attributes
    ----------
    name : str
    passed : bool
    detail : str
        What was found, with its figures.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, eq=False)
class Evidence:
    """What controls look at.

    Attributes
    ----------
    run, few : Evaluator
        Victim, images and folder of attacks on all images, and on the first of them alone.
    cells, slow : mapping of (str, Budget) to Verdicts
        What `run` and `few` found.
    natural : bool
        Whether the network was trained without perturbations, and must therefore fall.
    """

    run: Evaluator
    few: Evaluator
    cells: Mapping[Key, Verdicts]
    slow: Mapping[Key, Verdicts]
    natural: bool

    def every(self) -> Iterator[tuple[Key, Verdicts]]:
        """Yield all verdicts; raise KeyError if there are none."""
        if not self.cells:
            raise KeyError("any attack")
        yield from self.cells.items()
        yield from self.slow.items()


def judge(evidence: Evidence, names: Iterable[str] | None = None) -> list[Control]:
    """Return the outcome of controls.

    Parameters
    ----------
    evidence : Evidence
    names : iterable of str, optional
        Keys of `CONTROLS`; all of them by default.

    Returns
    -------
    list of Control
        One that lacks what it looks at has not passed.
    """
    outcomes = []
    for name in CONTROLS if names is None else names:
        try:
            problems, detail = CONTROLS[name](evidence)
        except KeyError as error:
            problems, detail = [f"not run: {error.args[0]}"], ""
        text = "; ".join(problems[:3]) + (f" and {len(problems) - 3} more" if len(problems) > 3 else "")
        outcomes.append(Control(name, not problems, text or detail))
    return outcomes


Finding = tuple[list[str], str]


def _bound(evidence: Evidence) -> Finding:
    """max |x_adv - x| <= eps + 1e-6 in the norm of the budget, for every image of every attack."""
    problems, worst = [], 0.0
    for (name, budget), verdicts in evidence.every():
        excess = float(verdicts.sizes.max()) / budget.size - 1 if math.isfinite(budget.size) else 0.0
        # The libraries compute in float32: relative to sums over thousands of values the slack is theirs too.
        if not float(verdicts.sizes.max()) <= budget.size * (1 + SLACK) + SLACK:
            problems.append(f"{name} at {budget}: {excess:+.2%} over the budget")
        worst = max(worst, excess)
    return problems, f"at most {max(worst, 0):.1e} of a budget above it"


def _range(evidence: Evidence) -> Finding:
    """Every perturbed image lies in [0, 1] and holds no NaN."""
    far = {key: float(verdicts.outside.max()) for key, verdicts in evidence.every()}
    problems = [
        f"{name} at {budget}: {value:.1e} outside" for (name, budget), value in far.items() if value > SLACK
    ]
    return problems, f"at most {max(far.values(), default=0):.1e} outside of [0, 1]"


def _reach(evidence: Evidence) -> Finding:
    """Attacks that go to the edge of their budget do: less says that it was not counted in pixels."""
    problems, least = [], 1.0
    for (name, budget), verdicts in evidence.every():
        attacked = verdicts.sizes[verdicts.sizes > 0]
        if get_attack(name).reaches_budget and len(attacked):
            share = float(attacked.median()) / budget.size
            least = min(least, share)
            if share < 0.9:
                problems.append(f"{name} at {budget}: its perturbations are {share:.2f} of the budget")
    if not any(get_attack(name).reaches_budget for (name, _), _ in evidence.every()):
        problems.append("not run: no attack that reaches its budget")
    return problems, f"the median perturbation is at least {least:.3f} of its budget"


def _ordering(evidence: Evidence) -> Finding:
    """AA <= PGD-100 <= PGD-20 <= FGSM <= clean, image by image, up to sampling noise."""
    problems, compared = [], 0
    for stronger, weaker in itertools.pairwise(STRENGTH):
        for budget in CURVE:
            for cells in (evidence.cells, evidence.slow):
                if (stronger, budget) in cells and (weaker, budget) in evidence.cells:
                    compared += 1
                    more = _excess(cells[stronger, budget], evidence.cells[weaker, budget])
                    problems += [f"at {budget} {stronger} leaves {more} more than {weaker}"] if more else []
    for (name, budget), verdicts in evidence.every():
        if verdicts.facts["stages"]["clean"] < int(verdicts.robust.sum()):
            problems.append(f"{name} at {budget} leaves more than are right without an attack")
    _require(evidence.cells, ("AutoAttack Linf", HEADLINE))
    _require(evidence.cells, *((name, budget) for name in STRENGTH[1:] for budget in CURVE))
    return problems, f"{compared} pairs of attacks"


def _excess(stronger: Verdicts, weaker: Verdicts) -> int:
    """Return by how many more images resist the stronger attack, 0 within two deviations of chance."""
    count = min(len(stronger.robust), len(weaker.robust))
    strong, weak = stronger.robust[:count], weaker.robust[:count]
    more, fewer = int((strong & ~weak).sum()), int((weak & ~strong).sum())
    return more - fewer if more - fewer > 2 * math.sqrt(more + fewer) else 0


def _curve(evidence: Evidence) -> Finding:
    """The curve falls with eps, and ends near 0 at 32/255."""
    _require(evidence.cells, *(("PGD-100", budget) for budget in CURVE))
    problems = []
    found = [evidence.cells["PGD-100", budget] for budget in CURVE]
    for budget, smaller, larger in zip(CURVE[1:], found, found[1:], strict=False):
        if _excess(larger, smaller):
            problems.append(f"PGD-100 leaves more at {budget} than at the budget before")
    if found[-1].accuracy > 0.05:
        problems.append(f"{found[-1].accuracy:.1%} resist PGD-100 at {CURVE[-1]}")
    return problems, " ".join(f"{100 * verdicts.accuracy:.1f}" for verdicts in found)


def _noise(evidence: Evidence) -> Finding:
    """Random noise of the same size hurts far less than an attack."""
    _require(evidence.cells, ("noise", HEADLINE), ("PGD-100", HEADLINE))
    noise, attack = evidence.cells["noise", HEADLINE], evidence.cells["PGD-100", HEADLINE]
    clean = noise.facts["stages"]["clean"] / len(noise.robust)
    lost, lost_to_attack = clean - noise.accuracy, clean - attack.accuracy
    text = f"signs at random cost {lost:.1%}, PGD-100 {lost_to_attack:.1%} at {HEADLINE}"
    return ([text] if lost >= lost_to_attack / 2 else []), text


def _natural(evidence: Evidence) -> Finding:
    """A network trained without perturbations scores below 1% at 8/255."""
    _require(evidence.cells, ("PGD-100", HEADLINE), ("AutoAttack Linf", HEADLINE))
    least = min(evidence.cells[name, HEADLINE].accuracy for name in ("PGD-100", "AutoAttack Linf"))
    if not evidence.natural:
        return [], "not asked of a network trained on perturbations"
    text = f"{least:.2%} at {HEADLINE}"
    return ([text] if least >= 0.01 else []), text


def _seed(evidence: Evidence) -> Finding:
    """The same attack with the same seed, run again, gives the same verdicts."""
    budget = half_budget(evidence.cells)
    before = evidence.cells["PGD-20", budget]
    with TemporaryDirectory() as folder:
        again = replace(evidence.run, folder=Path(folder)).run("PGD-20", budget)
    differ = int((again.robust != before.robust).sum())
    text = f"PGD-20 at {budget} again on {len(again.rows)} images: {differ} verdicts differ"
    return ([text] if differ or not again.facts["forwards"] else []), text


def _rescored(evidence: Evidence) -> Finding:
    """Kept perturbed images, read from file and classified by these very weights, give the same verdicts."""
    problems, count = [], 0
    weights = weights_hash(evidence.run.victim)
    for run, cells in ((evidence.run, evidence.cells), (evidence.few, evidence.slow)):
        for name, budget in cells:
            path = run.path(name, budget)
            if not path.exists():
                problems.append(f"{name} at {budget}: its file is gone")
                continue
            kept = read_verdicts(path)
            count += len(kept.kept)
            if kept.facts["weights"] != weights:
                problems.append(f"{name} at {budget}: made for other weights than the victim's")
            elif wrong := _changed(run, kept):
                problems.append(f"{name} at {budget}: {wrong} of {len(kept.kept)} verdicts differ")
    return problems + ([] if count else ["not run: no images were kept"]), f"{count} images classified again"


@torch.no_grad()
def _changed(run: Evaluator, kept: Verdicts) -> int:
    """Return how many kept images are now classified otherwise, by more than rounding."""
    if not len(kept.kept):
        return 0
    labels = run.labels[kept.kept].to(run.device)
    parts = torch.split(kept.adversarial, run.batch_size)
    logits = torch.cat([run.victim(part.to(run.device)) for part in parts])
    ahead = margin(logits, labels)
    robust = kept.robust[kept.kept].to(run.device)
    # On the boundary itself, where C&W ends, the order of a sum decides.
    return int((((ahead < 0) != robust) & (ahead.abs() > 1e-4 * logits.abs().amax(1))).sum())


def _evaluation_mode(evidence: Evidence) -> Finding:
    """Nothing in the network is in training mode, by its flags and by what it does."""
    run = evidence.run
    problems = [
        f"{name or 'the network'} is in training mode"
        for name, part in run.victim.named_modules()
        if part.training
    ]
    before = weights_hash(run.victim)
    images = run.images[: min(len(run.images), run.batch_size)].to(run.device)
    with torch.no_grad():
        one, again, alone = run.victim(images), run.victim(images), run.victim(images[:1])
    scale = float(one.abs().max()) + 1e-12
    problems += ["the same images give other logits"] if not torch.equal(one, again) else []
    apart = float((one[:1] - alone).abs().max()) / scale
    problems += [f"logits depend on the rest of the batch ({apart:.1e})"] if apart > 1e-3 else []
    problems += ["classifying changes the weights"] if weights_hash(run.victim) != before else []
    return problems, f"logits of an image alone and in a batch differ by {apart:.0e}"


def _gradients(evidence: Evidence) -> Finding:
    """No sign of masked gradients: none vanishes, and Square does not beat APGD."""
    run = evidence.run
    right = classify(run.victim, run.images, run.batch_size, run.device) == run.labels
    images, labels = (t[right][: run.batch_size].to(run.device) for t in (run.images, run.labels))
    if not len(images):
        return ["no image is classified right"], ""
    problems = []
    for name, loss, most in (("the margin", margin, 0.0), ("the cross entropy", cross_entropy, 0.01)):
        gradient, _ = input_gradient(run.victim, images, labels, loss)
        share = float((gradient.flatten(1).abs().amax(1) == 0).double().mean())
        problems += [f"the gradient of {name} is zero at {share:.1%} of the images"] if share > most else []
    budget = half_budget(evidence.cells)
    _require(evidence.slow, ("Square", budget), ("APGD", budget))
    square, apgd = evidence.slow["Square", budget], evidence.slow["APGD", budget]
    text = f"at {budget} Square leaves {square.accuracy:.1%}, APGD {apgd.accuracy:.1%}"
    problems += [text] if _excess(apgd, square) else []
    return problems, text


def _flags(evidence: Evidence) -> Finding:
    """AutoAttack's own warnings: none."""
    run = evidence.run
    count = min(len(run.images), run.batch_size)
    problems = flags_before(run.victim, run.images[:count].to(run.device), run.labels[:count].to(run.device))
    ran = 0
    for (name, budget), verdicts in evidence.every():
        if not name.startswith("AutoAttack"):
            continue
        ran += 1
        problems += [f"{name} at {budget}: {flag}" for flag in verdicts.facts["flags"]]
        stages = verdicts.facts["stages"]
        others = [left for stage, left in stages.items() if stage not in ("clean", "square")]
        share = (min(others) - stages["square"]) / len(verdicts.robust)
        if share > 0.002:
            problems.append(f"{name} at {budget}: Square lowers it by {share:.2%} after the others")
    return problems + ([] if ran else ["not run: AutoAttack"]), f"no warning from {ran} runs"


CONTROLS: dict[str, Callable[[Evidence], Finding]] = {
    "bound": _bound,
    "range": _range,
    "budget reached": _reach,
    "ordering": _ordering,
    "curve": _curve,
    "noise": _noise,
    "natural falls": _natural,
    "seed": _seed,
    "rescored": _rescored,
    "evaluation mode": _evaluation_mode,
    "gradients": _gradients,
    "AutoAttack's flags": _flags,
}
"""The controls; each returns what is wrong, and what was found."""


def half_budget(cells: Mapping[Key, Verdicts]) -> Budget:
    """Return the budget of the curve at which PGD-20 leaves most nearly half of what is right without it."""
    _require(cells, *(("PGD-20", budget) for budget in CURVE))
    clean = cells["PGD-20", CURVE[0]].facts["stages"]["clean"]
    return min(CURVE, key=lambda budget: abs(2 * int(cells["PGD-20", budget].robust.sum()) - clean))


def _require(cells: Mapping[Key, Verdicts], *keys: Key) -> None:
    for name, budget in keys:
        if (name, budget) not in cells:
            raise KeyError(f"{name} at {budget}")
