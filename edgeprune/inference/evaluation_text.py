"""What was found of a network in words and in one table, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from edgeprune_formats.errors import printable
from edgeprune_runtime.task import Task

from .confusion import ClassEvaluation
from .evaluation import Evaluation
from .multilabel import MultilabelEvaluation
from .values import ValueEvaluation

__all__ = ["Table", "summary", "table", "unit_text"]

# With more classes, labels or numbers the table is of the worst.
_MANY, _LISTED, _UNIT = 20, 10, 16
_Score = TypeVar("_Score")


@dataclass(frozen=True)
class Table:
    """A row for each class, label or number.

    Attributes
    ----------
    note : str
        Which rows these are, where there are more.
    head : tuple of str
    rows : list of tuple of str
        Names first, as they are; then figures.
    """

    note: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def summary(found: Evaluation) -> list[str]:
    """Return the figures of all images, a line for each few of them."""
    if isinstance(found, ClassEvaluation):
        accuracy, recall = f"{found.accuracy:.2%}", f"{found.mean_recall:.2%}"
        entropy = f"cross entropy {found.loss / found.images:.4f}"
        return [f"accuracy {accuracy}, mean recall of the classes {recall}, {entropy}"]
    if isinstance(found, MultilabelEvaluation):
        record = found.record()
        names = ("mean average precision", "mean F1 of the labels", "all labels right")
        shares = _shares(record["map"], record["mean_f1"], record["exact_match"])
        told = ", ".join(f"{name} {share}" for name, share in zip(names, shares, strict=True))
        return [f"{told}, cross entropy {record['cross_entropy']:.4f}"]
    values, task = found.values(), found.task
    unit, name = unit_text(task), printable(task.target)
    if len(values) > 1:
        known = [one.r2 for one in values if one.r2 is not None]
        mean = f"mean R2 {_r2_text(sum(known) / len(known) if known else None)}"
        return [f"{name}, {len(values):,} numbers{unit and f' in{unit}'}: {mean}"]
    (one,) = values
    errors = f"mean absolute error {one.mae:.4g}{unit}, root mean square error {one.rmse:.4g}{unit}"
    return [
        f"{name}: {errors}, R2 {_r2_text(one.r2)}",
        f"mean error {one.mean_error:+.4g}{unit}; 95% of the errors are at most {one.p95:.4g}{unit}",
    ]


def table(found: Evaluation) -> Table | None:
    """Return a table of each class, label or number; None of a single number."""
    if isinstance(found, ClassEvaluation):
        return _of_classes(found)
    if isinstance(found, MultilabelEvaluation):
        return _of_labels(found)
    return _of_values(found) if found.true.shape[1] > 1 else None


def _of_classes(found: ClassEvaluation) -> Table:
    classes, note = _worst(found.classes(), lambda one: one.recall, "classes of least recall")
    rows = [(one.name, f"{one.images:,}", *_shares(one.recall, one.precision, one.f1)) for one in classes]
    return Table(note, ("class", "images", "recall", "precision", "F1"), rows)


def _of_labels(found: MultilabelEvaluation) -> Table:
    labels, note = _worst(
        found.labels(), lambda one: one.average_precision, "labels of least average precision"
    )
    rows = [
        (one.name, f"{one.images:,}", *_shares(one.average_precision, one.recall, one.precision, one.f1))
        for one in labels
    ]
    return Table(note, ("label", "images", "AP", "recall", "precision", "F1"), rows)


def _of_values(found: ValueEvaluation) -> Table:
    values, note = _worst(list(enumerate(found.values())), lambda one: one[1].r2, "numbers of least R2")
    rows = [
        (
            f"{number}",
            *(f"{error:.4g}" for error in (one.mae, one.rmse, one.mean_error, one.p95)),
            _r2_text(one.r2),
        )
        for number, one in values
    ]
    return Table(note, ("number", "MAE", "RMSE", "mean error", "95% within", "R2"), rows)


def _worst(
    scores: list[_Score], measure: Callable[[_Score], float | None], what: str
) -> tuple[list[_Score], str]:
    """Return all scores, or the worst of many, and a note of which these are."""
    if len(scores) <= _MANY:
        return scores, ""
    known = [(value, place) for place, one in enumerate(scores) if (value := measure(one)) is not None]
    if not known:
        return scores[:_LISTED], f"the first {_LISTED} of {len(scores):,}, of which none can be ranked"
    worst = [scores[place] for _, place in sorted(known)[:_LISTED]]
    return worst, f"the {len(worst)} {what}, of {len(scores):,}"


def unit_text(task: Task) -> str:
    """Return the unit of values behind a space, cut where it is long; nothing where there is none."""
    unit = printable(task.unit)
    return unit and f" {unit if len(unit) <= _UNIT else f'{unit[: _UNIT - 3]}...'}"


def _shares(*values: float | None) -> tuple[str, ...]:
    return tuple("-" if value is None else f"{value:.1%}" for value in values)


def _r2_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
