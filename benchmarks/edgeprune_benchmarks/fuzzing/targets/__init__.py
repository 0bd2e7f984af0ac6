"""The readers that are fuzzed, a module a kind of file."""

from __future__ import annotations

import importlib

from edgeprune_formats import ConfigError

from .base import Target

__all__ = ["NAMES", "target_class"]

# Modules are imported when a target is asked for: some need packages that others do not.
_PLACES = {
    "pack-file": ("packs", "PackFile"),
    "pack-content": ("packs", "PackContent"),
    "provenance": ("packs", "Provenance"),
    "sparse-f32": ("payloads", "SparseF32"),
    "sparse-f16": ("payloads", "SparseF16"),
    "quantized": ("payloads", "Quantized"),
    "scores-file": ("scores", "ScoresFile"),
    "scores-content": ("scores", "ScoresContent"),
    "run-config": ("runs", "RunConfig"),
    "checkpoint-state": ("runs", "CheckpointState"),
    "checkpoint-tensors": ("runs", "CheckpointTensors"),
    "model": ("runs", "Model"),
    "onnx": ("graphs", "Graph"),
    "signature": ("signatures", "Sidecar"),
}
NAMES = tuple(_PLACES)


def target_class(name: str) -> type[Target]:
    """Return a target by name.

    Raises
    ------
    ConfigError
        There is none.
    ModuleNotFoundError
        A package that it needs is not installed.
    """
    if name not in _PLACES:
        raise ConfigError(f"unknown target {name!r}; choose from {', '.join(NAMES)}")
    module, kind = _PLACES[name]
    found: type[Target] = getattr(importlib.import_module(f"{__name__}.{module}"), kind)
    for package in found.needs:
        importlib.import_module(package)
    return found
