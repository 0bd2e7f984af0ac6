"""Running an attack on images, batch after batch, with a file after each: what was done is not done again."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeprune.sources import Source
from edgeprune_formats import ConfigError

from .attacks.auto_attack import Perturb, library_flags
from .attacks.budgets import Budget, perturbation_size
from .attacks.table import Attack, Effort, Setting, Stage, get_attack, label
from .attacks.victim import weights_hash
from .verdicts import Verdicts, read_verdicts, write_verdicts

__all__ = ["Evaluator", "classify", "drawn_images"]

Tell = Callable[[str], None]
LIBRARIES = ("torch", "pyautoattack", "numpy")


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    # Each is looked up in files, and every attack at every budget is kept with them.
    return tuple((name, version(name)) for name in LIBRARIES)


def drawn_images(
    source: Source, rows: NDArray[np.int64], count: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return some of these rows' images on [0, 1], float32 [n, C, H, W], and labels, in a seeded order."""
    order = np.random.default_rng(seed).permutation(rows)[:count]
    pixels = np.concatenate([source.read(part) for part in np.array_split(order, -(-len(order) // 500))])
    return torch.from_numpy(pixels).float() / 255, torch.from_numpy(source.labels[order])


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Attacks one victim on one set of images.

    Attributes
    ----------
    victim : torch.nn.Module
        Images on [0, 1] to logits, on `device`, in evaluation mode.
    images : float32 [N, C, H, W]
        On [0, 1], on the CPU.
    labels : int64 [N]
    folder : Path
        Where verdicts are kept.
    device : torch.device
    batch_size : int
        Images attacked at a time.
    seed : int
        Of every attack.
    effort : Effort
        How long attacks search that have no customary length.
    precision : str
        ``"float32"``, or ``"bfloat16"``: attacks that allow it are first run under autocast, and then in
        float32 on what still resists. Every verdict is float32's in either case, so the first pass can only
        break more, never fewer, than float32 alone.
    keep : int
        How many perturbed images are kept of each attack, to be classified again.
    overdue : callable
        Raises `OutOfTimeError` when it is time to stop; called between batches.
    tell : callable
        Is given a line of progress before each batch.
    """

    victim: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    folder: Path
    device: torch.device
    batch_size: int = 250
    seed: int = 0
    effort: Effort = Effort()  # noqa: RUF009 - frozen
    precision: str = "float32"
    keep: int = 256
    overdue: Callable[[], None] = lambda: None
    tell: Tell = lambda line: None

    def facts(self, attack: Attack, budget: Budget) -> dict[str, Any]:
        """Return what the verdicts of an attack depend on."""
        return {
            "attack": attack.name,
            "budget": [budget.norm, budget.size if budget.size < float("inf") else None],
            "seed": self.seed,
            "batch_size": self.batch_size,
            "effort": {name: getattr(self.effort, name) for name in attack.uses},
            "precision": self._precision(attack),
            "weights": weights_hash(self.victim),
            "images": _images_hash(self.images, self.labels),
            "versions": dict(_versions()),
        }

    def run(self, name: str, budget: Budget) -> Verdicts:
        """Attack all images, or read what was found before.

        Parameters
        ----------
        name : str
            A key of `edgeprune_benchmarks.robustness.attacks.table.ATTACKS`.
        budget : Budget
            In the attack's norm.

        Raises
        ------
        ConfigError
            No such attack, or a budget in another norm.
        ArtifactError
            A file of the folder is damaged, or made with other settings or weights.
        OutOfTimeError
            The time was over before the end.
        """
        attack = get_attack(name)
        if attack.norm != budget.norm:
            raise ConfigError(f"{attack.name} has budgets in {attack.norm}, not {budget.norm}")
        facts = self.facts(attack, budget)
        path = self.path(name, budget)
        if path.exists():
            return read_verdicts(path, facts)
        path.parent.mkdir(parents=True, exist_ok=True)
        verdicts = self._attack(attack, budget, path.with_suffix(""), facts)
        write_verdicts(path, verdicts)
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        return verdicts

    def path(self, name: str, budget: Budget) -> Path:
        """Return the file of an attack's verdicts."""
        place = label(name, budget).replace("/", "-").replace(",", "").replace(" ", "_").replace("&", "n")
        return self.folder / f"{place}.safetensors"

    def _attack(self, attack: Attack, budget: Budget, parts: Path, facts: dict[str, Any]) -> Verdicts:
        parts.mkdir(exist_ok=True)
        found = _Outcome(self, facts)
        for name, perturb in self._stages(attack, budget):
            rows = found.robust.nonzero()[:, 0]
            for number, chosen in enumerate(torch.split(rows, self.batch_size)):
                part = parts / f"{name}-{number:05d}.safetensors"
                if not part.exists():
                    self.overdue()
                    done = f"{number * self.batch_size}/{len(rows)}"
                    self.tell(f"{label(attack.name, budget)}, {name}: {done} images")
                    write_verdicts(part, self._batch(perturb, chosen, budget, facts))
                found.add(read_verdicts(part, facts))
            found.close_stage(name)
        return found.verdicts()

    def _stages(self, attack: Attack, budget: Budget) -> Iterator[Stage]:
        with torch.no_grad():
            classes = self.victim(self.images[:1].to(self.device)).shape[1]
        at = Setting(self.victim, budget.size, self.seed, self.device, self.effort, classes)
        yield from (
            [(f"bfloat16-{name}", perturb) for name, perturb in attack.stages(_under_autocast(at))]
            if self._precision(attack) == "bfloat16"
            else []
        )
        yield from attack.stages(at)

    def _precision(self, attack: Attack) -> str:
        return "float32" if attack.exact else self.precision

    def _batch(
        self,
        perturb: Perturb,
        rows: torch.Tensor,
        budget: Budget,
        facts: Mapping[str, Any],
    ) -> Verdicts:
        images, labels = self.images[rows].to(self.device), self.labels[rows].to(self.device)
        started = time.monotonic()
        with library_flags() as flags, _counted(self.victim) as forwards:
            moved = perturb(images, labels).detach()
        sizes = perturbation_size(moved, images, budget.norm).cpu()
        outside = _outside(moved).cpu()
        right = (classify(self.victim, moved, self.batch_size) == labels).cpu()
        kept = rows < self.keep
        spent = {"seconds": time.monotonic() - started, "forwards": forwards[0], "flags": flags}
        return Verdicts(rows, right, sizes, outside, rows[kept], moved.cpu()[kept], facts={**facts, **spent})


class _Outcome:
    """What is known of all images while the stages of an attack run."""

    def __init__(self, run: Evaluator, facts: dict[str, Any]) -> None:
        guessed = classify(run.victim, run.images, run.batch_size, run.device)
        self.robust = guessed == run.labels
        self._facts = facts
        count = len(run.images)
        self._sizes, self._outside = (torch.zeros(count, dtype=torch.float64) for _ in range(2))
        self._kept: dict[int, torch.Tensor] = {
            row: run.images[row] for row in range(min(run.keep, count)) if not self.robust[row]
        }
        self._seconds, self._forwards = 0.0, 0
        self._flags: list[str] = []
        self._stages: dict[str, int] = {"clean": int(self.robust.sum())}

    def add(self, part: Verdicts) -> None:
        """Take in a batch of a stage."""
        self.robust[part.rows] = part.robust
        # Of the stage that broke the image, or of the last: what a verdict rests on.
        self._sizes[part.rows], self._outside[part.rows] = part.sizes, part.outside
        self._kept.update(zip(part.kept.tolist(), part.adversarial, strict=True))
        self._seconds += part.facts["seconds"]
        self._forwards += part.facts["forwards"]
        self._flags += [flag for flag in part.facts["flags"] if flag not in self._flags]

    def close_stage(self, name: str) -> None:
        """Note how many images resisted a stage and those before."""
        self._stages[name] = int(self.robust.sum())

    def verdicts(self) -> Verdicts:
        """Return the outcome of the whole attack."""
        kept = sorted(self._kept)
        adversarial = torch.stack([self._kept[row] for row in kept]) if kept else torch.zeros(0, 3, 1, 1)
        spent = {
            "seconds": self._seconds,
            "forwards": self._forwards,
            "flags": self._flags,
            "stages": self._stages,
        }
        rows = torch.arange(len(self.robust))
        return Verdicts(
            rows,
            self.robust,
            self._sizes,
            self._outside,
            torch.tensor(kept, dtype=torch.int64),
            adversarial,
            facts={**self._facts, **spent},
        )


@torch.no_grad()
def classify(
    victim: nn.Module, images: torch.Tensor, batch_size: int, device: torch.device | None = None
) -> torch.Tensor:
    """Return the class that a victim sees in each image.

    Parameters
    ----------
    victim : torch.nn.Module
        Images on [0, 1] to logits.
    images : float32 [n, C, H, W]
    batch_size : int
        Images classified at a time.
    device : torch.device, optional
        Of the victim, where the images are elsewhere.

    Returns
    -------
    int64 [n]
        On the device of `images`.
    """
    parts = [victim(part.to(device or part.device)).argmax(1) for part in torch.split(images, batch_size)]
    return torch.cat(parts).to(images.device)


def _outside(moved: torch.Tensor) -> torch.Tensor:
    values = moved.double().flatten(1)
    beyond = torch.maximum(-values, values - 1).amax(1).clamp_min(0)
    return torch.where(values.isfinite().all(1), beyond, torch.inf)


def _under_autocast(at: Setting) -> Setting:
    return replace(at, victim=_Autocast(at.victim, at.device))


class _Autocast(nn.Module):
    def __init__(self, victim: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.victim, self._type = victim, device.type
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self._type, torch.bfloat16):
            logits: torch.Tensor = self.victim(images)
        return logits.float()


@contextmanager
def _counted(victim: nn.Module) -> Iterator[list[int]]:
    """Count the images that go through a victim."""
    count = [0]

    def add(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        count[0] += len(inputs[0])

    hook = victim.register_forward_pre_hook(add)
    try:
        yield count
    finally:
        hook.remove()


def _images_hash(images: torch.Tensor, labels: torch.Tensor) -> str:
    digest = hashlib.sha256(images.numpy().tobytes())
    digest.update(labels.numpy().tobytes())
    return digest.hexdigest()
