"""The tables of what a teacher's probabilities in a pack are worth, and of what they take."""

from __future__ import annotations

from statistics import mean
from typing import Any

from edgeprune.text import count_text

from ..harness.markdown import Column, mean_and_range, render
from .distillation_rows import ROWS

__all__ = ["distill_table"]

Results = dict[str, Any]


def distill_table(results: Results) -> list[str]:
    """Return test accuracy by budget, mean and range over seeds, and the forms of probabilities."""
    recipe, teacher = results["recipe"], results["teacher"]
    images, own_class = f"{results['train_images']:,}", f"{results['own_class']:.1%}"
    intro = (
        f"{recipe['model']}, {_passes(recipe)} image passes. Of {images} images in exact pixels it learns "
        f"from as many as fit, at {results['psnr']:g} dB, in the same random order in all rows, and is "
        f"tested on {results['test_images']:,} others. Cells have the test accuracy in %, mean (lowest to "
        f"highest). The teacher is a {teacher['model']} "
        f"after {_passes(teacher)} image passes over all {images} images, with a test accuracy of "
        f"{results['teacher_accuracy']:.1%}; `--distill {results['distill']:g}`. On average it gives the "
        f"correct class {own_class}. Labels with an even smoothing of {results['label_smoothing']:.3f} give "
        f"the correct class as much as labels and teacher do together. "
        f"{len(results['rows'])} of {results['cells']} networks are trained."
    )
    columns = [Column("learned", lambda row: row), *(_budget(results, one) for one in results["budgets_mb"])]
    return [*render(columns, ROWS, intro), "", *_forms(results)]


def _passes(recipe: Results) -> str:
    return f"{recipe['iterations'] * recipe['batch_size']:,}"


def _budget(results: Results, budget: float) -> Column:
    def cell(name: str) -> str | None:
        rows = [row for row in results["rows"] if (row["budget_mb"], row["row"]) == (budget, name)]
        if not rows:
            return None
        accuracies = mean_and_range([row["test_accuracy"] for row in rows])
        images = round(mean(row["images"] for row in rows))
        return f"{accuracies}, {count_text(len(rows), 'seed')}, {images:,} images"

    return Column(f"{budget:g} MB", cell)


def _forms(results: Results) -> list[str]:
    intro = (
        "How many bytes the teacher's probabilities take in each form in which a pack can store them, and "
        "how much the form loses: the mean KL divergence between the probabilities and what is read back, in "
        "thousandths of a nat."
    )
    columns = [
        Column("form", _form),
        Column("B/image", "bytes", "{:.0f}"),
        Column("after zlib, B/image", "zlib_bytes", "{:.1f}"),
        Column("divergence, 1/1000", lambda row: 1000 * row["divergence"], "{:.2f}"),
    ]
    return render(columns, results["forms"], intro)


def _form(row: Results) -> str:
    return f"the {row['top']} likeliest and the rest" if row["top"] else f"all classes in {row['dtype']}"
