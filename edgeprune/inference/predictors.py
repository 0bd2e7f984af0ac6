"""What tells classes of images: an ONNX model, or the network of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_runtime.checks import shortened
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.onnx.session import open_onnx, require
from edgeprune_runtime.task import Task

if TYPE_CHECKING:
    from edgeprune_runtime.networks.trained import TrainedNetwork

__all__ = ["Predictor", "Tta", "open_predictor", "opened"]

Tta = Literal["none", "flip"]
"""Which images a network is asked about: the image alone, or its mirror image, too."""


class Predictor(Protocol):
    """What tells classes of images."""

    @property
    def path(self) -> Path:
        """Where it comes from."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images it takes."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """One name for each class, where they are known."""
        ...

    @property
    def task(self) -> Task:
        """What it tells of images."""
        ...

    @property
    def takes_coefficients(self) -> bool:
        """Whether it decodes packs by itself, and takes nothing else."""
        ...

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits [n, classes] of images [n, C, H, W] on [0, 1], or other targets as they are told."""
        ...


class _RunNetwork:
    """The network of a run, in torch; implements `Predictor`."""

    takes_coefficients = False

    def __init__(self, network: TrainedNetwork, device: str) -> None:
        from edgeprune_runtime.system.devices import resolve_device

        self._device = resolve_device(device)
        self.path, self.image_shape = network.path, network.image_shape
        self.class_names, self.task = network.class_names, network.task
        self._on_images = network.on_images().to(self._device)

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with torch.no_grad():
            given = torch.from_numpy(images).to(self._device)
            logits: NDArray[np.float32] = self._on_images(given).cpu().numpy()
        if not np.isfinite(logits).all():
            raise TrainingError(f"{self.path}: its logits are not finite; train it again")
        return logits


class _Mirrored:
    """Asks a `Predictor` twice, for images and their mirror images; implements `Predictor`."""

    takes_coefficients = False

    def __init__(self, model: Predictor) -> None:
        if model.takes_coefficients:
            raise ConfigError(
                f"{model.path} takes coefficients; leave `tta` out, or export without a decoder"
            )
        self._model = model
        self.path, self.image_shape = model.path, model.image_shape
        self.class_names, self.task = model.class_names, model.task

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        mirrored = self._model.logits(np.ascontiguousarray(images[..., ::-1]))
        return np.asarray((self._model.logits(images) + mirrored) / 2, np.float32)


def open_predictor(
    path: str | Path,
    tell: Callable[[str], None] | None = None,
    *,
    device: str = "auto",
    tta: Tta = "none",
) -> Predictor:
    """Open an ``.onnx`` file, for which onnxruntime suffices, or the folder of a run, which needs torch.

    Parameters
    ----------
    path : str or Path
    tell : callable, optional
        Given a line on which weights these are, of a run that is not finished.
    device : str
        Of the network of a run, as `edgeprune_runtime.training.TrainConfig` takes it; an ONNX model computes
        on the CPU.
    tta : str
        Test-time augmentation: ``"flip"`` takes the mean of both outputs, for an image and for its mirror
        image, in twice the time.

    Returns
    -------
    Predictor
        Its ``class_names`` name the probabilities that `edgeprune.predict` gives.

    Raises
    ------
    ConfigError
        It is neither, what it needs is not installed, there is no such device for it, or it takes
        coefficients, which are not mirrored.
    ArtifactError, TrainingError
        It is damaged, or the run has not a checkpoint yet.
    """
    if tta not in get_args(Tta):
        raise ConfigError(f"`tta` is {shortened(tta)}; choose one of {', '.join(get_args(Tta))}")
    model = _open(Path(path), tell, device)
    return _Mirrored(model) if tta == "flip" else model


def _open(path: Path, tell: Callable[[str], None] | None, device: str) -> Predictor:
    if path.is_dir():
        require("a run's folder", "torch", "torchvision", "safetensors")
        from edgeprune_runtime.training.run_folder.unfinished import open_run_network

        network = open_run_network(path)
        if network.stage is not None and tell is not None:
            tell(f"{path}: {network.stage}")
        return _RunNetwork(network, device)
    if path.suffix != ".onnx":
        raise ConfigError(f"{path}: name a file that ends in .onnx, or the folder of a run")
    if device not in ("auto", "cpu"):
        raise ConfigError(f"{path}: an ONNX model computes on the CPU; leave `device` out, or name the run")
    return open_onnx(path)


def opened(model: Predictor | str | Path) -> Predictor:
    """Return a network as it is, or the one at a path, see `open_predictor`."""
    return open_predictor(model) if isinstance(model, str | Path) else model
