"""The trained classifier that masks are learned against, from a scores file or a training run."""

from __future__ import annotations

from pathlib import Path

import torch

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line
from edgeprune_runtime.class_names import same_classes
from edgeprune_runtime.errors import ArtifactError, TrainingError
from edgeprune_runtime.networks.trained import MODEL_FILE, TrainedNetwork, load_trained, rebuild_network

from ..scoring.scores_file import ScoresFile, read_classifier
from ..sources import Source

__all__ = ["classifier_from_run", "classifier_from_scores", "require_fit"]


def require_fit(classifier: TrainedNetwork, source: Source) -> None:
    """Raise `ArtifactError` unless the classifier is for images and classes like the source's."""
    what = f"{classifier.path.name}: a classifier of"
    if not classifier.task.is_default:
        raise ArtifactError(
            f"{classifier.path}: has learned {classifier.task}; name a run that has learned classes"
        )
    if classifier.num_classes != len(source.class_names):
        raise ArtifactError(
            f"{what} {classifier.num_classes} classes, and {source.spec} has {len(source.class_names)}; "
            "name one that was trained on these classes"
        )
    names = classifier.class_names
    if names is not None and not same_classes(names, source.class_names):
        raise ArtifactError(
            f"{classifier.path}: its classes have other names than those of {source.spec}, or another order; "
            "name one that was trained on these classes"
        )
    if classifier.image_shape != source.shape:
        raise ArtifactError(
            f"{what} images {classifier.image_shape}, and those of {source.spec} are {source.shape}; "
            "give the `size` that it was trained with, or train another"
        )


def classifier_from_scores(records: ScoresFile) -> TrainedNetwork:
    """Return the classifier that a scoring run has trained.

    Raises
    ------
    ArtifactError
        It is missing or damaged.
    """
    tensors = {name: torch.from_numpy(array) for name, array in read_classifier(records.path).items()}
    try:
        network = rebuild_network(records.path, tensors, records.provenance["classifier"])
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = one_line(error)
        raise ArtifactError(
            f"{records.path}: its classifier cannot be rebuilt ({reason}); repeat: edgeprune score"
        ) from error
    return _normalized(network)


def classifier_from_run(path: str | Path) -> TrainedNetwork:
    """Return the classifier of ``edgeprune train``: a run's folder, or its ``model.safetensors``.

    Raises
    ------
    ArtifactError
        There is none, it is damaged, or it does not say how its images are normalized.
    """
    path = Path(path)
    if not path.exists():
        raise ArtifactError(f"{path}: not there; name a run of edgeprune train, or its model.safetensors")
    try:
        return _normalized(load_trained(path / MODEL_FILE if path.is_dir() else path))
    except TrainingError as error:
        raise ArtifactError(str(error)) from error


def _normalized(network: TrainedNetwork) -> TrainedNetwork:
    if network.normalization is None:
        raise ArtifactError(f"{network.path}: does not say how its images are normalized; train it again")
    return network
