"""Near duplicates that a build leaves out."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats.files import atomic_file
from edgeprune_runtime.text import count_text

from ...errors import SourceError
from ...issues.duplicates import DISTANCE, Duplicates, find_duplicates
from ...issues.prints import fingerprints
from ...sources import Source
from ...sources.check import refuse_bad
from ...work.callbacks import StageProgress
from ...work.processes import Workers

__all__ = ["LeftOut", "left_out", "left_out_text"]

# Classes that are told, those of most images.
_TOLD = 100


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Images of a source that near duplicates of them stand for.

    Attributes
    ----------
    rows : int64 [m]
        Ascending. Of a group of near duplicates all but the first, or all, where their labels differ: one of
        the labels is wrong, and nothing tells which.
    facts : dict
        For provenance: ``distance``, ``groups``, ``left_out`` (images), ``groups_of_several_classes``,
        ``left_out_with_them`` and ``classes``, images left out by class, of at most 100 classes.
    """

    rows: NDArray[np.int64]
    facts: dict[str, Any]

    def to_bytes(self, key: str) -> bytes:
        """Return it as bytes, for another process or a file; see `from_bytes`."""
        buffer = io.BytesIO()
        text = np.frombuffer(json.dumps([key, self.facts]).encode(), np.uint8)
        np.savez(buffer, text=text, rows=self.rows)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, key: str) -> LeftOut | None:
        """Return what `to_bytes` was called on; None if it is of another key."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found, facts = json.loads(arrays["text"].tobytes())
            return cls(arrays["rows"], facts) if found == key else None


def left_out(
    source: Source,
    good: NDArray[np.integer[Any]],
    *,
    jobs: int,
    workers: Workers,
    progress: StageProgress | None,
    kept: Path | None,
) -> LeftOut:
    """Find what to leave out; the first process reads all images for it, and tells the others.

    Parameters
    ----------
    source : Source
    good : int [n]
        The rows to look at, ascending: those that can be read.
    jobs, workers, progress
        See `edgeprune.build_pack`.
    kept : Path or None
        A file in which it is kept for the next build of these images.

    Raises
    ------
    SourceError
        An image cannot be read, or none would be left.
    """
    key = _key(source, good)
    if kept is not None and kept.exists():
        found = LeftOut.from_bytes(kept.read_bytes(), key)
        if found is not None:
            return found
    content = b""
    if workers.rank == 0:
        prints = fingerprints(source, good, jobs, refuse_bad, progress)
        content = _left_out(source, find_duplicates(prints)).to_bytes(key)
    content = workers.from_first(content)
    if kept is not None and workers.rank == 0:
        with atomic_file(kept) as partial:
            partial.write_bytes(content)
    found = LeftOut.from_bytes(content, key)
    assert found is not None
    if len(found.rows) == len(good):
        raise SourceError(
            f"{source.spec}: each image is a near duplicate of one of another class; leave out "
            "`drop_duplicates`"
        )
    return found


def _key(source: Source, good: NDArray[np.integer[Any]]) -> str:
    text = json.dumps([source.spec, source.split, list(source.shape), DISTANCE])
    digest = hashlib.sha256(text.encode())
    digest.update(good.astype("<i8").tobytes())
    digest.update(source.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _left_out(source: Source, found: Duplicates) -> LeftOut:
    groups = [found.rows[group] for group in found.groups()]
    differ = [group for group in groups if len(np.unique(source.labels[group])) > 1]
    alike = [group[1:] for group in groups if len(np.unique(source.labels[group])) == 1]
    rows = np.sort(np.concatenate([np.empty(0, np.int64), *differ, *alike]))
    facts = {
        "distance": DISTANCE,
        "groups": len(groups),
        "left_out": len(rows),
        "groups_of_several_classes": len(differ),
        "left_out_with_them": sum(map(len, differ)),
        "classes": _by_class(source, rows),
    }
    return LeftOut(rows, facts)


def _by_class(source: Source, rows: NDArray[np.int64]) -> dict[str, int]:
    # Without classes, labels are all 0 and stand for none.
    names = source.class_names
    counts = np.bincount(source.labels[rows], minlength=len(names))[: len(names)]
    most = np.argsort(-counts, kind="stable")[:_TOLD]
    return {names[label]: int(counts[label]) for label in most.tolist() if counts[label]}


def left_out_text(facts: Mapping[str, Any]) -> str:
    """Return a line for a user on `LeftOut.facts`."""
    classes = [f"{name} {count:,}" for name, count in facts["classes"].items()]
    named = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    of = count_text(facts["groups"], "group")
    text = f"{count_text(facts['left_out'], 'near duplicate')} of {of} left out"
    text += f" ({named})" if named else ""
    if facts["groups_of_several_classes"]:
        text += (
            f"; {count_text(facts['groups_of_several_classes'], 'group')} with more than one class left out "
            f"whole, {count_text(facts['left_out_with_them'], 'image')}"
        )
    return text
