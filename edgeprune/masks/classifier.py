"""The trained classifier that masks are learned against, from a scores file or a training run."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import ArtifactError, TrainingError
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.training.run_folder import load_network

from ..scoring.scores_file import ScoreRecords, read_classifier
from ..sources import Source

__all__ = ["Classifier", "classifier_of_records", "classifier_of_run"]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained network and the images it takes.

    Attributes
    ----------
    model : torch.nn.Module
        On the CPU, in evaluation mode: normalized float32 [n, 3, H, W] to logits [n, classes].
    mean, std : tuple of float
        Per channel: pixels on [0, 1] less the mean, over the standard deviation.
    facts : dict
        Which one it is, for provenance: ``file``, ``sha256`` (of its tensors), ``model``, ``num_classes``,
        ``image_shape``.
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    facts: dict[str, Any]

    def require_fit(self, source: Source) -> None:
        """Raise `ArtifactError` unless the classifier is for images and classes like the source's."""
        what = f"{self.facts['file']}: a classifier of"
        classes, shape = self.facts["num_classes"], tuple(self.facts["image_shape"])
        if classes != len(source.class_names):
            raise ArtifactError(
                f"{what} {classes} classes, and {source.spec} has {len(source.class_names)}; "
                "name one that was trained on these classes"
            )
        if shape != source.shape:
            raise ArtifactError(
                f"{what} images {shape}, and those of {source.spec} are {source.shape}; "
                "use the --size that it was trained with, or train another"
            )


def classifier_of_records(records: ScoreRecords) -> Classifier:
    """Return the classifier that a scoring run has trained.

    Raises
    ------
    ArtifactError
        It is missing or damaged.
    """
    network = records.provenance["classifier"]
    tensors = {name: torch.from_numpy(array) for name, array in read_classifier(records.path).items()}
    try:
        with torch.device("meta"):
            model = create_model(network["model"], network["num_classes"], min(network["image_shape"][1:]))
        model.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(
            f"{records.path}: its classifier cannot be rebuilt ({reason}); repeat: edgeprune score"
        ) from error
    return _classifier(records.path, model.eval(), network)


def classifier_of_run(path: str | Path) -> Classifier:
    """Return the classifier of ``edgeprune train``: a run's folder, or its ``model.safetensors``.

    Raises
    ------
    ArtifactError
        There is none, it is damaged, or it does not say how its images are normalized.
    """
    path = Path(path)
    if not path.exists():
        raise ArtifactError(f"{path}: not there; name a run of edgeprune train, or its model.safetensors")
    path = path / "model.safetensors" if path.is_dir() else path
    try:
        model, network = load_network(path)
    except TrainingError as error:
        # Torch lists what does not fit on lines of their own.
        raise ArtifactError(" ".join(str(error).split())) from error
    return _classifier(path, model, network)


def _classifier(path: Path, model: nn.Module, network: dict[str, Any]) -> Classifier:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    facts = {name: network[name] for name in ("model", "num_classes", "image_shape")}
    try:
        mean, std = tuple(map(float, network["mean"])), tuple(map(float, network["std"]))
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(f"{path}: does not say how its images are normalized; train it again") from None
    if not (len(mean) == len(std) == 3 and all(map(math.isfinite, mean + std)) and min(std) > 0):
        raise ArtifactError(f"{path}: mean {mean} and std {std} normalize no images; train it again")
    return Classifier(model, mean, std, {"file": path.name, "sha256": digest.hexdigest(), **facts})
