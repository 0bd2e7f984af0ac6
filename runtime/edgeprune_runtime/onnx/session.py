"""Running an exported model with onnxruntime alone: neither torch nor onnx is needed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError

from ..errors import ArtifactError

__all__ = ["IMAGES", "INDICES", "LOGITS", "VALUES", "OnnxModel", "open_onnx", "require", "start_session"]

IMAGES, VALUES, INDICES, LOGITS = "images", "values", "indices", "logits"
"""Names of inputs and output: a graph takes ``images``, or ``values`` and ``indices`` of a pack."""

_FATAL = 4


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An exported model, ready to run.

    Attributes
    ----------
    path : Path
        The file.
    session : onnxruntime.InferenceSession
    facts : mapping of str to str
        The metadata of `edgeprune_runtime.onnx.export.export_network`.
    image_shape : (int, int, int)
        Channels, height and width in pixels.
    class_names : tuple of str, optional
        One for each logit.
    """

    path: Path
    session: Any
    facts: Mapping[str, str]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] | None

    @property
    def takes_coefficients(self) -> bool:
        """Whether the graph decodes by itself."""
        return {one.name for one in self.session.get_inputs()} == {VALUES, INDICES}

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Classify images, float32 [n, C, H, W] on [0, 1]; returns float32 [n, classes]."""
        return self.run({IMAGES: images})

    def logits_of_coefficients(
        self, values: NDArray[np.float32], indices: NDArray[Any]
    ) -> NDArray[np.float32]:
        """Decode and classify coefficients [n, C, K] with their packed positions, as a pack stores them."""
        return self.run({VALUES: values, INDICES: indices})

    def run(self, feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Run the graph and return its logits, float32 [n, classes].

        Raises
        ------
        ArtifactError
            The inputs do not fit, or onnxruntime cannot run the graph.
        """
        try:
            logits: NDArray[np.float32] = self.session.run([LOGITS], dict(feed))[0]
        except MemoryError:
            raise
        # onnxruntime has an exception of its own for every kind of failure, without a common base.
        except Exception as error:
            raise ArtifactError(f"{self.path}: {_one_line(error)}") from error
        return logits


def open_onnx(path: Path, *, threads: int | None = None) -> OnnxModel:
    """Load a model that EdgePrune has exported.

    Parameters
    ----------
    path : Path
        The file.
    threads : int, optional
        Of onnxruntime; None leaves it the choice.

    Raises
    ------
    ConfigError
        onnxruntime is not installed, or there is no such file.
    ArtifactError
        The file is damaged, too new for this onnxruntime, or not one that EdgePrune has exported.
    """
    require("an ONNX model", "onnxruntime")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; write it with edgeprune export")
    session = start_session(path, threads=threads)
    facts = session.get_modelmeta().custom_metadata_map
    try:
        channels, height, width = map(int, json.loads(facts["image_shape"]))
        names = json.loads(facts.get("class_names", "null"))
        class_names = None if names is None else tuple(map(str, names))
        inputs = {one.name for one in session.get_inputs()}
        if inputs not in ({IMAGES}, {VALUES, INDICES}) or LOGITS not in _outputs(session):
            raise ValueError(f"its inputs are {', '.join(sorted(inputs))}")
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: not a model of edgeprune export ({_one_line(error)}); export it from its run"
        ) from error
    return OnnxModel(path, session, facts, (channels, height, width), class_names)


def start_session(model: Path | bytes, *, threads: int | None = None) -> Any:
    """Return an onnxruntime session on the CPU for a file, or for the bytes of one.

    Raises
    ------
    ArtifactError
        onnxruntime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # What goes wrong comes as an exception as well.
    options.log_severity_level = _FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    content = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:
        name = "the exported model" if isinstance(model, bytes) else model
        raise ArtifactError(f"{name}: {_why(error, onnxruntime.__version__)}") from error


def _outputs(session: Any) -> set[str]:
    return {one.name for one in session.get_outputs()}


def _why(error: Exception, version: str) -> str:
    text = _one_line(error)
    if "IR version" in text or "opset" in text.lower():
        return f"too new for onnxruntime {version} ({text}); pip install --upgrade onnxruntime"
    return f"damaged, or not an ONNX model ({text}); export it again"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def require(what: str, *packages: str) -> None:
    """Raise `ConfigError` for a package that is not installed, with what installs it.

    Parameters
    ----------
    what : str
        What needs them, for the message.
    packages : str
        Their import names.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            extra = "torch,onnx" if package in ("torch", "torchvision", "safetensors") else "onnx"
            raise ConfigError(f"{what} needs {package}; pip install 'edgeprune[{extra}]'")
