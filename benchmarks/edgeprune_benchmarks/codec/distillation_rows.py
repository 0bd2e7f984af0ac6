"""What the networks of the comparison of a teacher's probabilities learn; needs no torch."""

from __future__ import annotations

__all__ = ["LABELS", "MORE", "ROWS", "SMOOTHED", "TAUGHT"]

LABELS, SMOOTHED = "labels", "labels, evenly smoothed"
TAUGHT, MORE = "labels and the teacher's probabilities", "labels, of more images in the same bytes"
ROWS = (LABELS, SMOOTHED, TAUGHT, MORE)
