"""The measured parts of README.md and docs/, written from the JSON results between markers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgeprune_formats import ConfigError

from ..codec.distillation_tables import distill_table
from ..codec.tables import accuracy_bytes_short, accuracy_bytes_table, storage_short, storage_table
from ..device.copies import copies_table
from ..device.exports import export_table
from ..device.fleet import fleet_table
from ..device.growth import growth_table
from ..device.install_tables import install_table
from ..device.int8 import int8_table
from ..device.latency import MODELS, latency_table
from ..device.minutes import minutes_table
from ..device.power_loss import power_loss_table
from ..device.recipe import recipe_sentence, recipe_table
from ..device.training_memory import training_memory_table
from ..field.faults import faults_table
from ..field.leaks import leaks_table
from ..field.load import load_table
from ..field.ranges import ranges_table
from ..field.trouble import trouble_table
from ..fuzzing.run import fuzz_table
from ..harness.markdown import Column, not_measured, render
from ..photographs.tables import photograph_sentences, photograph_tables
from ..robustness.tables import (
    ablation_table,
    control_table,
    cost_table,
    distortion_table,
    linf_short,
    linf_table,
    norms_table,
    pruned_table,
    seeds_table,
)
from ..scale.tables import scale_table
from ..selection.accuracy import accuracy_table
from ..selection.issue_tables import issue_tables
from ..selection.tables import coreset_table, correlation_table, learning_table, loss_table, mask_table
from ..speed.encode_tables import encode_table
from ..speed.tables import (
    buffers_table,
    decode_short,
    decode_table,
    epoch_table,
    loader_table,
    memory_table,
    precision_table,
    reading_table,
    safety_table,
    start_table,
    transform_table,
)

__all__ = ["update"]

Table = Callable[[dict[str, Any]], list[str]]
ABLATIONS = ("tau", "lambda", "k", "scores", "mask-lr", "mask-epochs")


def update(root: Path, results: Path, *, write: bool) -> bool:
    """Bring the tables of all pages up to date, and return whether they were so already.

    Between ``<!-- NAME -->`` and ``<!-- end NAME -->`` stands the table made from ``NAME.json``, between
    ``<!-- NAME short -->`` and its end another one.

    Raises
    ------
    ConfigError
        A marker without its end, or without a result.
    """
    # Every page, hence no generator, which would stop at the first that is out of date.
    current = [_update(root / page, tables, results, write=write) for page, tables in PAGES.items()]
    return all(current)


def _update(page: Path, tables: Mapping[str, Table], results: Path, *, write: bool) -> bool:
    old = page.read_text()
    new = old
    for name, lines_of in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not pattern.search(new):
            raise ConfigError(f"{page} lacks the markers <!-- {name} --> and <!-- end {name} -->")
        name, _, short = name.partition(" ")
        path = results / f"{name}.json"
        if not path.exists() and name in COMMANDS:
            line = not_measured(COMMANDS[name], gpu=name in NEED_GPU, data=name not in FIELD)
            new = pattern.sub(partial(_fill, line + "\n"), new)
            continue
        if not path.exists():
            raise ConfigError(
                f"{path} is missing; run: python -m edgeprune_benchmarks {name.partition('-')[0]}"
            )
        results_file = json.loads(path.read_text())
        earlier = [] if short else _earlier(results_file)
        shown = _last_shown(results_file, name) if short else results_file
        lines = [*lines_of(results_file["results"]), "", _source(results_file | shown), *earlier]
        body = "\n".join(lines) + "\n"
        new = pattern.sub(partial(_fill, body), new)
    if write and new != old:
        page.write_text(new)
    return new == old


def _fill(body: str, found: re.Match[str]) -> str:
    return found[1] + body + found[2]


def _source(results_file: dict[str, Any]) -> str:
    machine, versions = results_file["machine"], results_file["versions"]
    gpu = machine["gpu"] or "no GPU"
    # Results from before 2026-11-26 do not tell what kind of vectors the processor has.
    vectors = f" ({machine['vectors']})" if machine.get("vectors") else ""
    return (
        f"{_run(results_file)}: "
        f"{machine['processor']}{vectors}, {machine['cores']} cores, {gpu}; "
        f"torch {versions.get('torch', '-')}, numpy {versions['numpy']}."
    )


def _last_shown(results_file: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the last command that measured rows of a short form; that of photographs is from scratch."""
    runs = [results_file, *reversed(results_file.get("earlier", []))]
    hidden = "--start pretrained" if name == "photographs" else None
    run = next((run for run in runs if hidden is None or hidden not in run["command"]), results_file)
    return {key: run[key] for key in ("command", "date", "commit")}


