"""What was found, ready for JSON, for a table, and for a terminal."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

from .duplicates import Duplicates, find_duplicates, require_distance
from .images import Images, Progress
from .mislabeled import Suspects

__all__ = ["Issues", "duplicate_groups", "suspect_images"]

Record = dict[str, Any]
_COLUMNS = ("issue", "group", "row", "image", "class", "margin", "distance", "mirrored", "exact")


@dataclass(frozen=True)
class Issues:
    """Images that look mislabeled, and groups of near duplicates.

    Attributes
    ----------
    mislabeled : dict or None
        ``threshold``, ``scored`` (how many images) and ``images``, each with ``row``, ``image`` (its name),
        ``class`` and ``margin``; None without scores.
    duplicates : dict or None
        ``distance``, ``compared`` (how many images) and ``groups``, each with ``classes_differ`` and
        ``images``, each with ``row``, ``image``, ``class``, ``distance``, ``mirrored`` and ``exact``; those
        whose classes differ come first. None without images.
    """

    mislabeled: Record | None
    duplicates: Record | None

    def record(self) -> Record:
        """Return all of it, ready for JSON."""
        return {"mislabeled": self.mislabeled, "duplicates": self.duplicates}

    def table(self) -> str:
        """Return a line of CSV for each image."""
        text = io.StringIO()
        lines = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        lines.writeheader()
        for one in (self.mislabeled or {"images": []})["images"]:
            lines.writerow({"issue": "label", **one})
        for number, group in enumerate((self.duplicates or {"groups": []})["groups"], start=1):
            issue = "duplicate of another class" if group["classes_differ"] else "duplicate"
            lines.writerows({"issue": issue, "group": number, **one} for one in group["images"])
        return text.getvalue()


def suspect_images(suspects: Suspects, images: Images | None) -> Record:
    """Return `Issues.mislabeled`; of images that are given, those among them."""
    places = None if images is None else images.places()
    found = []
    for row, label, margin in zip(
        suspects.rows.tolist(), suspects.labels.tolist(), suspects.margins.tolist(), strict=True
    ):
        if images is None or places is None:
            found.append({"row": row, "image": f"row {row}", "class": f"class {label}", "margin": margin})
        elif row in places:
            found.append({**_named(images, places[row]), "margin": margin})
    return {"threshold": suspects.threshold, "scored": suspects.scored, "images": found}


def duplicate_groups(images: Images, distance: int, progress: Progress | None = None) -> Record:
    """Return `Issues.duplicates`."""
    # Before all images are read.
    require_distance(distance)
    found = find_duplicates(images.read(progress), distance)
    groups = [_group(images, found, group.tolist()) for group in found.groups()]
    groups.sort(key=lambda group: not group["classes_differ"])
    return {"distance": distance, "compared": len(found.rows), "groups": groups}


def _group(images: Images, found: Duplicates, places: list[int]) -> Record:
    members = [
        {
            **_named(images, int(found.rows[place])),
            "distance": int(found.distance[place]),
            "mirrored": bool(found.mirrored[place]),
            "exact": bool(found.exact[place]),
        }
        for place in places
    ]
    return {"classes_differ": len({one["class"] for one in members}) > 1, "images": members}


def _named(images: Images, place: int) -> Record:
    label = int(images.labels[place])
    name = images.class_names[label] if images.class_names else "-"
    return {"row": int(images.rows[place]), "image": images.image_name(place), "class": name}
