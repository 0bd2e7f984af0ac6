"""Several packs joined to one, image by image as they are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import (
    ConfigError,
    Pack,
    PackHeader,
    PackWriter,
    open_pack,
)
from edgeprune_formats.codecs import get_codec, memory_bytes
from edgeprune_formats.coefficients import Coefficients
from edgeprune_formats.files import check_writable
from edgeprune_formats.packs.chunks import plan_chunks
from edgeprune_formats.targets import Target
from edgeprune_runtime.loading.mixture import Mixture

from ..packs.writing.assembly import joined_targets
from .lineage import joined_provenance, joined_rows, renewed

__all__ = ["MergeReport", "merge_packs"]

# Decoded chunks among which images are shuffled.
HELD_BYTES = 2**25
# What packs must agree in beside shape and classes, and the setting by which a conversion makes them agree.
_ALIKE = (
    ("codec", "codec", "`codec={}`"),
    ("tile", "tiles", "`tile={}`"),
    ("color_space", "color space", "`color={}`"),
    ("step", "quantization step", "the same `quality` for both"),
    ("components", "components a channel", "`freq_prune`"),
)


@dataclass(frozen=True)
class MergeReport:
    """What `merge_packs` did.

    Attributes
    ----------
    header : PackHeader
        Of the new pack.
    duplicates : int
        Images that are in more than one of the packs.
    whole : str or None
        The name of the pack that was split, if these were all of its parts.
    lost_scores : bool
        Whether some of the packs had scores that are not in the new one.
    """

    header: PackHeader
    duplicates: int
    whole: str | None
    lost_scores: bool


def merge_packs(
    sources: Sequence[str | Path],
    path: str | Path,
    *,
    seed: int = 0,
    allow_duplicates: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Write one pack of the images of several, in bounded memory; it appears when it is complete.

    Images keep coefficients, class, targets and score bit for bit. They come in random order, as packs should
    store them: chunks of all packs are shuffled, and images within as many of them as fit 32 MiB. The mean
    and standard deviation are those of all images, see `edgeprune_runtime.loading.mixture.pooled_statistics`.

    What the packs' provenances have in common stays, and ``merged`` lists each pack with its SHA-256 and
    what it does not have in common. Merging all parts of a split also brings back what was measured of the
    whole. Rows in the source stay as they are where all packs are of one source; otherwise each source has
    its ``first_row``, in ``provenance["source"]["sources"]``, which is added to its rows.

    Parameters
    ----------
    sources : sequence of path
        At least two packs that agree in shape, targets, codec, components, tiles, color space and step.
        Classes are matched by name, see `edgeprune_runtime.Mixture`.
    path : path
        The pack to write.
    seed : int
        Of the order.
    allow_duplicates : bool
        Take images that are in more than one of the packs, by source and row, once for each.
    progress : callable, optional
        Called as ``progress(images written, images in all)``.

    Returns
    -------
    MergeReport

    Raises
    ------
    ConfigError
        The packs do not agree, or hold the same images.
    PackFormatError
        A pack is damaged.
    PackWriteError
        The pack cannot be written.
    """
    given = [sources] if isinstance(sources, str | Path) else sources
    path, sources = Path(path), [Path(source) for source in given]
    if len(sources) < 2:
        raise ConfigError("there is nothing to merge; name two packs or more")
    if seed < 0:
        raise ConfigError(f"`seed` must not be negative: {seed}")
    check_writable(path)
    for source in sources:
        if path.exists() and path.samefile(source):
            raise ConfigError(f"{path} is one of the packs that are merged; name another file")
    with ExitStack() as stack:
        packs = [stack.enter_context(open_pack(source)) for source in sources]
        mixture = Mixture(packs)
        for pack in packs:
            _require_alike(packs[0], pack)
        rows = joined_rows(packs)
        if rows.duplicates and not allow_duplicates:
            raise ConfigError(
                f"{rows.first_duplicate}; leave one of the packs out, or pass `allow_duplicates=True`"
            )
        facts: dict[str, Any] = {"seed": seed, "duplicates": rows.duplicates}
        provenance, whole = joined_provenance(packs, rows, facts)
        header = _header(mixture.header, provenance)
        scores = _scores(packs)
        random = np.random.default_rng(seed)
        _write(path, header, mixture, rows.index, scores, joined_targets(packs), random, progress)
        lost = scores is None and any(pack.scores is not None for pack in packs)
        return MergeReport(header, rows.duplicates, whole, lost)


