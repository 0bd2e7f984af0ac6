"""Classifying an image and its mirror image, and taking the mean, which is more often right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_runtime.task import Task

from .predictors import Predictor

__all__ = ["Mirrored"]


class Mirrored:
    """A `Predictor` that asks another twice; it takes twice the time.

    Parameters
    ----------
    model : Predictor

    Raises
    ------
    ConfigError
        It takes coefficients, which are not mirrored here.
    """

    takes_coefficients = False

    def __init__(self, model: Predictor) -> None:
        if model.takes_coefficients:
            raise ConfigError(
                f"{model.path} takes coefficients; leave `tta` out, or export without a decoder"
            )
        self._model = model

    @property
    def path(self) -> Path:
        """As `Predictor`."""
        return self._model.path

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """As `Predictor`."""
        return self._model.image_shape

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """As `Predictor`."""
        return self._model.class_names

    @property
    def task(self) -> Task:
        """As `Predictor`."""
        return self._model.task

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean of both."""
        mirrored = self._model.logits(np.ascontiguousarray(images[..., ::-1]))
        return np.asarray((self._model.logits(images) + mirrored) / 2, np.float32)
