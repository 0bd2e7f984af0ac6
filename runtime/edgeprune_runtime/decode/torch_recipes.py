"""The presets of augmentation on whole batches of tensors, with random numbers for each image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import TRAINABLE, Column

from .recipes import Recipe, uniform

__all__ = ["RecipeTransform"]

# Crop: area, ratio, row, column, mirror. Jitter: three. Erasing: whether, area, ratio, row, column.
_CROP, _JITTER, _ERASE, _RAND = slice(0, 5), slice(5, 8), slice(8, 13), 13
_GRAY = (0.2989, 0.587, 0.114)
_LEVELS = 30
_ERASED_AREA, _ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)
Operation = Callable[[torch.Tensor, float], torch.Tensor]


class RecipeTransform:
    """A recipe for the batches of one loader: the same batch for the same seed, epoch and images.

    Parameters
    ----------
    recipe : Recipe
    mean, std : sequence of float
        Of the batches, which are normalized; 0 and 1 where they are not.
    columns : sequence of Column
        The targets of batches.
    seed : int
        Non-negative.

    Raises
    ------
    ConfigError
        The recipe needs another number of channels, or torchvision, which is not there.
    """

    def __init__(
        self,
        recipe: Recipe,
        mean: Sequence[float],
        std: Sequence[float],
        columns: Sequence[Column],
        seed: int,
    ) -> None:
        self._recipe, self._columns, self._seed = recipe, tuple(columns), seed
        self._arguments = recipe, mean, std, self._columns, seed
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1) for values in (mean, std)
        )
        self._operations = rand_augment_operations(recipe.magnitude) if recipe.operations else []
        if self._operations and len(mean) not in (1, 3):
            raise ConfigError(
                f"RandAugment takes images of 1 or 3 channels, not {len(mean)}; choose another `augment`"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return RecipeTransform, self._arguments

    @torch.no_grad()
    def __call__(
        self, images: torch.Tensor, targets: Sequence[Any], rows: NDArray[np.int64], epoch: int, batch: int
    ) -> tuple[torch.Tensor, tuple[Any, ...]]:
        """Return a batch augmented.

        Parameters
        ----------
        images : torch.Tensor
            [n, C, h, w], any floating-point dtype; worked on in float32.
        targets : sequence
            As `PackLoader` has them.
        rows : int64 [n]
            Numbers of the images, or others that tell apart those that come several times.
        epoch, batch : int
            Non-negative.

        Returns
        -------
        images : torch.Tensor
            New memory.
        targets : tuple
            Mixed where the recipe mixes images: labels are then probabilities float32 [n, classes]. What
            describes images, and is not predicted, is that of the image that the other is mixed into.
        """
        recipe = self._recipe
        draws = uniform(self._seed, epoch, rows, _RAND + 2 * recipe.operations)
        found = resized_crops(images.float(), draws[:, _CROP], recipe)
        mean, std = self._mean.to(images.device), self._std.to(images.device)
        pixels = (found * std + mean).clamp_(0, 1)
        if recipe.jitter:
            pixels = jittered(pixels, 1 + recipe.jitter * (2 * draws[:, _JITTER] - 1))
        for number in range(recipe.operations):
            pixels = self._one_operation(pixels, draws[:, _RAND + 2 * number : _RAND + 2 * number + 2])
        found = (pixels - mean) / std
        if recipe.erase:
            found = erased(found, draws[:, _ERASE], recipe.erase)
        if recipe.mixup or recipe.cutmix:
            random = np.random.default_rng([self._seed, epoch, batch, 3])
            found, share = _mixed(found, recipe, random)
            targets = [self._mixed_target(*one, share) for one in zip(self._columns, targets, strict=True)]
        return found.to(images.dtype), tuple(targets)

    def _mixed_target(self, column: Column, values: Any, share: float) -> Any:
        if column.kind not in TRAINABLE:
            return values
        if column.kind == "class":
            values = functional.one_hot(values, len(column.classes))
        return values.float().lerp(values.float().roll(1, 0), share)

    def _one_operation(self, pixels: torch.Tensor, draws: NDArray[np.float64]) -> torch.Tensor:
        """Apply one operation to each image; those of one operation and sign go through together."""
        chosen = (draws[:, 0] * len(self._operations)).astype(np.int64) * 2 + (draws[:, 1] < 0.5)
        found = torch.empty_like(pixels)
        for number in np.unique(chosen).tolist():
            places = torch.from_numpy(np.nonzero(chosen == number)[0]).to(pixels.device)
            found[places] = self._operations[number // 2](pixels[places], 1.0 if number % 2 else -1.0)
        return found


def resized_crops(images: torch.Tensor, draws: NDArray[np.float64], recipe: Recipe) -> torch.Tensor:
    """Cut a rectangle out of each image and scale it to the whole, mirrored half of the times, in one step.

    Parameters
    ----------
    images : float32 [n, C, h, w]
    draws : float64 [n, 5]
        In [0, 1).
    recipe : Recipe
        Of which `area` and `ratio` count.
    """
    height, width = _sides(draws[:, 0], draws[:, 1], recipe.area, recipe.ratio)
    # Centers on the scale from -1 to 1, where a crop of side s may be off by 1 - s.
    down, across = (1 - height) * (2 * draws[:, 2] - 1), (1 - width) * (2 * draws[:, 3] - 1)
    theta = np.zeros((len(images), 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 2] = np.where(draws[:, 4] < 0.5, -width, width), across
    theta[:, 1, 1], theta[:, 1, 2] = height, down
    where = torch.from_numpy(theta).to(images.device)
    grid = functional.affine_grid(where, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _sides(
    area: NDArray[np.float64],
    ratio: NDArray[np.float64],
    areas: tuple[float, float],
    ratios: tuple[float, float],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return height and width of rectangles as shares of an image's sides, from numbers in [0, 1)."""
    low, high = np.log(ratios)
    share, aspect = areas[0] + (areas[1] - areas[0]) * area, np.exp(low + (high - low) * ratio)
    return np.minimum(np.sqrt(share / aspect), 1), np.minimum(np.sqrt(share * aspect), 1)


