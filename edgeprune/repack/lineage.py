"""Where the images of several packs came from, once they are in one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import FORMAT_VERSION, ConfigError, Pack, PackHeader, __version__
from edgeprune_formats.files import file_sha256
from edgeprune_formats.packs.chunks import plan_chunks

from ..packs.planning.header import utc_now

__all__ = [
    "JoinedRows",
    "derived_header",
    "joined_provenance",
    "joined_rows",
    "parent_facts",
    "renewed",
]

# Entries of a provenance that belong to one pack, whatever others hold.
_OWN = ("source", "split", "result", "merged")


# Ancestors of ancestors lie one within the other; a pack may nest no deeper than 64.
_DEPTH = 48
_OLDER = "older history was left out"


def _recent(provenance: Any, depth: int = _DEPTH) -> Any:
    """Return a provenance without what lies too deep in it for a pack: the oldest history."""
    if not isinstance(provenance, dict | list):
        return provenance
    if depth == 0:
        return _OLDER
    if isinstance(provenance, list):
        return [_recent(item, depth - 1) for item in provenance]
    return {name: _recent(item, depth - 1) for name, item in provenance.items()}


def derived_header(pack: Pack, samples: int, **entries: Any) -> PackHeader:
    """Return the header of a pack that holds some images of another, with `entries` in its provenance.

    What the other's build measured is left out, since it was measured on all images, and so is the oldest
    history where it lies too deep.
    """
    provenance = {name: value for name, value in pack.header.provenance.items() if name != "result"}
    return plan_chunks(renewed(pack.header, provenance | entries, samples=samples, chunk_samples=1))


def renewed(header: PackHeader, provenance: dict[str, Any], **changes: Any) -> PackHeader:
    """Return the header of a pack that is made from another now, by this version, with `changes`."""
    return replace(
        header,
        format_version=FORMAT_VERSION,
        generator=f"edgeprune {__version__}",
        created=utc_now(),
        provenance=_recent(provenance),
        **changes,
    )


def parent_facts(pack: Pack) -> dict[str, Any]:
    """Return which pack another is made of, ready for JSON: file, SHA-256, samples, and its own history."""
    facts = {"file": pack.path.name, "sha256": file_sha256(pack.path), "samples": len(pack)}
    before = {name: pack.header.provenance.get(name) for name in ("result", "split", "repaired")}
    return {**facts, **{name: value for name, value in before.items() if value is not None}}


@dataclass(frozen=True, eq=False)
class JoinedRows:
    """The rows of several packs' images in their sources.

    Attributes
    ----------
    index : int64 [N]
        The packs' rows one after another; with several sources, each plus its source's first row.
    source : dict
        What identifies the source, or under ``sources`` each of them with its ``first_row``.
    digests : tuple of str
        SHA-256 of each pack.
    duplicates : int
        Images that are in more than one pack.
    first_duplicate : str
        Names one of them, where there are any.
    """

    index: NDArray[np.int64]
    source: dict[str, Any]
    digests: tuple[str, ...]
    duplicates: int
    first_duplicate: str


@dataclass(frozen=True, eq=False)
class _Origin:
    """A source that some of a pack's images are of: the images, their rows in it, and what identifies it."""

    key: str
    facts: dict[str, Any]
    images: NDArray[np.int64]
    rows: NDArray[np.int64]


def joined_rows(packs: Sequence[Pack]) -> JoinedRows:
    """Work out the rows of all images, and which images are in more than one pack.

    Images are the same if source, by its SHA-256, and row are. A pack that does not tell its source is of
    one that no other pack is of, unless they are parts of the same pack.

    Raises
    ------
    ConfigError
        The sources have more rows than can be numbered.
    """
    digests = tuple(file_sha256(pack.path) for pack in packs)
    origins = [_origins(pack, digest) for pack, digest in zip(packs, digests, strict=True)]
    first_rows, source = _numbered([origin for of_pack in origins for origin in of_pack])
    index = []
    for pack, of_pack in zip(packs, origins, strict=True):
        rows = np.empty(len(pack), np.int64)
        for origin in of_pack:
            rows[origin.images] = origin.rows + first_rows[origin.key]
        index.append(rows)
    duplicates, first = _duplicates(packs, index)
    return JoinedRows(np.concatenate(index), source, digests, duplicates, first)


def _origins(pack: Pack, digest: str) -> list[_Origin]:
    source = pack.header.provenance.get("source") or {}
    listed = _listed(source)
    if listed is None:
        every = np.arange(len(pack))
        return [_Origin(_key(source) or _root(pack, digest), source, every, pack.source_index)]
    listed = sorted(listed, key=lambda facts: int(facts["first_row"]))
    starts = np.array([facts["first_row"] for facts in listed], np.int64)
    number = np.maximum(np.searchsorted(starts, pack.source_index, side="right") - 1, 0)
    found = []
    for place, facts in enumerate(listed):
        plain = {name: value for name, value in facts.items() if name != "first_row"}
        images = np.nonzero(number == place)[0]
        if len(images):
            rows = pack.source_index[images] - starts[place]
            found.append(_Origin(_key(plain) or f"{_root(pack, digest)} {place}", plain, images, rows))
    return found


