"""A transform of the user's on whole batches, with random numbers that a resumed run draws again."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import Column

from ..decode.augmentation import LoaderAugment
from ..decode.recipes import RECIPES

if TYPE_CHECKING:
    from ..decode.torch_recipes import RecipeTransform
    from .chunks.reader import SampleDecoder

__all__ = ["BatchTransform", "apply", "make_recipe", "seeded", "transform_name"]

BatchTransform = Callable[..., tuple[Any, ...]]
"""From the images and targets of a batch, as arguments, to as many: ``(images, labels)`` mostly."""


def apply(transform: BatchTransform, batch: tuple[Any, ...], *key: int) -> tuple[Any, ...]:
    """Return what a transform makes of a batch, with global random numbers that depend on `key` alone.

    Raises
    ------
    ConfigError
        It does not return as many things as it is given.
    """
    with seeded(*key):
        found = transform(*batch)
    if not (isinstance(found, tuple | list) and len(found) == len(batch)):
        wanted = "images, labels" if len(batch) == 2 else f"images and {len(batch) - 1} targets"
        raise ConfigError(f"`transform` must return ({wanted}), not {type(found).__name__}")
    return tuple(found)


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the global generators of Python, numpy and torch, if it is loaded, and put them back in the end.

    For the thread in which everything else draws from them.
    """
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    torch = sys.modules.get("torch")
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - what transforms draw from
    with contextlib.nullcontext() if torch is None else _forked(torch):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        if torch is not None:
            torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002


def _forked(torch: Any) -> Any:
    # `manual_seed` is for all devices, once CUDA is in use.
    return torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else [])


def make_recipe(
    augment: LoaderAugment,
    decoder: SampleDecoder[Any],
    channels: int,
    statistics: Sequence[Sequence[float]] | None,
    columns: Sequence[Column],
    seed: int,
) -> RecipeTransform | None:
    """Return what a preset of augmentation does to the batches of a decoder; None where it is no preset.

    Parameters
    ----------
    augment : str
        One of `LOADER_AUGMENTS`.
    decoder : SampleDecoder
        Of backend ``"torch"``.
    channels : int
        Of the images.
    statistics : (mean, std) or None
        What batches are normalized by.
    columns : sequence of Column
        The targets of batches.
    seed : int

    Raises
    ------
    ConfigError
        The decoder gives no tensors, or as `RecipeTransform`.
    """
    if augment not in RECIPES:
        return None
    if isinstance(decoder.labels(np.zeros(1, np.int64)), np.ndarray):
        raise ConfigError(f"`augment={augment!r}` needs torch: use `backend='torch'`, or crop+flip")
    from ..decode.torch_recipes import RecipeTransform

    mean, std = statistics or ([0.0] * channels, [1.0] * channels)
    return RecipeTransform(RECIPES[augment], mean, std, columns, seed)


def transform_name(transform: object) -> str | None:
    """Return what a state says of a transform: its name, for nothing else is the same in another process."""
    if transform is None:
        return None
    return str(getattr(transform, "__qualname__", type(transform).__qualname__))