def _require_alike(first: Pack, other: Pack) -> None:
    if "part" in other.header.provenance:
        raise ConfigError(
            f"{other.path} is a part of a build; put its parts together with: edgeprune build --assemble "
            f"{other.path.parent} -o PACK"
        )
    if other.header.bits != first.header.bits:
        raise ConfigError(
            f"{other.path}: made of pixels of {other.header.bits} bits, and {first.path} of "
            f"{first.header.bits}; build both with the same `channels`, or train from both: edgeprune train "
            "PACK PACK"
        )
    sparse = not get_codec(first.header.codec).quantizes
    for name, called, remedy in _ALIKE:
        ours, theirs = getattr(first.header, name), getattr(other.header, name)
        if ours != theirs:
            option = remedy.format(ours)
            if name == "components" and not sparse:
                option = "`codec` and `quality`"
            raise ConfigError(
                f"{other.path}: {called} {theirs}, and {first.path} has {ours}; make them alike with "
                f"edgeprune convert ({option}), or train from both: edgeprune train PACK PACK"
            )


def _header(pooled: PackHeader, provenance: dict[str, Any]) -> PackHeader:
    return plan_chunks(renewed(pooled, provenance, chunk_samples=1))


def _scores(packs: list[Pack]) -> NDArray[np.float32] | None:
    """Return all scores, if every pack has them and they are of the same kind."""
    scores = [pack.scores for pack in packs]
    kinds = [pack.header.provenance.get("coreset") for pack in packs]
    there = [one for one in scores if one is not None]
    if len(there) < len(packs) or any(kind != kinds[0] for kind in kinds):
        return None
    return np.concatenate(there)


def _write(
    path: Path,
    header: PackHeader,
    mixture: Mixture,
    index: NDArray[np.int64],
    scores: NDArray[np.float32] | None,
    targets: Sequence[Target],
    random: np.random.Generator,
    progress: Callable[[int, int], None] | None,
) -> None:
    windows = list(_windows(mixture.packs, random))
    order = np.concatenate([images for _, images in windows])
    writer = PackWriter(
        path,
        header,
        mixture.labels[order],
        index[order],
        compression=mixture.packs[0].compression,
        scores=None if scores is None else scores[order],
        targets=[target.take(order) for target in targets],
    )
    starts = _starts(mixture.packs)
    with writer:
        done = 0
        for chunks, images in windows:
            for coefficients in _gathered(mixture.packs, starts, chunks, images, header.chunk_samples):
                writer.append_coefficients(coefficients)
                done += len(coefficients)
                if progress:
                    progress(done, header.samples)


def _starts(packs: Sequence[Pack]) -> NDArray[np.int64]:
    return np.cumsum([0, *(len(pack) for pack in packs)])


_Window = tuple[list[tuple[int, int]], NDArray[np.int64]]


def _windows(packs: Sequence[Pack], random: np.random.Generator) -> Iterator[_Window]:
    """Yield which chunks (of which pack, number) to read at a time, and the images of them, shuffled."""
    starts = _starts(packs)
    chunks = [(number, chunk) for number, pack in enumerate(packs) for chunk in range(pack.header.chunks)]
    largest = max(pack.header.chunk_samples * memory_bytes(pack.header) for pack in packs)
    size = max(1, HELD_BYTES // largest)
    shuffled = [chunks[place] for place in random.permutation(len(chunks))]
    for start in range(0, len(shuffled), size):
        window = shuffled[start : start + size]
        images = [starts[number] + np.arange(*_rows(packs[number], chunk)) for number, chunk in window]
        yield window, random.permutation(np.concatenate(images))


def _rows(pack: Pack, chunk: int) -> tuple[int, int]:
    rows = pack.header.chunk_rows(chunk)
    return rows.start, rows.stop


def _gathered(
    packs: Sequence[Pack],
    starts: NDArray[np.int64],
    chunks: list[tuple[int, int]],
    images: NDArray[np.int64],
    step: int,
) -> Iterator[Coefficients]:
    """Yield the images in order, `step` at a time."""
    held = packs[0].empty_coefficients(len(images))
    filled, places = 0, np.empty(len(images), np.int64)
    for number, chunk in chunks:
        start, stop = _rows(packs[number], chunk)
        held.write(filled, packs[number].read_chunk(chunk))
        places[filled : filled + stop - start] = starts[number] + np.arange(start, stop)
        filled += stop - start
        packs[number].close()
    sorter = np.argsort(places)
    where = sorter[np.searchsorted(places, images, sorter=sorter)]
    for start in range(0, len(where), step):
        yield held.take(where[start : start + step])
