"""What exporting does to trained networks: differences to torch, and accuracy in float32 and int8."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from edgeprune.inference.export import ExportConfig, export_run
from edgeprune_formats import ConfigError

from ..harness.markdown import Column, render
from ..harness.results import save

__all__ = ["export_table", "run"]


def run(output: Path, runs: Path) -> None:
    """Export every finished run that ``minutes`` trained from its pack, test it, and save the result."""
    pack, source = _only(runs, "*.h5"), f"npz:{runs / 'cifar10-jpeg.npz'}"
    folders = sorted(path.parent for path in runs.glob("*-pack-*/model.safetensors"))
    if not folders:
        raise ConfigError(f"{runs} has no finished runs; run python -m edgeprune_benchmarks minutes first")
    rows = [row for folder in folders for row in _rows(folder, pack, source)]
    click.echo(save(output, "export", {"rows": rows}))


def _rows(folder: Path, pack: Path, source: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "model.onnx"
        int8 = export_run(folder, target, ExportConfig(int8=True), pack=pack, test=source)
        target.unlink()
        decoder = export_run(folder, target, ExportConfig(decoder=True), pack=pack)
        target.unlink()
        float32 = export_run(folder, target, ExportConfig(), pack=pack)
    row = {
        "model": float32.network.name,
        "run": folder.name,
        "difference": float32.agreement.difference,
        "difference_with_decoder": decoder.agreement.difference,
        "largest_logit": float32.agreement.logit,
        "same_class": int8.same_class,
        "accuracy": int8.accuracy,
        "tested": int8.tested,
        "bytes": {"float32": float32.size, "int8": int8.size},
    }
    click.echo(f"{row['run']}: {row['accuracy']}, largest difference to torch {row['difference']:.1e}")
    return [row]


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ConfigError(f"{folder} has {len(found)} files {pattern}, not one; give the folder of minutes")
    return found[0]


def export_table(results: dict[str, Any]) -> list[str]:
    """Return what each exported network is worth."""
    columns = [
        Column("network", "model"),
        Column("float32, %", lambda row: 100 * row["accuracy"]["float32"], "{:.2f}"),
        Column("int8, %", lambda row: 100 * row["accuracy"]["int8"], "{:.2f}"),
        Column("same class", "same_class", "{:.1%}"),
        Column("float32, MB", lambda row: row["bytes"]["float32"] / 1e6, "{:.2f}"),
        Column("int8, MB", lambda row: row["bytes"]["int8"] / 1e6, "{:.2f}"),
        Column("largest difference to torch", "difference", "{:.1e}"),
        Column("with decoder", "difference_with_decoder", "{:.1e}"),
    ]
    return render(columns, results["rows"], f"Tested on {results['rows'][0]['tested']:,} images.")