def _column(values: NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(like.device).view(-1, 1, 1, 1)


def _gray(pixels: torch.Tensor) -> torch.Tensor:
    if pixels.shape[1] != 3:
        return pixels.mean(1, keepdim=True)
    red, green, blue = (weight * pixels[:, number] for number, weight in enumerate(_GRAY))
    return (red + green + blue)[:, None]


def _brightened(pixels: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
    return (pixels * factor).clamp_(0, 1)


def _contrasted(pixels: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
    # Row by row: one sum over an image would be cut up by the number of threads.
    level = _gray(pixels).mean(3, keepdim=True).mean(2, keepdim=True)
    return ((pixels - level) * factor + level).clamp_(0, 1)


def _saturated(pixels: torch.Tensor, factor: torch.Tensor | float) -> torch.Tensor:
    if pixels.shape[1] != 3:
        return pixels
    gray = _gray(pixels)
    return ((pixels - gray) * factor + gray).clamp_(0, 1)


def jittered(pixels: torch.Tensor, factors: NDArray[np.float64]) -> torch.Tensor:
    """Change brightness, contrast and saturation of pixels on [0, 1] by factors [n, 3], in this order.

    Contrast is about the image's mean in gray, saturation about the pixel's gray, as in torchvision's
    ColorJitter. Saturation is left as it is where there are not three channels.
    """
    for number, change in enumerate((_brightened, _contrasted, _saturated)):
        pixels = change(pixels, _column(factors[:, number], pixels))
    return pixels


def erased(images: torch.Tensor, draws: NDArray[np.float64], chance: float) -> torch.Tensor:
    """Set a rectangle to 0 in a share of the images, which is the mean where they are normalized.

    Parameters
    ----------
    images : float32 [n, C, h, w]
    draws : float64 [n, 5]
        In [0, 1).
    chance : float
        Share of the images.
    """
    height, width = images.shape[2:]
    down, across = _sides(draws[:, 1], draws[:, 2], _ERASED_AREA, _ERASED_RATIO)
    inside = _span(draws[:, 3], down, height)[:, :, None] & _span(draws[:, 4], across, width)[:, None, :]
    inside &= (draws[:, 0] < chance)[:, None, None]
    return images.masked_fill(torch.from_numpy(inside).to(images.device)[:, None], 0)


def _span(place: NDArray[np.float64], share: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """Return which of `size` places are inside, [n, size]."""
    length = np.clip(np.round(share * size), 1, size)
    start = np.floor(place * (size - length + 1))
    at = np.arange(size)
    inside: NDArray[np.bool_] = (at >= start[:, None]) & (at < (start + length)[:, None])
    return inside


def _mixed(images: torch.Tensor, recipe: Recipe, random: np.random.Generator) -> tuple[torch.Tensor, float]:
    """Mix each image with its neighbor in the batch, and return the neighbor's share as well."""
    takes_mixup = bool(recipe.mixup) and not (recipe.cutmix and random.random() < 0.5)
    alpha = recipe.mixup if takes_mixup else recipe.cutmix
    share = float(random.beta(alpha, alpha))
    others = images.roll(1, 0)
    if takes_mixup:
        images = images.lerp(others, share)
    else:
        top, bottom = _cut(share, images.shape[2], random)
        left, right = _cut(share, images.shape[3], random)
        images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        share = (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])
    return images, share


def _cut(share: float, size: int, random: np.random.Generator) -> tuple[int, int]:
    """Return the ends of a cut about a random center, of a share's square root of the side, at most."""
    center, half = int(random.integers(size)), int(size * math.sqrt(share)) // 2
    return max(0, center - half), min(size, center + half)


def rand_augment_operations(magnitude: int) -> list[Operation]:
    """Return the operations of RandAugment; each takes pixels on [0, 1] and the sign of its magnitude.

    They are those of torchvision's RandAugment, at the magnitudes that it has for each of 31 levels.

    Raises
    ------
    ConfigError
        torchvision is not installed.
    """
    try:
        from torchvision.transforms.v2 import functional as on_images
    except ImportError:
        raise ConfigError("RandAugment needs torchvision; pip install 'edgeprune[torch]'") from None
    level = magnitude / _LEVELS
    slope, change, none = math.degrees(math.atan(0.3 * level)), 0.9 * level, [0, 0]

    def affine(pixels: torch.Tensor, move: list[float], shear: list[float], center: Any) -> torch.Tensor:
        moved: torch.Tensor = on_images.affine(
            pixels, angle=0.0, translate=move, scale=1.0, shear=shear, center=center
        )
        return moved

    def shifted(pixels: torch.Tensor, axis: int, sign: float) -> torch.Tensor:
        moved = [0.0, 0.0]
        moved[axis] = float(int(sign * level * 150 / 331 * pixels.shape[3 - axis]))
        return affine(pixels, moved, [0.0, 0.0], None)

    return [
        lambda pixels, sign: pixels,
        lambda pixels, sign: affine(pixels, [0.0, 0.0], [sign * slope, 0.0], none),
        lambda pixels, sign: affine(pixels, [0.0, 0.0], [0.0, sign * slope], none),
        lambda pixels, sign: shifted(pixels, 0, sign),
        lambda pixels, sign: shifted(pixels, 1, sign),
        lambda pixels, sign: on_images.rotate(pixels, sign * 30 * level),
        lambda pixels, sign: _brightened(pixels, 1 + sign * change),
        lambda pixels, sign: _saturated(pixels, 1 + sign * change),
        lambda pixels, sign: _contrasted(pixels, 1 + sign * change),
        lambda pixels, sign: on_images.adjust_sharpness(pixels, 1 + sign * change),
        lambda pixels, sign: on_images.posterize(pixels, 8 - round(4 * level)),
        lambda pixels, sign: on_images.solarize(pixels, 1 - level),
        lambda pixels, sign: on_images.autocontrast(pixels),
        lambda pixels, sign: on_images.equalize(pixels),
    ]
