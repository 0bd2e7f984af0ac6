"""`edgeprune train` within the memory there is."""

import re
import resource
import sys
from functools import partial

import forked
import numpy as np
import pytest
from trained_weights import config, same

from edgeprune import cli
from edgeprune_runtime.system.machine import _status


@pytest.mark.slow
def test_memory_does_not_change_what_is_trained_where_all_fits(train):
    train("a", "--epochs", 1)
    train("b", "--epochs", 1, "--memory", "20MB")
    assert same(*(train(name, "--epochs", 1, "--resume")[3] for name in ("a", "b")))


@pytest.mark.slow
def test_a_batch_size_that_fits_the_memory_is_kept_when_resumed(train, monkeypatch):
    network = ["--model", "resnet8", "--device", "cpu", "--batch-size", "auto", "--epochs", 2]
    free = {"now": 210_000_000}
    monkeypatch.setattr("edgeprune_runtime.training.memory.available_bytes", lambda: free["now"])
    code, out, err, folder = train("a", "--memory", "20MB", "--checkpoint-steps", 1, network=network)
    assert code == 0, err
    parts = config(folder)["config"]["accumulate"]
    assert parts > 1
    assert f"batches of 128 in {parts} parts" in out
    (folder / "model.safetensors").unlink()
    free["now"] = 10**10
    code, out, err, folder = train("a", "--resume", network=network)
    assert code == 0, err
    assert f"batches of 128 in {parts} parts, 1 step an epoch; at most 20.00 MB" in out
    free["now"] = 1000
    code, _, err, folder = train("b", network=network)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "for two images at a time" in err
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("tested", [False, True])
def test_less_memory_than_the_order_takes_names_what_is_enough(edgeprune, make_pack, tmp_path, tested):
    path, _ = make_pack(samples=3000, size=(16, 16), components=200, chunk_samples=10)
    run = tmp_path / "run"
    test = ["--test", path] if tested else []
    start = ["train", path, "--model", "resnet8", "--device", "cpu", "--epochs", 1, *test, "-o", run]
    assert edgeprune(*start, "--memory", "1GB")[0] == 0
    (run / "model.safetensors").unlink()
    resume = ["train", path, "-o", run, "--resume"]
    code, _, err = edgeprune(*resume, "--memory", "8MB")
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"{run} cannot be resumed within 8.00 MB: the order in which it visits the images takes" in err
    assert "cache_bytes" not in err
    enough = re.search(r"give --memory (\d+MB) or more, or leave --memory out$", err.strip())[1]
    assert edgeprune(*resume, "--memory", enough)[0] == 0
    (run / "model.safetensors").unlink()
    assert edgeprune(*resume)[0] == 0


def test_a_step_that_hardly_fits_is_warned_of_and_tried(train, monkeypatch):
    free = {"now": 50_000_000}
    monkeypatch.setattr("edgeprune_runtime.training.memory.available_bytes", lambda: free["now"])
    network = ["--model", "resnet8", "--device", "cpu", "--epochs", 1]
    code, _, err, _ = train("a", "--memory", "20MB", network=network)
    assert code == 0, err
    assert "with resnet8, and 50 MB are free; if the process is ended without a message" in err
    free["now"] = 10**10
    assert "are free" not in train("b", "--memory", "20MB", network=network)[2]


@pytest.mark.first_are_quick
@pytest.mark.parametrize("words", ["CUDA out of memory.", "could not create a primitive"])
def test_too_little_memory_for_a_step(train, monkeypatch, words):
    def step(*arguments, **options):
        raise RuntimeError(words)

    monkeypatch.setattr("edgeprune_runtime.training.step.Learner.step", step)
    code, _, err, folder = train("a")
    assert code == 1
    assert err == f"edgeprune: error: {cli.NO_MEMORY}\n"
    assert "--batch-size auto" in err
    assert not folder.exists()


def train_within(more, *words):
    """Train in a process that may have so many more bytes of addresses than it has; give output and code."""
    with forked.Forked(partial(limited, more, *words)) as process:
        return *process.communicate(), process.wait()


def limited(more, *words):
    limit = _status("VmSize") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    forked.run_command("train", *words)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS")
def test_a_batch_size_for_a_bound_on_addresses(npz, edgeprune, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (128, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / "i.npz", x=images, y=np.arange(128) % 2)
    edgeprune("build", "--codec", "sparse-f32", f"npz:{tmp_path / 'i.npz'}", "-o", tmp_path / "p.h5", "-q")
    words = [tmp_path / "p.h5", "--model", "mobilenet_v2", "--epochs", 1, "--device", "cpu"]
    words += ["--memory", "40MB", "--precision", "float32"]
    out, err, code = train_within(600 * 10**6, *words, "--batch-size", 128, "-o", tmp_path / "128")
    assert code == 1
    assert err.splitlines()[-1] == f"edgeprune: error: {cli.NO_MEMORY}"
    out, err, code = train_within(600 * 10**6, *words, "--batch-size", "auto", "-o", tmp_path / "auto")
    assert code == 0, err
    assert "batches of 128 in " in out
