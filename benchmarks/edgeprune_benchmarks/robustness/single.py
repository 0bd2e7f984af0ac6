"""``edgeprune bench attack``: the report on one network of ``edgeprune train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune import open_source
from edgeprune.sources import Source, check_source
from edgeprune.text import say
from edgeprune_formats import ConfigError, EdgePruneError
from edgeprune_runtime.class_names import class_numbers
from edgeprune_runtime.networks.trained import TrainedNetwork, load_trained
from edgeprune_runtime.training.run_folder.description import read_description

from ..harness.deadline import Deadline
from .attacks.victim import load_victim
from .evaluation import Evaluator, drawn_images
from .protocol import PROTOCOLS, Protocol
from .report import make_report
from .run import exact_arithmetic

__all__ = ["InvalidReportError", "attack_run"]


class InvalidReportError(EdgePruneError):
    """A control failed: the figures of the report are not to be believed."""


def attack_run(
    run_dir: Path,
    spec: str,
    *,
    device: torch.device,
    scale: str = "cpu",
    images: int | None = None,
    linf: bool = False,
    precision: str = "float32",
    minutes: float | None = None,
) -> dict[str, Any]:
    """Attack the network of a finished run, and judge the report; what was done is not done again.

    Parameters
    ----------
    run_dir : Path
        The run. Verdicts and ``report.json`` go to its folder ``attacks-SCALE-IMAGES``.
    spec : str
        The images, as `edgeprune.open_source` takes them; of ``imagefolder:PATH/test`` and the like the
        whole, of sources that know splits the test split.
    device : torch.device
    scale : str
        A name of `edgeprune_benchmarks.robustness.protocol.PROTOCOLS`.
    images : int, optional
        How many are attacked, in place of the protocol's.
    linf : bool
        Whether to attack in Linf alone.
    precision : str
        See `Evaluator`.
    minutes : float, optional
        Stop after so long.

    Returns
    -------
    dict
        As `edgeprune_benchmarks.robustness.report.make_report`.

    Raises
    ------
    ConfigError
        Images or classes that are not the network's, or a network of one class.
    InvalidReportError
        A control failed.
    OutOfTimeError
        The time was over before the end.
    TrainingError
        The run is not finished.
    """
    network = load_trained(run_dir)
    if not network.task.is_default:
        raise ConfigError(
            f"{run_dir}: the network was trained for {network.task}; only classifiers can be attacked"
        )
    if network.num_classes < 2:
        raise ConfigError(
            f"{run_dir}: a network of one class is always right; attack one with at least two classes"
        )
    channels, height, width = network.image_shape
    if channels != 3:
        raise ConfigError(f"{run_dir}: the network takes {channels} channels; attacks need RGB images")
    test = open_source(spec, split="test", size=height if height == width else None, channels="rgb")
    label_of = _labels(test, network)
    protocol = _protocol(scale, images, linf, len(test))
    victim = load_victim(run_dir, device)
    shown, labels = drawn_images(test, check_source(test).good, protocol.images)
    labels = torch.from_numpy(label_of)[labels]
    adversary = read_description(run_dir).get("config", {}).get("adversarial")
    trained = "as they are" if adversary is None else f"perturbed by {adversary}"
    say(f"{run_dir}: {network.name}, trained on images {trained}; {len(labels):,} of {spec}")
    evaluator = Evaluator(
        victim,
        shown,
        labels,
        run_dir / f"attacks-{scale}-{len(labels)}",
        device,
        batch_size=protocol.batch_size,
        effort=protocol.effort,
        precision=precision,
        overdue=Deadline(minutes).check,
        tell=lambda line: say(f"  {line}", err=True),
    )
    with exact_arithmetic():
        report = make_report(evaluator, protocol, natural=adversary is None, say=say)
    _require_valid(report, evaluator.folder / "report.json")
    return report


def _require_valid(report: dict[str, Any], path: Path) -> None:
    failed = [f"{c['name']} ({c['detail']})" for c in report["controls"] if not c["passed"]]
    if failed:
        raise InvalidReportError(f"{path} is not valid: {'; '.join(failed)}")
    say(f"{path}: valid, {len(report['controls'])} controls passed")


def _protocol(scale: str, images: int | None, linf: bool, available: int) -> Protocol:
    protocol = PROTOCOLS[scale]
    count = min(images or protocol.images, available)
    protocol = replace(protocol, images=count, slow_images=min(protocol.slow_images, count))
    return protocol.in_linf() if linf else protocol


def _labels(test: Source, network: TrainedNetwork) -> NDArray[np.int64]:
    """Return the network's label for each of the source's, by the names of the classes."""
    if network.image_shape != test.shape:
        raise ConfigError(f"{test.spec} has images {test.shape}, the network takes {network.image_shape}")
    names = network.class_names
    if names is None:
        raise ConfigError("the run does not say which classes its network knows; train it from a pack")
    numbers = class_numbers(test.class_names, names)
    unknown = [name for name, number in zip(test.class_names, numbers, strict=True) if number is None]
    if unknown:
        raise ConfigError(f"{test.spec} has classes that the network lacks: {', '.join(unknown[:5])}")
    return np.array(numbers, np.int64)
