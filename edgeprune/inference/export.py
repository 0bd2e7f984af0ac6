"""A run's trained network as one checked ONNX file, with its images from packs and sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack, PackHeader, open_pack
from edgeprune_formats.files import check_writable
from edgeprune_formats.remote.locations import PackPath, RemoteFile, as_remote
from edgeprune_runtime import PackLoader
from edgeprune_runtime.networks.trained import TrainedNetwork
from edgeprune_runtime.onnx.check import Agreement, check_export, check_structure, write_model
from edgeprune_runtime.onnx.decoder import with_decoder
from edgeprune_runtime.onnx.export import export_network
from edgeprune_runtime.onnx.quantize import quantize
from edgeprune_runtime.onnx.runtimes import (
    DECODER_OPSET,
    LEAST_OPSET,
    Runtime,
    RuntimeName,
    lowered,
    parse_runtime,
)
from edgeprune_runtime.onnx.session import IMAGES, LOGITS, require, start_session
from edgeprune_runtime.task import Task
from edgeprune_runtime.training.run_folder.unfinished import open_run_network

from ..training.evaluation import TestBatches, open_test
from .multilabel import LABEL_THRESHOLD

if TYPE_CHECKING:
    import onnx

__all__ = ["ExportConfig", "ExportReport", "draw_images", "export_run"]

_BATCH = 16
_CHECKED = 64
_CACHE_BYTES = 2**26


@dataclass(frozen=True)
class ExportConfig:
    """What to export, checked when constructed.

    Attributes
    ----------
    int8 : bool or str
        Quantize, for ``"onnxruntime"`` or ``"tensorrt"``; needs a pack to calibrate with. True is for the
        runtime, or for onnxruntime where there is none.
    decoder : bool
        Take the coefficients of a pack in place of images.
    calibrate : int
        Images to calibrate with, drawn from the pack by a fixed seed.
    runtime : str, optional
        What shall read the file, such as ``"onnxruntime==1.15"``, see
        `edgeprune_runtime.onnx.runtimes.parse_runtime`; any onnxruntime since 1.14 if it is None.

    Raises
    ------
    ConfigError
        `calibrate` is below 1, `int8` is of an unknown runtime or not for `runtime`, or `runtime` is unknown
        or too old.
    """

    int8: bool | str = False
    decoder: bool = False
    calibrate: int = 256
    runtime: str | None = None

    def __post_init__(self) -> None:
        if self.calibrate < 1:
            raise ConfigError(f"`calibrate` is {self.calibrate}; it must be at least 1")
        known = get_args(RuntimeName)
        if not isinstance(self.int8, bool) and self.int8 not in known:
            raise ConfigError(f"`int8` is {self.int8!r}; it must be True, False, {' or '.join(known)}")
        if self.target.name == "tensorrt" and self.int8 == "onnxruntime":
            raise ConfigError(
                'TensorRT refuses int8 of onnxruntime, whose zero points are not 0; give `int8="tensorrt"`'
            )

    @property
    def target(self) -> Runtime:
        """What reads the file."""
        runtime = "onnxruntime" if self.runtime is None else self.runtime
        return parse_runtime(runtime, DECODER_OPSET if self.decoder else LEAST_OPSET)

    @property
    def quantized_for(self) -> RuntimeName | None:
        """What int8 is for; None for float32."""
        return self.target.name if self.int8 is True else cast("RuntimeName", self.int8 or None)

    @property
    def precision(self) -> str:
        """``"int8"`` or ``"float32"``."""
        return "int8" if self.int8 else "float32"


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares.

    Attributes
    ----------
    network : TrainedNetwork
    size : int
        Of the file, in bytes.
    agreement : Agreement
        Of float32 in onnxruntime with torch, with the decoder if it was asked for.
    same_class : float, optional
        Share of the calibration images that int8 and float32 put in the same class.
    deviation : float, optional
        Of values, the mean difference of int8 from float32 on the calibration images, in standard deviations
        of the value; of several the largest.
    calibrated : int
        How many these are.
    accuracy : dict of str to float
        By precision, on the test set, of classes.
    metrics : dict of str to dict
        By precision, on the test set, as `edgeprune_runtime.training.objectives.metrics` has them of the
        target.
    tested : int
        Images of the test set.
    """

    network: TrainedNetwork
    size: int
    agreement: Agreement
    same_class: float | None = None
    deviation: float | None = None
    calibrated: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    tested: int = 0


