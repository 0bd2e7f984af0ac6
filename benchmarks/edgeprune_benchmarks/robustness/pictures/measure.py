"""``edgeprune bench landscape``: what surrounds the networks of ``robustness``, measured and drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats import open_pack
from edgeprune_runtime import PackLoader

from ...harness.deadline import OutOfTimeError
from ...harness.results import save
from ..attacks.victim import Victim, load_victim, weights_hash
from ..evaluation import classify
from ..protocol import L2
from ..recipes import Row, row_name
from ..run import Request, device_of
from ..training import Experiment
from .landscape import distortion, filter_normalized, loss_along, loss_over, smooth_gradients

__all__ = ["SHOWN", "Settings", "picture_all"]

SHOWN = ("natural", "LF", "JE", "JELF")
STEPS = tuple(np.linspace(-1, 1, 21).round(3).tolist())
GRID = tuple(np.linspace(-1, 1, 15).round(4).tolist())
PICTURED = 8


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes
    ----------
    images : int
        Training images that the loss is averaged over, and test images of the distortion rate.
    directions : int
        Random directions in weights.
    """

    images: int = 500
    directions: int = 5


def picture_all(settings: Settings, request: Request, output: Path, pictures: Path) -> None:
    """Measure the loss around networks of a recipe, and draw what they look at and were shown.

    Parameters
    ----------
    settings : Settings
    request : Request
        Of its networks those of the methods of ``SHOWN``; those that are not trained yet are trained.
    output, pictures : Path
        Folders of ``landscape.json`` and of the pictures.

    Raises
    ------
    ConfigError
        No such recipe, or settings that do not fit those of the folder of runs.
    OutOfTimeError
        The time was over before all are trained.
    """
    experiment, device = request.experiment(), device_of(request.device)
    rows = [(row, seed) for row, seed in request.networks(experiment.scale) if row.label in SHOWN]
    try:
        found = [_measured(settings, experiment, row, seed, device) for row, seed in rows]
    except OutOfTimeError:
        raise OutOfTimeError("not all networks are trained yet") from None
    results = {
        "asked": request.facts(),
        "plan": asdict(settings),
        "scale": asdict(experiment.scale),
        "steps": STEPS,
        "grid": GRID,
        "rows": found,
    }
    click.echo(save(output, "landscape", results))
    pictures.mkdir(parents=True, exist_ok=True)
    # The most pruned of each method, with the first seed.
    last = {row.label: (row, seed) for row, seed in rows if not seed}
    if "natural" in last and "LF" in last:
        networks = {name: _victim(experiment, *last[name], device) for name in ("natural", "LF")}
        click.echo(_draw_attention(experiment, networks, pictures / "smoothgrad.png", device))
    if "JELF" in last:
        click.echo(_draw_chosen(experiment, *last["JELF"], pictures / "kept-rejected.png"))


def _victim(experiment: Experiment, row: Row, seed: int, device: torch.device) -> Victim:
    return load_victim(experiment.trained(row, seed)[0], device)


def _measured(
    settings: Settings, experiment: Experiment, row: Row, seed: int, device: torch.device
) -> dict[str, Any]:
    victim = _victim(experiment, row, seed, device)
    chosen = np.random.default_rng(0).permutation(experiment.check.good)[: settings.images].astype(np.intp)
    images = torch.from_numpy(experiment.source.read(chosen)).to(device).float() / 255
    labels = torch.from_numpy(experiment.source.labels[chosen]).to(device)
    directions = [filter_normalized(victim, number) for number in range(settings.directions)]
    along = [loss_along(victim, images, labels, direction, STEPS).tolist() for direction in directions]
    pair = directions[0], directions[1]
    over = None if seed else loss_over(victim, images, labels, pair, GRID).tolist()
    tested, classes = (part.to(device) for part in experiment.tested(min(settings.images, 200)))
    rates = [asdict(distortion(victim, tested, classes, eps)) for eps in (L2.size / 4, L2.size / 2, L2.size)]
    center = along[0][len(STEPS) // 2]
    click.echo(f"{row_name(row.label, row.pruned)}, seed {seed}: loss {center:.3f}, {rates[1]}")
    return {
        "label": row.label,
        "pruned": row.pruned,
        "seed": seed,
        "weights": weights_hash(victim),
        "along": along,
        "over": over,
        "distortion": rates,
        "distortion_images": len(tested),
    }


def _draw_attention(
    experiment: Experiment, networks: dict[str, Victim], path: Path, device: torch.device
) -> Path:
    """Draw SmoothGrad maps of test images that every network gets right, if there are any (paper, Fig. 1)."""
    from matplotlib.figure import Figure

    images, labels = experiment.tested(200)
    right = torch.stack([classify(v, images, 200, device) == labels for v in networks.values()]).all(0)
    shown = right.nonzero()[:PICTURED, 0] if bool(right.any()) else torch.arange(PICTURED)
    images, labels = images[shown].to(device), labels[shown].to(device)
    rows: dict[str, NDArray[Any]] = {"image": images.permute(0, 2, 3, 1).cpu().numpy()}
    for name, victim in networks.items():
        rows[name] = smooth_gradients(victim, images, labels).cpu().numpy()
    figure = Figure(figsize=(PICTURED, len(rows)), layout="constrained")
    _grid(figure, rows)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    return path


def _draw_chosen(experiment: Experiment, row: Row, seed: int, path: Path) -> Path:
    """Draw images that a coreset keeps and rejects, before and after pruning (paper, Fig. 8)."""
    from matplotlib.figure import Figure

    pack = open_pack(experiment.pack(row, seed))
    kept = pack.source_index[: 2 * PICTURED].astype(np.intp)
    rejected = np.setdiff1d(experiment.check.good, pack.source_index)
    rejected = np.random.default_rng(seed).permutation(rejected)[: 2 * PICTURED].astype(np.intp)
    decoded, _ = next(iter(PackLoader(pack, 2 * PICTURED, backend="scipy")))
    rows = {
        "kept": experiment.source.read(kept).transpose(0, 2, 3, 1),
        f"kept, {row.freq_prune:.0%} pruned": np.asarray(decoded).clip(0, 1).transpose(0, 2, 3, 1),
        "rejected": experiment.source.read(rejected).transpose(0, 2, 3, 1),
    }
    figure = Figure(figsize=(2 * PICTURED, len(rows)), layout="constrained")
    _grid(figure, rows)
    figure.savefig(path, dpi=60, metadata={"Software": None})
    return path


def _grid(figure: Any, rows: dict[str, NDArray[Any]]) -> None:
    axes = figure.subplots(len(rows), len(next(iter(rows.values()))), squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture, cmap="magma")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name, fontsize=7)
