"""Trying a network on labeled images: how often it is right, or how near to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack
from edgeprune_formats.remote.locations import RemoteFile

from .confusion import ClassEvaluation
from .labeled import Labeled, as_location, match_classes, open_labeled, require_outputs
from .multilabel import MultilabelEvaluation
from .prediction import Prediction, predict
from .predictors import Predictor, opened
from .values import ValueEvaluation

__all__ = ["Evaluation", "compare_target", "evaluate"]

Evaluation: TypeAlias = ClassEvaluation | MultilabelEvaluation | ValueEvaluation


def evaluate(
    model: Predictor | str | Path,
    data: Path | str | RemoteFile,
    *,
    skip_bad: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """Let a network tell what it has learned of the images of a pack or a source, and compare it.

    Parameters
    ----------
    model : Predictor, str or Path
        A path is opened by `edgeprune.open_predictor`.
    data : Path, str or RemoteFile
        A pack, also a far one by its URL; or a source as text, of which the test split is read, with the
        target that the network has learned. Classes are matched by name; where the model knows no names, by
        their order.
    skip_bad, tell
        As `edgeprune.predict`.

    Returns
    -------
    ClassEvaluation, MultilabelEvaluation or ValueEvaluation
        Of a network that tells classes, several labels or values. Probabilities of classes are compared by
        the likeliest class.

    Raises
    ------
    ConfigError
        What has no labels or no such target, classes that the model does not have, or images of another size.
    SourceError, PackFormatError
        An image or a chunk cannot be read.
    """
    model, data = opened(model), as_location(data)
    if isinstance(data, Path) and data.is_dir():
        raise ConfigError(f"{data}: a folder has no labels; name imagefolder:{data}")
    images = open_labeled(data, model, with_target=True)
    if model.task.is_ranked and not images.class_names:
        raise ConfigError(
            f"{data}: has no classes to compare with; name a pack or a source of labeled images"
        )
    if tell is not None and model.path.is_dir():
        from ..training.evaluation import may_be_trained_on  # With torch, which a run needs anyway.

        origin = images.origin
        if may_be_trained_on(origin.header if isinstance(origin, Pack) else origin, model.path):
            told = "built from the same images as the training pack; accuracy on them says little of others"
            tell(f"{images.where}: {told}")
    predictions = predict(model, [images], skip_bad=skip_bad, tell=tell)
    found = (_classes if model.task.is_ranked else _others)(model, images, predictions)
    if not found.images:
        raise ConfigError(f"{data}: there is no image to evaluate on")
    return found


def _classes(model: Predictor, images: Labeled, predictions: Iterable[Prediction]) -> ClassEvaluation:
    names, numbers = match_classes(images, model)
    number_of = dict(zip(images.class_names, numbers, strict=True))
    found = ClassEvaluation(names)
    for prediction in predictions:
        require_outputs(prediction.probabilities, names, images, model)
        found.add(number_of[prediction.label or ""], prediction)
    return found


def _others(
    model: Predictor, images: Labeled, predictions: Iterable[Prediction]
) -> MultilabelEvaluation | ValueEvaluation:
    rows, told = [], []
    for prediction in predictions:
        rows.append(prediction.row)
        told.append(prediction.probabilities)
    return compare_target(model, images, np.array(rows, np.intp), told)


def compare_target(
    model: Predictor, images: Labeled, rows: NDArray[np.intp], told: Sequence[NDArray[np.float32]]
) -> MultilabelEvaluation | ValueEvaluation:
    """Return how the labels or values that were told of some rows compare with the true ones.

    Raises
    ------
    ConfigError
        The network gives another number of outputs.
    """
    assert images.target is not None
    column = images.target.column
    for one in told[:1]:
        if len(one) != column.outputs:
            raise ConfigError(
                f"{images.where}: target {column.name!r} has {column.outputs} numbers or labels, and "
                f"{model.path} predicts {len(one)}; name images with the target that it has learned"
            )
    both = np.array(told).reshape(-1, column.outputs), images.target.values[rows]
    if column.kind == "value":
        return ValueEvaluation(model.task, *(one.astype(np.float64) for one in both))
    return MultilabelEvaluation(column.classes, *both)
