"""Images of a pack that look mislabeled, and near duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune_formats import Pack

from ..issues.duplicates import Duplicates, find_duplicates
from ..issues.mislabeled import Suspects, find_suspects
from ..issues.prints import pack_fingerprints
from ..scoring.scores_file import ScoresFile
from .album import Album
from .names import shown
from .pictures import Card

__all__ = ["Issues", "find_issues", "suspect_cards"]

_SHOWN, _GROUPS, _OF_GROUP = 24, 16, 4
# All pairs are compared.
_COMPARED, _PIXELS = 10_000, 2**27


@dataclass(frozen=True)
class Issues:
    """What is shown of wrong labels and duplicates.

    Attributes
    ----------
    suspects : Suspects or None
        None where there are no scores.
    cards : sequence of Card
        Those suspects whose images are there, the lowest margin first.
    compared : int
        Images among which near duplicates were looked for, the first ones of the pack.
    found, differing : int
        Groups of near duplicates, and those of them with several classes.
    groups : sequence of sequences of Card
        Some groups, those with several classes first.
    """

    suspects: Suspects | None
    cards: Sequence[Card]
    compared: int
    found: int
    differing: int
    groups: Sequence[Sequence[Card]]


def find_issues(album: Album, scores: ScoresFile | None) -> Issues:
    """Look for issues of a pack; see `edgeprune.issues`.

    Raises
    ------
    ArtifactError
        The scores are damaged.
    PackFormatError
        The pack is.
    """
    suspects = None if scores is None else find_suspects(scores)
    cards = [] if suspects is None else suspect_cards(album, suspects)
    pack = album.pack
    chunks = max(1, _most(pack) // pack.header.chunk_samples)
    found = find_duplicates(pack_fingerprints(pack, chunks=chunks))
    groups = sorted((group.tolist() for group in found.groups()), key=lambda group: not _differs(pack, group))
    return Issues(
        suspects,
        cards,
        len(found.rows),
        len(groups),
        sum(_differs(pack, group) for group in groups),
        [_group_cards(album, found, group[:_OF_GROUP]) for group in groups[:_GROUPS]],
    )


def _most(pack: Pack) -> int:
    return min(_COMPARED, _PIXELS // (pack.header.height * pack.header.width))


def _differs(pack: Pack, group: list[int]) -> bool:
    return len(np.unique(pack.labels[group])) > 1


def suspect_cards(album: Album, suspects: Suspects) -> list[Card]:
    """Return cards of the first suspects: of the source or, without it, of those in the pack."""
    names = album.pack.header.class_names
    places = {row: place for place, row in enumerate(album.pack.source_index.tolist())}
    of_source = album.source is not None
    some: list[int] = []
    lines: list[list[str]] = []
    for row, label, margin in zip(
        suspects.rows.tolist(), suspects.labels.tolist(), suspects.margins.tolist(), strict=True
    ):
        if len(some) < _SHOWN and (of_source or row in places):
            some.append(row if of_source else places[row])
            where = f"row {places[row]}" if row in places else f"source row {row}, not in the pack"
            lines.append([shown(names[label]) if names else "", where, f"margin {margin:.2f}"])
    if of_source:
        return album.of_source(some, lines)
    return album.of_pack(some, lines, only=("decoded",))


def _group_cards(album: Album, found: Duplicates, group: list[int]) -> list[Card]:
    lines = []
    for place in group:
        how = "the same pixels" if found.exact[place] else f"{found.distance[place]} bits"
        mirrored = ", mirrored" if found.mirrored[place] else ""
        lines.append([*album.lines(place)[:2], *([] if place == group[0] else [how + mirrored])])
    return album.of_pack(group, lines, only=("decoded",))
