"""Latency of inference: torch against onnxruntime in float32 and int8, one image and many."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune.inference.export import ExportConfig, export_run
from edgeprune_formats import Pack
from edgeprune_formats.coefficients import Coefficients
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.onnx.session import OnnxModel, open_onnx
from edgeprune_runtime.output_files import write_text
from edgeprune_runtime.training.placement import MEMORY_FORMAT
from edgeprune_runtime.training.run_folder.results import save_model
from edgeprune_runtime.training.run_folder.unfinished import open_run_network

from ..codec.packs import build
from ..harness.cells import pack_facts
from ..harness.markdown import Column, render
from ..harness.results import save
from ..speed.images import timed_images

__all__ = ["Settings", "latency_table", "measure", "run"]

MODELS = ("shufflenet_v2", "mobilenet_v2", "efficientnet_b0")
SIZES = ("32x32", "224x224")
BATCHES = (1, 32)
CLASSES = 10
WARM_UP, BLOCKS, LEAST, PAUSE = 3, 5, 4, 0.2
TORCH, FLOAT32, INT8, DECODER = "torch", "onnxruntime", "onnxruntime int8", "onnxruntime with decoder"
EXPORTS = {
    FLOAT32: ExportConfig(),
    INT8: ExportConfig(int8=True, calibrate=64),
    DECODER: ExportConfig(decoder=True),
}
# Takes a number of images to the call that is timed.
CallOf = Callable[[int], Callable[[], object]]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes
    ----------
    models, sizes : tuple of str
    batches : tuple of int
        Images at a time.
    threads : int
        Of each runtime.
    repeats : int
        Calls, in blocks that alternate with those of the other runtimes.
    seconds : float
        An upper bound on all calls for a number of images; at least 20 are made of each runtime.
    """

    models: tuple[str, ...] = MODELS
    sizes: tuple[str, ...] = SIZES
    batches: tuple[int, ...] = BATCHES
    threads: int = 2
    repeats: int = 200
    seconds: float = 60.0


def run(settings: Settings, data: Path, output: Path) -> None:
    """Measure untrained networks, whose arithmetic is that of trained ones, and save the result."""
    torch.set_num_threads(settings.threads)
    rows: list[dict[str, Any]] = []
    for size in settings.sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            images = timed_images(data, folder, size, max(64, *settings.batches)).renumbered()
            pack = build(images, folder / "pack.h5", freq_prune=0.5)
            for model in settings.models:
                rows += _rows(settings, model, size, pack, folder / model)
    click.echo(save(output, "latency", {**asdict(settings), "rows": rows}))


def _rows(settings: Settings, model: str, size: str, pack: Pack, folder: Path) -> Iterator[dict[str, Any]]:
    runtimes, sizes = _runtimes(model, pack, folder, settings.threads)
    for batch in settings.batches:
        found = measure(
            {name: call_of(batch) for name, call_of in runtimes.items()}, settings.repeats, settings.seconds
        )
        for name, seconds in found.items():
            p50, p99 = np.percentile(seconds, [50, 99]).tolist()
            row = {"model": model, "size": size, "batch": batch, "way": name, "calls": len(seconds)}
            yield {**row, "p50_ms": 1e3 * p50, "p99_ms": 1e3 * p99, "bytes": sizes[name]}
            click.echo(f"{model} {size}, {batch}, {name}: p50 {1e3 * p50:.2f} ms, p99 {1e3 * p99:.2f} ms")


