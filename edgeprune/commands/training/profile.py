"""``edgeprune profile``: where the time of a training step goes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.text import say
from edgeprune_formats.targets import LABEL
from edgeprune_runtime.training.settings import TrainConfig

from ...options.fields import FAR_PACKS, Command, config_options, make_config, option
from ...options.networks import NETWORK
from ...options.sizes import MEMORY
from ...options.torch import THREADS, choose_threads, require_torch

if TYPE_CHECKING:
    from edgeprune_formats.remote.locations import RemoteFile
    from edgeprune_runtime.training.profiling import Profile

__all__ = ["command"]


@click.command("profile", cls=Command)
@FAR_PACKS
@config_options(
    TrainConfig,
    "model",
    "stem",
    "batch_size",
    "accumulate",
    "freeze",
    "ema",
    heading="The step",
    model={**NETWORK, "help": "Network to train and measure."},
)
@option(
    "--target",
    default=LABEL,
    show_default=True,
    metavar="NAME",
    help="Target of the packs to learn, as in edgeprune train.",
)
@option("--steps", type=int, default=20, show_default=True, help="Training steps to measure.")
@config_options(TrainConfig, "device", "precision", heading="Machine")
@MEMORY
@THREADS
@option(
    "--operators",
    type=int,
    default=8,
    show_default=True,
    heading="Printing",
    help="Number of torch operators to list.",
)
@option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def command(
    packs: tuple[Path | RemoteFile, ...],
    memory: int | None,
    threads: int | None,
    target: str,
    steps: int,
    operators: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure how long each part of a training step takes.

    A few steps are trained from PACK. Nothing is saved. PACK may be a URL.

    \b
    Example:
      edgeprune profile photos.h5 --model mobilenet_v2
    """
    # Torch's profiler tells on stderr that it starts, stops and finds no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    require_torch()
    import torch

    from edgeprune.training.setup import set_up
    from edgeprune_runtime import open_packs
    from edgeprune_runtime.system.machine import keep_freed_memory
    from edgeprune_runtime.training.profiling import profile

    choose_threads(threads)
    config = make_config(TrainConfig, dict(options))
    setup = set_up(open_packs(packs), Path(), config, memory=memory, target=target)
    if setup.is_roomy:
        keep_freed_memory()
    found = profile(
        setup.loader,
        setup.config,
        num_classes=setup.column.outputs,
        image_shape=setup.loader.pack.header.shape,
        task=setup.task,
        steps=steps,
        operators=operators,
    )
    place = setup.placement
    facts = {"device": str(place.device), "precision": place.precision, "threads": torch.get_num_threads()}
    if as_json:
        click.echo(
            json.dumps({**options, "target": target, **facts, "step": found.step, **asdict(found)}, indent=1)
        )
        return
    say(f"{options['model']}, {', '.join(map(str, facts.values()))} thread(s), {found.images} images")
    for line in _lines(found):
        say(line)


def _lines(found: Profile) -> list[str]:
    rows = [(name, seconds, f"{seconds / found.step:6.1%}") for name, seconds in found.phases.items()]
    rows += [
        ("step", found.step, f"{found.images / found.step:,.0f} images/s"),
        ("step on a batch that is ready", found.ready, f"{found.step / found.ready - 1:+.1%} by the loader"),
        ("decoding alone", found.decode, f"{found.images / found.decode:,.0f} images/s"),
    ]
    lines = [f"  {name:<32} {seconds * 1e3:9.2f} ms  {note}" for name, seconds, note in rows]
    lines.insert(len(found.phases), "")
    if found.operators:
        lines += ["", "  of the step, by torch's operators (without those that they call)"]
    return lines + [
        f"  {operator.name:<32.32} {operator.seconds * 1e3:9.2f} ms  {operator.calls:,.0f} calls"
        for operator in found.operators
    ]
