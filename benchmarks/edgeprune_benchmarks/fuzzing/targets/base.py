"""What all targets have: inputs to begin with, changes that fit them, and a check."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from ..mutation import changed_bytes
from ..outcomes import Outcome, judged

__all__ = ["Target"]


class Target(ABC):
    """A reader that is fuzzed.

    Parameters
    ----------
    folder : Path
        An empty folder to work in.

    Attributes
    ----------
    name : str
    what : str
        What is changed, and what must hold, for the table.
    needs : tuple of str
        Packages without which there is no such target.
    seeds : list of bytes
        Sound inputs.
    """

    name: ClassVar[str]
    what: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    seeds: list[bytes]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, data: bytes) -> Outcome:
        """Return what becomes of an input."""
        return judged(self.check, data)

    @abstractmethod
    def check(self, data: bytes) -> None:
        """Let the reader read an input.

        Raises
        ------
        EdgePruneError
            It is refused.
        WrongError
            It is accepted and must not be.
        """

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Return an input that was made of another."""
        return changed_bytes(data, source, self.seeds)
