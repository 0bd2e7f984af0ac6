"""What an attack found out about each image, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from edgeprune_runtime.errors import ArtifactError
from edgeprune_runtime.output_files import write_tensors

__all__ = ["Facts", "Verdicts", "read_verdicts", "write_verdicts"]

Facts = dict[str, Any]
_ENTRY = "edgeprune"
_TENSORS = ("rows", "robust", "sizes", "outside", "kept", "adversarial")


@dataclass(frozen=True, eq=False)
class Verdicts:
    """The outcome of an attack, or of one batch of it.

    Attributes
    ----------
    rows : int64 [n]
        Numbers of the images, of all that a report is about.
    robust : bool [n]
        Whether the image is still classified right, without the attack and under it.
    sizes : float64 [n]
        Size of the perturbation that the verdict rests on, in the norm of the budget: of the stage that broke
        the image, otherwise of the last; 0 where none was looked for.
    outside : float64 [n]
        How far pixels lie outside of [0, 1]; infinite where one is no number.
    kept : int64 [k]
        Those of `rows` whose perturbed image is kept.
    adversarial : float32 [k, C, H, W]
        Perturbed images, to be classified again.
    facts : dict
        What they depended on: ``attack``, ``budget``, ``seed``, ``batch_size``, ``effort``, ``weights`` and
        ``images`` (hashes), ``precision``, ``versions``; and what came out beside them: ``seconds``,
        ``forwards`` (images through the network), ``flags`` (of the library), ``stages`` (robust images
        after each).
    """

    rows: torch.Tensor
    robust: torch.Tensor
    sizes: torch.Tensor
    outside: torch.Tensor
    kept: torch.Tensor
    adversarial: torch.Tensor
    facts: Facts

    @property
    def accuracy(self) -> float:
        """Share of the images that are robust."""
        return float(self.robust.double().mean())


def write_verdicts(path: Path, verdicts: Verdicts) -> None:
    """Write verdicts, whole or not at all.

    Raises
    ------
    TrainingError
        The file cannot be written.
    """
    tensors = {name: getattr(verdicts, name) for name in _TENSORS}
    write_tensors(path, tensors, {_ENTRY: json.dumps(verdicts.facts, sort_keys=True)})


def read_verdicts(path: Path, expected: Mapping[str, Any] | None = None) -> Verdicts:
    """Read verdicts.

    Parameters
    ----------
    path : Path
    expected : mapping of str to Any, optional
        Facts that they must have.

    Raises
    ------
    ArtifactError
        The file is damaged, or of an attack with other facts.
    """
    try:
        with safe_open(path, "pt") as file:
            facts: Facts = json.loads((file.metadata() or {})[_ENTRY])
            # Copies: the file stays mapped otherwise.
            tensors = {name: file.get_tensor(name).clone() for name in _TENSORS}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(f"{path}: damaged ({reason}); remove it, and it is measured again") from error
    for name, value in (expected or {}).items():
        if facts.get(name) != value:
            raise ArtifactError(
                f"{path}: made with {name} {facts.get(name)!r}, not {value!r}; "
                "remove it, or name another folder of runs"
            )
    return Verdicts(**tensors, facts=facts)
