"""Runs of a small network that a command has trained: their weights and settings."""

import json

import torch
from safetensors.torch import load_file

NETWORK = ["--model", "resnet8", "--batch-size", 8, "--device", "cpu", "--precision", "float32"]


def config(run_dir):
    return json.loads((run_dir / "config.json").read_text())


def weights(run_dir):
    return load_file(run_dir / "model.safetensors")


def same(one, other):
    """Whether two runs have the same weights, bit for bit."""
    return all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())
