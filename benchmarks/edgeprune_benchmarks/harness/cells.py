"""The cells of a comparison: a network each, trained once and kept, so that a stopped command goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.run import run_scoring
from edgeprune.scoring.scores_file import ScoresFile
from edgeprune.sources import Source, SourceCheck
from edgeprune.training.setup import train_pack
from edgeprune.work.progress import EpochLines
from edgeprune_formats import ConfigError, Pack, open_pack
from edgeprune_formats.targets import LABEL
from edgeprune_runtime import PackLoader
from edgeprune_runtime.decode.augmentation import LoaderAugment
from edgeprune_runtime.output_files import write_text
from edgeprune_runtime.training import TrainConfig, TrainLoader, train
from edgeprune_runtime.training.placement import place
from edgeprune_runtime.training.settings import TEACHER

from .deadline import Deadline, OutOfTimeError
from .pixel_loader import Stretched

__all__ = [
    "count_cells",
    "measure_cells",
    "pack_facts",
    "pack_loader",
    "pack_shape",
    "restore_cells",
    "score_images",
    "train_epochs",
    "train_steps",
]

Cell = dict[str, Any]


def measure_cells(
    cells: Mapping[str, Callable[[], Cell]],
    folder: Path,
    settings: Mapping[str, Any],
    deadline: Deadline,
    tell: Callable[[list[Cell]], None] | None = None,
    before: Mapping[str, Any] | None = None,
) -> list[Cell]:
    """Return what each cell gives, and its name in ``cell``; one whose file is there is not measured again.

    Parameters
    ----------
    cells : mapping of str to callable
        Names of files in `folder`, and what measures each.
    folder : Path
        Where ``NAME.json`` of each cell is kept.
    settings : mapping of str to Any
        What cells depend on beside their own place in the table, kept with each.
    deadline : Deadline
        Looked at before each cell.
    tell : callable, optional
        Given what there is after each cell that was measured, and when the time is over, so that a table is
        there before it is whole.
    before : mapping, optional
        What `restore_cells` returned: its rows of cells that are not asked for come after the others.

    Raises
    ------
    ConfigError
        A file of other settings.
    OutOfTimeError
        The time was over before the end.
    """
    rows: list[Cell] = []
    others = [row for row in (before or {}).get("rows", []) if row["cell"] not in cells]
    told = json.loads(json.dumps(settings))
    late = False
    for name, measure in cells.items():
        path = folder / f"{name}.json"
        if is_new := not path.exists():
            late = late or deadline.is_near()
            if late:
                continue
            write_text(path, json.dumps({**measure(), "settings": settings}))
        row: Cell = json.loads(path.read_text())
        if row.pop("settings") != told:
            raise ConfigError(f"{path} was measured with other settings; remove it or name another folder")
        rows.append({**row, "cell": name})
        if is_new and tell is not None:
            tell([*rows, *others])
    if not late:
        return [*rows, *others]
    if tell is not None and rows:
        tell([*rows, *others])
    raise OutOfTimeError(f"{len(rows)} of {len(cells)} measurements are done")


def restore_cells(result: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write the files of cells that a result holds, where they are missing, and return what it holds.

    The result names each cell in ``cell``, and has the settings of all in ``cell_settings``. If they are
    others, or there is no result, nothing is written, and an empty dict is returned.
    """
    found: dict[str, Any] = json.loads(result.read_text())["results"] if result.exists() else {}
    if found.get("cell_settings") != json.loads(json.dumps(settings)):
        return {}
    for row in (row for rows in found.values() if isinstance(rows, list) for row in rows):
        if isinstance(row, dict) and "cell" in row and not (path := folder / f"{row['cell']}.json").exists():
            kept = {key: value for key, value in row.items() if key != "cell"}
            write_text(path, json.dumps({**kept, "settings": settings}))
    return found


def count_cells(cells: Iterable[str], before: Mapping[str, Any]) -> int:
    """Return how many cells a table has, with those of other rows that `restore_cells` returned."""
    return len({*cells, *(row["cell"] for row in before.get("rows", []))})


def score_images(
    source: Source,
    check: SourceCheck,
    path: Path,
    config: ScoreConfig,
    deadline: Deadline,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> ScoresFile:
    """Return the scores of a run, or go on with it; by default its epochs are printed.

    Raises
    ------
    OutOfTimeError
        The time was over before the end. A run that has ended needs none.
    """
    with nullcontext() if path.exists() else deadline.stopping():
        return run_scoring(source, check, path, config, report=deadline.watched(on_event or EpochLines()))


def train_epochs(pack: Path, run_dir: Path, test: str, **config: Any) -> dict[str, Any]:
    """Train on a pack, or go on with that, test on a source, and return the last epoch's metrics.

    `config` holds fields of `edgeprune_runtime.training.TrainConfig`.
    """
    opened = open_pack(pack)
    return train_pack(opened, run_dir, test=test, resume=True, augment="crop+flip", lr=0.05, **config)


def train_steps(
    loader: TrainLoader, steps: int, config: TrainConfig, run_dir: Path, **options: Any
) -> dict[str, Any]:
    """Train so many steps as one epoch, or go on with that, and return the metrics.

    `options` are those of `edgeprune_runtime.training.train`.
    """
    return train(Stretched(loader, steps), config, run_dir, resume=True, **options).metrics[-1]


def pack_shape(pack: Pack) -> dict[str, Any]:
    """Return what sizes a network for a pack."""
    return {"num_classes": len(pack.header.class_names), "image_shape": pack.header.shape}


def pack_facts(pack: Pack) -> dict[str, Any]:
    """Return what `edgeprune_runtime.training.train` is told of a pack."""
    header = pack.header
    facts = {"mean": header.mean, "std": header.std, "class_names": header.class_names}
    return {**pack_shape(pack), "provenance": facts}


def pack_loader(pack: Pack, config: TrainConfig, augment: LoaderAugment = "crop+flip") -> PackLoader:
    """Return the batches of a pack as a network is trained on them, with its teacher where it has one."""
    return PackLoader(
        pack,
        config.batch_size,
        shuffle=True,
        seed=config.seed,
        backend="torch",
        device=place(config).device,
        drop_last=True,
        augment=augment,
        normalize=True,
        targets=(LABEL, TEACHER) if config.distill else (LABEL,),
    )
