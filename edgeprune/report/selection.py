"""Which images were kept, and which were not, by their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack
from edgeprune_runtime.errors import ArtifactError

from ..coresets.config import CoresetConfig
from ..coresets.scores import SCORES
from ..coresets.selection import compute_scores
from ..scoring.scores_file import ScoresFile
from .album import Album, evenly
from .names import shown
from .pictures import Card
from .statistics import distribution

__all__ = ["Scored", "Selection", "score_of", "select"]

_SHOWN = 24
# What a score depends on, of `CoresetConfig`.
_PARAMETERS = ("score", "tau", "gamma", "window", "dual_epochs")


@dataclass(frozen=True, eq=False)
class Scored:
    """A score of images of the source.

    Attributes
    ----------
    name, describes : str
    rows : int64 [n]
        Of the source.
    values : float64 [n]
    kept : bool [n]
        Whether the pack holds the image.
    labels : int64 [n]
    """

    name: str
    describes: str
    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    kept: NDArray[np.bool_]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """What is shown of a score.

    Attributes
    ----------
    score, describes : str
    kept, rejected : int
        Images.
    chart : Markup
        Its distribution.
    cards : dict of str to sequence of Card
        Images of either side from the lowest score to the highest.
    """

    score: str
    describes: str
    kept: int
    rejected: int
    chart: Markup
    cards: dict[str, Sequence[Card]]


def score_of(pack: Pack, scores: ScoresFile | None) -> Scored | None:
    """Return the score by which a pack was chosen: of all images that were scored, or of those in it.

    Parameters
    ----------
    pack : Pack
    scores : ScoresFile, optional
        Of its source. Of a pack that no score chose, the default of `edgeprune.CoresetConfig` is shown.

    Raises
    ------
    ArtifactError
        The scores are of other images, or damaged.
    PackFormatError
        The scores of the pack are damaged.
    """
    facts = pack.header.provenance.get("coreset")
    chosen = facts if isinstance(facts, dict) else {}
    if scores is not None:
        rows, kept = scores.rows, np.isin(scores.rows, pack.source_index)
        _require_scores_of(scores, pack)
        config = _config_of(chosen)
        values = compute_scores(scores, config)
        return Scored(config.score, SCORES[config.score].describes, rows, values, kept, scores.labels)
    stored = pack.scores
    if stored is None:
        return None
    every = np.ones(len(pack), bool)
    name = str(chosen.get("score", "score"))
    describes = SCORES[name].describes if name in SCORES else "the score that the pack holds"
    return Scored(shown(name), describes, pack.source_index, stored.astype(np.float64), every, pack.labels)


def _config_of(chosen: dict[str, Any]) -> CoresetConfig:
    """Return how the score of a pack was computed."""
    try:
        config = CoresetConfig(**{name: chosen[name] for name in _PARAMETERS if name in chosen})
    except ConfigError:
        return CoresetConfig()
    return config if SCORES[config.score].records else CoresetConfig()


def _require_scores_of(scores: ScoresFile, pack: Pack) -> None:
    """Raise `ArtifactError` unless all images of a pack were scored, with the labels that they have in it."""
    digests = {
        facts.get("sha256")
        for facts in (scores.provenance["source"], pack.header.provenance.get("source", {}))
    }
    places = np.searchsorted(scores.rows, pack.source_index).clip(max=len(scores.rows) - 1)
    same_rows = np.array_equal(scores.rows[places], pack.source_index)
    if len(digests - {None}) > 1 or not same_rows or not np.array_equal(scores.labels[places], pack.labels):
        spec = pack.header.provenance.get("source", {}).get("spec", "its source")
        raise ArtifactError(
            f"{scores.path}: scores of other images than {pack.path} was built from; "
            f"make them with: edgeprune score {spec}"
        )


def select(scored: Scored, album: Album) -> Selection:
    """Return what is shown of a score; images are shown where there is the source."""
    groups = {"kept": scored.values[scored.kept], "left out": scored.values[~scored.kept]}
    groups = {name: values for name, values in groups.items() if len(values)}
    chart = distribution(f"{scored.name} of the images", groups, scored.name)
    cards: dict[str, Sequence[Card]] = {}
    for name, side in (("kept", scored.kept), ("left out", ~scored.kept)):
        places = _from_low_to_high(scored.values, side)
        cards[name] = album.of_source(
            scored.rows[places].tolist(), [_lines(scored, album, n) for n in places]
        )
    count = int(scored.kept.sum())
    return Selection(scored.name, scored.describes, count, len(scored.kept) - count, chart, cards)


def _from_low_to_high(values: NDArray[np.float64], side: NDArray[np.bool_]) -> list[int]:
    places = np.nonzero(side)[0]
    if not len(places):
        return []
    ranked = places[np.argsort(values[places], kind="stable")]
    some: list[int] = ranked[evenly(len(ranked), _SHOWN)].tolist()
    return some


def _lines(scored: Scored, album: Album, place: int) -> list[str]:
    names: Any = album.pack.header.class_names
    label = [shown(names[scored.labels[place]])] if names else []
    return [*label, f"source row {scored.rows[place]}", f"score {scored.values[place]:.4g}"]
