"""What int8 loses on networks of a few minutes' training, for each runtime and with what stays in float."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgeprune import BuildConfig, build_pack
from edgeprune.inference.export import draw_images
from edgeprune.training.setup import train_pack
from edgeprune_formats import open_pack
from edgeprune_formats.files import atomic_file
from edgeprune_runtime.onnx.export import export_network
from edgeprune_runtime.onnx.placement import gate_nodes
from edgeprune_runtime.onnx.quantize import quantize
from edgeprune_runtime.onnx.runtimes import RuntimeName
from edgeprune_runtime.onnx.session import IMAGES, LOGITS, start_session
from edgeprune_runtime.training.run_folder.unfinished import open_run_network

from ..harness.cells import measure_cells
from ..harness.deadline import Deadline, OutOfTimeError
from ..harness.images import decoded_cifar10
from ..harness.markdown import Column, render
from ..harness.results import save

__all__ = ["RECIPES", "Settings", "int8_table", "run"]

RECIPES: dict[str, dict[str, Any]] = {
    # At 32 pixels the stem of ImageNet leaves it one pixel, of which it learned next to nothing.
    "efficientnet_b0": {"epochs": 4, "batch_size": 32, "lr": 0.03, "stem": "small"},
    "mobilenet_v2": {"epochs": 3, "batch_size": 32, "lr": 0.02, "stem": "imagenet"},
    "shufflenet_v2": {"epochs": 3, "batch_size": 32, "lr": 0.02, "stem": "imagenet"},
    "resnet9": {"epochs": 2, "batch_size": 32, "lr": 0.02, "stem": "imagenet"},
}
CALIBRATION, AT_ONCE = 256, 100
NOTHING, GATES = "nothing", "gates"
IN_FLOAT: dict[str, Callable[[Any], Collection[str]]] = {NOTHING: lambda graph: (), GATES: gate_nodes}


@dataclass(frozen=True)
class Settings:
    """How much is trained on and tested.

    Attributes
    ----------
    images : int
        To train on, of which 256 calibrate.
    chosen, tested : int
        Other images, to choose by what stays in float, and to test on.
    seed : int
    """

    images: int
    chosen: int
    tested: int
    seed: int


def run(
    settings: Settings,
    models: tuple[str, ...],
    data: Path,
    output: Path,
    runs: Path,
    minutes: float | None,
) -> None:
    """Train and measure what is not there yet, and write ``int8.json``."""
    runs.mkdir(parents=True, exist_ok=True)
    study, deadline = _Study(settings, data, runs), Deadline(minutes)
    costs: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for number, model in enumerate(models):
        facts = {**asdict(settings), "recipe": RECIPES[model]}
        steps = {f"trained-{model}": study.train, f"measured-{model}": study.measure}
        cells = {name: partial(step, model) for name, step in steps.items()}
        try:
            trained, measured = measure_cells(cells, runs, facts, deadline)
        except OutOfTimeError:
            raise OutOfTimeError(f"{number} of {len(models)} networks are done") from None
        costs, rows = [*costs, trained], [*rows, *measured["rows"]]
        path = save(output, "int8", {**asdict(settings), "trained": costs, "rows": rows})
    click.echo(path)


class _Study:
    """The images, the pack and the networks trained from it; all are kept and used again."""

    def __init__(self, settings: Settings, data: Path, runs: Path) -> None:
        self._settings, self._data, self._runs = settings, data, runs
        self._pack = runs / "train.h5"

    def train(self, model: str) -> dict[str, Any]:
        """Train a network, or go on with that, and say what it cost since then, in seconds of processors."""
        if not self._pack.exists():
            path = self._runs / "train.npz"
            images, labels = self._images("train")
            with atomic_file(path) as partial_file, partial_file.open("wb") as file:
                np.savez(file, x=images, y=labels)
            build_pack(f"npz:{path}", self._pack, BuildConfig())
        before = time.process_time()
        folder, config = self._runs / f"{model}-{self._settings.seed}", RECIPES[model]
        train_pack(
            open_pack(self._pack),
            folder,
            test=None,
            resume=True,
            augment="crop+flip",
            model=model,
            **config,
            seed=self._settings.seed,
            device="cpu",
        )
        return {"model": model, **config, "cpu_seconds": round(time.process_time() - before)}

    def measure(self, model: str) -> dict[str, Any]:
        """Quantize a network in each way, and compare it with float32."""
        network = open_run_network(self._runs / f"{model}-{self._settings.seed}")
        exact = export_network(network)
        expected = {part: self._outputs(exact, part) for part in ("choose", "test")}
        right = {part: self._accuracy(logits, part) for part, logits in expected.items()}
        rows = [{"model": model, "runtime": None, "in_float": None, "accuracy": right}]
        for runtime, name in self._ways(exact):
            with open_pack(self._pack) as pack:
                found = quantize(exact, partial(draw_images, pack, CALIBRATION), runtime, IN_FLOAT[name])
            row = self._compared(found, expected)
            rows.append({"model": model, "runtime": runtime, "in_float": name, **row})
            click.echo(f"{model}, {runtime}, {name} in float: {row}")
        return {"rows": rows}

    @staticmethod
    def _ways(model: Any) -> Iterator[tuple[RuntimeName, str]]:
        names = IN_FLOAT if gate_nodes(model.graph) else [NOTHING]
        runtimes: tuple[RuntimeName, ...] = ("onnxruntime", "tensorrt")
        return ((runtime, name) for runtime in runtimes for name in names)

    def _compared(self, model: Any, expected: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
        found = {part: self._outputs(model, part) for part in expected}
        same = {part: (found[part].argmax(1) == expected[part].argmax(1)).mean() for part in expected}
        return {
            "accuracy": {part: self._accuracy(logits, part) for part, logits in found.items()},
            "same_class": {part: float(share) for part, share in same.items()},
            "bytes": model.ByteSize(),
        }

    def _images(self, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the images of a part, none of which is in another, and their labels."""
        settings = self._settings
        with np.load(decoded_cifar10(self._data, self._runs / "cifar10-jpeg.npz")) as archive:
            if part == "test":
                return archive["x_test"][: settings.tested], archive["y_test"][: settings.tested]
            end = settings.images + settings.chosen
            rows = slice(settings.images) if part == "train" else slice(settings.images, end)
            return archive["x_train"][rows], archive["y_train"][rows]

    def _outputs(self, model: Any, part: str) -> NDArray[np.float32]:
        session = start_session(model.SerializeToString(), threads=1)
        images = self._images(part)[0].transpose(0, 3, 1, 2)
        given = [
            session.run([LOGITS], {IMAGES: images[start : start + AT_ONCE].astype(np.float32) / 255})[0]
            for start in range(0, len(images), AT_ONCE)
        ]
        return np.concatenate(given)

    def _accuracy(self, logits: NDArray[np.float32], part: str) -> float:
        return float((logits.argmax(1) == self._images(part)[1]).mean())


