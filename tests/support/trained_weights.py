"""Weights that a command has trained."""

import torch
from safetensors.torch import load_file


def weights(run_dir):
    return load_file(run_dir / "model.safetensors")


def same(one, other):
    """Whether two runs have the same weights, bit for bit."""
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())
