"""Commands that a signal ends, or whose reader goes away."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import click
import forked
import numpy as np
import pytest

from edgeprune.cli import cli

# The paper's layout, in place of the default.
SPARSE = ("--codec", "sparse-f32")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interrupted_build_leaves_nothing(tmp_path, number, code):
    images = np.random.default_rng(0).integers(0, 256, (2_000, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / "many.npz", x=images, y=np.arange(2_000) % 10)
    out = tmp_path / "out"
    out.mkdir()
    # Noise takes half a minute to encode.
    with forked.command("build", f"npz:{tmp_path / 'many.npz'}", "-q", "-o", out / "p.h5") as process:
        deadline = time.monotonic() + 60
        while not list(out.iterdir()):
            assert time.monotonic() < deadline, "nothing is written"
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert list(out.iterdir()) == []


class EndsBySignal:
    """A signal comes while it is finalized, where no exception leaves."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        len([0] * 10)


def go_on_after_a_lost_signal(number, seconds):
    def callback():
        lost = EndsBySignal(number)
        del lost
        time.sleep(seconds)
        print("went on")

    cli.get_command = lambda *_: click.Command("info", callback=callback)
    forked.run_command("info")


@pytest.mark.parametrize("seconds", [0, 60], ids=["at the end", "soon"])
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_that_comes_in_a_finalizer_ends_the_command(number, code, seconds):
    with forked.Forked(partial(go_on_after_a_lost_signal, number, seconds)) as process:
        out, err = process.communicate()
    assert (process.returncode, "Traceback" in err) == (code, False), err
    assert seconds == 0 or out == ""


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(tmp_path, npz, edgeprune):
    edgeprune("build", *SPARSE, npz, "-o", tmp_path / "p.h5", "-q")
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edgeprune", "info", str(tmp_path / "p.h5")]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert "Traceback" not in done.stderr


def run_without_readers(*arguments, streams=("stdout",)):
    """Run a command whose output nobody reads; give its exit code, and what it says where somebody does."""
    read, write = os.pipe()
    os.close(read)
    pipes = {"stderr": subprocess.PIPE, **dict.fromkeys(streams, write)}
    command = [sys.executable, "-m", "edgeprune", *map(str, arguments)]
    done = subprocess.run(command, **pipes, text=True, timeout=120)
    os.close(write)
    return done.returncode, done.stderr


def train_without_readers(*arguments, streams):
    """The same of a training, whose start takes seconds."""
    read, write = os.pipe()
    os.close(read)
    with forked.command("train", *arguments, **dict.fromkeys(streams, write)) as process:
        os.close(write)
        _, err = process.communicate()
    return process.returncode, err


@pytest.mark.slow
@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")], ids=len)
def test_a_training_whose_reader_goes_away_goes_on(edgeprune, npz, tmp_path, streams):
    pack, run = tmp_path / "p.h5", tmp_path / "run"
    edgeprune("build", *SPARSE, npz, "-o", pack, "-q")
    options = ["--model", "resnet8", "--epochs", "2", "--batch-size", "8", "--device", "cpu"]
    code, err = train_without_readers(pack, "-o", run, *options, streams=streams)
    assert (code, err) == (0, None if "stderr" in streams else "")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert (run / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")], ids=len)
@pytest.mark.parametrize(
    "words", [["--help"], ["verify", "p.h5"], ["build", "--help"], ["info", "none.h5"]], ids=str
)
def test_any_command_ends_quietly_when_its_reader_goes_away(edgeprune, npz, tmp_path, words, streams):
    edgeprune("build", *SPARSE, npz, "-o", tmp_path / "p.h5", "-q")
    paths = [tmp_path / word if word.endswith(".h5") else word for word in words]
    code, err = run_without_readers(*paths, streams=streams)
    assert code in (1, 2)
    assert "Traceback" not in (err or "")
    assert len((err or "").splitlines()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True])
def test_a_training_that_is_hung_up_leaves_a_checkpoint(npz, tmp_path, edgeprune, ignored):
    pack, run = tmp_path / "p.h5", tmp_path / "run"
    edgeprune("build", *SPARSE, npz, "-o", pack, "-q")
    options = ["--model", "resnet8", "--epochs", "8", "--batch-size", "8", "--device", "cpu"]
    given = {"ignored": [signal.SIGHUP]} if ignored else {}
    with forked.command("train", pack, "-o", run, *options, **given) as process:
        assert process.stdout.readline().startswith("cpu; ")
        assert process.stdout.readline().startswith("epoch ")
        # As when a terminal goes: nobody reads any more either.
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGHUP)
        process.wait()
    assert process.returncode == (0 if ignored else 129)
    assert (run / "model.safetensors").exists() == ignored
    code, _, err = edgeprune("train", pack, "-o", run, *options, "--resume")
    assert (code, err) == (0, "")
