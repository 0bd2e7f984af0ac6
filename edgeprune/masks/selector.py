"""The step that decides how components are kept: by energy, or by an FSE-Net. Needs no torch for energy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats.files import file_sha256

from ..presets import component_count
from ..scoring.scores_file import ScoresFile
from ..sources import Source, SourceCheck
from ..work.callbacks import EpochProgress
from ..work.processes import Workers
from .components import energy_mask
from .config import MaskConfig

if TYPE_CHECKING:
    from edgeprune_runtime.networks.trained import TrainedNetwork

    from .fse_file import FSENetFile

__all__ = ["ComponentSelector", "Select", "component_selector"]

Select = Callable[[NDArray[np.float32]], NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class ComponentSelector:
    """How components are kept.

    Attributes
    ----------
    select : callable
        Takes spectra float32 [n, C, H, W] to their mask, bool [n, C, H, W].
    freq_prune : float
        The share of components that is dropped.
    components : int
        How many are kept in each channel.
    facts : dict
        For provenance.
    file : Path or None
        Of the FSE-Net, which takes long to ask; None where energy decides.
    """

    select: Select
    freq_prune: float
    components: int
    facts: dict[str, Any]
    file: Path | None = None


def component_selector(
    source: Source,
    check: SourceCheck | None,
    path: Path,
    config: MaskConfig | None,
    *,
    freq_prune: float,
    seed: int,
    given: FSENetFile | None = None,
    classifier: TrainedNetwork | None = None,
    scores: ScoresFile | None = None,
    jobs: int | None = None,
    workers: Workers,
    report: EpochProgress | None = None,
) -> ComponentSelector:
    """Return the selector of a source: by energy, or by an FSE-Net that is given or learned here.

    Parameters
    ----------
    source : Source
    check : SourceCheck or None
        Of its images; only learning needs it.
    path : Path
        Where an FSE-Net is saved that is learned.
    config : MaskConfig or None
        How it is learned; None keeps the components of highest energy.
    freq_prune : float
        The share of the components to drop; an FSE-Net that is given has its own.
    seed : int
    given : FSENetFile, optional
        Then none is learned.
    classifier : TrainedNetwork, optional
        What masks are learned against; by default that of the scoring run.
    scores : ScoresFile, optional
        Of the scoring run.
    jobs : int, optional
        Threads that read images while masks are learned.
    workers, report
        See `edgeprune.work.resumable.ResumableRun`.

    Raises
    ------
    ConfigError
        The ratio keeps nothing of images of this size.
    ArtifactError, TrainingError, TrainingInterrupted, SourceError
        See `edgeprune.masks.learning.learn_masks`.
    """
    if config is None:
        components = component_count(freq_prune, *source.shape[1:])
        return ComponentSelector(
            lambda spectra: energy_mask(spectra, components), freq_prune, components, {"mask": "energy"}
        )
    from .classifier import classifier_from_scores
    from .fse_file import FSENetFile
    from .learning import learn_masks, learned_selector

    if given is None:
        assert check is not None
        if classifier is None:
            assert scores is not None
            classifier = classifier_from_scores(scores)
        how: dict[str, Any] = {
            "freq_prune": freq_prune,
            "seed": seed,
            "jobs": jobs,
            "workers": workers,
            "report": report,
        }
        given = FSENetFile(path, *learn_masks(source, check, classifier, path, config, **how))
    record = given.record
    described = {name: value for name, value in record.items() if name != "history"}
    last = record["history"][-1] if record.get("history") else None
    described |= {"sha256": file_sha256(given.path), "last_epoch": last}
    return ComponentSelector(
        learned_selector(given.net, record["k"], record["k_total"], workers.device),
        record["freq_prune"],
        record["k_total"],
        {"mask": "fse-net", "fse_net": described},
        given.path,
    )
