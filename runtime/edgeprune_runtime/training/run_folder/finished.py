"""Whether a run has ended, and whether what it has left is whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgeprune_formats import EdgePruneError
from edgeprune_formats.errors import one_line
from edgeprune_formats.files import read_regular
from edgeprune_formats.strict_json import parse_json

from ...checks import from_json
from ...errors import TrainingError
from ...input_files import METRICS_FILE, MODEL_FILE, damage_remedy
from ...networks.trained import load_trained
from ..progress.state import TrainState
from ..progress.stopping import is_over
from ..settings import TrainConfig
from .best import kept_weights
from .checkpoint import has_checkpoint, load_checkpoint, read_state

__all__ = ["Finished", "finished_run", "is_whole"]

_MAX_METRICS_BYTES = 2**26


@dataclass(frozen=True)
class Finished:
    """A run that has ended.

    Attributes
    ----------
    history : list of dict
        The metrics of all epochs, by its checkpoint.
    network, metrics : str or None
        How this result is lost or damaged, with its path; None where it is whole.
    """

    history: list[dict[str, Any]]
    network: str | None
    metrics: str | None

    @property
    def problem(self) -> str | None:
        """What is wrong with its results, or None."""
        return " and ".join(told for told in (self.network, self.metrics) if told is not None) or None


def finished_run(run_dir: Path, config: TrainConfig, steps: int, *, is_ranked: bool) -> Finished | None:
    """Return how a run has ended; None where it has not, or has no checkpoint. The folder stays as it is.

    A checkpoint that is not one of this run counts as none here: going on from it says what is wrong.

    Parameters
    ----------
    run_dir : Path
    config : TrainConfig
        The run's; code that it names is trusted.
    steps : int
        Of an epoch.
    is_ranked : bool
        See `edgeprune_runtime.task.Task`.

    Raises
    ------
    TrainingError
        No checkpoint there can be read.
    """
    if not has_checkpoint(run_dir):
        return None
    state = read_state(run_dir)
    try:
        found = from_json(TrainState, state)
        # With fewer epochs than it has, a run is another one, which `open_run` tells.
        found.check(max(config.epochs, len(found.history)), steps, is_ranked=is_ranked)
    except ValueError:
        return None
    history = state["history"]
    if not is_over(history, config):
        return None
    problems = {
        MODEL_FILE: _model_problem(run_dir, config),
        METRICS_FILE: _metrics_problem(run_dir / METRICS_FILE, history),
    }
    told = [problem and f"{run_dir / name} {problem}" for name, problem in problems.items()]
    return Finished(history, *told)


def is_whole(run_dir: Path, config: TrainConfig, steps: int, *, is_ranked: bool) -> bool:
    """Tell whether a run has ended with all its results, see `finished_run`."""
    ended = finished_run(run_dir, config, steps, is_ranked=is_ranked)
    return ended is not None and ended.problem is None


def _model_problem(run_dir: Path, config: TrainConfig) -> str | None:
    if not (run_dir / MODEL_FILE).exists():
        return "is missing"
    try:
        own = load_trained(run_dir, config.model).model.state_dict()
    except EdgePruneError as error:
        reason = one_line(error.__cause__ or error)
        return f"is damaged ({reason.removesuffix('; ' + damage_remedy(run_dir / MODEL_FILE, ''))})"
    try:
        checkpoint = load_checkpoint(run_dir, set_aside=False)
    except TrainingError:
        checkpoint = None
    if checkpoint is None or checkpoint.damage is not None:
        # It is all that there is of the last epoch.
        return None
    _, kept = kept_weights(run_dir, checkpoint)
    if own.keys() == kept.keys() and all(_is_same(own[name], kept[name]) for name in own):
        return None
    return "is not the network of the last checkpoint"


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _metrics_problem(path: Path, history: Sequence[Mapping[str, Any]]) -> str | None:
    try:
        lines = read_regular(path, _MAX_METRICS_BYTES).splitlines()
        return None if [parse_json(line) for line in lines] == list(history) else "is cut off or changed"
    except FileNotFoundError:
        return "is missing"
    except (OSError, ValueError) as error:
        return f"is damaged ({one_line(getattr(error, 'strerror', None) or error)})"
