"""Networks to attack that take milliseconds: linear, with labels that are their own predictions."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn

from edgeprune_benchmarks.robustness.attacks import auto_attack
from edgeprune_benchmarks.robustness.attacks.victim import Victim

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


class Linear(nn.Module):
    """A smooth random direction of a 3x8x8 image a class: margins are small beside 8/255 in each pixel."""

    def __init__(self, seed=0, size=8, classes=10):
        super().__init__()
        torch.manual_seed(seed)
        self.flatten, self.head = nn.Flatten(), nn.Linear(3 * size * size, classes)
        nn.init.normal_(self.head.weight, std=0.3)
        # So that a batch in training mode moves something.
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images):
        return self.head(self.flatten(self.norm(images)))


class Around(nn.Module):
    """Something of one's own between the images and a linear victim: a subclass says what, in ``forward``."""

    def __init__(self, size=8):
        super().__init__()
        self.inner = linear_victim(size=size)
        self.std = self.inner.std
        self.eval()


def linear_victim(seed=0, size=8, classes=10):
    return Victim(Linear(seed, size, classes), MEAN, STD)


def own_images(victim, count=40, seed=1, size=8, spread=0.02):
    """Images near gray, and what the victim sees in them: margins that a few gray levels overcome."""
    random = torch.Generator().manual_seed(seed)
    images = 0.5 + spread * (2 * torch.rand((count, 3, size, size), generator=random) - 1)
    with torch.no_grad():
        return images, victim(images).argmax(1)


@contextmanager
def short_searches(shorten=None):
    """AutoAttack with a fraction of its steps and queries, which are what takes the time of a report."""
    whole, shorten = auto_attack._library, shorten or shortened
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto_attack, "_library", lambda *arguments: shorten(whole(*arguments)))
        yield


def few_queries(library):
    """Give the library its last component, a search without gradients, for a fraction of its queries."""
    library.square.n_queries = 100
    return library


def shortened(library):
    """Give the library a fraction of its steps, queries and targets."""
    library.apgd.n_iter = library.apgd_targeted.n_iter = library.fab.n_iter = 20
    library.apgd.n_iter_orig = library.apgd_targeted.n_iter_orig = 20
    library.square.n_queries = 100
    for part in (library.apgd_targeted, library.fab):
        part.n_target_classes = min(3, part.n_target_classes)
    return library


def weights_in_pixels(victim):
    """The linear map from pixels on [0, 1] to logits, [10, 3 * 8 * 8]."""
    norm = victim.model.norm
    scale = norm.weight / (norm.running_var + norm.eps).sqrt() / torch.tensor(STD)
    return victim.model.head.weight * scale.repeat_interleave(64)


def nearest(victim, images, labels, order):
    """Of a linear network, the exact distance of each image to another class; the box of pixels is far."""
    logits = victim(images)
    differences = weights_in_pixels(victim) - weights_in_pixels(victim)[labels][:, None]
    gaps = logits[torch.arange(len(labels)), labels][:, None] - logits
    distance = gaps / differences.norm(p=order, dim=2)
    return torch.where(distance.isfinite(), distance, torch.inf).amin(1)
