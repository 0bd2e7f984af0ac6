"""Errors that only the runtime and what is built on it raise; all are `EdgePruneError`."""

from __future__ import annotations

from edgeprune_formats import EdgePruneError

__all__ = ["ArtifactError", "SignatureError", "TrainingError"]


class ArtifactError(EdgePruneError):
    """A scores file, FSE-Net, classifier or ONNX model is missing, damaged or not for these images."""


class SignatureError(EdgePruneError):
    """A file has no signature, one of another key, or is not the file that was signed."""


class TrainingError(EdgePruneError):
    """A training run cannot start, go on or be resumed; also a network that cannot be exported."""
