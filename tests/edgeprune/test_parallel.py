import json
import os
import re
import signal
from functools import partial

import forked
import numpy as np
import pytest
import torch
import two_processes
from image_folders import write_photos
from scoring_runs import IMAGES, RUNS, arrays, assert_same_scores, options, score, write_source

from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.sampling import ccs
from edgeprune.coresets.scores import hardness
from edgeprune.coresets.selection import compute_scores
from edgeprune.scoring.scores_file import read_scores_file
from edgeprune.work.distributed import DistributedWorkers, joined_processes
from edgeprune.work.joining import joined
from edgeprune.work.processes import Workers, process_rank
from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.training.run_folder.checkpoint import read_state

GO_ON = "run the same command again to go on"


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("length", [0, 1, 2, 13, 64])
def test_parts_share_a_batch_out(length, count):
    rows = np.arange(length)
    workers = [Workers(rank, count) for rank in range(count)]
    parts = [worker.part(rows) for worker in workers]
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert [worker.bounds(length) for worker in workers] == [
        (sum(sizes[:rank]), sum(sizes[: rank + 1])) for rank in range(count)
    ]
    if length >= count:
        # Means over parts, weighted so and averaged over processes, are the mean over the batch.
        shares = [worker.share(size, length) for worker, size in zip(workers, sizes, strict=True)]
        means = [part.mean() for part in parts]
        assert np.mean(np.multiply(means, shares)) == pytest.approx(rows.mean())


def test_one_process_is_all_there_is(monkeypatch):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert process_rank() == 0
    with joined("cpu") as workers:
        assert workers == Workers(0, 1, "cpu")
        model, tensor = torch.nn.BatchNorm2d(3), torch.ones(2)
        assert workers.wrap(model) is model
        assert workers.synchronized(model) is model
        assert workers.total(tensor) is tensor
        assert workers.from_first(b"x") == b"x"
        assert [workers.any(flag) for flag in (False, True)] == [False, True]
        assert [workers.first(flag) for flag in (False, True)] == [False, True]
        workers.wait()


@pytest.mark.parametrize(
    ("asked", "local_rank", "devices", "words"),
    [
        ("cuda:1", 0, 2, "several processes cannot share cuda:1; use `device` cuda or cpu"),
        (
            "cuda",
            2,
            2,
            "process 2 has no CUDA device, there are 2; start fewer processes .* or use `device=cpu`",
        ),
        ("auto", 4, 1, "process 4 has no CUDA device, there are 1"),
        ("cuda", 0, 0, "process 0 has no CUDA device, there are 0"),
        ("gpu", 0, 2, "several processes cannot share gpu"),
    ],
)
def test_more_processes_than_devices(monkeypatch, asked, local_rank, devices, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setenv("WORLD_SIZE", "5")
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    with pytest.raises(ConfigError, match=words), joined(asked):
        pass
    assert not torch.distributed.is_initialized()


@pytest.fixture
def no_group(monkeypatch):
    """The environment that it makes, for a group that is never formed."""
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)


def test_a_number_of_processes_that_torchrun_did_not_set(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ConfigError, match="not by torchrun"), joined("cpu"):
        pass


@pytest.mark.usefixtures("no_group")
@pytest.mark.parametrize(("asked", "place"), [("auto", "cuda:1"), ("cuda", "cuda:1"), ("cpu", "cpu")])
def test_each_process_takes_the_device_of_its_local_rank(monkeypatch, asked, place):
    chosen, started = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda kind, **_: started.append(kind))
    monkeypatch.setenv("LOCAL_RANK", "1")
    with joined_processes(asked, 6) as workers:
        assert workers == DistributedWorkers(5, 6, place)
    assert chosen == ([] if place == "cpu" else [1])
    assert started == ["gloo" if place == "cpu" else "cpu:gloo,cuda:nccl"]


