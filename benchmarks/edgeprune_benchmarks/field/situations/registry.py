"""The list that situations enter themselves in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..place import Place

__all__ = ["KINDS", "SITUATIONS", "Situation", "situation"]

KINDS = (
    "split folders",
    "indexing",
    "odd images",
    "terminals",
    "places",
    "one bad file",
    "weights",
    "small numbers",
    "signals and pipes",
    "int8 graphs",
    "packs of strangers",
    "runs of strangers",
    "models of strangers",
    "signatures",
    "planted links",
)
# Each returns "right" or "refused", or raises WrongError.
Check = Callable[[Place], str]


@dataclass(frozen=True)
class Situation:
    """What may happen to a user.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    name : str
        In words.
    check : callable
        Brings it about in an empty folder and looks at what comes of it.
    """

    kind: str
    name: str
    check: Check


SITUATIONS: list[Situation] = []


def situation(kind: str, name: str) -> Callable[[Check], Check]:
    """Enter the function below as a situation of a kind."""
    if kind not in KINDS:
        raise ValueError(f"{kind} is not one of {', '.join(KINDS)}")

    def enter(check: Check) -> Check:
        SITUATIONS.append(Situation(kind, name, check))
        return check

    return enter
