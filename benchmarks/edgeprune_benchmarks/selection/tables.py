"""The tables of coresets, masks and their cost, for the documentation."""

from __future__ import annotations

from statistics import mean
from typing import Any

from edgeprune.text import count_text

from ..harness.markdown import Column, mean_and_range, render

__all__ = ["coreset_table", "correlation_table", "learning_table", "loss_table", "mask_table"]

Results = dict[str, Any]
NAMES = {
    "full": "all images",
    "random": "random",
    "entropy": "entropy",
    "forgetting": "forgetting",
    "el2n": "EL2N",
    "aum": "AUM",
    "joint_entropy": "joint entropy (JE)",
    "dyn_unc": "Dyn-Unc",
    "dual": "DUAL",
    "joint_entropy, better half": "the half of lowest JE (important), no CCS",
    "joint_entropy, worse half": "the half of highest JE, no CCS",
}
# Points of accuracy lost against all images (95.4%), ResNet-18 on CIFAR-10.
PUBLISHED_LOSSES = {
    "random": {0.7: -4.5, 0.8: -7.4, 0.9: -12.2},
    "aum": {0.7: -2.4, 0.8: -4.5, 0.9: -9.3},
    "dual": {0.7: -2.4, 0.8: -4.0, 0.9: -8.3},
}


def coreset_table(results: Results) -> list[str]:
    """Return the accuracy of each method at each ratio: mean, and range over the seeds."""
    found = _accuracies(results)
    full = found.pop("full")[0.0]
    recipe = results["recipe"]
    intro = (
        f"{recipe['model']}, {results['train_images']:,} images to choose from, "
        f"{results['test_images']:,} to test, "
        f"{recipe['iterations']:,} steps of {recipe['batch_size']} images whatever the size of the coreset, "
        f"{count_text(len(full), 'seed')}; test accuracy in %, mean (lowest to highest). From all images: "
        f"{_of_seeds(full)}."
    )
    cells = results.get("cells", len(results["rows"]))
    if cells > len(results["rows"]):
        intro += f" {len(results['rows'])} of {cells} networks are trained."
    ratios = _ratios(found)
    columns = [Column("coreset by", lambda line: NAMES[line[0]]), *map(_ratio, ratios)]
    return render(columns, found.items(), intro)


def loss_table(results: Results) -> list[str]:
    """Return the points that each method loses against all images, beside those published."""
    found = _accuracies(results)
    full = mean(found.pop("full")[0.0])
    intro = (
        "Points lost against all images in the same recipe, mean (lowest to highest), and what was "
        "published for ResNet-18; AUM is CCS with AUM there."
    )
    columns = [Column("coreset by", lambda line: NAMES[line[0]])]
    for ratio in _ratios(found):
        columns += [_loss(ratio, full), _published(ratio)]
    return render(columns, found.items(), intro)


def _loss(ratio: float, full: float) -> Column:
    def lost(line: tuple[str, dict[float, list[float]]]) -> str:
        return _of_seeds([accuracy - full for accuracy in line[1].get(ratio, [])])

    return Column(f"{ratio:.0%} pruned", lost)


def _published(ratio: float) -> Column:
    return Column(f"{ratio:.0%}, published", lambda line: PUBLISHED_LOSSES.get(line[0], {}).get(ratio))


def _accuracies(results: Results) -> dict[str, dict[float, list[float]]]:
    """Return the accuracies of all seeds by method and ratio."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in results["rows"]:
        accuracies = found.setdefault(row["method"], {}).setdefault(row["sample_prune"], [])
        accuracies.append(row["test_accuracy"])
    return found


def _ratios(found: dict[str, dict[float, list[float]]]) -> list[float]:
    return sorted({ratio for by_ratio in found.values() for ratio in by_ratio})


def _ratio(ratio: float) -> Column:
    return Column(f"{ratio:.0%} pruned", lambda line: _of_seeds(line[1].get(ratio, [])))


def _of_seeds(accuracies: list[float]) -> str:
    return f"{100 * accuracies[0]:.1f}, 1 seed" if len(accuracies) == 1 else mean_and_range(accuracies)


def correlation_table(results: Results) -> list[str]:
    """Return Spearman's rank correlations."""
    scoring = results["scoring"]
    intro = (
        "Spearman's rank correlation of the scores. The sign of each score is such that hard images, or "
        f"important ones, are high. Scoring run: {scoring['epochs']} epochs of {scoring['model']}, "
        f"training accuracy {scoring['train_accuracy']:.1%}."
    )
    names = results["rank_correlation"]
    columns = [Column("", lambda line: NAMES[line["score"]])]
    columns += [Column(NAMES[name], name, "{:.2f}") for name in names]
    return render(columns, [{"score": name, **line} for name, line in names.items()], intro)


def mask_table(results: Results) -> list[str]:
    """Return what a classifier and a network in training make of masked images."""
    settings = results["plan"]
    intro = (
        f"{results['classifier']['model']} as the classifier; FSE-Net learned for "
        f"{settings['masks']['epochs']} epochs on {results['train_images']:,} images; {settings['model']} "
        f"trained {settings['epochs']} epochs from each pack and tested on {results['test_images']:,} whole "
        f"images, {settings['seeds']} seeds, mean (lowest to highest)."
    )
    columns = [
        Column("pruned", "freq_prune", "{:.0%}"),
        Column("mask", "mask"),
        Column("kept per channel", "components", "{:,}"),
        Column("PSNR, dB", "psnr_db", "{:.2f}"),
        Column("mean entropy, nats", "entropy", "{:.4f}"),
        Column("classifier's accuracy", "classifier_accuracy", "{:.2%}"),
        Column("overlap with energy mask", _overlap, "{:.1%}"),
        Column("trained from it, %", lambda row: mean_and_range(row["test_accuracy"])),
    ]
    return render(columns, results["rows"], intro)


def _overlap(row: Results) -> float | None:
    return row["history"][-1]["overlap"] if "history" in row else None


def learning_table(results: Results) -> list[str]:
    """Return time and memory of scoring and of learning masks."""
    columns = [
        Column("images", lambda row: f"{row['source']}, {row['images']:,}"),
        Column("network", "model"),
        Column("on", _device),
        Column("batch", "batch_size"),
        Column("training, images/s", "step_images_per_second", "{:,.0f}"),
        Column("relative to the bare step", _of_bare_step, "{:.2f}x"),
        Column("share of time for recording", _recording),
        Column("peak, MiB", lambda row: _memory(row["scoring_peak"])),
        Column("an epoch of masks, s", "mask_epoch_seconds", "{:,.1f}"),
        Column("masks, images/s", "mask_images_per_second", "{:,.0f}"),
        Column("peak with masks, MiB", lambda row: _memory(row["mask_peak"])),
    ]
    return render(columns, results["rows"])


def _device(row: Results) -> str:
    return f"cpu, {row['threads']} threads" if row["device"] == "cpu" else row["device"]


def _of_bare_step(row: Results) -> Any:
    return row["step_images_per_second"] / row["bare_step_images_per_second"]["median"]


def _recording(row: Results) -> str:
    # Where every epoch recorded entropies, what the other four record in their steps is not known.
    return f"{'' if row['epochs'] > 1 else 'at least '}{row['record_share_every_5']:.1%}"


def _memory(peak: dict[str, float]) -> str:
    device = f", GPU {peak['device_mib']:,.0f}" if "device_mib" in peak else ""
    return f"{peak['host_mib']:,.0f}{device}"
