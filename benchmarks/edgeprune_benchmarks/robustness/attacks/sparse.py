"""Attacks that change few pixels as much as they like: a budget in pixels, the channels of one counted once.

Reimplemented from the papers: no library on the package index has them for images and a budget in pixels.
"""

from __future__ import annotations

import torch
from torch import nn

from .gradient import cross_entropy, input_gradient, margin

__all__ = ["sparse_pgd", "sparse_rs"]


def sparse_pgd(
    victim: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    pixels: int,
    *,
    steps: int,
    seed: int,
    projected: bool,
    patience: int = 3,
) -> torch.Tensor:
    """Ascend the cross entropy over what pixels become and over which they are (Zhong et al., 2024, sPGD).

    The perturbation is ``p * m``: p within the box, moved by signs of its gradient, and a mask m of the
    `pixels` largest of a continuous field, moved along its gradient scaled to unit length. The steps are a
    quarter of the box and a quarter of ``sqrt(H * W)``. A mask that stays the same for `patience` steps
    without success is drawn anew.

    Parameters
    ----------
    victim, images, labels
        As in `edgeprune_benchmarks.robustness.attacks.gradient.fgsm`.
    pixels : int
        Budget.
    steps : int
        Gradients taken.
    seed : int
        Of the starts.
    projected : bool
        Whether p moves only under the mask (the paper's projected gradient), or everywhere in proportion to
        the sigmoid of the field (its unprojected one).
    patience : int
        See above.

    Returns
    -------
    float32 [n, C, H, W]
        On [0, 1]. Left as soon as misclassified.
    """
    random = torch.Generator().manual_seed(seed)
    found, attacked = images.clone(), torch.arange(len(images), device=images.device)
    box, field = _box(images, random), _normal(images[:, :1].shape, random, images)
    stale = torch.zeros(len(images), device=images.device)
    mask = _largest(field, pixels)
    for _ in range(steps):
        moved = (images[attacked] + box * mask).clamp(0, 1)
        gradient, logits = input_gradient(victim, moved, labels[attacked], cross_entropy)
        found[attacked] = moved
        resists = logits.argmax(1) == labels[attacked]
        attacked, gradient, stale = attacked[resists], gradient[resists], stale[resists]
        box, field, mask = box[resists], field[resists], mask[resists]
        if not len(attacked):
            break
        box, field = _ascend(images[attacked], box, field, gradient, mask if projected else field.sigmoid())
        chosen = _largest(field, pixels)
        stale = torch.where((chosen == mask).flatten(1).all(1), stale + 1, 0)
        again = stale >= patience
        if bool(again.any()):
            field[again] = _normal(field[again].shape, random, images)
            box[again] = _box(images[attacked][again], random)
            chosen[again], stale[again] = _largest(field[again], pixels), 0
        mask = chosen
    return found


def _ascend(
    images: torch.Tensor, box: torch.Tensor, field: torch.Tensor, gradient: torch.Tensor, share: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what pixels become and the field of the mask after a step along the gradient of the image."""
    sigmoid = field.sigmoid()
    slope = (gradient * box).sum(1, keepdim=True) * sigmoid * (1 - sigmoid)
    length = slope.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    side = (field.shape[2] * field.shape[3]) ** 0.5
    box = (images + box + 0.25 * (gradient * share).sign()).clamp(0, 1) - images
    return box, field + 0.25 * side * slope / length


@torch.no_grad()
def sparse_rs(
    victim: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    pixels: int,
    *,
    queries: int,
    seed: int,
    start_share: float = 0.3,
) -> torch.Tensor:
    """Search at random, without gradients, for pixels and corners of the color cube (Croce et al., 2022).

    Each query exchanges a share of the changed pixels, which falls as the search goes on, for others with
    new colors, and is kept if the margin of the label does not grow.

    Parameters
    ----------
    victim, images, labels
        As in `edgeprune_benchmarks.robustness.attacks.gradient.fgsm`.
    pixels : int
        Budget.
    queries : int
        Forward passes for each image; 10,000 in the paper.
    seed : int
        Of the search.
    start_share : float
        Of the changed pixels, exchanged in the first queries.

    Returns
    -------
    float32 [n, C, H, W]
        On [0, 1]. Left as soon as misclassified.
    """
    random = torch.Generator().manual_seed(seed)
    found, attacked = images.clone(), torch.arange(len(images), device=images.device)
    places = _normal(images[:, :1].shape, random, images).flatten(1).argsort(1)
    colors = _corners(images.shape, random, images)
    best = torch.full((len(images),), -torch.inf, device=images.device)
    for query in range(queries):
        count = 0 if query == 0 else max(1, round(pixels * start_share * _share(query / queries)))
        tried, painted = _exchange(places, colors, pixels, count, random)
        moved = _paint(images[attacked], tried[:, :pixels], painted)
        loss = margin(victim(moved), labels[attacked])
        better = loss >= best
        places, colors = _chosen(better, tried, places), _chosen(better, painted, colors)
        best = torch.where(better, loss, best)
        found[attacked[better]] = moved[better]
        resists = best <= 0
        attacked, places, colors, best = attacked[resists], places[resists], colors[resists], best[resists]
        if not len(attacked):
            break
    return found


# Of the search done, and what the first share is then divided by (Croce et al., 2022, app. A).
_SCHEDULE = (
    *((0.8, 20), (0.6, 15), (0.4, 12), (0.2, 10), (0.1, 8)),
    *((0.05, 6), (0.02, 5), (0.005, 4), (0.001, 2)),
)


def _share(done: float) -> float:
    return next((1 / divisor for begin, divisor in _SCHEDULE if done > begin), 1.0)


def _exchange(
    places: torch.Tensor, colors: torch.Tensor, pixels: int, count: int, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an order of pixels whose first `pixels` differ from the given one's in `count`, and colors."""
    tried, painted = places.clone(), colors
    if count:
        # A random order of the changed and of the others: the first `count` of each change sides.
        leave = _order(len(places), pixels, random, places)[:, :count]
        enter = pixels + _order(len(places), places.shape[1] - pixels, random, places)[:, :count]
        tried = tried.scatter(1, leave, places.gather(1, enter)).scatter(1, enter, places.gather(1, leave))
        fresh = _corners(colors.shape, random, colors)
        entered = tried.gather(1, leave)[:, None].expand(-1, colors.shape[1], -1)
        painted = colors.flatten(2).scatter(2, entered, fresh.flatten(2).gather(2, entered)).view_as(colors)
    return tried, painted


def _paint(images: torch.Tensor, places: torch.Tensor, colors: torch.Tensor) -> torch.Tensor:
    where = places[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).scatter(2, where, colors.flatten(2).gather(2, where)).view_as(images)


def _chosen(which: torch.Tensor, new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    return torch.where(which.view(-1, *[1] * (new.ndim - 1)), new, old)


def _largest(field: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return a mask of the largest values of each plane, float32 [n, 1, H, W]."""
    places = field.flatten(1).topk(pixels, dim=1).indices
    return torch.zeros_like(field.flatten(1)).scatter(1, places, 1.0).view_as(field)


def _box(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Return perturbations to uniformly random colors."""
    return torch.rand(images.shape, generator=random).to(images) - images


def _normal(shape: torch.Size, random: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    # On the CPU, as everything random here, so that a seed means the same on every device.
    return torch.randn(shape, generator=random).to(like)


def _corners(shape: torch.Size, random: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    return torch.randint(0, 2, shape, generator=random).to(like)


def _order(rows: int, size: int, random: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    return torch.rand((rows, size), generator=random).argsort(1).to(like.device)