def int8_table(results: dict[str, Any]) -> list[str]:
    """Return the accuracies of each network in float32 and in int8."""
    trained = {one["model"]: one for one in results["trained"]}
    exact = {row["model"]: row["accuracy"] for row in results["rows"] if row["runtime"] is None}
    minutes = sum(one["cpu_seconds"] for one in trained.values()) / 60
    intro = (
        f"Trained on {results['images']:,} images of CIFAR-10 (decoded from a JPEG copy), seed "
        f"{results['seed']}; all networks together took at least {minutes:.0f} minutes of one core. "
        f"Calibrated with {CALIBRATION} of these images. Held out: {results['chosen']:,} other training "
        f"images. Tested on {results['tested']:,} test images."
    )
    columns = [
        Column("network", "model"),
        Column("stem", lambda row: trained[row["model"]]["stem"]),
        Column("int8 for", "runtime"),
        Column("layers in float", "in_float"),
        Column("float32, %", lambda row: 100 * exact[row["model"]]["test"], "{:.2f}"),
        Column("int8, %", lambda row: 100 * row["accuracy"]["test"], "{:.2f}"),
        Column(
            "points", lambda row: 100 * (row["accuracy"]["test"] - exact[row["model"]]["test"]), "{:+.2f}"
        ),
        Column("same class as float32, test", "same_class.test", "{:.1%}"),
        Column("same class as float32, held out", "same_class.choose", "{:.1%}"),
        Column("MB", lambda row: row["bytes"] / 1e6, "{:.2f}"),
    ]
    return render(columns, [row for row in results["rows"] if row["runtime"]], intro)
