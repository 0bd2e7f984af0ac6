"""What a device does with its pack, and what the server does with the result: plain PyTorch."""

import math
from collections.abc import Iterable
from pathlib import Path

import torch

from edgeprune_formats import PackHeader, open_pack
from edgeprune_runtime import PackLoader
from edgeprune_runtime.networks.models import create_model

MODEL, BATCH, LR = "resnet8", 32, 0.05


def new_network(header: PackHeader, seed: int = 0) -> torch.nn.Module:
    """Return a fresh network for the images of a pack."""
    torch.manual_seed(seed)
    return create_model(MODEL, len(header.class_names), header.height, header.channels)


def train(network: torch.nn.Module, pack: Path, *, rounds: Iterable[int], of: int, epochs: int) -> float:
    """Train for some rounds, of so many epochs each; the learning rate falls by a cosine over all rounds."""
    opened = open_pack(pack)
    # A part smaller than a batch is one batch.
    options = {"shuffle": True, "augment": True, "normalize": True, "drop_last": len(opened) >= BATCH}
    loader = PackLoader(opened, BATCH, device="cpu", backend="torch", **options)
    network.train()
    loss = torch.tensor(0.0)
    for number in rounds:
        lr = LR * (1 + math.cos(math.pi * number / of)) / 2
        optimizer = torch.optim.SGD(network.parameters(), lr, momentum=0.9, weight_decay=5e-4)
        for epoch in range(number * epochs, (number + 1) * epochs):
            loader.set_epoch(epoch)
            for images, labels in loader:
                loss = torch.nn.functional.cross_entropy(network(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return loss.item()


@torch.no_grad()
def accuracy(network: torch.nn.Module, test: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> float:
    network.eval()
    right = [(network(images).argmax(1) == labels).float() for images, labels in test]
    return torch.cat(right).mean().item()
