"""Two processes of one gloo group, each with its share of a pack; the first prints JSON."""

import json
import os
import sys
import warnings

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from edgeprune_runtime import PackLoader


def numbers(loader):
    """What tells the images of an epoch apart, batch by batch."""
    return [images.double().sum((1, 2, 3)).tolist() for images, _ in loader]


def warned(loader):
    """How often two epochs of a loader warn."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(loader)
        list(loader)
    return [str(one.message) for one in caught]


def step_all(model, loader):
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for images, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return [parameter.tolist() for parameter in model.parameters()]


def loader_of(path, batch_size, **options):
    return PackLoader(path, batch_size, True, 1, dtype="float64", backend="torch", device="cpu", **options)


def main(rank, path, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = {
        "images": numbers(loader_of(path, 8, rank=rank, world_size=2)),
        "warned when told": warned(loader_of(path, 8, rank=rank, world_size=2)),
        "warned": warned(loader_of(path, 8)),
        "warned again": warned(loader_of(path, 8)),
    }
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)).double()
    found["weights"] = step_all(
        DistributedDataParallel(model), loader_of(path, 5, rank=rank, world_size=2, drop_last=True)
    )
    gathered = [None, None]
    dist.all_gather_object(gathered, found)
    dist.destroy_process_group()
    if rank == 0:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)).double()
        print(json.dumps({"ranks": gathered, "alone": step_all(model, loader_of(path, 10, drop_last=True))}))


def both(path, store):
    child = os.fork()
    main(int(child == 0), path, store)
    if child:
        _, status = os.waitpid(child, 0)
        sys.exit(status != 0)
