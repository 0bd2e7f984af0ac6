"""Run folders: the state and the tensors of a checkpoint, and the network of a finished run."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from edgeprune.training.resuming import recorded_options
from edgeprune_formats import EdgePruneError
from edgeprune_runtime.networks.trained import load_trained
from edgeprune_runtime.training import TrainConfig, train
from edgeprune_runtime.training.run_folder.checkpoint import _checksum
from edgeprune_runtime.training.run_folder.unfinished import open_run_network

from ..mutation import changed_bytes, changed_json
from ..outcomes import WrongError
from .base import Target

__all__ = ["CheckpointState", "CheckpointTensors", "Model", "RunConfig"]

CLASSES, SHAPE, BATCH, STEPS, EPOCHS = 3, (3, 8, 8), 2, 2, 2
CONFIG = TrainConfig(model="resnet8", epochs=EPOCHS, batch_size=BATCH, lr=0.01, device="cpu")
# Bytes of a safetensors file behind its header that belong to the input: those of the random state.
TAIL = 5056


class _Loader:
    """Two batches of noise an epoch; the state is the place in it, as `PackLoader` has it."""

    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        noise = torch.Generator().manual_seed(0)
        self._images = torch.randn(STEPS, BATCH, *SHAPE, generator=noise)
        self._labels = torch.arange(STEPS * BATCH).reshape(STEPS, BATCH) % CLASSES
        self._stop_at = stop_at
        self._epoch = self._batch = 0

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in range(self._batch, STEPS):
            if (self._epoch, batch) == self._stop_at:
                raise EdgePruneError("as far as it goes")
            self._batch = batch + 1
            yield self._images[batch], self._labels[batch]

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self._epoch, self._batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the place."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a place."""
        epoch, batch = state["epoch"], state["batch"]
        if type(epoch) is not int or type(batch) is not int or not 0 <= batch <= STEPS or epoch < 0:
            raise ValueError(f"no place: {state}")
        self._epoch, self._batch = epoch, batch


def _train(folder: Path, loader: _Loader, **options: Any) -> Any:
    known = {"mean": [0.5] * 3, "std": [0.2] * 3, "class_names": ["cat", "dog", "bird"]}
    return train(loader, CONFIG, folder, num_classes=CLASSES, image_shape=SHAPE, provenance=known, **options)


class _Checkpoint(Target):
    """A run that stopped after three of four steps."""

    needs = ("torch", "torchvision", "safetensors")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        run = folder / "sound"
        try:
            _train(run, _Loader(stop_at=(1, 1)))
        except EdgePruneError as error:
            if "as far as it goes" not in str(error):
                raise
        manifest = max(run.glob("checkpoint-*.json"))
        content = json.loads(manifest.read_bytes())
        self._state, self._format = content["state"], content["format"]
        self._tensors = manifest.with_suffix(".safetensors").read_bytes()
        for path in run.glob("checkpoint-*"):
            path.unlink()
        self._files = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}

    def _go_on(self, state: Any, tensors: bytes, files: dict[str, bytes] | None = None) -> None:
        """Write a checkpoint with right checksums beside the run's files, or others, and resume it.

        Raises
        ------
        TrainingError
            It is refused.
        WrongError
            What comes out is not a run of so many epochs.
        """
        run = self._run(state, tensors, files or {})
        metrics = _train(run, _Loader(), resume=True).metrics
        if [row["epoch"] for row in metrics] != list(range(1, EPOCHS + 1)):
            raise WrongError(f"it trained the epochs {[row['epoch'] for row in metrics]}")
        losses = [row["train_loss"] for row in metrics]
        if not all(isinstance(loss, float) and math.isfinite(loss) for loss in losses):
            raise WrongError(f"it went on with losses {losses}")

    def _run(self, state: Any, tensors: bytes, files: dict[str, bytes]) -> Path:
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        for name, content in (self._files | files).items():
            (run / name).write_bytes(content)
        manifest = {"format": self._format, "sha256": hashlib.sha256(tensors).hexdigest(), "state": state}
        sums = {"checksum": _checksum(manifest)}
        (run / "checkpoint-0001.json").write_text(json.dumps(manifest | sums))
        (run / "checkpoint-0001.safetensors").write_bytes(tensors)
        return run


