"""Fixtures that several packages' tests share."""

import gc
import os
import subprocess
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest

from edgeprune_formats import PackHeader, PackWriter, isolation
from edgeprune_formats.packs.chunks import plan_chunk_samples

# Of what is imported and collected nothing is garbage: to look for some takes a second in each worker.
gc.disable()

# Tests hold results against each other to seven digits. So they compute in float32 also where the processor
# has AMX, with which `precision="auto"` is bfloat16 for some networks.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"

MAY_MOUNT = hasattr(os, "geteuid") and os.geteuid() == 0 and sys.platform == "linux"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark as slow all but the first so many variants of a test that says so, before any is deselected.

    And begin with the files of which most is slow, so that the last file of a worker is a short one.
    """
    seen = Counter()
    for item in items:
        for mark in item.iter_markers("first_are_quick"):
            name = item.nodeid.partition("[")[0]
            seen[name] += 1
            if seen[name] > (mark.args[0] if mark.args else 1):
                item.add_marker(pytest.mark.slow)
    counts = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path] / counts[item.path])


def pytest_collection_finish():
    """Have no garbage collection look again at what imports have left: torch alone has a million objects.

    And begin the process that commands are forked from, before any test has run.
    """
    gc.freeze()
    if "forked" in sys.modules:
        sys.modules["forked"].serve()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop():
    """Look for garbage from here on, also in the process that hands tests to workers and collects none."""
    gc.enable()


def pytest_unconfigure():
    for name in ("forked", "plain_commands"):
        if name in sys.modules:
            sys.modules[name].stop()


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("EDGEPRUNE_DATA")
    if not folder:
        pytest.skip("EDGEPRUNE_DATA is not set: real images are left out")
    return Path(folder)


@pytest.fixture(scope="module")
def examined_in_forks():
    """Let the process that looks first at files that are not plain be a fork, which starts in no time."""
    import plain_commands

    with pytest.MonkeyPatch.context() as patch:
        forking = {**vars(subprocess), "run": plain_commands.run_examination}
        patch.setattr(isolation, "subprocess", SimpleNamespace(**forking))
        yield


def _mask(random, shape, components):
    n, channels, height, width = shape
    order = random.random((n, channels, height * width)).argsort(axis=2)[..., :components]
    mask = np.zeros((n, channels, height * width), bool)
    np.put_along_axis(mask, order, True, axis=2)
    return mask.reshape(shape)


@pytest.fixture
def make_pack(tmp_path):
    """Write a pack of random spectra under random masks; give its path and the dense spectra."""

    def make(
        name="pack.h5", *, samples=50, size=(32, 32), components=300, chunk_samples=None, seed=0, **options
    ):
        chunk_samples = chunk_samples or plan_chunk_samples(samples, 18 * components, 3 * size[0] * size[1])
        facts = (samples, tuple(size), components, chunk_samples, seed)
        if options:
            return tmp_path / name, _write_pack(tmp_path / name, *facts, **options)
        content, dense = _pack_of(*facts)
        (tmp_path / name).write_bytes(content)
        return tmp_path / name, dense.copy()

    return make


@lru_cache(16)
def _pack_of(*facts):
    """The bytes of such a pack, of which many tests take the same, and the dense spectra."""
    with TemporaryDirectory() as folder:
        dense = _write_pack(Path(folder) / "pack.h5", *facts)
        return (Path(folder) / "pack.h5").read_bytes(), dense


def _write_pack(path, samples, size, components, chunk_samples, seed, **options):
    random = np.random.default_rng(seed)
    shape = (samples, 3, *size)
    spectra = random.normal(size=shape).astype(np.float32)
    mask = _mask(random, shape, components)
    header = PackHeader(
        samples=samples,
        channels=3,
        height=size[0],
        width=size[1],
        components=components,
        codec="sparse-f32",
        chunk_samples=chunk_samples,
        class_names=("cat", "dog", "bird"),
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
    )
    labels = random.integers(0, 3, samples)
    with PackWriter(path, header, labels, np.arange(samples), **options) as writer:
        writer.append(spectra, mask)
    return np.where(mask, spectra, 0)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a tmpfs of so many bytes."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"disk-{size}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
        if not MAY_MOUNT or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("cannot mount a tmpfs here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
