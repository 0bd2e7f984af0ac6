"""A build in two processes makes the pack that one makes."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import forked
import numpy as np
import pytest
import torch
from small_builds import JELF, MASKS, kept

import edgeprune.work.resumable
from edgeprune import build_pack
from edgeprune.masks.fse_file import load_fse_net
from edgeprune.masks.learner import MaskLearner
from edgeprune_formats import open_pack, verify_pack

OPTIONS = [
    "--codec",
    "sparse-f32",
    "--device",
    "cpu",
    "--seed",
    "3",
    "--mask-epochs",
    "3",
    "--mask-batch-size",
    "16",
    "--mask-lr",
    "0.01",
]
CONFIG = replace(JELF, masks=replace(MASKS, epochs=3))


def words(scored, path):
    return [
        "build",
        scored.spec,
        "--method",
        "jelf",
        "--scores",
        str(scored.scores),
        "-o",
        str(path),
        *OPTIONS,
    ]


def torchrun(scored, path):
    """Run a build in two processes, as a user does; give its exit code and what it said."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *("-m", "edgeprune"),
        *words(scored, path),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def forked_torchrun(run, scored, path):
    """The same without starting interpreters."""
    with forked.torchrun(partial(run, *words(scored, path))) as process:
        out, err = process.communicate()
    return process.returncode, out + err


def kill_the_second(*words):
    """Run a build whose second process kills itself at its seventh step: the first of the third epoch.

    The first process keeps a checkpoint whenever it may.
    """
    edgeprune.work.resumable.ResumableRun.checkpoint_seconds = -1
    step, calls = MaskLearner.step, []

    def counted(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 7 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *arguments, **options)

    MaskLearner.step = counted
    forked.run_command(*words)


@pytest.fixture(scope="module")
def alone(scored, tmp_path_factory):
    """The pack that one process builds of what two are to build."""
    path = tmp_path_factory.mktemp("alone") / "p.h5"
    build_pack(scored.spec, path, CONFIG, scores=scored.scores)
    return path


def assert_same_but_for_rounding(path, alone):
    assert verify_pack(path) == []
    pack, expected = open_pack(path), open_pack(alone)
    np.testing.assert_array_equal(pack.source_index, expected.source_index)
    np.testing.assert_array_equal(pack.scores, expected.scores)
    (ours, record), (theirs, other) = (
        load_fse_net(p.with_suffix(".fse-net.safetensors")) for p in (path, alone)
    )
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=0, atol=1e-3)
    for one, two in zip(record["history"], other["history"], strict=True):
        assert one == pytest.approx(two, abs=1e-3)
    assert (kept(path) != kept(alone)).mean() < 0.01


@pytest.mark.slow
def test_two_processes_build_the_pack_that_one_builds(scored, alone, tmp_path):
    path = tmp_path / "p.h5"
    code, said = torchrun(scored, path)
    assert code == 0, said
    assert said.count("learning masks, epoch") == 3
    assert said.count(f"{path}: 24 images") == 1
    assert_same_but_for_rounding(path, alone)
    assert {p.name for p in tmp_path.iterdir()} == {"p.h5", "p.fse-net.safetensors"}


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_which_then_goes_on(scored, alone, tmp_path):
    path = tmp_path / "p.h5"
    code, said = forked_torchrun(kill_the_second, scored, path)
    assert code != 0
    # torchrun, which reports the signal, may end the first process before that has said what it saw.
    assert "another process of the run has stopped" in said or "SIGKILL" in said
    assert not path.exists()
    code, said = forked_torchrun(forked.run_command, scored, path)
    assert code == 0, said
    assert said.count("learning masks, epoch") == 1
    assert "learning masks, epoch 3/3" in said
    assert_same_but_for_rounding(path, alone)
