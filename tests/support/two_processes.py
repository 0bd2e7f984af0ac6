"""Two processes that compute together; the first prints what they found as JSON."""

import copy
import json
import os
import signal
import socket

import torch
from scoring_runs import RUNS, score
from torch import nn
from torch.nn import functional

from edgeprune.work import image_store
from edgeprune.work.distributed import DistributedWorkers
from edgeprune.work.joining import joined
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.networks.models import create_model
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.settings import TrainConfig
from edgeprune_runtime.training.step import Learner


def small_network():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, stride=2),
        nn.BatchNorm2d(4, momentum=None),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def batch(count, step):
    source = torch.Generator().manual_seed(step)
    images = torch.randn(count, 3, 9, 9, generator=source, dtype=torch.float64) + 2
    return images, torch.randint(5, (count,), generator=source)


def halves(workers, name, count):
    """Take three steps with one process and with two; return the largest differences."""
    torch.manual_seed(3)
    model = small_network() if name == "small" else create_model(name, 5, 9)
    model = model.double()
    model(batch(8, 99)[0])
    alone, together = copy.deepcopy(model), copy.deepcopy(model)
    wrapped = workers.wrap(workers.synchronized(together))
    optimizers = [torch.optim.SGD(m.parameters(), 0.05, 0.9) for m in (alone, together)]
    worst = {"logits": 0.0, "gradients": 0.0, "buffers": 0.0}

    def note(what, one, other):
        worst[what] = max(worst[what], (one.double() - other.double()).abs().max().item())

    for step in range(3):
        images, labels = batch(count, step)
        start, stop = workers.bounds(count)
        expected = alone(images)
        functional.cross_entropy(expected, labels).backward()
        logits = wrapped(images[start:stop])
        share = workers.share(stop - start, count)
        (functional.cross_entropy(logits, labels[start:stop]) * share).backward()
        note("logits", logits, expected[start:stop])
        for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
            note("gradients", ours.grad, theirs.grad)
        for ours, theirs in zip(together.buffers(), alone.buffers(), strict=True):
            note("buffers", ours, theirs)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        note("logits", together.eval()(images), alone.eval()(images))
    return {**worst, "same_names": list(together.state_dict()) == list(alone.state_dict())}


def in_bfloat16(workers):
    """Take two steps of a learner under autocast; return the running statistics' relative error."""
    config = TrainConfig(model="resnet8", device="cpu", precision="bfloat16", lr=0.01)
    errors = []
    learners = []
    for shared in (False, True):
        torch.manual_seed(0)
        learner = Learner(config, place(config), 5, 32)
        if shared:
            learner.model = workers.synchronized(learner.model)
            learner.forward = workers.wrap(learner.model)
        learners.append(learner)
    for step in range(2):
        source = torch.Generator().manual_seed(step)
        images = torch.randn(25, 3, 32, 32, generator=source) * 3 + 40
        labels = torch.randint(5, (25,), generator=source)
        start, stop = workers.bounds(25)
        learners[0].step(images, labels, 0.01, step)
        share = workers.share(stop - start, 25)
        learners[1].step(images[start:stop], labels[start:stop], 0.01, step, share=share)
    for one, other in zip(*(learner.model.buffers() for learner in learners), strict=True):
        errors.append(((one - other).abs().max() / one.abs().max()).item())
    return max(errors)


def exchanges(workers):
    """What the processes tell each other, as the first sees it."""
    tensor = torch.tensor([1.5, workers.rank])
    contents = [bytes([rank]) * (100_000 - rank) for rank in (0, 1)]
    received = workers.from_first(contents[workers.rank])
    found = {
        "total": workers.total(tensor).tolist(),
        "unchanged": tensor.tolist() == [1.5, workers.rank],
        "any": [workers.any(workers.rank == rank) for rank in (0, 1, 2)],
        "first": [workers.first(workers.rank == rank) for rank in (0, 1, 2)],
        "from_first": not workers.any(received != contents[0]),
        "empty": len(workers.from_first(b"")),
        "count": workers.count,
        "kind": isinstance(workers, DistributedWorkers),
        "device": workers.device,
    }
    workers.wait()
    return found


def after_a_death(rank):
    """The second process is killed; return what the first is told."""
    try:
        with joined("cpu") as workers:
            workers.wait()
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            workers.wait()
    except TrainingError as error:
        return str(error)
    return "nothing"


def main(rank, folder, spec):
    found = {}
    with joined("cpu") as workers:
        found["exchanges"] = exchanges(workers)
        for name, count in (("small", 12), ("small", 13), ("small", 3), ("resnet8", 9)):
            found[f"{name} {count}"] = halves(workers, name, count)
        found["bfloat16"] = in_bfloat16(workers)
        for name, config in RUNS.items():
            score(folder / name, spec, config, workers=workers)
        image_store.ImageStore.share_of_memory = 0
        score(folder / "kept.h5", f"imagefolder:{folder}/photos", RUNS["tiny.h5"], workers=workers)
    # The store of the first group may still be closing, and who reaches it waits for nobody.
    os.environ["MASTER_PORT"] = os.environ["SECOND_PORT"]
    found["death"] = after_a_death(rank)
    if rank == 0:
        print(json.dumps(found))


def both(folder, spec):
    with socket.socket() as first, socket.socket() as second:
        ports = []
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
            ports.append(str(probe.getsockname()[1]))
    os.environ |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": ports[0], "SECOND_PORT": ports[1]}
    child = os.fork()
    rank = int(child == 0)
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
    main(rank, folder, spec)