def measure(calls: dict[str, Callable[[], object]], repeats: int, seconds: float) -> dict[str, list[float]]:
    """Return the seconds of each call, in blocks of one runtime after the other.

    Not call by call in turn: onnxruntime's threads stay busy for a while after a call, waiting for the next,
    and would take the processors from whoever comes then. Each block begins with a pause for them, and with
    calls that are not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    block = -(-repeats // BLOCKS)
    for _ in range(BLOCKS):
        for name, call in calls.items():
            time.sleep(PAUSE)
            for _ in range(WARM_UP):
                call()
            until = time.perf_counter() + seconds / BLOCKS / len(calls)
            for number in range(block):
                before = time.perf_counter()
                if number >= LEAST and before > until:
                    break
                call()
                found[name].append(time.perf_counter() - before)
    return found


def _runtimes(model: str, pack: Pack, folder: Path, threads: int) -> tuple[dict[str, CallOf], dict[str, int]]:
    """Return what makes a call for a number of images of each runtime, and the bytes of each file."""
    _write_run(model, pack, folder)
    pixels = np.random.default_rng(0).random((max(BATCHES), *pack.header.shape), np.float32)
    calls = {TORCH: _in_torch(folder, pixels)}
    sizes = {TORCH: (folder / "model.safetensors").stat().st_size}
    for number, (name, config) in enumerate(EXPORTS.items()):
        path = folder / f"{number}.onnx"
        sizes[name] = export_run(folder, path, config, pack=pack.path).size
        session = open_onnx(path, threads=threads)
        calls[name] = _of_coefficients(session, pack) if config.decoder else _of_images(session, pixels)
    return calls, sizes


def _in_torch(folder: Path, pixels: NDArray[np.float32]) -> CallOf:
    network = open_run_network(folder).on_images().to(memory_format=MEMORY_FORMAT)

    def call_of(batch: int) -> Callable[[], object]:
        images = torch.from_numpy(pixels[:batch]).contiguous(memory_format=MEMORY_FORMAT)

        def call() -> object:
            with torch.inference_mode():
                return network(images)

        return call

    return call_of


def _of_images(session: OnnxModel, pixels: NDArray[np.float32]) -> CallOf:
    return lambda batch: lambda: session.logits(pixels[:batch])


def _of_coefficients(session: OnnxModel, pack: Pack) -> CallOf:
    coefficients = pack.read_chunk(0)

    def call_of(batch: int) -> Callable[[], object]:
        some = _first(coefficients, batch)
        return lambda: session.logits_of_coefficients(*some)

    return call_of


def _first(coefficients: Coefficients, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the coefficients of `count` images, the chunk's again and again."""
    return coefficients.take(np.arange(count) % len(coefficients)).arrays


def _write_run(model: str, pack: Pack, folder: Path) -> None:
    """Write the folder of a run whose network has fresh weights."""
    folder.mkdir()
    torch.manual_seed(0)
    facts = pack_facts(pack)
    network = create_model(model, facts["num_classes"], pack.header.height)
    write_text(folder / "config.json", json.dumps(facts))
    save_model(folder, network.eval(), {"config": {"model": model}, **facts})


def latency_table(results: dict[str, Any]) -> list[str]:
    """Return p50 and p99 by network, size and batch, a column for each runtime."""
    intro = (
        f"Untrained networks, {results['threads']} threads, the runtimes in alternating blocks. "
        "Milliseconds for the whole batch; in parentheses, p50 divided by that of torch."
    )
    lines: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = {}
    for row in results["rows"]:
        lines.setdefault((row["model"], row["size"], row["batch"]), {})[row["way"]] = row
    columns = [
        Column("network", lambda line: f"{line[0][0]}, {line[0][1]}"),
        Column("images", lambda line: line[0][2]),
        *map(_percentiles, dict.fromkeys(row["way"] for row in results["rows"])),
    ]
    return render(columns, lines.items(), intro)


def _percentiles(name: str) -> Column:
    def cell(line: tuple[Any, dict[str, dict[str, Any]]]) -> str:
        row, peer = line[1][name], line[1][TORCH]
        share = "" if row is peer else f" ({row['p50_ms'] / peer['p50_ms']:.2f}x)"
        return f"{row['p50_ms']:.2f} / {row['p99_ms']:.2f}{share}"

    return Column(f"{name}, p50 / p99", cell)