def _listed(source: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the sources of a merged pack; None for a pack of one source."""
    listed = source.get("sources")
    if not isinstance(listed, list) or not listed:
        return None
    sound = all(
        isinstance(facts, dict)
        and isinstance(facts.get("first_row"), int)
        and 0 <= facts["first_row"] < 2**63
        for facts in listed
    )
    return listed if sound else None


def _key(facts: dict[str, Any]) -> str | None:
    """Return what tells a source from others, or None if nothing does."""
    if not facts:
        return None
    return str(facts.get("sha256") or json.dumps(facts, sort_keys=True))


def _root(pack: Pack, digest: str) -> str:
    """Return the SHA-256 of the pack that this one was split from, or saved from, or its own."""
    split, repaired = (pack.header.provenance.get(name) for name in ("split", "repaired"))
    while isinstance(repaired, dict) and isinstance(repaired.get("parent"), dict):
        parent = repaired["parent"]
        digest, repaired = str(parent.get("sha256", digest)), parent.get("repaired")
    while isinstance(split, dict) and isinstance(split.get("parent"), dict):
        digest, split = str(split["parent"].get("sha256", digest)), split["parent"].get("split")
    return digest


def _numbered(origins: list[_Origin]) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the first row of each source, and what identifies the source of all images."""
    facts: dict[str, dict[str, Any]] = {}
    rows: dict[str, int] = {}
    for origin in origins:
        facts.setdefault(origin.key, origin.facts)
        images = origin.facts.get("images")
        here = max(int(origin.rows.max()) + 1, images if isinstance(images, int) else 0)
        rows[origin.key] = max(rows.get(origin.key, 0), here)
    if len(facts) == 1:
        return dict.fromkeys(facts, 0), next(iter(facts.values()))
    first_rows, total = {}, 0
    for key, count in rows.items():
        first_rows[key] = total
        total += count
    if total >= 2**63:
        raise ConfigError(
            "the sources of these packs have more rows than 63 bits can number; build them anew"
        )
    return first_rows, {"sources": [{"first_row": first_rows[key], **facts[key]} for key in facts]}


def _duplicates(packs: Sequence[Pack], index: list[NDArray[np.int64]]) -> tuple[int, str]:
    once = [np.unique(rows) for rows in index]
    rows, count = np.unique(np.concatenate(once), return_counts=True)
    twice = rows[count > 1]
    if not len(twice):
        return 0, ""
    holders = [number for number, of_pack in enumerate(once) if np.isin(twice[0], of_pack)]
    one, other = holders[:2]
    place = int(np.nonzero(index[other] == twice[0])[0][0])
    return len(twice), (
        f"{packs[other].path}: row {packs[other].source_index[place]} of its source is in {packs[one].path} "
        f"as well, and so are {len(twice) - 1} others"
    )


def joined_provenance(
    packs: Sequence[Pack], rows: JoinedRows, facts: dict[str, Any]
) -> tuple[dict[str, Any], str | None]:
    """Return the provenance of the new pack, and the name of the pack of which these are all parts.

    Parameters
    ----------
    packs : sequence of Pack
    rows : JoinedRows
    facts : dict
        How they were joined, for its ``merged``.
    """
    given = [dict(pack.header.provenance) for pack in packs]
    common = {
        name: value
        for name, value in given[0].items()
        if name not in _OWN and all(name in other and other[name] == value for other in given)
    }
    parent = _whole(given)
    parents = []
    for pack, digest, provenance in zip(packs, rows.digests, given, strict=True):
        own = {name: value for name, value in provenance.items() if name not in common and name != "source"}
        if parent is not None:
            own["split"] = {"part": provenance["split"]["part"]}
        parents.append({"file": pack.path.name, "sha256": digest, "samples": len(pack), **own})
    joined = {**common, "source": rows.source} if rows.source else common
    merged = {**facts, "parents": parents}
    if parent is None:
        return {**joined, "merged": merged}, None
    restored: dict[str, Any] = {
        name: parent[name] for name in ("result", "split") if isinstance(parent.get(name), dict)
    }
    plain = {name: value for name, value in parent.items() if name not in restored}
    return {**joined, **restored, "merged": {**merged, "whole": plain}}, str(parent.get("file"))


def _is_repaired_part(provenance: dict[str, Any]) -> bool:
    repaired = provenance.get("repaired")
    if not isinstance(repaired, dict) or not isinstance(repaired.get("parent"), dict):
        return False
    return "split" in repaired["parent"] and repaired.get("lost_images") != 0


def _whole(given: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the facts of the pack that was split, if these are all of its parts, with all their images.

    A part has no result of its own; one that has was encoded anew.
    """
    if any(_is_repaired_part(provenance) or "result" in provenance for provenance in given):
        return None
    splits = [provenance.get("split") for provenance in given]
    if not all(isinstance(split, dict) and isinstance(split.get("parent"), dict) for split in splits):
        return None
    known = [split for split in splits if split is not None]
    alike = [{name: value for name, value in split.items() if name != "part"} for split in known]
    numbers = sorted(split["part"] for split in known if isinstance(split.get("part"), int))
    if any(other != alike[0] for other in alike) or numbers != list(range(1, len(given) + 1)):
        return None
    parent: dict[str, Any] = alike[0]["parent"]
    return parent if alike[0].get("parts") == len(given) else None
