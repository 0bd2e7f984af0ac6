"""Errors that only the builder raises; all are `EdgePruneError`."""

from __future__ import annotations

from edgeprune_formats import EdgePruneError

__all__ = ["SourceError"]


class SourceError(EdgePruneError):
    """Images or labels of a source are missing, unreadable or inconsistent."""