def _earlier(results_file: dict[str, Any]) -> list[str]:
    """Return the commands that measured other rows of the same result before, as a list."""
    runs = [f"- {_run(one)}" for one in results_file.get("earlier", [])]
    return ["", "Other rows of this result were measured earlier by:", "", *runs] if runs else []


def _run(run: dict[str, Any]) -> str:
    return f"`{re.sub(r' -o [^ ]+', '', run['command'])}`, {run['date']}, commit {run['commit']}"


def _build(results: dict[str, Any]) -> list[str]:
    columns = [
        Column("images", "source"),
        Column("pruned", "freq_prune", "{:.0%}"),
        Column("gzip", "compression"),
        Column("K", "components", "{:,}"),
        Column("coefficients, B", "coefficient_bytes", "{:,}"),
        Column("file, B/image", "file_bytes_per_image", "{:,.0f}"),
        Column("of raw uint8", lambda row: row["file_bytes_per_image"] / math.prod(row["shape"]), "{:.2f}x"),
        Column("PSNR, dB", "psnr_db", "{:.2f}"),
        Column("build, s", "seconds", "{:.1f}"),
        Column("peak, MiB", "peak_mib", "{:,.0f}"),
    ]
    return render(columns, results["rows"])


def _demo(results: dict[str, Any]) -> list[str]:
    """Return the demo's output, of ``info`` the first lines only."""
    lines = results["output"].strip().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  mean, std"))
    end = next(number for number, line in enumerate(lines) if line.startswith("$ edgeprune verify"))
    return ["```", "$ edgeprune demo", "", *lines[:start], "  ...", "", *lines[end:], "```"]


def _coresets(results: dict[str, Any]) -> list[str]:
    # Before the first cell that needs a scoring run there is none.
    agreement = ["", *correlation_table(results)] if "scoring" in results else []
    return [*coreset_table(results), *agreement]


def _with_losses(results: dict[str, Any]) -> list[str]:
    return [*loss_table(results), "", *_coresets(results)]


PAGES: dict[str, dict[str, Table]] = {
    "README.md": {
        "storage-32x32 short": storage_short,
        "recipe-resnet9 short": recipe_sentence,
        "photographs short": photograph_sentences,
        "accuracy-bytes short": accuracy_bytes_short,
    },
    "docs/results/index.md": {
        "storage-32x32 short": storage_short,
        "storage-224x224 short": storage_short,
        "time-decode short": decode_short,
        "robustness-cifar10-all-cpu short": linf_short,
        "robustness-cifar10-adversarial-cpu": cost_table,
    },
    "docs/results/demo.md": {"demo": _demo},
    "docs/results/storage.md": {
        "storage-32x32": storage_table,
        "storage-224x224": storage_table,
        "build": _build,
        "build-scale": scale_table,
    },
    "docs/results/time.md": {
        "time-decode": decode_table,
        "time-buffers": buffers_table,
        "time-encode": encode_table,
        "time-loaders": loader_table,
        "time-epoch": epoch_table,
        "time-precision": precision_table,
        "time-start": start_table,
        "time-memory": memory_table,
        "time-safety": safety_table,
        "time-transform": transform_table,
        "time-reading": reading_table,
    },
    "docs/results/accuracy.md": {
        "photographs": photograph_tables,
        "recipe-resnet9": recipe_table,
        "copies-resnet9": copies_table,
        **dict.fromkeys(
            ("accuracy-bytes", "accuracy-bytes-resnet9", "accuracy-bytes-copies"), accuracy_bytes_table
        ),
        "distill": distill_table,
        **{f"minutes-{model}": minutes_table for model in MODELS},
        **{f"accuracy-{model}": accuracy_table for model in MODELS},
    },
    "docs/results/device.md": {
        "power-loss": power_loss_table,
        "training-memory": training_memory_table,
        "install": install_table,
        "latency": latency_table,
        "export": export_table,
        "int8": int8_table,
    },
    "docs/results/growth.md": {"growth": growth_table},
    "docs/results/fleet.md": {"fleet": fleet_table},
    "docs/results/trouble.md": {
        "trouble": trouble_table,
        "faults": faults_table,
        "load": load_table,
        "leaks": leaks_table,
    },
    "docs/how-to/remote.md": {"ranges": ranges_table},
    "docs/results/fuzzing.md": {"fuzz": fuzz_table},
    "docs/results/robustness.md": {
        "robustness-cifar10-all-cpu linf": linf_table,
        "robustness-cifar10-all-cpu norms": norms_table,
        "robustness-cifar10-all-cpu pruned": pruned_table,
        "robustness-cifar10-all-cpu controls": control_table,
        "robustness-cifar10-all-paper linf": linf_table,
        "robustness-cifar10-all-paper norms": norms_table,
        "robustness-cifar10-baselines-paper": linf_table,
        "robustness-cifar10-transfer-paper": linf_table,
        "robustness-cifar100-all-paper": linf_table,
        "robustness-imagenet-all-paper": linf_table,
        "robustness-cifar10-half-cpu": seeds_table,
        "robustness-cifar10-adversarial-cpu": cost_table,
        "robustness-cifar10-adversarial-paper": cost_table,
        "landscape": distortion_table,
    },
    "docs/results/ablations.md": {f"robustness-cifar10-{name}-cpu": ablation_table for name in ABLATIONS},
    "docs/results/selection.md": {
        "coresets-lossless": _coresets,
        **dict.fromkeys(("coresets-jpeg", "coresets-93"), _with_losses),
        "issues": issue_tables,
        "masks-lossless": mask_table,
        "masks-jpeg": mask_table,
        "learning": learning_table,
    },
}

