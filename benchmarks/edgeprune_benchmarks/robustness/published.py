"""What the paper prints, for the side columns: never an expectation (docs/results/robustness.md says why).

Accuracies of ResNet-18 on CIFAR-10 in %, by method and pruning ratio: clean from its Table 13, under attack
from its Tables 6 (L2 and L1 AutoAttack), 7 (sparse), 8 (L1-APGD), 9 (AutoAttack under Linf 8/255), and of all
images the text of Table 1. Ratios are those of the headings, though Tables 6 and 9 seem to disagree on them.
"""

from __future__ import annotations

__all__ = ["PUBLISHED"]

_RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9)


def _by_ratio(*values: float) -> dict[float, float]:
    return dict(zip(_RATIOS, values, strict=True))


def _from_the_hardest(*values: float) -> dict[float, float]:
    """Of tables that begin with 90%."""
    return dict(zip(reversed(_RATIOS), values, strict=True))


def _clean(*values: float) -> dict[float, float]:
    return dict(zip((0.3, 0.5, 0.7, 0.8, 0.9), values, strict=True))


PUBLISHED: dict[str, dict[str, dict[float, float]]] = {
    "AutoAttack Linf": {
        "natural": {0.0: 43.86},
        "random": _from_the_hardest(15.27, 21.55, 20.85, 22.33, 21.53),
        "entropy": _from_the_hardest(21.65, 21.27, 30.92, 23.28, 20.74),
        "CCSFEM": _from_the_hardest(37.86, 40.98, 41.02, 40.18, 41.28),
        "JE": _from_the_hardest(40.16, 44.32, 42.97, 41.38, 40.65),
        "LF": _from_the_hardest(55.7, 58.19, 53.46, 51.14, 51.04),
        "JELF": _from_the_hardest(46.54, 47.35, 48.89, 49.72, 48.18),
    },
    "AutoAttack L2": {
        "random": _by_ratio(18.87, 23.51, 23.15, 21.39, 21.58),
        "entropy": _by_ratio(24.65, 24.27, 33.92, 26.28, 23.74),
        "CCSFEM": _by_ratio(40.86, 44.98, 44.02, 43.18, 44.28),
        "JE": _by_ratio(43.16, 47.32, 46.97, 44.38, 43.65),
        "LF": _by_ratio(58.70, 62.19, 56.46, 55.14, 54.04),
        "JELF": _by_ratio(49.83, 50.32, 51.19, 52.72, 51.21),
    },
    "AutoAttack L1": {
        "random": _by_ratio(15.87, 20.51, 20.15, 18.39, 18.58),
        "entropy": _by_ratio(21.65, 21.27, 30.92, 23.28, 20.74),
        "CCSFEM": _by_ratio(37.86, 40.98, 41.02, 40.18, 41.28),
        "JE": _by_ratio(40.16, 44.32, 42.97, 41.38, 40.65),
        "LF": _by_ratio(55.70, 58.19, 53.46, 51.14, 51.04),
        "JELF": _by_ratio(46.83, 47.32, 48.19, 49.72, 48.21),
    },
    "L1-APGD": {
        "random": _from_the_hardest(13.97, 18.61, 18.25, 16.49, 16.68),
        "entropy": _from_the_hardest(19.85, 19.47, 29.12, 21.48, 18.94),
        "CCSFEM": _from_the_hardest(35.96, 39.08, 39.12, 38.28, 35.38),
        "JE": _from_the_hardest(38.36, 42.52, 41.17, 39.58, 38.85),
        "LF": _from_the_hardest(55.50, 57.99, 53.26, 50.94, 50.84),
        "JELF": _from_the_hardest(46.63, 47.12, 47.99, 49.52, 48.01),
    },
    "sparse": {
        "random": _from_the_hardest(7.87, 9.51, 9.15, 7.39, 7.58),
        "entropy": _from_the_hardest(10.65, 10.27, 19.92, 12.28, 9.74),
        "CCSFEM": _from_the_hardest(26.86, 29.98, 30.02, 29.18, 30.28),
        "JE": _from_the_hardest(29.16, 33.32, 31.97, 30.38, 29.65),
        "LF": _from_the_hardest(44.70, 45.19, 42.46, 40.14, 40.04),
        "JELF": _from_the_hardest(35.83, 36.32, 37.19, 38.72, 37.21),
    },
    "clean": {
        "natural": {0.0: 95.41},
        "random": _clean(94.33, 93.4, 90.94, 87.98, 79.04),
        "entropy": _clean(94.44, 92.11, 85.67, 79.08, 66.52),
        "forgetting": _clean(95.36, 95.29, 90.56, 62.74, 34.03),
        "el2n": _clean(95.44, 94.61, 87.48, 70.32, 22.33),
        "aum": _clean(95.07, 95.26, 91.36, 57.84, 28.06),
        "CCSFEM": _clean(95.17, 94.67, 92.74, 90.55, 86.15),
        "LF": _clean(95.35, 94.67, 94.33, 93.21, 89.82),
        "JE": _clean(95.15, 94.07, 92.03, 90.98, 85.86),
        "JELF": _clean(95.11, 94.02, 91.93, 90.18, 84.86),
        "FEMLF": _clean(95.19, 95.07, 93.23, 91.98, 87.06),
    },
}