class RunConfig(_Checkpoint):
    """The record of a run, by which alone it is resumed, and its network read."""

    name = "run-config"
    what = "`config.json` of a run: its options, its network, and whether the run goes on"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seeds = [self._files["config.json"]]

    def check(self, data: bytes) -> None:
        """Read options and network, and go on."""
        record = {"config.json": data}
        run = self._run(self._state, self._tensors, record)
        options = recorded_options(run)
        TrainConfig(**{one.name: options[one.name] for one in fields(TrainConfig) if one.name in options})
        open_run_network(run)
        self._go_on(self._state, self._tensors, record)

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change values of the record."""
        return changed_json(data, source)


class CheckpointState(_Checkpoint):
    """The JSON state."""

    name = "checkpoint-state"
    what = "JSON state of a checkpoint, checksum repaired; refused, or the run goes on"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seeds = [json.dumps(self._state).encode()]

    def check(self, data: bytes) -> None:
        """Go on from a state."""
        try:
            state = json.loads(data)
            json.dumps(state, allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise EdgePruneError("no JSON") from error
        self._go_on(state, self._tensors)

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change values of the state."""
        return changed_json(data, source)


class CheckpointTensors(_Checkpoint):
    """The header of the safetensors file, and the bytes of the random state; the weights follow."""

    name = "checkpoint-tensors"
    what = "safetensors header and random state of a checkpoint, SHA-256 repaired"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._head, self._weights = _random_state_first(self._tensors)
        self.seeds = [self._head]

    def check(self, data: bytes) -> None:
        """Go on from tensors."""
        before = torch.get_rng_state()
        try:
            self._go_on(copy.deepcopy(self._state), data + self._weights)
        finally:
            torch.set_rng_state(before)

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change the random state, or the header, with its length."""
        if source.random() < 0.4:
            start = max(0, len(data) - TAIL)
            place = start + source.choice((0, 8, 16, 24, source.randrange(TAIL)))
            piece = changed_bytes(data[place : place + 32], source)[:32]
            return data[:place] + piece + data[place + len(piece) :]
        return _changed_header(data, source)


class Model(Target):
    """The header of ``model.safetensors``; the weights follow."""

    name = "model"
    what = "header and metadata of `model.safetensors`"
    needs = ("torch", "torchvision", "safetensors")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from edgeprune_runtime.networks.models import create_model

        facts = {"model": "resnet8", "num_classes": CLASSES, "image_shape": list(SHAPE)}
        facts |= {"mean": [0.5] * 3, "std": [0.2] * 3, "class_names": ["cat", "dog", "bird"]}
        weights = create_model("resnet8", CLASSES, SHAPE[1]).state_dict()
        content = save(weights, {"edgeprune": json.dumps(facts)})
        size = 8 + struct.unpack_from("<Q", content)[0]
        self.seeds, self._weights = [content[:size]], content[size:]

    def check(self, data: bytes) -> None:
        """Load it, and classify an image."""
        path = self.folder / "model.safetensors"
        path.write_bytes(data + self._weights)
        network = load_trained(path)
        network.identity()
        if math.prod(network.image_shape) > 2**16:
            return
        with torch.no_grad():
            logits = network.model(torch.zeros(1, *network.image_shape))
        if logits.shape != (1, network.num_classes):
            raise WrongError(f"logits of shape {tuple(logits.shape)} for {network.num_classes} classes")

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change the facts, or the header."""
        return _changed_header(data, source)


def _header(content: bytes) -> Any:
    size = struct.unpack_from("<Q", content)[0]
    return json.loads(content[8 : 8 + size])


def _random_state_first(content: bytes) -> tuple[bytes, bytes]:
    """Return a safetensors file whose first tensor is the random state: header and it, and the rest."""
    entries, start = _header(content), 8 + struct.unpack_from("<Q", content)[0]
    entries.pop("__metadata__", None)
    placed, parts, place = {}, [], 0
    for name in sorted(entries, key=lambda name: (name != "random.cpu", entries[name]["data_offsets"])):
        first, last = entries[name]["data_offsets"]
        parts.append(content[start + first : start + last])
        placed[name] = entries[name] | {"data_offsets": [place, place + last - first]}
        place += last - first
    return _with_length(json.dumps(placed).encode()) + parts[0], b"".join(parts[1:])


def _with_length(header: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def _changed_header(data: bytes, source: random.Random) -> bytes:
    """Change the header of a safetensors file: values of its JSON, or bytes."""
    try:
        size = struct.unpack_from("<Q", data)[0]
        entries, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
        facts = entries["__metadata__"]["edgeprune"] if source.random() < 0.7 else None
    except (ValueError, KeyError, TypeError, struct.error, RecursionError, OverflowError):
        facts = None
        if len(data) < 8 or source.random() < 0.1:
            return changed_bytes(data, source)
        entries, rest = None, data[8 + min(struct.unpack_from("<Q", data)[0], len(data)) :]
    if isinstance(facts, str):
        text = changed_json(facts.encode(errors="surrogatepass"), source)
        entries["__metadata__"]["edgeprune"] = text.decode(errors="replace")
        return _with_length(json.dumps(entries).encode()) + rest
    header = data[8 : len(data) - len(rest)]
    return _with_length(changed_json(header, source)) + rest
