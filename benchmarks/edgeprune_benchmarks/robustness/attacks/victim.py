"""The network under attack: images on [0, 1] to logits, with the normalization inside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn

from edgeprune.masks.classifier import classifier_from_run
from edgeprune.masks.components import select_components
from edgeprune.masks.fse_net import importance
from edgeprune.masks.torch_dct import dct2, idct2

__all__ = ["PrunedVictim", "Victim", "load_victim", "weights_hash"]


class Victim(nn.Module):
    """A trained network behind its normalization, in evaluation mode, its weights fixed.

    Parameters
    ----------
    model : torch.nn.Module
        Normalized float32 [n, 3, H, W] to logits [n, classes].
    mean, std : sequence of float
        Of each channel, for pixels on [0, 1].
    """

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.eval()
        self.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 [n, classes], of images on [0, 1], float32 [n, 3, H, W]."""
        return cast(torch.Tensor, self.model((images - self.mean) / self.std)).float()


class PrunedVictim(nn.Module):
    """A victim that prunes the frequencies of every image it is shown, then classifies.

    The mask is a step function of the image, so its derivative is zero wherever it exists: differentiating
    through transform, selection and inverse with the mask held is the exact gradient, which makes every
    gradient attack on this module an adaptive one. What the gradient cannot see are the steps themselves.

    Parameters
    ----------
    victim : Victim
        Classifies the pruned image.
    k, k_total : int
        Components kept in each channel for their energy, and in all (eq. 8 of the paper).
    fse_net : torch.nn.Module, optional
        Weighs the others; without one, all are chosen by energy.
    """

    def __init__(self, victim: Victim, k: int, k_total: int, fse_net: nn.Module | None = None) -> None:
        super().__init__()
        self.victim, self.k, self.k_total = victim, k, k_total
        self.fse_net = fse_net
        self.eval()
        self.requires_grad_(False)

    def prune(self, images: torch.Tensor) -> torch.Tensor:
        """Return what is left of images on [0, 1], float32 [n, C, H, W]; not clipped."""
        spectra = dct2(images)
        with torch.no_grad():
            energy = spectra.abs()
            scores = energy if self.fse_net is None else importance(spectra, self.fse_net(spectra))
            mask = select_components(energy.flatten(2), scores.flatten(2), self.k, self.k_total)
        return idct2(spectra * mask.view(spectra.shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 [n, classes], of images on [0, 1], float32 [n, C, H, W]."""
        return cast(torch.Tensor, self.victim(self.prune(images)))


def load_victim(run_dir: str | Path, device: torch.device) -> Victim:
    """Return the network of a finished training run.

    Raises
    ------
    ArtifactError
        There is none, it is damaged, or it does not say how its images are normalized.
    """
    found = classifier_from_run(run_dir)
    return Victim(found.model, found.mean, found.std).to(device)


def weights_hash(module: nn.Module) -> str:
    """Return SHA-256 over the names, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
