"""The tables of wrong labels and near duplicates, for the documentation."""

from __future__ import annotations

from typing import Any

from edgeprune.text import count_text

from ..harness.markdown import Column, mean_and_range, render

__all__ = ["issue_tables"]

Results = dict[str, Any]
# Distances at which copies are shown, beside the default.
_SHOWN = (0, 10, 24)


def issue_tables(results: Results) -> list[str]:
    """Return what was found of planted labels, of planted copies, and in all of CIFAR-10."""
    return [*_labels(results), "", *_copies(results), "", *_real(results)]


def _labels(results: Results) -> list[str]:
    rows, scoring = results["labels"], results["scoring"]
    planted = rows[0]["planted"]
    intro = (
        f"**Wrong labels.** {planted:,} of {results['images']:,} images got the label of another class, "
        f"drawn uniformly, and all were scored by {scoring['epochs']} epochs of {scoring['model']}; "
        f"{count_text(len(rows), 'seed')}, mean (lowest to highest) in %. "
        f"Training accuracy at the end, counted with the wrong labels: "
        f"{mean_and_range([row['accuracy'] for row in rows])}."
    )
    lines: list[tuple[str, list[float], list[float] | None, list[float] | None]] = [
        (
            f"the {int(rank):,} of lowest margin",
            [row["precision"][rank] for row in rows],
            [row["precision_of_probabilities"][rank] for row in rows],
            None,
        )
        for rank in rows[0]["precision"]
    ]
    listed = ", ".join(f"{row['listed']:,}" for row in rows)
    precision, recall = ([row[f"listed_{name}"] for row in rows] for name in ("precision", "recall"))
    lines.append((f"all that the command lists ({listed})", precision, None, recall))
    columns = [
        Column("images listed", 0),
        Column("wrongly labeled among them", lambda line: mean_and_range(line[1])),
        Column("the same, by the margin of probabilities", lambda line: line[2] and mean_and_range(line[2])),
        Column("share of all wrong labels", lambda line: line[3] and mean_and_range(line[3])),
    ]
    return render(columns, lines, intro)


def _copies(results: Results) -> list[str]:
    copies, default = results["copies"][0]["copies"], results["distance"]
    intro = (
        f"**Planted copies.** {copies} of the {results['images']:,} images were added a second time, "
        f"changed. Shown is the share that was found, by the largest distance allowed; {default} bits is "
        "the default. Others: images that were listed, but not planted."
    )
    distances = sorted({*_SHOWN, default})
    columns = [Column("change", "change")]
    columns += [_recall(distance) for distance in distances]
    columns += [_others(distance) for distance in distances[-2:]]
    return render(columns, results["copies"], intro)


def _recall(distance: int) -> Column:
    return Column(f"{distance} bits", lambda row: row["rows"][distance]["recall"], "{:.1%}")


def _others(distance: int) -> Column:
    return Column(f"others, {distance} bits", lambda row: row["rows"][distance]["others"], "{:,}")


def _real(results: Results) -> list[str]:
    (found,) = results["real"]
    intro = (
        f"**Real duplicates.** All {found['train']:,} training and {found['test']:,} test images of CIFAR-10 "
        "(JPEG copy). A row counts the images that are at this distance from an earlier image. Comparing "
        f"all pairs took {found['find_seconds']:.0f} s of one core."
    )
    columns = [
        Column("bits", "distance"),
        Column("images", "images", "{:,}"),
        Column("the same pixels", "exact", "{:,}"),
        Column("mirrored", "mirrored", "{:,}"),
        Column("test image near a training image", "test_of_train", "{:,}"),
        Column("of another class", "classes_differ", "{:,}"),
    ]
    return render(columns, found["rows"], intro)
