"""The tables of coresets, masks and their cost, for the documentation."""

from __future__ import annotations

from typing import Any

from ..harness.markdown import Column, mean_and_range, render

__all__ = ["coreset_table", "correlation_table", "learning_table", "mask_table"]

Results = dict[str, Any]
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


def coreset_table(results: Results) -> list[str]:
    """Return the accuracy of each method at each ratio: mean, and range over the seeds."""
    found: dict[str, dict[float, list[float]]] = {}
    for row in results["rows"]:
        accuracies = found.setdefault(row["method"], {}).setdefault(row["sample_prune"], [])
        accuracies.append(row["test_accuracy"])
    full = found.pop("full")[0.0]
    recipe = results["recipe"]
    intro = (
        f"{recipe['model']}, {results['train_images']:,} images to choose from, "
        f"{results['test_images']:,} to test, "
        f"{recipe['iterations']:,} iterations of {recipe['batch_size']} whatever the size of the coreset, "
        f"{len(full)} seeds; test accuracy in %, mean (lowest to highest). All images: "
        f"{mean_and_range(full)}."
    )
    ratios = sorted({ratio for by_ratio in found.values() for ratio in by_ratio})
    columns = [Column("coreset by", lambda line: NAMES[line[0]]), *map(_ratio, ratios)]
    return render(columns, found.items(), intro)


def _ratio(ratio: float) -> Column:
    return Column(f"{ratio:.0%} pruned", lambda line: mean_and_range(line[1].get(ratio, [])))


def correlation_table(results: Results) -> list[str]:
    """Return Spearman's rank correlations."""
    scoring = results["scoring"]
    intro = (
        "Spearman's rank correlation of the scores, each turned so that its harder, for JE its more "
        f"important, end is high ({scoring['epochs']} epochs of {scoring['model']}, "
        f"training accuracy {scoring['train_accuracy']:.1%}):"
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
        Column("kept a channel", "components", "{:,}"),
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
        Column("of the bare step", _of_bare_step, "{:.2f}x"),
        Column("in the records", _recording),
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
