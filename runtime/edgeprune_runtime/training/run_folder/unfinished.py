"""The network of a run, also of one that is not finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line

from ...checks import from_json
from ...errors import TrainingError
from ...networks.trained import DAMAGE, Facts, TrainedNetwork, load_trained, rebuild_network, resolve_model
from .best import kept_weights
from .checkpoint import has_checkpoint, load_checkpoint, read_state
from .description import network_facts, read_description
from .results import is_finished

__all__ = ["open_run_network"]


def open_run_network(run: Path) -> TrainedNetwork:
    """Return the network of a run's folder, which says how its images are normalized.

    Of a finished run it is the trained network. Otherwise it is that of the last checkpoint that is whole,
    the moving average where there is one, or of the best epoch so far of a run that has patience, and its
    `stage` says so. The folder is left as it is.

    Raises
    ------
    ConfigError
        There is no such folder.
    TrainingError
        There is neither network nor checkpoint, it is damaged, or does not say how its images are normalized.
    """
    if not run.is_dir():
        raise ConfigError(f"{run}: not a folder; name that of a run of edgeprune train")
    network = _from_checkpoint(run) if has_checkpoint(run) and not is_finished(run) else _finished(run)
    _ = network.known_normalization
    return network


def _finished(run: Path) -> TrainedNetwork:
    """Return the trained network; it may be of an earlier end of a run that now goes on."""
    network, record = load_trained(run), read_description(run)
    ends = record.get("schedules", [])
    if len(ends) > 1 and has_checkpoint(run) and len(read_state(run).get("history", [])) < ends[-1]:
        return replace(
            network, stage=f"of a run that now goes on to epoch {ends[-1]}, as it was finished before"
        )
    return network


def _from_checkpoint(run: Path) -> TrainedNetwork:
    record, checkpoint = read_description(run), load_checkpoint(run, set_aside=False)
    try:
        facts = vars(from_json(Facts, network_facts(record)))
    except DAMAGE as error:
        raise _no_network(run, error) from error
    # Before what is wrong counts as damage: a name that needs leave, or a library that is missing.
    facts["model"] = resolve_model(run, facts["model"], None)
    try:
        epoch, tensors = kept_weights(run, checkpoint)
        what = "the last checkpoint" if epoch is None else f"the best epoch so far, {epoch}"
        network = rebuild_network(run, tensors, facts)
        return replace(network, stage=f"{what}, {_reached(checkpoint.state, record)}")
    except DAMAGE as error:
        raise _no_network(run, error) from error


def _no_network(run: Path, error: Exception) -> TrainingError:
    return TrainingError(f"{run}: its checkpoint is no network of its record ({one_line(error)})")


def _reached(state: dict[str, Any], record: dict[str, Any]) -> str:
    done, steps = len(state["history"]), int(state["tally"]["steps"])
    more = f" and {steps:,} of {record['steps_per_epoch']:,} steps" if steps else ""
    return f"after {done:,} of {record['config']['epochs']:,} epochs{more}"