def export_run(
    run: str | Path,
    output: str | Path,
    config: ExportConfig | None = None,
    *,
    pack: PackPath | None = None,
    test: str | RemoteFile | None = None,
) -> ExportReport:
    """Export the trained network of a run; the file appears when everything about it was checked.

    Parameters
    ----------
    run : str or Path
        The folder of a run; of one that is not finished the best weights so far (with `patience`) or the last
        checkpoint are taken.
    output : str or Path
        The ``.onnx`` file to write.
    config : ExportConfig, optional
        By default float32, which takes images.
    pack : path, URL or RemoteFile, optional
        Images to calibrate with and to compare on; names the classes where the run does not know them.
    test : str or RemoteFile, optional
        A pack or a source to measure accuracy on (see `edgeprune.training.evaluation.open_test`).

    Returns
    -------
    ExportReport

    Raises
    ------
    ConfigError
        A package is missing, `output` is no ``.onnx``, int8 without a pack, or images that do not fit.
    TrainingError
        The run has no checkpoint or is damaged, or what came out of it is not what torch computes.
    PackWriteError, PackFormatError, SourceError
        A file cannot be written or read.
    """
    run, output, config = Path(run), Path(output), config or ExportConfig()
    test = test and (as_remote(test) or test)
    require("exporting", "torch", "onnx", "onnxscript", "onnxruntime")
    _check_output(output)
    if config.int8 and pack is None:
        raise ConfigError(
            f"`int8` needs images to calibrate with; give `pack`, such as the one {run} is from"
        )
    network = open_run_network(run)
    images = None if pack is None else _open_images(pack, network)
    if images is not None and network.class_names is None and network.task.is_default:
        network = replace(network, class_names=images.header.class_names)
    batches = None
    if test is not None:
        batches = open_test(test, _as_trained(network, test), column=network.task.column(network.class_names))
    models = {"float32": lowered(export_network(network), config.target)}
    agreement = _agreement(models["float32"], network, config, images)
    if config.quantized_for is not None:
        assert images is not None
        drawn = partial(draw_images, images, config.calibrate)
        models["int8"] = quantize(models["float32"], drawn, config.quantized_for, unit=network.task.std)
    sessions = {name: start_session(model.SerializeToString()) for name, model in models.items()}
    calibration = images if config.int8 else None
    measured = _measure(network.task, sessions, calibration, config.calibrate, batches)
    chosen = models[config.precision]
    if config.decoder:
        chosen = with_decoder(chosen, network.image_shape)
    check_structure(chosen)
    return ExportReport(network, write_model(chosen, output), agreement, **measured)


def _agreement(
    model: onnx.ModelProto, network: TrainedNetwork, config: ExportConfig, pack: Pack | None
) -> Agreement:
    images = np.empty((0, *network.image_shape), np.float32)
    if pack is not None:
        images = np.concatenate(list(draw_images(pack, _CHECKED)))
    agreement = check_export(model, network, images)
    if config.decoder:
        agreement = check_export(with_decoder(model, network.image_shape), network, images)
    return agreement


def _measure(
    task: Task, sessions: dict[str, Any], pack: Pack | None, count: int, test: TestBatches | None
) -> dict[str, Any]:
    """Return the fields of the report that say how well the models of images do."""
    import torch

    from edgeprune_runtime.training.objectives.metrics import make_meter

    measured: dict[str, Any] = {}
    if pack is not None:
        pairs = [[_outputs(one, batch) for one in sessions.values()] for batch in draw_images(pack, count)]
        exact, small = (np.concatenate(of) for of in zip(*pairs, strict=True))
        measured["calibrated"] = len(exact)
        if task.kind == "value":
            measured["deviation"] = float((np.abs(small - exact).mean(axis=0) / np.array(task.std)).max())
        else:
            measured["same_class"] = float((_told(task, exact) == _told(task, small)).mean())
    if test is not None:
        meters = {name: make_meter(task) for name in sessions}
        tested = 0
        for images, wanted in test:
            tested += len(wanted)
            for name, session in sessions.items():
                outputs = _outputs(session, images.numpy())
                if task.kind == "value":
                    # As the network gave them, which the meter takes.
                    outputs = ((outputs - task.mean) / task.std).astype(np.float32)
                meters[name].add(torch.from_numpy(outputs), wanted)
        found = {name: meter.result() for name, meter in meters.items()}
        measured |= {"metrics": found, "tested": tested}
        if task.is_ranked:
            measured["accuracy"] = {name: one["accuracy"] for name, one in found.items()}
    return measured


def _outputs(session: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    outputs: NDArray[np.float32] = session.run([LOGITS], {IMAGES: images})[0]
    return outputs


def _told(task: Task, outputs: NDArray[np.float32]) -> NDArray[Any]:
    """Return the class of each image, or whether each of several labels is there."""
    return outputs.argmax(axis=1) if task.is_ranked else outputs >= LABEL_THRESHOLD


def _check_output(output: Path) -> None:
    if output.suffix != ".onnx":
        raise ConfigError(f"{output}: name a file that ends in .onnx")
    check_writable(output)


def _open_images(path: PackPath, network: TrainedNetwork) -> Pack:
    path = as_remote(path) or path
    pack = open_pack(path)
    header = pack.header
    if header.shape != network.image_shape:
        raise ConfigError(f"{path} has images {header.shape}, and {network.path} takes {network.image_shape}")
    # Only for their names: a network that has grown takes the images of any pack it was trained from.
    named = network.class_names is not None or not network.task.is_default
    if not named and len(header.class_names) != network.num_classes:
        raise ConfigError(
            f"{path} has {len(header.class_names)} classes, and {network.path} was trained on "
            f"{network.num_classes}"
        )
    return pack


def _as_trained(network: TrainedNetwork, test: str | RemoteFile) -> PackHeader:
    """Return a header that stands for the training pack, but leaves images on [0, 1]."""
    if network.class_names is None and network.task.kind != "value":
        raise ConfigError(
            f"`test={test}`: {network.path} does not know the names of its classes; give `pack` as well"
        )
    channels, height, width = network.image_shape
    return PackHeader(
        samples=1,
        channels=channels,
        height=height,
        width=width,
        components=1,
        codec="sparse-f32",
        chunk_samples=1,
        class_names=network.class_names or (),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )


def draw_images(pack: Pack, count: int) -> Iterator[NDArray[np.float32]]:
    """Give `count` images of a pack on [0, 1], always the same; a batch is decoded when it is asked for."""
    loader = PackLoader(
        pack, _BATCH, shuffle=True, device="cpu", cache_bytes=_CACHE_BYTES, prefetch=0, targets=()
    )
    for (images,) in loader:
        batch = np.asarray(images)[:count]
        yield batch
        count -= len(batch)
        if not count:
            return
