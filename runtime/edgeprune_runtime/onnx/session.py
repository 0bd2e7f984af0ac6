"""Running an exported model with onnxruntime alone: neither torch nor onnx is needed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.coefficients import position_dtype
from edgeprune_formats.errors import one_line
from edgeprune_formats.files import read_regular
from edgeprune_formats.limits import MAX_IMAGE_VALUES
from edgeprune_formats.strict_json import parse_json

from ..checks import from_json
from ..errors import ArtifactError
from ..input_files import input_problem
from ..task import Task
from .graph_check import check_graph

__all__ = ["IMAGES", "INDICES", "LOGITS", "VALUES", "OnnxModel", "open_onnx", "require", "start_session"]

IMAGES, VALUES, INDICES, LOGITS = "images", "values", "indices", "logits"
"""Names of inputs and output: a graph takes ``images``, or ``values`` and ``indices`` of a pack."""

_FATAL = 4
_MAX_BYTES = 2**31
_FLOAT = "tensor(float)"
_REMEDY = "export it from its run"


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
    task : Task
        What comes in place of logits of classes, see `edgeprune_runtime.onnx.export.export_network`.
    """

    path: Path
    session: Any
    facts: Mapping[str, str]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] | None
    task: Task = Task()  # noqa: RUF009 - frozen

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
            The inputs do not fit, onnxruntime cannot run the graph, or what comes out is no logits.
        """
        try:
            logits: NDArray[np.float32] = self.session.run([LOGITS], dict(feed))[0]
        except MemoryError:
            raise
        # onnxruntime has an exception of its own for every kind of failure, without a common base.
        except Exception as error:
            raise ArtifactError(f"{self.path}: {one_line(error)}") from error
        images = len(next(iter(feed.values())))
        shape = (images, len(self.class_names)) if self.class_names else (images, *logits.shape[1:2])
        if logits.dtype != np.float32 or logits.shape != shape:
            found = f"{logits.dtype} {list(logits.shape)}"
            raise ArtifactError(f"{self.path}: its logits are {found} for {images} images; export it again")
        if not np.isfinite(logits).all():
            raise ArtifactError(
                f"{self.path}: its logits are not finite; its weights are damaged, export it again"
            )
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
    if not path.exists():
        raise ConfigError(f"{path}: no such file; write it with edgeprune export")
    problem = input_problem(path)
    if problem is not None:
        raise ArtifactError(f"{path}: {problem}, or {_REMEDY}")
    try:
        content = read_regular(path, _MAX_BYTES)
        check_graph(content)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except ValueError as error:
        raise ArtifactError(
            f"{path}: damaged, or not an ONNX model of edgeprune ({error}); {_REMEDY}"
        ) from error
    session = start_session(content, name=path, threads=threads)
    try:
        facts = session.get_modelmeta().custom_metadata_map
        shape, class_names, task = _facts(facts)
        _check_interface(session, shape, class_names, task)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: not a model of edgeprune export ({one_line(error)}); {_REMEDY}"
        ) from error
    return OnnxModel(path, session, facts, shape, class_names, task)


@dataclass(frozen=True)
class _Facts:
    """What the metadata of a model holds, as far as it is used."""

    image_shape: tuple[int, ...]
    class_names: tuple[str, ...] | None
    task: Task | None


def _facts(given: Mapping[str, str]) -> tuple[tuple[int, int, int], tuple[str, ...] | None, Task]:
    parsed = {
        name: parse_json(given.get(name, "null").encode(errors="surrogatepass"))
        for name in ("image_shape", "class_names", "task")
    }
    facts = from_json(_Facts, parsed)
    if len(facts.image_shape) != 3 or min(facts.image_shape) < 1:
        raise ValueError(f"image_shape is {facts.image_shape}")
    if math.prod(facts.image_shape) > MAX_IMAGE_VALUES or facts.class_names == ():
        raise ValueError(f"images of shape {facts.image_shape}, classes {facts.class_names}")
    channels, height, width = facts.image_shape
    return (channels, height, width), facts.class_names, facts.task or Task()


def _check_interface(
    session: Any, shape: tuple[int, int, int], names: tuple[str, ...] | None, task: Task
) -> None:
    inputs = {one.name: one for one in session.get_inputs()}
    outputs = {one.name: one for one in session.get_outputs()}
    if inputs.keys() not in ({IMAGES}, {VALUES, INDICES}) or LOGITS not in outputs:
        raise ValueError(f"its inputs are {', '.join(sorted(inputs))}")
    logits = outputs[LOGITS]
    classes = _fixed(logits.shape)[1:]
    if logits.type != _FLOAT or len(classes) != 1 or (names and classes[0] not in (None, len(names))):
        raise ValueError(f"its logits are {logits.type} {logits.shape}")
    if task.mean and classes[0] not in (None, len(task.mean)):
        raise ValueError(f"{classes[0]} outputs, and {len(task.mean)} values")
    channels, height, width = shape
    wanted: dict[str, tuple[str, list[int | None]]] = {
        IMAGES: (_FLOAT, list(shape)),
        VALUES: (_FLOAT, [channels, None]),
        INDICES: (f"tensor({position_dtype(height, width).name})", [channels, None]),
    }
    for name, one in inputs.items():
        if (one.type, _fixed(one.shape)) != (wanted[name][0], [None, *wanted[name][1]]):
            raise ValueError(f"its input {name} is {one.type} {one.shape}")


def _fixed(shape: list[Any]) -> list[int | None]:
    """Return the sizes of a tensor's axes, None for those that are free."""
    return [size if isinstance(size, int) and size >= 0 else None for size in shape]


def start_session(model: bytes, *, name: object = "the exported model", threads: int | None = None) -> Any:
    """Return an onnxruntime session on the CPU for the bytes of a model, called `name` in messages.

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
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:
        raise ArtifactError(f"{name}: {_why(error, onnxruntime.__version__)}") from error


def _why(error: Exception, version: str) -> str:
    text = one_line(error)
    if "IR version" in text or "opset" in text.lower():
        return f"too new for onnxruntime {version} ({text}); pip install --upgrade onnxruntime"
    return f"damaged, or not an ONNX model ({text}); export it again"


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