# Results at the papers' scale, and the commands that give them.
NEED_GPU = {
    "coresets-jpeg": "coresets --images jpeg --model resnet18 --iterations 40000 --batch-size 256 --lr 0.1 "
    "--score-epochs 200 --every 5 --device cuda",
    **{
        f"robustness-{recipe}-paper": f"robustness --recipe {recipe} --device cuda --minutes 9 {where}"
        for recipe, where in (
            ("cifar10-all", "--source cifar10:ROOT"),
            ("cifar10-baselines", "--source cifar10:ROOT"),
            ("cifar10-transfer", "--source cifar10:ROOT"),
            ("cifar10-adversarial", "--source cifar10:ROOT"),
            ("cifar100-all", "--source cifar100:ROOT"),
            ("imagenet-all", "--source imagefolder:PATH --size 224 --images 1000"),
        )
    },
    "masks-jpeg": "masks --images jpeg --model resnet18 --score-epochs 200 --mask-epochs 300 --epochs 200 "
    "--batch-size 256 --lr 0.1 --device cuda",
}
# Results that take no images of --data.
FIELD = ("trouble", "faults", "load", "leaks", "fuzz")
# Results that a page can do without.
COMMANDS = {
    **NEED_GPU,
    **{f"storage-{size}": f"storage --only {size}" for size in ("32x32", "224x224")},
    **{
        f"time-{part}": f"time --only {part}"
        for part in (
            *("decode", "buffers", "encode", "loaders", "epoch", "precision"),
            *("start", "memory", "transform", "safety", "reading"),
        )
    },
    "build-scale": "build --scale",
    "coresets-93": "coresets --name coresets-93 --images jpeg --model resnet9 --precision bfloat16 "
    "--iterations 400 --score-epochs 12 --dual-epochs 9 --score-runs 2 --ratio 0.9 --ratio 0.8 --minutes 110",
    "issues": "issues",
    "accuracy-bytes": "accuracy-per-byte",
    "accuracy-bytes-resnet9": "accuracy-per-byte --name accuracy-bytes-resnet9 --model resnet9 "
    "--passes 60000 --budget 0.5 --precision bfloat16",
    "accuracy-bytes-copies": "accuracy-per-byte --copies",
    **{name: name for name in ("distill", "fleet", "install", "power-loss", "training-memory")},
    **{name: name for name in ("latency", "export", "int8", "growth", "landscape", "ranges", *FIELD)},
    "recipe-resnet9": "recipe",
    "copies-resnet9": "copies",
    "photographs": "photographs",
    **{f"{name}-{model}": f"{name} --model {model}" for name in ("minutes", "accuracy") for model in MODELS},
    "robustness-cifar10-all-cpu": "robustness --recipe cifar10-all --scale cpu",
    **{
        f"robustness-cifar10-{name}-cpu": f"robustness --recipe cifar10-{name} --scale cpu --linf"
        for name in ABLATIONS
    },
    "robustness-cifar10-adversarial-cpu": "robustness --recipe cifar10-adversarial --scale cpu --linf",
    "robustness-cifar10-half-cpu": "robustness --recipe cifar10-half --scale cpu --seeds 2 --linf",
}
