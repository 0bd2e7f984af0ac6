"""Runs that a moment finishes, and their models exported once for all tests of a session."""

import contextlib
import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import small_builds
import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from edgeprune.packs.build import build_pack
from edgeprune.packs.config import BuildConfig
from edgeprune.training.setup import train_pack
from edgeprune_formats import open_pack
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.onnx.export import export_network
from edgeprune_runtime.onnx.runtimes import OPSET
from edgeprune_runtime.task import Task
from edgeprune_runtime.training.run_folder.results import save_model
from edgeprune_runtime.training.run_folder.unfinished import open_run_network

NAMES = ("cat", "dog", "bird")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
_CACHE = {}

# The exporter parses the source of five hundred operators for every model. Of a process that exports many,
# this is a third of the time.
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))


def read_operators():
    """Do that now, for processes that are forked from this one."""
    with contextlib.suppress(TypeError):  # Earlier releases of torch know no opset here.
        ONNXRegistry.from_torchlib(opset_version=OPSET)


def finished_run(folder, name="resnet8", size=(16, 16), provenance=None):
    """Write ``model.safetensors`` of a network whose batch norms and logits are far from trivial."""
    torch.manual_seed(0)
    model = create_model(name, len(NAMES), min(size))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    folder.mkdir(parents=True, exist_ok=True)
    given = {"mean": MEAN, "std": STD, "class_names": NAMES} if provenance is None else provenance
    record = {
        "config": {"model": name},
        "num_classes": len(NAMES),
        "image_shape": [3, *size],
        "provenance": json.loads(json.dumps(given)),
    }
    save_model(folder, model, record)
    return folder


def exported(tmp_path_factory, name="resnet8", size=(16, 16)):
    """Return the network of a finished run and its ONNX graph; exporting takes seconds."""
    if (name, size) not in _CACHE:
        network = open_run_network(finished_run(tmp_path_factory.mktemp("run"), name, size))
        _CACHE[name, size] = network, export_network(network)
    return _CACHE[name, size]


def of_values(tmp_path_factory):
    """Return the same network and graph as of values in very different units."""
    if "values" not in _CACHE:
        network, _ = exported(tmp_path_factory)
        task = Task("pose", "value", "", (2020.0, 2e-6, 1.7e9), (0.6, 3e-7, 90.0))
        network = replace(network, class_names=None, task=task)
        _CACHE["values"] = network, export_network(network)
    return _CACHE["values"]


def trained(tmp_path_factory):
    """Return a folder with ``run``, ``pack.h5`` and ``images.npz`` of a network that tells classes apart."""
    if "trained" not in _CACHE:
        folder = tmp_path_factory.mktemp("trained")
        spec = small_builds.write_source(folder, images=96)
        build_pack(spec, folder / "pack.h5", BuildConfig(codec="sparse-f32", freq_prune=0.25, device="cpu"))
        options = {"model": "resnet8", "epochs": 12, "batch_size": 16, "lr": 0.05, "device": "cpu"}
        train_pack(
            open_pack(folder / "pack.h5"), folder / "run", test=None, resume=False, augment="none", **options
        )
        _CACHE["trained"] = folder
    return _CACHE["trained"]


def images(count, size=(16, 16), seed=0):
    """Return float32 [count, 3, *size] on [0, 1]: smooth patterns, as of photographs, in some noise."""
    random = np.random.default_rng(seed)
    coarse = random.random((count, 3, 4, 4)).repeat(-(-size[0] // 4), 2).repeat(-(-size[1] // 4), 3)
    noisy = coarse[..., : size[0], : size[1]] + 0.1 * random.standard_normal((count, 3, *size))
    return noisy.clip(0, 1).astype(np.float32)


def file_of(model, folder, name="model.onnx"):
    """Write a graph as it is, and return its path."""
    path = Path(folder) / name
    path.write_bytes(model.SerializeToString())
    return path