@pytest.mark.usefixtures("no_group")
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]"),
            TrainingError,
        ),
        (torch.distributed.DistBackendError("NCCL communicator was aborted on rank 0"), TrainingError),
        (torch.distributed.DistNetworkError("The client socket has timed out (TCPStore)"), TrainingError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
        (ConfigError("--lr"), ConfigError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_only_the_loss_of_a_process_is_told_as_such(monkeypatch, error, kind):
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    with pytest.raises(kind) as caught, joined_processes("cpu", 2):
        raise error
    assert (caught.value is error) == (kind is not TrainingError)
    if kind is TrainingError:
        assert GO_ON in str(caught.value)


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def together(tmp_path_factory, spec):
    """What two processes found, and the folder with their scores."""
    folder = tmp_path_factory.mktemp("together")
    write_photos(folder / "photos", IMAGES)
    with forked.Forked(partial(two_processes.both, folder, spec)) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out), folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, spec):
    """The folder with the scores of one process."""
    folder = tmp_path_factory.mktemp("alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, config in RUNS.items():
        score(folder / name, spec, config)
    score(folder / "kept.h5", write_photos(folder / "photos", IMAGES), RUNS["tiny.h5"])
    torch.set_num_threads(threads)
    return folder


@pytest.mark.slow
def test_processes_exchange_what_they_should(together):
    assert together[0]["exchanges"] == {
        "total": [3.0, 1.0],
        "unchanged": True,
        "any": [True, True, False],
        "first": [True, False, False],
        "from_first": True,
        "empty": 0,
        "count": 2,
        "kind": True,
        "device": "cpu",
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", ["small 12", "small 13", "small 3", "resnet8 9"])
def test_a_batch_in_two_parts_is_the_whole_batch(together, case):
    found = together[0][case]
    assert found["same_names"]
    for what in ("logits", "gradients", "buffers"):
        assert found[what] < 1e-12, what


@pytest.mark.slow
def test_statistics_under_autocast_are_sums_in_float32(together):
    assert together[0]["bfloat16"] < 5e-3


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_in_the_others(together):
    assert together[0]["death"].startswith("another process of the run has stopped")
    assert GO_ON in together[0]["death"]


def assert_like(one, other):
    """The same scores but for the order of additions, which steps amplify."""
    ours, theirs = arrays(one), arrays(other)
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        if name == "epochs/correct":
            assert (array != theirs[name]).mean() < 0.01
        elif array.dtype.kind == "f":
            np.testing.assert_allclose(array, theirs[name], rtol=5e-3, atol=5e-3, err_msg=name)
        else:
            np.testing.assert_array_equal(array, theirs[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_give_the_scores_of_one(together, alone, name):
    assert_like(together[1] / name, alone / name)
    first = [arrays(folder / name)["epochs/probabilities"][0] for folder in (together[1], alone)]
    np.testing.assert_allclose(*first, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_share_the_decoded_images(together, alone):
    assert read_scores_file(together[1] / "kept.h5").provenance["images_held"] == "disk"
    assert not list(together[1].glob("*.images*"))
    assert_like(together[1] / "kept.h5", alone / "kept.h5")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joint_entropy", "forgetting", "el2n", "aum"])
def test_two_processes_choose_the_coreset_of_one(together, alone, name):
    chosen = []
    for folder in (together[1], alone):
        records = read_scores_file(folder / "tiny.h5")
        scores = compute_scores(records, CoresetConfig(score=name))
        hard = hardness(compute_scores(records, CoresetConfig(score="aum")), "aum")
        chosen.append(ccs(scores, len(scores) // 2, hardness=hard, beta=0.1, strata=5, seed=3))
    np.testing.assert_array_equal(*chosen)


def torchrun(path, spec, act=None, pids=None):
    """Score with two processes, and act once an epoch is done; give exit code and standard error."""
    lines = []
    words = ["score", spec, "-o", path, *options(RUNS["long.h5"])]
    with forked.torchrun(partial(forked.run_command, *words), stdout=None, pids=pids) as process:
        for line in process.stderr:
            lines.append(line)
            if act and line.startswith("scoring, epoch"):
                act(process)
                act = None
    return process.returncode, "".join(lines)


@pytest.mark.slow
def test_torchrun_stopped_and_killed_goes_on_to_the_same_scores(
    tmp_path_factory, tmp_path, spec, together, alone
):
    pids = tmp_path_factory.mktemp("pids")
    path, work = tmp_path / "long.h5", tmp_path / "long.h5.work"
    code, err = torchrun(path, spec, lambda process: process.terminate())
    assert code != 0
    (line,) = [line for line in err.splitlines() if line.startswith("edgeprune: ")]
    assert re.fullmatch(rf"edgeprune: interrupted in epoch \d of 4; {GO_ON}", line)
    kept = read_state(work)
    assert kept["step"] % 8 == 0
    assert len(kept["history"]) >= 1

    code, err = torchrun(path, spec, lambda _: os.kill(int((pids / "1").read_text()), signal.SIGKILL), pids)
    assert code != 0
    (line,) = [line for line in err.splitlines() if line.startswith("edgeprune: ")]
    assert line == f"edgeprune: error: {together[0]['death']}"
    assert read_state(work) == kept
    assert not path.exists()

    code, err = torchrun(path, spec)
    assert code == 0, err
    assert "epoch 1/4" not in err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["long.h5"]
    assert_same_scores(path, together[1] / "long.h5")
    assert_like(path, alone / "long.h5")
