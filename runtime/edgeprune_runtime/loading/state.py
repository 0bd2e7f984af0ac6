"""States of a loader: what decides its batches, and whether a state is one of such a loader."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from edgeprune_formats import ConfigError, Pack, PackHeader

from .epoch import BatchMaker
from .mixture import Mixture
from .order.skipping import SkippedChunk
from .transforms import transform_name

__all__ = ["identity", "next_place", "place_in", "require_same", "skipped_in"]

# What states hold since they were first written; one of an earlier version is held against the rest alone.
_ADDED = ("dtype", "normalize", "codec", "transform", "targets", "targets_content")
# What states of earlier releases do not say.
_EARLIER = {"sampling": "uniform", "world_size": 1, "replay": None}


def identity(maker: BatchMaker, transform: object, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return whatever decides what the batches are, but for the packs' coefficients themselves.

    Parameters
    ----------
    maker : BatchMaker
    transform : callable, optional
        Of the user's.
    values : mapping
        What else decides the values of images: ``"resolution"`` and its schedule, ``"dtype"``,
        ``"normalize"``.
    """
    plan = maker.reader.decoder.plan
    return {
        "samples": len(maker.pack),
        "chunk_samples": _for_each(maker.pack, lambda header: header.chunk_samples),
        "content": zlib.crc32(maker.pack.source_index.tobytes(), zlib.crc32(maker.pack.labels.tobytes())),
        "batch_size": maker.batch_size,
        "shuffle": maker.shuffle,
        "sampling": maker.sampling,
        "seed": maker.seed,
        "drop_last": maker.ranks.drop_rest,
        "world_size": maker.ranks.world_size,
        "augment": maker.augment,
        "transform": transform_name(transform),
        "targets": [column.name for column in maker.targets.columns],
        **values,
        "codec": _for_each(maker.pack, lambda header: f"{header.codec} of {header.components}"),
        "scale": plan.scale.tolist(),
        # Where there is none, as states were before there was any.
        **({} if maker.targets.content is None else {"targets_content": maker.targets.content}),
        **({} if maker.replay is None else {"replay": asdict(maker.replay.replay)}),
    }


def require_same(state: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Require that a state is of a loader with the `identity` of this one.

    Raises
    ------
    ConfigError
        It is of another loader, or no state at all.
    """
    if not isinstance(state, Mapping):
        raise ConfigError(
            f"cannot resume: the state is {type(state).__name__}, and not what `state_dict` returns"
        )
    state = {**_EARLIER, **state}
    for name, own in ({"replay": None} | dict(ours)).items():
        if not _is_same(state.get(name), own) and not (name in _ADDED and name not in state):
            raise ConfigError(f"cannot resume: {name} was {state.get(name)} and is now {own}")


def _is_same(one: object, other: object) -> bool:
    # True equals 1, and an array of numpy is not equal or unequal as a whole.
    return type(one) is type(other) and one == other


def place_in(state: Mapping[str, Any], batches: int) -> tuple[int, int]:
    """Return the epoch and the batch that come next by a state, of so many batches in an epoch.

    Raises
    ------
    ConfigError
        There is no such place.
    """
    for name in ("epoch", "batch"):
        if not (type(state.get(name)) is int and state[name] >= 0):
            raise ConfigError(f"cannot resume: {name} is {state.get(name)}")
    epoch, batch = state["epoch"], state["batch"]
    if batch > batches:
        raise ConfigError(f"cannot resume: batch is {batch} of {batches}")
    return next_place(epoch, batch, batches)


def next_place(epoch: int, batch: int, batches: int) -> tuple[int, int]:
    """Return the place; after an epoch's last batch that is the start of the next epoch."""
    return (epoch + 1, 0) if 0 < batches <= batch else (epoch, batch)


def skipped_in(state: Mapping[str, Any], maker: BatchMaker) -> tuple[SkippedChunk, ...]:
    """Return what had been left out by a state.

    Raises
    ------
    ConfigError
        There are no such chunks, or none may be left out.
    """
    # States had none before chunks could be left out.
    chunks = state.get("skipped", [])
    counts = maker.images_in_chunks()
    sound = isinstance(chunks, list) and all(
        type(chunk) is int and 0 <= chunk < len(counts) for chunk in chunks
    )
    if not sound or len({*chunks}) < len(chunks) or len(chunks) >= len(counts):
        raise ConfigError(f"cannot resume: skipped is {chunks}")
    if chunks and maker.on_corrupt == "fail":
        raise ConfigError(
            f"cannot resume: chunks {', '.join(map(str, chunks))} were left out as damaged; "
            'pass `on_corrupt="skip"`'
        )
    reason = "it was left out before the run was resumed"
    return tuple(SkippedChunk(chunk, counts[chunk], reason) for chunk in chunks)


def _for_each(packs: Pack | Mixture, fact: Callable[[PackHeader], Any]) -> Any:
    """Return a fact of a pack, or a list of those of several."""
    if isinstance(packs, Mixture):
        return [fact(pack.header) for pack in packs.packs]
    return fact(packs.header)
