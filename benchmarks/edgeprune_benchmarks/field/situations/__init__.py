"""The situations, a module for each kind or for several."""

from . import (
    bad_files,
    graphs,
    images,
    indexing,
    places,
    signals,
    small,
    splits,
    strangers,
    terminals,
    weights,
)
from .registry import KINDS, SITUATIONS, Situation

__all__ = ["KINDS", "SITUATIONS", "Situation"]

# Importing a module enters its situations.
_MODULES = (
    *(splits, indexing, images, terminals, places, bad_files),
    *(weights, small, signals, graphs, strangers),
)
