"""What became of one input: it was right, refused in one line, or wrong."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import NamedTuple

from edgeprune_formats import EdgePruneError

__all__ = ["KINDS", "REFUSED", "RIGHT", "WRONG", "Outcome", "WrongError", "judged"]

RIGHT, REFUSED, WRONG = KINDS = ("right", "refused", "wrong")

LONGEST = 1000
"""Characters of a refusal."""


class Outcome(NamedTuple):
    """One of `KINDS`, and the reason."""

    kind: str
    reason: str = ""


class WrongError(Exception):
    """Something was accepted, or read as something that it is not."""


def judged(check: Callable[[bytes], object], data: bytes) -> Outcome:
    """Return what became of an input that `check` was given.

    An `EdgePruneError` of one line is a refusal. Whatever else is raised is wrong.
    """
    try:
        check(data)
    except EdgePruneError as error:
        text = str(error)
        if not text.isprintable() or len(text) > LONGEST:
            return Outcome(WRONG, f"a refusal that is no line of text: {text[:LONGEST]!r}")
        return Outcome(REFUSED, text)
    # What a fuzzer looks for is what nobody thought of.
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{last.filename.rpartition('/')[2]}:{last.lineno}"
        return Outcome(WRONG, f"{type(error).__name__}: {str(error)[:400]} ({where})")
    return Outcome(RIGHT)
