"""The tables of docs/results/selection.md."""

from __future__ import annotations

from statistics import mean
from typing import Any

from ..harness.markdown import table

__all__ = ["coreset_table", "correlation_table", "learning_table", "mask_table"]

NAMES = {
    "full": "all images",
    "random": "random",
    "entropy": "entropy",
    "forgetting": "forgetting",
    "el2n": "EL2N",
    "aum": "AUM",
    "joint_entropy": "joint entropy (JE)",
    "joint_entropy, better half": "the half of lowest JE (important), no CCS",
    "joint_entropy, worse half": "the half of highest JE, no CCS",
}


def coreset_table(results: dict[str, Any]) -> list[str]:
    """Return the accuracy of each method at each ratio: mean, and range over the seeds."""
    cells: dict[tuple[str, float], list[float]] = {}
    for row in results["rows"]:
        cells.setdefault((row["method"], row["sample_prune"]), []).append(row["test_accuracy"])
    ratios = sorted({ratio for _, ratio in cells if ratio})
    methods = list(dict.fromkeys(method for method, _ in cells))
    full = cells[("full", 0.0)]
    seeds = len(full)
    recipe = results["recipe"]
    head = (
        f"{recipe['model']}, {results['train_images']:,} images to choose from, "
        f"{results['test_images']:,} to test, "
        f"{recipe['iterations']:,} iterations of {recipe['batch_size']} whatever the size of the coreset, "
        f"{seeds} seeds; test accuracy in %, mean (lowest to highest). All images: {_cell(full)}."
    )
    rows = [
        [NAMES[method], *(_cell(cells.get((method, ratio), [])) for ratio in ratios)]
        for method in methods
        if method != "full"
    ]
    return [head, "", *table(["coreset by", *(f"{ratio:.0%} pruned" for ratio in ratios)], rows)]


def correlation_table(results: dict[str, Any]) -> list[str]:
    """Return Spearman's rank correlations."""
    names = list(results["rank_correlation"])
    rows = [
        [NAMES[one], *(f"{results['rank_correlation'][one][other]:.2f}" for other in names)] for one in names
    ]
    head = (
        "Spearman's rank correlation of the scores, each turned so that its harder, for JE its more "
        f"important, end is high ({results['scoring']['epochs']} epochs of {results['scoring']['model']}, "
        f"training accuracy {results['scoring']['train_accuracy']:.1%}):"
    )
    return [head, "", *table(["", *(NAMES[name] for name in names)], rows)]


def mask_table(results: dict[str, Any]) -> list[str]:
    """Return what a classifier and a network in training make of masked images."""
    plan = results["plan"]
    head = (
        f"{results['classifier']['model']} as the classifier; FSE-Net learned for {plan['masks']['epochs']} "
        f"epochs on {results['train_images']:,} images; {plan['model']} trained {plan['epochs']} epochs from "
        f"each pack and tested on {results['test_images']:,} whole images, {plan['seeds']} seeds, mean "
        "(lowest to highest)."
    )
    rows = [
        [
            f"{row['freq_prune']:.0%}",
            row["mask"],
            f"{row['components']:,}",
            "-" if row["psnr_db"] is None else f"{row['psnr_db']:.2f}",
            f"{row['entropy']:.4f}",
            f"{row['classifier_accuracy']:.2%}",
            f"{row['history'][-1]['overlap']:.1%}" if "history" in row else "-",
            _cell(row["test_accuracy"]),
        ]
        for row in results["rows"]
    ]
    header = ["pruned", "mask", "kept a channel", "PSNR, dB", "mean entropy, nats", "classifier's accuracy"]
    return [head, "", *table([*header, "overlap with energy mask", "trained from it, %"], rows)]


def learning_table(results: dict[str, Any]) -> list[str]:
    """Return time and memory of scoring and of learning masks."""
    rows = [
        [
            f"{row['source']}, {row['images']:,}",
            row["model"],
            f"{row['device']}, {row['threads']} threads" if row["device"] == "cpu" else row["device"],
            str(row["batch_size"]),
            f"{row['step_images_per_second']:,.0f}",
            f"{row['step_images_per_second'] / row['bare_step_images_per_second']['median']:.2f}x",
            # Where every epoch recorded entropies, what the other four record in their steps is not known.
            f"{'' if row['epochs'] > 1 else 'at least '}{row['record_share_every_5']:.1%}",
            _memory(row["scoring_peak"]),
            f"{row['mask_epoch_seconds']:,.1f}",
            f"{row['mask_images_per_second']:,.0f}",
            _memory(row["mask_peak"]),
        ]
        for row in results["rows"]
    ]
    header = ["images", "network", "on", "batch", "training, images/s", "of the bare step", "in the records"]
    more = ["peak, MiB", "an epoch of masks, s", "masks, images/s", "peak with masks, MiB"]
    return table([*header, *more], rows)


def _cell(accuracies: list[float]) -> str:
    if not accuracies:
        return "-"
    return f"{mean(accuracies):.1%} ({min(accuracies):.1%} to {max(accuracies):.1%})".replace("%", "")


def _memory(peak: dict[str, float]) -> str:
    device = f", GPU {peak['device_mib']:,.0f}" if "device_mib" in peak else ""
    return f"{peak['host_mib']:,.0f}{device}"
